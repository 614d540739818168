"""NIfTI files: what their headers may say, and what is refused by name."""

from __future__ import annotations

import gzip
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from arco_core.errors import DataError
from infra.datasets.nifti import decode_nifti
from infra.datasets.volume import MAX_BYTES, Volume, gunzip

from .raw_files import (
    AFFINE,
    change_header,
    scan,
    write_nifti,
)

IMAGE, _ = scan(0)


def nifti(tmp_path: Path, change: Callable[[nib.Nifti1Header], object], name: str = "x.nii") -> Volume:
    path = write_nifti(tmp_path / name, IMAGE)
    change_header(path, change)
    return decode_nifti(path.read_bytes(), name)


def set_fields(**values: object) -> Callable[[nib.Nifti1Header], None]:
    def change(header: nib.Nifti1Header) -> None:
        for name, value in values.items():
            header[name] = value

    return change


def set_dims(*dims: int) -> Callable[[nib.Nifti1Header], None]:
    return set_fields(dim=[len(dims), *dims, *[1] * (7 - len(dims))])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_fields(sform_code=0, qform_code=0), "does not say how it lies in space"),
        (set_fields(srow_x=[0, 0, 0, 0]), "has the affine .*must measure 0.001 to 1000 mm"),
        (set_fields(srow_x=[np.nan, 0, 0, 0]), "must measure"),
        (set_fields(srow_x=[np.inf, 0, 0, 0]), "must measure"),
        (set_fields(srow_x=[-1.5e6, 0, 0, 0], pixdim=[1, 1.5e6, 1.25, 8, 1, 1, 1, 1]), "must measure"),
        (set_fields(srow_x=[-1.5, -1.25, 0, 0], srow_y=[0] * 4), "maps voxels onto a plane"),
        (set_fields(pixdim=[1, 3, 1.25, 8, 1, 1, 1, 1], qform_code=0), "contradicts .*1.5 x 1.25 x 8 mm"),
        (set_fields(datatype=32, bitpix=64), "of type complex64, not of real numbers"),
        (set_fields(datatype=128, bitpix=24), "not of real numbers"),
        (set_fields(datatype=4711), "not a readable NIfTI"),
        (set_fields(magic=b"xyz"), "not a readable NIfTI"),
        (set_fields(vox_offset=np.nan), "not a readable NIfTI"),
        (set_fields(vox_offset=1e30), "would take .* GiB by its header"),
        (set_dims(24, 20, 0), "impossible shape"),
        (set_dims(24, -20, 5), "impossible shape|not a readable NIfTI"),
        (set_dims(24, 20, 6), r"truncated or damaged \(its header promises"),
        (set_dims(2000, 2000, 2000), "would take 14.9 GiB by its header"),
        (set_dims(*[32767] * 7), "would take .* GiB by its header"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
def test_nifti_header(
    tmp_path: Path, name: str, change: Callable[[nib.Nifti1Header], object], message: str
) -> None:
    with pytest.raises(DataError, match=rf"^x\.nii(\.gz)? .*{message}"):
        nifti(tmp_path, change, name)


def test_sform_that_contradicts_pixdim_yields_to_the_qform(tmp_path: Path) -> None:
    """ACDC as released: the sform has voxels of 1 mm, the qform the true ones."""
    unit = set_fields(srow_x=[-1, 0, 0, 0], srow_y=[0, -1, 0, 0], srow_z=[0, 0, 1, 0])
    volume = nifti(tmp_path, unit)
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5)


@pytest.mark.parametrize(("units", "mm"), [(0, 1.0), (2, 1.0), (10, 1.0), (3, 0.001), (27, 0.001), (1, 1000)])
@pytest.mark.parametrize("forms", [{}, {"sform_code": 0}])
def test_units_of_length(tmp_path: Path, units: int, mm: float, forms: dict[str, object]) -> None:
    """Unknown, mm (alone and with s), µm (with s and ms), m; here always the same scan."""
    path = write_nifti(tmp_path / "x.nii", IMAGE, np.diag([1 / mm, 1 / mm, 1 / mm, 1]) @ AFFINE)
    change_header(path, set_fields(xyzt_units=units, **forms))
    np.testing.assert_allclose(decode_nifti(path.read_bytes(), "x.nii").affine, AFFINE, rtol=1e-5, atol=1e-5)


def test_unknown_unit_of_length_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^x\.nii measures .* \(xyzt_units = 13\): export it again, or set"):
        nifti(tmp_path, set_fields(xyzt_units=13))


def test_qform_alone_and_nifti2_and_big_endian_are_read(tmp_path: Path) -> None:
    np.testing.assert_allclose(nifti(tmp_path, set_fields(sform_code=0)).affine, AFFINE, atol=1e-5)
    nib.save(nib.Nifti2Image(IMAGE, AFFINE), tmp_path / "two.nii")
    big = nib.Nifti1Image(IMAGE, AFFINE, nib.Nifti1Header(endianness=">"))
    nib.save(big, tmp_path / "big.nii")
    for name in ("two.nii", "big.nii"):
        volume = decode_nifti((tmp_path / name).read_bytes(), name)
        np.testing.assert_array_equal(volume.voxels, IMAGE)
        assert volume.voxels.dtype.isnative


def test_scaled_voxels_are_scaled_in_single_precision(tmp_path: Path) -> None:
    volume = nifti(tmp_path, set_fields(scl_slope=0.5, scl_inter=-3))
    assert volume.voxels.dtype == np.float32
    np.testing.assert_array_equal(volume.voxels, IMAGE * 0.5 - 3)
    np.testing.assert_array_equal(nifti(tmp_path, set_fields(scl_slope=np.nan)).voxels, IMAGE)


def test_gzip_bomb_is_refused_before_it_unfolds(tmp_path: Path) -> None:
    data = write_nifti(tmp_path / "x.nii", IMAGE).read_bytes()
    zeros = bytes(64 * 2**20)
    bomb = gzip.compress(data) + gzip.compress(zeros)  # a second member
    inside = gzip.compress(data + zeros)
    tracemalloc.start()
    try:
        for hostile in (bomb, inside):
            with pytest.raises(DataError, match=r"longer than the \d+ bytes that its header promises"):
                decode_nifti(hostile, "x.nii.gz")
        assert tracemalloc.get_traced_memory()[1] < 2 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [400, 300_000])
def test_header_that_promises_more_than_gzip_can_hold_is_refused_before_allocation(
    tmp_path: Path, size: int
) -> None:
    path = write_nifti(tmp_path / "x.nii", IMAGE)
    change_header(path, set_dims(1000, 1000, 500))
    data = gzip.compress(path.read_bytes() + os.urandom(size))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="its header promises 1000000352 bytes"):
            decode_nifti(data, "x.nii.gz")
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()


def test_a_little_padding_is_no_bomb(tmp_path: Path) -> None:
    data = write_nifti(tmp_path / "x.nii", IMAGE).read_bytes() + bytes(512)
    for padded in (data, gzip.compress(data), gzip.compress(data) + bytes(512)):
        np.testing.assert_array_equal(decode_nifti(padded, "x").voxels, IMAGE)


def test_damage_after_the_last_voxel_is_noticed(tmp_path: Path) -> None:
    data = bytearray(write_nifti(tmp_path / "x.nii.gz", IMAGE).read_bytes())
    data[-6] ^= 1  # of the checksum
    with pytest.raises(DataError, match="CRC check failed"):
        decode_nifti(bytes(data), "x.nii.gz")


def test_bounds_are_what_the_documentation_says() -> None:
    assert MAX_BYTES == 4 * 2**30
    assert gunzip(gzip.compress(bytes(1000)), 10) == bytes(10)
