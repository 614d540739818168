"""What headers say in words (names of patients, physicians, hospitals) goes nowhere."""

from __future__ import annotations

from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pyarrow.parquet as pq
import pytest
from pydicom import config

from arco_core.errors import DataError
from infra.datasets import prepare_dataset
from infra.storage import Store

from .conftest import TINY
from .raw_files import change_header, dicom_series, nrrd_bytes, scan, write_dicom, write_hdf5

SECRET = b"SECRET"


def add_words(path: Path) -> None:
    """Fill every text that a NIfTI header has, and add a comment after it."""
    image = nib.load(path)
    comment = nib.nifti1.Nifti1Extension("comment", b"SECRET^NAME, SECRET HOSPITAL")
    image.header.extensions.append(comment)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header), path)

    def fill(header: nib.Nifti1Header) -> None:
        for field in ("descrip", "db_name", "aux_file", "intent_name"):
            header[field] = b"SECRET^NAME"

    change_header(path, fill)
    assert path.suffix == ".gz" or SECRET in path.read_bytes()


def files_with_secret(folder: Path) -> list[Path]:
    found = []
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        content = path.read_bytes()
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            content += str(table.schema).encode() + str(table.schema.metadata).encode()
            for column in table.columns:
                for value in column.to_pylist():
                    content += value if isinstance(value, bytes) else str(value).encode()
        if SECRET in content:
            found.append(path)
    return found


def test_header_text_reaches_no_shard_and_no_log(
    raw: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    for path in raw.glob("*/*.nii.gz"):
        add_words(path)
    write_dicom(raw / "imagesUn" / "ct", dicom_series(scan(3)[0]))
    words = nrrd_bytes(scan(4)[0], content="SECRET^NAME").replace(
        b"\n\n", b"\nSECRET:=SECRET^NAME\n# SECRET\n\n", 1
    )
    (raw / "imagesUn" / "mr.nrrd").write_bytes(words)
    notes: list[str] = []
    prepare_dataset(str(raw), Store(str(tmp_path / "store")), TINY, use_ray=False, on_note=notes.append)
    assert len(list((tmp_path / "store").rglob("*.parquet"))) >= 3
    assert files_with_secret(tmp_path / "store") == []
    printed = capfd.readouterr()
    assert "SECRET" not in printed.out + printed.err + caplog.text + "".join(notes)


def test_header_text_is_in_no_message(
    raw: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Damage that makes decoders complain about a text field itself."""
    monkeypatch.setattr(config.settings, "writing_validation_mode", config.IGNORE)
    changes: dict[str, tuple[dict[str, object], tuple[bytes, bytes]]] = {
        "name": ({"PatientName": "SECRET^NAME" * 50, "PixelSpacing": None}, (b"", b"")),
        "date": ({"StudyDate": "SECRET", "PixelSpacing": None}, (b"", b"")),
        "uid": ({"SeriesInstanceUID": "SECRET"}, (b"", b"")),
        "photometric": ({"PhotometricInterpretation": "SECRET"}, (b"", b"")),
        "spacing": ({}, (b"1.25\\1.5", b"SECRETSE")),
        "intercept": ({}, (b"-1024", b"SECRE")),
    }
    for series, (values, (old, new)) in changes.items():
        slices = dicom_series(scan(1)[0])
        for attribute, value in values.items():
            setattr(slices[2], attribute, value)
        for path in write_dicom(raw / "imagesUn" / series, slices).iterdir():
            path.write_bytes(path.read_bytes().replace(old, new, 1) if old else path.read_bytes())
    for path in raw.glob("labelsTr/case_00[01].nii.gz"):
        change_header(path, lambda header: header.__setitem__("magic", b"SECR"))
    (raw / "imagesUn" / "nrrd.nrrd").write_bytes(nrrd_bytes(scan(1)[0], space="SECRET", content="SECRET"))
    capfd.readouterr()
    caplog.clear()
    with pytest.raises(DataError) as caught:
        prepare_dataset(str(raw), Store(str(tmp_path / "store")), TINY, use_ray=False)
    message = str(caught.value)
    assert "cases cannot be used" in message
    assert all(word in message for word in ("case_000", "case_001", "nrrd", *changes))
    printed = capfd.readouterr()
    assert "SECR" not in message + printed.out + printed.err + caplog.text


def test_words_in_hdf5_files_go_nowhere(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Names of keys, attributes and fields, of files that are read and of files that are refused."""
    caplog.set_level("DEBUG")
    files = [write_hdf5(tmp_path / "raw" / f"p{i}" / "mri_norm2.h5", *scan(i, classes=2)) for i in range(4)]
    for path in files:
        with h5py.File(path, "a") as file:
            file.attrs["SECRET"] = file["image"].attrs["PatientName"] = "SECRET^NAME"
            file["SECRET^NAME"] = "SECRET"
        assert SECRET in path.read_bytes()
    notes: list[str] = []
    store = Store(str(tmp_path / "store"))
    prepare_dataset(str(tmp_path / "raw"), store, TINY, use_ray=False, on_note=notes.append)
    assert files_with_secret(tmp_path / "store") == []
    with h5py.File(files[0], "a") as file:
        del file["image"]
    with h5py.File(files[1], "a") as file:
        del file["image"]
        file.create_dataset("image", (3, 3, 3), [("SECRET", "f4")])
    files[2].write_bytes(files[2].read_bytes()[:-100])
    with pytest.raises(DataError) as caught:
        prepare_dataset(str(tmp_path / "raw"), store, TINY, use_ray=False)
    message = str(caught.value)
    assert all(part in message for part in ("'label' and 1 other key", "type void32", "not a readable HDF5"))
    printed = capfd.readouterr()
    assert "SECRET" not in message + printed.out + printed.err + caplog.text + "".join(notes)
