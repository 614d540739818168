"""Any bytes give a volume or a `DataError`, in bounded time and memory.

`corpus/` holds a small file of each format and kind, and the files that once got through; hypothesis changes
them. A file that breaks a decoder goes there.
"""

from __future__ import annotations

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

CORPUS = Path(__file__).parent / "corpus"
LARGEST = 32 * 2**20
"""Bytes; the corpus' volumes take less than 1 kB, and a header may promise what its file can hold."""
SLOWEST_S = 2.0

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
    data = draw(st.sampled_from(list(corpus(kind))))
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
    ["imagesTr", "labelsTr", "imagesUn", "data", "slices", "patient001", "patient001_frame01", "a", "b c",
     "patient001_frame01_slice_3.h5", "patient001_frame01_gt.nii.gz", "patient001_frame01.nii.gz",
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
