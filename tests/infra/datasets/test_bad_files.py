"""Files that are damaged, hostile or contradict themselves: each is refused by name, with the way out."""

from __future__ import annotations

import gzip
import os
import shutil
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless

from arco_core.config import DataConfig
from arco_core.errors import DataError
from infra.datasets import prepare_dataset
from infra.datasets.dicom import DicomSeries
from infra.datasets.hdf5 import Hdf5Slices, Hdf5Volume, decode_hdf5
from infra.datasets.nifti import NiftiFile, decode_nifti
from infra.datasets.nrrd import NrrdFile, decode_nrrd
from infra.datasets.readers.base import RawCase
from infra.datasets.readers.detect import read_raw
from infra.datasets.readers.listing import list_folder
from infra.datasets.validate import check_label, check_sizes, stack_channels
from infra.datasets.volume import MAX_BYTES, Volume, VolumeSource, gunzip
from infra.storage import Store

from .conftest import TINY
from .raw_files import (
    AFFINE,
    SHAPE,
    change_header,
    dicom_series,
    nrrd_bytes,
    scan,
    write_dicom,
    write_hdf5,
    write_nifti,
)

IMAGE, LABEL = scan(0)


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


# --- NIfTI


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


# --- HDF5


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
        (lambda f: None, "lacks the key 'image'; it has none"),
        (lambda f: f.create_group("image"), "is a group"),
        (lambda f: f.create_dataset("image", data=IMAGE[0]), r"has shape \(20, 5\) and type int16"),
        (lambda f: f.create_dataset("image", data=IMAGE * 1j), "type complex128"),
        (lambda f: f.create_dataset("image", data=[[["x"]]], dtype=h5py.string_dtype()), "type object"),
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


# --- NRRD


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"space": None}, "does not say how it lies in the patient"),
        ({"space": "scanner-xyz"}, "does not say how it lies in the patient"),
        ({"space_directions": None}, "does not say how it lies in the patient"),
        ({"space_directions": "none (1,0,0) (0,1,0)"}, "must measure"),
        ({"space_directions": "(1,0,0) (1,0,0) (0,0,1)"}, "maps voxels onto a plane"),
        ({"sizes": "24 20"}, r"has the shape \[24, 20\]"),
        ({"sizes": "24 20 -5"}, r"has the shape \[24, 20, -5\]"),
        ({"sizes": "24 20 6"}, "not a readable NRRD"),
        ({"sizes": "4000 4000 4000"}, "would take up to 476.8 GiB"),
        ({"sizes": "700 700 700"}, "truncated or damaged"),
        ({"type": "block"}, "not a readable NRRD"),
        ({"type": "SECRET"}, "not a readable NRRD"),
        ({"encoding": "bzip2"}, "neither raw nor gzipped"),
        ({"encoding": "ascii"}, "neither raw nor gzipped"),
        ({"data_file": "/etc/passwd"}, "keeps its voxels in another file"),
        ({"datafile": "LIST"}, "keeps its voxels in another file"),
        ({"byte_skip": "-1"}, "keeps its voxels in another file or place"),
        ({"space_origin": "SECRET"}, "not a readable NRRD"),
    ],
)
def test_nrrd(fields: dict[str, str | None], message: str) -> None:
    with pytest.raises(DataError, match=rf"^x\.nrrd .*{message}") as caught:
        decode_nrrd(nrrd_bytes(IMAGE, **fields), "x.nrrd")
    assert "SECRET" not in str(caught.value)


def test_nrrd_bomb_and_truncation() -> None:
    data = nrrd_bytes(IMAGE)
    header = data[: data.index(b"\n\n") + 2]
    bomb = header + gzip.compress(bytes(64 * 2**20))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="longer than its header promises"):
            decode_nrrd(bomb, "x.nrrd")
        assert tracemalloc.get_traced_memory()[1] < 2 * 2**20
    finally:
        tracemalloc.stop()
    with pytest.raises(DataError, match="truncated or damaged"):
        decode_nrrd(data[:-20], "x.nrrd")
    np.testing.assert_array_equal(decode_nrrd(nrrd_bytes(IMAGE, "raw"), "x.nrrd").voxels, IMAGE)


# --- DICOM


def series(tmp_path: Path, change: Callable[[list[Dataset]], list[Dataset]]) -> Volume:
    folder = write_dicom(tmp_path / "s", change(dicom_series(IMAGE)))
    return DicomSeries(tuple(f"s/{path.name}" for path in folder.iterdir())).load(Store(str(tmp_path)))


def edited(number: int, **values: object) -> Callable[[list[Dataset]], list[Dataset]]:
    """Change attributes of one slice; a value of None removes the attribute."""

    def change(slices: list[Dataset]) -> list[Dataset]:
        for name, value in values.items():
            if value is None:
                delattr(slices[number], name)
            else:
                setattr(slices[number], name, value)
        return slices

    return change


def with_syntax(uid: str) -> Callable[[list[Dataset]], list[Dataset]]:
    def change(slices: list[Dataset]) -> list[Dataset]:
        slices[1].file_meta.TransferSyntaxUID = uid
        if uid == JPEG2000Lossless:
            slices[1]["PixelData"].is_undefined_length = True
            slices[1].PixelData = b"\xfe\xff\x00\xe0\x00\x00\x00\x00\xfe\xff\x00\xe0\x04\x00\x00\x00abcd"
        return slices

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: [*s[:2], *s[3:]], r"are 16\.00 mm apart, the other slices 8\.00 mm: 1 slices seem"),
        (edited(2, ImagePositionPatient=[-20, -30, -32]), "lie in the same place"),
        (edited(4, ImagePositionPatient=[-20, -30, -4]), r"are 12\.00 mm apart"),
        (edited(2, ImagePositionPatient=[20, -30, -24]), "not evenly spaced"),
        (edited(2, SeriesInstanceUID="1.2.4"), "are of two series"),
        (edited(2, ImageOrientationPatient=[0, 1, 0, 0, 0, -1]), "differ in size, pixel spacing"),
        (edited(2, PixelSpacing=[1.25, 1.6]), "differ in size, pixel spacing"),
        (edited(2, PixelSpacing=[0, 0]), "not a readable DICOM slice"),
        (edited(2, ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "not a readable DICOM slice"),
        (lambda s: [edited(0, PixelSpacing=[1e7, 1e7])(s)[0]], "must measure"),
        (lambda s: [edited(0, SliceThickness=None)(s)[0]], "is alone and has no slice thickness"),
        (edited(2, ImagePositionPatient=None), "not a readable DICOM slice"),
        (edited(2, PixelData=None), "is truncated"),
        (edited(2, PixelData=b"12"), "is truncated"),
        (edited(2, Rows=60000, Columns=60000), r"is truncated: 7200000000 bytes of pixels"),
        (edited(2, NumberOfFrames=3), "holds several frames or colours"),
        (edited(2, PhotometricInterpretation="PALETTE COLOR"), "holds several frames or colours"),
        (with_syntax(JPEG2000Lossless), "has compressed pixels"),
        (with_syntax(DeflatedExplicitVRLittleEndian), "is a deflated DICOM file"),
    ],
)  # fmt: skip
def test_dicom(tmp_path: Path, change: Callable[[list[Dataset]], list[Dataset]], message: str) -> None:
    with pytest.raises(DataError, match=rf"^s/\d+\.dcm.*{message}") as caught:
        series(tmp_path, change)
    assert "SECRET" not in str(caught.value)


def test_foreign_files_in_a_dicom_folder(tmp_path: Path) -> None:
    folder = write_dicom(tmp_path / "s", dicom_series(IMAGE))
    for name, content, message in (("z.dcm", b"", "is empty"), ("z.dcm", b"<html>", "is not a DICOM file")):
        (folder / name).write_bytes(content)
        (case,) = read_raw(Store(str(tmp_path))).cases
        with pytest.raises(DataError, match=rf"^s/z\.dcm {message}"):
            case.channels[0].load(Store(str(tmp_path)))


def test_one_slice_a_tilted_gantry_and_rescaling_are_read(tmp_path: Path) -> None:
    def tilted(slices: list[Dataset]) -> list[Dataset]:
        for number, item in enumerate(slices):
            item.ImagePositionPatient = [-20, -30 + 1.5 * number, -40 + 8 * number]
            item.RescaleSlope, item.RescaleIntercept = 0.5, -512
        return slices

    volume = series(tmp_path, tilted)
    np.testing.assert_array_equal(volume.voxels, IMAGE * 0.5)
    np.testing.assert_allclose(volume.affine[:, 2], [0, -1.5, 8, 0])
    shutil.rmtree(tmp_path / "s")
    assert series(tmp_path, lambda slices: slices[:1]).affine[2, 2] == 8


@pytest.mark.parametrize(
    "source",
    [
        NiftiFile("x"),
        NrrdFile("x"),
        Hdf5Volume("x", "image", axes=(0, 1, 2), directions=(1, 1, 1)),
        Hdf5Slices(("x",), "image", directions=(1, 1, 1)),
        DicomSeries(("x",)),
    ],
)
def test_empty_file_of_every_format(tmp_path: Path, source: VolumeSource) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(DataError, match=r"^x is empty \(0 bytes\): copy or export the"):
        source.load(Store(str(tmp_path)))


# --- annotations


def volume(voxels: np.ndarray, affine: np.ndarray = AFFINE) -> Volume:
    return Volume(path="v", voxels=voxels, affine=affine, sha256="")


CLASSES = ("background", "a", "b", "c")


@pytest.mark.parametrize(
    ("label", "affine", "message"),
    [
        (LABEL[..., None].repeat(2, -1), AFFINE, "has shape"),
        (LABEL * 0.3, AFFINE, r"holds 0\.3, 0\.6, 0\.9, which are no class numbers"),
        (np.where(LABEL == 1, np.nan, LABEL), AFFINE, "holds nan"),
        (np.where(LABEL == 1, np.inf, LABEL), AFFINE, "holds inf"),
        (LABEL + np.uint8(2), AFFINE, r"label values 4, 5 in \d+ voxels; the classes are 0 background, 1 a"),
        (LABEL.astype(np.int16) - 1, AFFINE, "label values -1 "),
        (LABEL.astype(np.float64) * 1e300, AFFINE, "label values 1e"),
        (LABEL[::-1], AFFINE @ np.diag([-1, 1, 1, 1]), r"v \(RPS\) and its image v \(LPS\) have different"),
        (LABEL, AFFINE + np.eye(4)[:, [3, 3, 3, 0]] * 5, "different affines"),
    ],
)  # fmt: skip
def test_label(label: np.ndarray, affine: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_label(volume(label, affine), volume(IMAGE), CLASSES)


def test_float_labels_that_are_class_numbers_are_taken() -> None:
    checked = check_label(volume(LABEL.astype(np.float64)), volume(IMAGE), CLASSES)
    assert checked.dtype == np.uint8
    np.testing.assert_array_equal(checked, LABEL)
    elsewhere = volume(LABEL, np.eye(4))
    np.testing.assert_array_equal(check_label(elsewhere, volume(IMAGE), CLASSES, own_affine=False), LABEL)


def test_time_series_where_a_volume_is_meant() -> None:
    with pytest.raises(DataError, match=r"v holds 30 volumes .*split a time series into one file a volume"):
        stack_channels([volume(np.zeros((*SHAPE, 30)))], 1)


def test_scans_of_mixed_orientations_give_the_same_slices(tmp_path: Path) -> None:
    """The same patient, stored in two orders of the axes; annotations alike."""
    turned = nib.as_closest_canonical(nib.Nifti1Image(IMAGE, AFFINE))
    turned_label = nib.as_closest_canonical(nib.Nifti1Image(LABEL, AFFINE))
    for name, image, label in (
        ("a", nib.Nifti1Image(IMAGE, AFFINE), nib.Nifti1Image(LABEL, AFFINE)),
        ("b", turned, turned_label),
    ):
        folder = tmp_path / "raw" / name.replace("a", "patient001").replace("b", "patient002")
        folder.mkdir(parents=True)
        nib.save(image, folder / f"{folder.name}_frame01.nii.gz")
        nib.save(label, folder / f"{folder.name}_frame01_gt.nii.gz")
    config = DataConfig(name="x", image_size=(32, 32), exclude=("patient003",), test_fraction=0.0)
    raw = Store(str(tmp_path / "raw"))
    from infra.datasets.convert import convert_case

    first, second = (
        convert_case(raw, case, config=DataConfig(**(vars(config) | {"classes": CLASSES})), channels=1)
        for case in read_raw(raw).cases
    )
    for column in ("image", "label"):
        assert first.samples.column(column).equals(second.samples.column(column))


# --- folders


def test_links_that_leave_the_folder_are_refused(raw: Path, tmp_path: Path) -> None:
    shutil.copy(raw / "imagesUn" / "case_004.nii.gz", tmp_path / "elsewhere.nii.gz")
    link = raw / "imagesUn" / "link.nii.gz"
    link.symlink_to(tmp_path / "elsewhere.nii.gz")
    with pytest.raises(DataError, match=r"imagesUn/link\.nii\.gz is a link that leaves the folder"):
        list_folder(Store(str(raw)))
    link.unlink()
    link.symlink_to(raw / "imagesUn" / "nothing.nii.gz")
    with pytest.raises(DataError, match="is a link to a file that does not exist"):
        list_folder(Store(str(raw)))
    link.unlink()
    (raw / "more").symlink_to(raw / "imagesTr")
    with pytest.raises(DataError, match="more is a link to a folder"):
        list_folder(Store(str(raw)))
    (raw / "more").unlink()
    (raw / "imagesUn" / "inside.nii.gz").symlink_to("case_004.nii.gz")
    (tmp_path / "raw link").symlink_to(raw)
    assert len(read_raw(Store(str(tmp_path / "raw link"))).cases) == 7


def test_file_larger_than_any_volume_is_refused_unread() -> None:
    case = RawCase(case_id="a", patient_id="a", channels=(NiftiFile("a.nii"),), annotation=NiftiFile("b.nii"))
    check_sizes([case], {"a.nii": MAX_BYTES, "b.nii": 0})
    with pytest.raises(
        DataError, match=r"b\.nii has 5\.0 GiB, more than the 4 GiB .*data\.exclude=\[\"a\"\]'"
    ):
        check_sizes([case], {"a.nii": 1, "b.nii": 5 * 2**30})


def test_names_with_spaces_and_letters_of_all_languages(raw: Path, tmp_path: Path) -> None:
    names = ["Müller 1", "患者 二", "пациент", "a'b\"c#d%20?e"]
    for number, name in enumerate(names):
        for folder in ("imagesTr", "labelsTr"):
            source = raw / folder / f"case_{number:03d}.nii.gz"
            source.rename(source.with_name(f"{name}.nii.gz"))
    # A Mac writes ü as u and two dots; the annotation still finds its scan.
    decomposed = "Mu\N{COMBINING DIAERESIS}ller 1.nii.gz"
    (raw / "labelsTr" / "Müller 1.nii.gz").rename(raw / "labelsTr" / decomposed)
    version = prepare_dataset(str(raw), Store(str(tmp_path / "störe x")), TINY, use_ray=False)
    assert {case.case_id for case in version.cases if case.annotated} == set(names)
    for name in names:
        assert version.read_case(name)[1] is not None


def test_names_that_are_no_text_are_refused(raw: Path) -> None:
    (raw / "imagesUn").joinpath(os.fsdecode(b"caf\xe9.nii.gz")).touch()
    with pytest.raises(DataError, match=r"caf\\xe9\.nii\.gz' is not valid UTF-8: rename"):
        list_folder(Store(str(raw)))


def test_bounds_are_what_the_documentation_says() -> None:
    assert MAX_BYTES == 4 * 2**30
    assert gunzip(gzip.compress(bytes(1000)), 10) == bytes(10)
