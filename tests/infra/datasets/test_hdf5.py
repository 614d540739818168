"""HDF5 files: nothing outside the file, and nothing that it cannot hold."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from arco_core.errors import DataError
from infra.datasets.hdf5 import Hdf5Slices, decode_hdf5
from infra.storage import Store

from .raw_files import (
    scan,
    write_hdf5,
)

IMAGE, LABEL = scan(0)


def hdf5(tmp_path: Path, write: Callable[[h5py.File], object], ndim: int = 3) -> np.ndarray:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        write(file)
    return decode_hdf5((tmp_path / "x.h5").read_bytes(), "x.h5", "image", ndim=ndim)


def external_link(file: h5py.File) -> None:
    with h5py.File(Path(file.filename).with_name("other.h5"), "w") as other:
        other["image"] = IMAGE
    file["image"] = h5py.ExternalLink(str(Path(file.filename).with_name("other.h5")), "image")


def external_storage(file: h5py.File) -> None:
    secret = Path(file.filename).with_name("secret")
    secret.write_bytes(bytes(1000))
    file.create_dataset("image", (5, 5, 5), "u1", external=[(str(secret), 0, 125)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((5, 5, 5), "u1")
    layout[:] = h5py.VirtualSource("/etc/passwd", "image", (5, 5, 5))
    file.create_virtual_dataset("image", layout)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda f: f.create_dataset("label", data=LABEL), "lacks the key 'image'; it has 'label'"),
        (lambda f: f.update(a=1, label=2, b=3), "lacks the key 'image'; it has 'label' and 2 other keys:"),
        (lambda f: f.create_dataset("SECRET", data=1), "lacks the key 'image'; it has 1 other key:"),
        (lambda f: None, "lacks the key 'image'; it has none"),
        (lambda f: f.create_group("image"), "is a group"),
        (lambda f: f.create_dataset("image", data=IMAGE[0]), r"has shape \(20, 5\) and type int16"),
        (lambda f: f.create_dataset("image", data=IMAGE * 1j), "type complex128"),
        (lambda f: f.create_dataset("image", data=[[["x"]]], dtype=h5py.string_dtype()), "type object"),
        (lambda f: f.create_dataset("image", (3, 3, 3), [("SECRET", "f4")]), "and type void32"),
        (lambda f: f.create_dataset("image", (0, 3, 3), "f4"), r"has shape \(0, 3, 3\)"),
        (lambda f: f.create_dataset("image", data=h5py.Empty("f4")), "has shape None"),
        (lambda f: f.create_dataset("image", (10**4,) * 3, "f4", chunks=(8, 8, 8)), "promises 4000000000000"),
        (lambda f: f.create_dataset("image", (600, 600, 600), "f4", chunks=(8, 8, 8)), ", 0 stored in"),
        (lambda f: f.create_dataset("image", (8, 8, 8), "f4", chunks=(900, 900, 900), maxshape=(None,) * 3),
         "in pieces of 2916000000"),
        (external_link, "'image' is a link"),
        (lambda f: f.__setitem__("image", h5py.SoftLink("/x")), "'image' is a link"),
        (external_storage, "keeps its voxels in other files"),
        (virtual, "keeps its voxels in other files"),
    ],
)  # fmt: skip
def test_hdf5(tmp_path: Path, write: Callable[[h5py.File], object], message: str) -> None:
    with pytest.raises(DataError, match=rf"^x\.h5.*{message}"):
        hdf5(tmp_path, write)


def test_hdf5_piece_that_grows_past_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a limit of 1 MiB in place of 4 GiB: a piece of 8 kB that unfolds to 8 MiB."""
    monkeypatch.setattr("infra.datasets.hdf5.MAX_BYTES", 2**20)

    def write(file: h5py.File) -> None:
        file.create_dataset("image", (64, 64, 64), "u1", chunks=(64, 64, 64), compression="gzip")
        file["image"].id.write_direct_chunk((0, 0, 0), zlib.compress(bytes(8 * 2**20), 9))

    with pytest.raises(DataError, match=r"^x\.h5: a piece of 'image' grows past its size"):
        hdf5(tmp_path, write)


def test_hdf5_slices_of_different_sizes(tmp_path: Path) -> None:
    for name, size in (("a.h5", 8), ("b.h5", 9)):
        write_hdf5(tmp_path / name, IMAGE[:size, :, 0], LABEL[:size, :, 0])
    slices = Hdf5Slices(("a.h5", "b.h5"), "image", (1, 1, 1))
    with pytest.raises(DataError, match=r"b\.h5 has shape \(9, 20\), a\.h5 \(8, 20\)"):
        slices.load(Store(str(tmp_path)))


def test_hdf5_slices_too_large_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is within the limit, here 1 MiB in place of 4 GiB, and only the first is read."""
    monkeypatch.setattr("infra.datasets.hdf5.MAX_BYTES", 2**20)
    write_hdf5(tmp_path / "0.h5", np.zeros((512, 512), np.uint8), LABEL)
    slices = Hdf5Slices(("0.h5", *(f"{number}.h5" for number in range(1, 5))), "image", (1, 1, 1))
    with pytest.raises(DataError, match=r"^0\.h5 and the other slices of its scan take more than"):
        slices.load(Store(str(tmp_path)))
