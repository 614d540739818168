"""Any bytes give a volume or a `DataError`, in bounded time and memory.

`corpus/` holds a small file of each format and kind, and the files that once got through; hypothesis changes
them. A file that breaks a decoder goes there.
"""

from __future__ import annotations

import copy
import gzip
import io
import json
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from arco_core.errors import DataError
from infra.datasets.dicom import DicomSeries
from infra.datasets.hdf5 import decode_hdf5
from infra.datasets.nifti import decode_nifti
from infra.datasets.nrrd import decode_nrrd
from infra.datasets.readers.acdc_hdf5 import READER as ACDC_HDF5
from infra.datasets.readers.base import RawDataset, RawFolder
from infra.datasets.readers.detect import read_raw
from infra.datasets.readers.la_hdf5 import READER as LA_HDF5
from infra.datasets.readers.msd import READER as MSD
from infra.datasets.volume import Volume
from infra.storage import Store

from .raw_files import dicom_series, scan

CORPUS = Path(__file__).parent / "corpus"
LARGEST = 32 * 2**20
"""Bytes; the corpus' volumes take less than 1 kB, and a header may promise what its file can hold."""
SLOWEST_S = 60.0  # far beyond any machine: what it finds is a file that never ends

fuzz = settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)


class OneFile(Store):
    """A store that has the same content for every file."""

    def __init__(self, content: bytes) -> None:
        super().__init__("/nowhere")
        self.content = content

    def read_bytes(self, path: str) -> bytes:
        return self.content

    def open_input(self, path: str) -> BinaryIO:
        return io.BytesIO(self.content)


def load_dicom(data: bytes, path: str) -> Volume:
    return DicomSeries((path,)).load(OneFile(data))


def load_hdf5(data: bytes, path: str) -> np.ndarray:
    return decode_hdf5(data, path, "image", ndim=3)


DECODERS: dict[str, Callable[[bytes, str], Volume | np.ndarray]] = {
    "nifti": decode_nifti,
    "nrrd": decode_nrrd,
    "hdf5": load_hdf5,
    "dicom": load_dicom,
}


def decode(kind: str, data: bytes) -> Volume | np.ndarray | None:
    """The volume, or none where it is refused; whatever else happens fails the test."""
    tracemalloc.start()
    start = time.process_time()
    try:
        return DECODERS[kind](data, "file")
    except DataError as error:
        assert str(error).startswith("file")
        assert "SECRET" not in str(error)
        return None
    finally:
        seconds, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert seconds < SLOWEST_S
        assert peak < LARGEST


def corpus(kind: str) -> Iterator[bytes]:
    return (path.read_bytes() for path in sorted((CORPUS / kind).iterdir()))


@st.composite
def changed(draw: st.DrawFn, kind: str) -> bytes:
    """A file of the corpus with a few bytes overwritten, removed or inserted, inside its gzip or outside."""
    return damaged(draw, draw(st.sampled_from(list(corpus(kind)))))


def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    packed = data.startswith(b"\x1f\x8b") and draw(st.booleans())
    content = bytearray(gzip.decompress(data) if packed else data)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, min(len(content), draw(st.sampled_from([64, 400, 10**6]))) - 1)))
        new = draw(st.binary(max_size=8) | st.sampled_from([b"\xff" * 8, bytes(8), b"\x7f" + b"\xff" * 7]))
        old = draw(st.sampled_from([len(new), 0, 40]))
        content[place : place + old] = new
    if draw(st.booleans()):
        del content[draw(st.integers(0, len(content))) :]
    return gzip.compress(content, 1) if packed else bytes(content)


@pytest.mark.parametrize("kind", DECODERS)
def test_corpus_is_read_or_refused(kind: str) -> None:
    read = [decode(kind, data) for data in corpus(kind)]
    assert any(volume is not None for volume in read)


@pytest.mark.parametrize("kind", DECODERS)
@given(data=st.data())
@fuzz
def test_changed_files(kind: str, data: st.DataObject) -> None:
    decode(kind, data.draw(changed(kind)))


@pytest.mark.parametrize("kind", DECODERS)
@given(data=st.binary(max_size=400))
@fuzz
def test_any_bytes(kind: str, data: bytes) -> None:
    magic = {"nifti": b"\x5c\x01\0\0", "nrrd": b"NRRD0004\n", "hdf5": b"\x89HDF\r\n\x1a\n"}
    for content in (data, magic.get(kind, bytes(128) + b"DICM") + data):
        decode(kind, content)


class Files(Store):
    """A store with these files."""

    def __init__(self, files: list[bytes]) -> None:
        super().__init__("/nowhere")
        self.files = files

    def read_bytes(self, path: str) -> bytes:
        return self.files[int(path)]


def series_files(slices: list[Dataset]) -> list[bytes]:
    files = []
    for item in slices:
        sink = io.BytesIO()
        item.save_as(sink, enforce_file_format=True)
        files.append(sink.getvalue())
    return files


def decode_series(files: list[bytes]) -> Volume | None:
    """The volume of a series of `files`; whatever is neither that nor refused fails the test."""
    paths = tuple(str(number) for number in range(len(files)))
    try:
        volume = DicomSeries(paths).load(Files(files))
    except DataError as error:
        assert "SECRET" not in str(error)
        return None
    assert volume.voxels.ndim == 3 and volume.voxels.shape[2] == len(files)
    assert np.isfinite(volume.affine).all() and abs(np.linalg.det(volume.affine)) > 0
    return volume


SLICES = dicom_series(scan(0)[0][:6, :5])
SERIES = series_files(SLICES)


def test_series_of_the_fuzzer_is_read() -> None:
    assert decode_series(SERIES[::-1]) is not None


@given(data=st.data())
@fuzz
def test_changed_series(data: st.DataObject) -> None:
    """Slices lost, doubled, out of order and damaged."""
    files = data.draw(st.lists(st.sampled_from(SERIES), min_size=1, max_size=6))
    files = data.draw(st.just(files) | st.permutations(SERIES))
    number = data.draw(st.integers(0, len(files) - 1))
    files[number] = data.draw(st.composite(lambda draw: damaged(draw, files[number]))())
    decode_series(files)


NUMBERS = st.floats() | st.sampled_from([0.0, 1.0, -8.0, 1e-30, 1e30, 1e300]) | st.integers(-50, 50)
GEOMETRY = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2, "SliceThickness": 1,
            "RescaleSlope": 1, "RescaleIntercept": 1, "Rows": 1, "Columns": 1}  # fmt: skip


@given(data=st.data())
@fuzz
def test_series_with_any_geometry(data: st.DataObject) -> None:
    """Numbers of any size, not a number among them, in one slice or in all of them."""
    slices = [copy.deepcopy(item) for item in SLICES[: data.draw(st.integers(1, 4))]]
    for name in data.draw(st.sets(st.sampled_from(sorted(GEOMETRY)), min_size=1, max_size=3)):
        whole = name in ("Rows", "Columns")
        number = st.integers(0, 2**16 - 1) if whole else NUMBERS.map(lambda v: f"{float(v):.9g}")
        values = data.draw(st.lists(number, min_size=GEOMETRY[name], max_size=GEOMETRY[name]))
        for item in slices if data.draw(st.booleans()) else slices[-1:]:
            setattr(item, name, values if len(values) > 1 else values[0])
    decode_series(series_files(slices))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
NAMES = ("name", "modality", "channel_names", "labels", "patients")


@given(st.dictionaries(st.sampled_from(NAMES), JSON) | JSON)
@example({"labels": {"1": "a", "0": "b"}, "modality": {"0": "CT"}, "patients": {"a": ""}})
@example({"labels": {"a": 10**400, "b": 0}, "modality": {"0": "CT"}})
@fuzz
def test_any_description(values: object) -> None:
    folder = RawFolder(OneFile(json.dumps(values).encode()), ("imagesTr/a.nii", "labelsTr/a.nii"))
    _read_or_refuse(lambda: MSD.read(folder))


@given(st.binary(max_size=60) | st.just(b"[" * 100_000))
@fuzz
def test_any_list_or_json(content: bytes) -> None:
    store = OneFile(content)
    slices = ("data/slices/patient001_frame01_slice_1.h5", "data/patient002_frame01.h5")
    _read_or_refuse(lambda: MSD.read(RawFolder(store, ("imagesTr/a.nii",))))
    _read_or_refuse(lambda: ACDC_HDF5.read(RawFolder(store, (*slices, "train_slices.list", "val.list"))))
    _read_or_refuse(lambda: LA_HDF5.read(RawFolder(store, ("a/mri_norm2.h5", "train.list"))))


PARTS = st.sampled_from(
    ["imagesTr", "labelsTr", "imagesUn", "data", "slices", "data/slices", "patient001", "a", "b c",
     "patient001_frame01", "patient001_frame01_slice_3.h5", "patient001_frame01_slice_1.h5",
     "patient001_frame01_slice_01.h5", "patient001_frame01_slice_1000000000000.h5",
     "patient001_frame01_gt.nii.gz", "patient001_frame01.nii.gz",
     "volume-1.nii", "segmentation-1.nii", "ct_train_1001_image.nii.gz", "mr_train_1001_label.nii",
     "lgemri.nrrd", "laendo.nrrd", "mri_norm2.h5", "x.nii", "x.dcm", "IM0001", "1.2.3", "testing",
     "Testing Set", "x_0001.nii.gz", "é.nii"]
)  # fmt: skip


@given(st.sets(st.lists(PARTS, min_size=1, max_size=4).map("/".join), max_size=8))
@fuzz
def test_any_files_names(names: set[str]) -> None:
    class Listed(OneFile):
        def list(self, prefix: str = "") -> list[str]:
            return sorted(names)

    dataset = _read_or_refuse(
        lambda: read_raw(Listed(b'{"labels": {"a": 0, "b": 1}, "modality": {"0": ""}}'))
    )
    if dataset is not None:
        ids = [case.case_id for case in dataset.cases]
        assert len(set(ids)) == len(ids) and all(ids) and all(case.patient_id for case in dataset.cases)
        assert {path for case in dataset.cases for path in (*case.image_paths, *case.label_paths)} <= names


def _read_or_refuse(read: Callable[[], RawDataset]) -> RawDataset | None:
    try:
        return read()
    except DataError:
        return None
