"""Many scans into a folder: what fails is told, what is done is kept, and nothing foreign is touched."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest

from arco_core.inference import segment_volume
from arco_core.model_package import load_package, save_package
from components.cli import main
from components.predict.outputs import NIFTI_SUFFIXES
from components.predict.step import predict
from infra.datasets import DatasetVersion
from infra.storage import Store, local
from tests.components.predict.published import NETWORK, publish, write_scan
from tests.components.test_cli import fails
from tests.infra.datasets.raw_files import AFFINE, dicom_series, write_dicom
from tests.infra.datasets.raw_files import scan as raw_scan
from tests.infra.datasets.test_dicom_seg import complete
from tests.infra.datasets.test_private_text import SECRET, add_words


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("published") / "model", teacher=True)


@pytest.fixture
def scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two good scans, one truncated, one of five volumes."""
    monkeypatch.setattr(local, "FRESH_SECONDS", -1.0)  # files written just now count as settled
    folder = tmp_path / "scans"
    (folder / "sub").mkdir(parents=True)
    write_scan(folder / "a.nii.gz")
    write_scan(folder / "sub" / "b.nii", (18, 30, 5))
    broken = write_scan(folder / "broken.nii.gz")
    broken.write_bytes(broken.read_bytes()[:-400])
    write_scan(folder / "cine.nii.gz", (20, 24, 6, 5))
    return folder


def read(path: Path) -> np.ndarray:
    return np.asanyarray(nib.load(path).dataobj)


def table(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "predictions.csv").open() as file:
        return {row["case"]: row for row in csv.DictReader(file)}


def test_what_fails_is_told_and_the_rest_is_done(
    model: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["predict", "--model", model, scans, "-o", out, "--workers", "0"]
    message = fails(capsys, *command)
    assert "2 of 4 scans failed" in message and "run the same command again" in message
    assert "broken.nii.gz is truncated or damaged" in message
    assert "cine.nii.gz: the scan has shape (20, 24, 6, 5), 5 channel(s)" in message
    assert sorted(p.name for p in out.glob("*.nii*")) == ["a.nii.gz", "sub_b.nii.gz"]
    published = load_package(model)
    for name, file in (("a", "a.nii.gz"), ("sub_b", "sub/b.nii")):
        scan, mask = nib.load(scans / file), nib.load(out / f"{name}.nii.gz")
        np.testing.assert_array_equal(mask.affine, scan.affine)
        expected = segment_volume(published, scan.get_fdata(dtype=np.float32), scan.affine).mask
        np.testing.assert_array_equal(read(out / f"{name}.nii.gz"), expected)
        volume = np.count_nonzero(expected == 1) * 1.25 * 1.5 * 8 / 1000
        assert float(table(out)[name]["a_ml"]) == pytest.approx(volume, abs=1e-3)
    assert table(out)["broken"]["status"] == "failed" and "truncated" in table(out)["broken"]["message"]


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_words_of_a_header_are_not_in_the_mask(
    model: Path, tmp_path: Path, kind: type[nib.Nifti1Image], capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "scans").mkdir()
    path = write_scan(tmp_path / "scans" / "a.nii")
    if kind is nib.Nifti1Image:
        add_words(path)
    else:
        scan = nib.Nifti2Image(np.asarray(nib.load(path).dataobj), nib.load(path).affine)
        scan.header["descrip"] = scan.header["aux_file"] = scan.header["intent_name"] = b"SECRET^NAME"
        nib.save(scan, path)
    assert SECRET in path.read_bytes()
    predict(model=str(model), scans=str(path.parent), output=str(tmp_path / "out"), workers=0)
    mask = gzip.decompress((tmp_path / "out" / "a.nii.gz").read_bytes())
    assert mask[:4] == path.read_bytes()[:4] and SECRET not in mask  # the same kind of header
    others = [file for file in (tmp_path / "out").rglob("*") if file.suffix in (".json", ".csv")]
    assert others and not [file for file in others if SECRET in file.read_bytes()]
    printed = capfd.readouterr()
    assert "SECRET" not in printed.out + printed.err


def test_what_is_done_is_not_done_again(
    model: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    options = {"model": str(model), "scans": str(scans), "output": str(out), "workers": 0}
    first = predict(**options)
    assert (sorted(first.done), sorted(first.failed), first.skipped) == (
        ["a", "sub_b"],
        ["broken", "cine"],
        0,
    )
    write_scan(scans / "broken.nii.gz", (16, 16, 4))
    (scans / "cine.nii.gz").unlink()
    write_scan(scans / "a.nii.gz", (24, 24, 4))  # another scan under a known name
    (out / "sub_b.nii.gz").write_bytes(b"kept as it is")
    command = ["predict", "--model", str(model), str(scans), "-o", str(out), "--workers", "0"]
    main(command)
    assert "3 scans segmented, 1 of them before" in capsys.readouterr().out
    assert (out / "sub_b.nii.gz").read_bytes() == b"kept as it is"
    assert read(out / "a.nii.gz").shape == (24, 24, 4)
    assert {case: row["status"] for case, row in table(out).items()} == dict.fromkeys(
        ("a", "broken", "sub_b"), "done"
    )
    (out / "records" / "sub_b.json").write_text("{")
    assert predict(**options).skipped == 2
    assert read(out / "sub_b.nii.gz").shape == (18, 30, 5)


def test_a_folder_of_other_things_is_left_alone(
    model: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / ".DS_Store").write_bytes(b"")
    (out / "a.nii.gz").write_bytes(b"somebody's annotation")
    command = ["predict", "--model", model, scans, "--workers", "0", "-o"]
    assert "holds other files (a.nii.gz, …)" in fails(capsys, *command, out)
    assert (out / "a.nii.gz").read_bytes() == b"somebody's annotation"
    for place in (scans, scans / "masks"):
        assert "lies in the folder of the scans" in fails(capsys, *command, place)
    (out / "a.nii.gz").unlink()
    fails(capsys, *command, out)  # two scans fail, the folder is used
    message = fails(capsys, *command, out, "--flips", "w")
    assert "holds other predictions (flips is '' there, 'w' here)" in message
    message = fails(capsys, "predict", "--model", model, scans / "a.nii.gz", "--workers", "0", "-o", out)
    assert "must end with .nii.gz or .nii" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent"], "absent: there is no such file, and no folder with files in it"),
        (["empty"], "empty: there is no such file, and no folder with files in it"),
        (["notes"], "holds scans in no layout that is known"),
        (["scans", "--split", "test"], "is no dataset version, and only those have splits"),
        (["scans", "--flips", "d"], "takes slices; name axes of 'hw'"),
        (["scans", "--flips", "x"], "inference.flips = 'x'"),
        (["scans", "--workers", "-1"], "--workers -1: must be 0 or more"),
        (["scans", "--model", "empty"], "empty is not a published model"),
        (["scans", "-o", "one.nii.gz"], "is one file, and there are 4 scans"),
    ],
)
def test_a_call_that_cannot_be(
    model: Path,
    scans: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.txt").write_text("no scans")
    monkeypatch.chdir(tmp_path)
    assert message in fails(capsys, "predict", "--model", model, "-o", "out", *arguments)
    assert not (tmp_path / "out").exists()


def test_maps_lie_on_the_scans_grid(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    scan = nib.load(write_scan(folder / "a.nii.gz"))
    out = tmp_path / "out"
    maps = ("probabilities", "entropy", "disagreement")
    predict(model=str(model), scans=str(folder), output=str(out), maps=maps, workers=0)
    mask = read(out / "a.nii.gz")
    found = {name: nib.load(out / name / "a.nii.gz") for name in maps}
    for image in found.values():
        np.testing.assert_array_equal(image.affine, scan.affine)
        assert image.get_data_dtype() == np.float32
    probabilities = found["probabilities"].get_fdata()
    assert probabilities.shape == (*mask.shape, 3)
    np.testing.assert_array_equal(probabilities.argmax(-1), mask)
    one = tmp_path / "one.nii"
    predict(model=str(model), scans=str(folder), output=str(one), maps=maps)
    np.testing.assert_array_equal(read(one), mask)
    np.testing.assert_array_equal(read(tmp_path / "one_entropy.nii"), found["entropy"].get_fdata())
    assert json.loads((out / "records" / "a.json").read_text())["files"] == [
        "a.nii.gz",
        "probabilities/a.nii.gz",
        "entropy/a.nii.gz",
        "disagreement/a.nii.gz",
    ]


def test_a_model_without_a_teacher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alone = publish(tmp_path / "model")
    scan = write_scan(tmp_path / "a.nii.gz")
    message = fails(
        capsys, "predict", "--model", alone, scan, "-o", tmp_path / "m.nii", "--maps", "disagreement"
    )
    assert "holds no teacher" in message


def test_channels_in_files_of_their_own(tmp_path: Path) -> None:
    model = publish(tmp_path / "model", channels=2)
    (tmp_path / "scans").mkdir()
    for name in ("a_0000", "a_0001", "b_0000"):
        write_scan(tmp_path / "scans" / f"{name}.nii.gz")
    result = predict(model=str(model), scans=str(tmp_path / "scans"), output=str(tmp_path / "out"), workers=0)
    assert sorted(result.done) == ["a"]
    assert "1 channel(s), and the model was trained on 2" in result.failed["b"]


def test_a_dataset_version_gives_the_masks_of_its_scans(
    tiny_raw: Path, tiny_dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    version = DatasetVersion.open(tiny_dataset)
    published = load_package(publish(tmp_path / "random", size=(48, 48)))
    ours = dataclasses.replace(
        published, data_config=version.data_config, network_config=NETWORK, classes=version.classes
    )
    save_package(tmp_path / "model", ours, metrics={}, provenance={})
    out = {name: tmp_path / name for name in ("raw", "prepared", "held")}
    for name, source in (("raw", str(tiny_raw)), ("prepared", version.url)):
        predict(model=str(tmp_path / "model"), scans=source, output=str(out[name]), workers=0)
    cases = [case.case_id for case in version.cases]
    assert sorted(p.name for p in out["prepared"].glob("*.nii.gz")) == [f"{c}.nii.gz" for c in cases]
    for case in cases:
        masks = [nib.load(out[name] / f"{case}.nii.gz") for name in ("raw", "prepared")]
        np.testing.assert_allclose(masks[1].affine, masks[0].affine)
        same = np.asarray(masks[0].dataobj) == np.asarray(masks[1].dataobj)
        assert same.mean() > 0.99  # samples are kept in half precision
    held = predict(
        model=str(tmp_path / "model"),
        scans=version.url,
        output=str(out["held"]),
        split="validation",
        workers=0,
    )
    assert {version.case(c).patient_id for c in held.done} == set(version.patients("validation"))
    message = fails(
        capsys, "predict", "--model", tmp_path / "random", version.url, "-o", tmp_path / "x", "--workers", "0"
    )
    assert "was prepared for another model (data." in message and str(tiny_raw) in message


@pytest.mark.s3
@pytest.mark.usefixtures("aws")
def test_scans_and_masks_in_an_object_store(model: Path, tmp_path: Path) -> None:
    base = Store(f"s3://arco/{tmp_path.name}")
    (tmp_path / "scans").mkdir()
    write_scan(tmp_path / "scans" / "a.nii.gz")
    base.upload_folder(tmp_path / "scans", "scans")
    base.upload_folder(model, "model")
    options = {"model": base.join("model"), "output": base.join("out"), "workers": 0}
    first = predict(scans=base.join("scans"), **options)
    again = predict(scans=base.join("scans"), **options)
    assert (first.skipped, again.skipped, sorted(again.done)) == (0, 1, ["a"])
    predict(
        model=model.as_uri(), scans=(tmp_path / "scans").as_uri(), output=str(tmp_path / "out"), workers=0
    )
    assert Store(base.join("out")).read_bytes("a.nii.gz") == (tmp_path / "out" / "a.nii.gz").read_bytes()
    single = base.join("one.nii.gz")
    predict(model=str(model), scans=base.join("scans", "a.nii.gz"), output=single)
    assert base.read_bytes("one.nii.gz") == (tmp_path / "out" / "a.nii.gz").read_bytes()


@pytest.mark.slow
def test_actors_write_what_one_process_writes(
    model: Path, scans: Path, tmp_path: Path, ray_address: str
) -> None:
    results = [
        predict(model=str(model), scans=str(scans), output=str(tmp_path / name), workers=workers)
        for name, workers in (("here", 0), ("actors", 2))
    ]
    assert results[0].failed == results[1].failed and len(results[1].failed) == 2
    names = sorted(p.name for p in (tmp_path / "here").iterdir() if p.name.endswith(NIFTI_SUFFIXES))
    assert len(names) == 2
    for name in names:
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "actors" / name).read_bytes()


def test_dicom_series_get_dicom_segmentations_besides_nifti(model: Path, tmp_path: Path) -> None:
    for name in ("x", "y"):
        write_dicom(tmp_path / "scans" / name, complete(dicom_series(raw_scan(0)[0])))
    write_dicom(tmp_path / "scans" / "bare", dicom_series(raw_scan(0)[0]))
    options = {"model": str(model), "scans": str(tmp_path / "scans"), "workers": 0}
    result = predict(output=str(tmp_path / "out"), **options)
    assert sorted(result.done) == ["x", "y"] and "--no-dicom" in result.failed["bare"]
    mask = read(tmp_path / "out" / "x.nii.gz")
    np.testing.assert_allclose(nib.load(tmp_path / "out" / "x.nii.gz").affine, AFFINE)
    frames = pydicom.dcmread(tmp_path / "out" / "x.dcm").pixel_array
    assert frames.sum() == np.count_nonzero(mask) > 0
    assert sorted(predict(output=str(tmp_path / "plain"), dicom=False, **options).done) == ["bare", "x", "y"]
    assert not list((tmp_path / "plain").glob("*.dcm"))
    one = tmp_path / "one.dcm"
    predict(model=str(model), scans=str(tmp_path / "scans" / "x"), output=str(one))
    assert (pydicom.dcmread(one).pixel_array == frames).all()


def test_a_dicom_segmentation_of_a_nifti_scan(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = write_scan(tmp_path / "a.nii.gz")
    message = fails(capsys, "predict", "--model", model, scan, "-o", tmp_path / "a.dcm")
    assert "only a DICOM series has a DICOM segmentation" in message
