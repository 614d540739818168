"""Empty objects whose keys end in `/`, as S3 consoles make them for "new folder", are no scans."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath

import boto3
import pytest

from infra.datasets import prepare_dataset
from infra.datasets.readers.detect import read_raw
from infra.storage import Store
from tests.conftest import write_msd_folder

from .conftest import TINY
from .raw_files import dicom_series, scan, write_dicom, write_nifti

pytestmark = pytest.mark.s3


def add_folder_objects(store: Store) -> None:
    """One for the root and each folder below, and for two that hold nothing else."""
    bucket, _, prefix = store.url.removeprefix("s3://").partition("/")
    folders = {str(parent) for path in store.list() for parent in PurePosixPath(path).parents} - {"."}
    client = boto3.session.Session().client("s3")
    for folder in ("", *(f"{folder}/" for folder in folders), "empty/", "imagesUn/"):
        client.put_object(Bucket=bucket, Key=f"{prefix}/{folder}", Body=b"")


def write_dicom_archive(folder: Path) -> Path:
    for number in range(3):
        write_dicom(folder / f"p{number}" / "ct", dicom_series(scan(number)[0]))
    return folder


def write_lits(folder: Path) -> Path:
    for number in range(4):
        image, label = scan(number, classes=3)
        write_nifti(folder / f"volume-{number}.nii", image)
        write_nifti(folder / f"segmentation-{number}.nii", label)
    return folder


def write_msd(folder: Path) -> Path:
    return write_msd_folder(folder, patients=4, labeled=4)  # imagesUn/ holds a folder object alone


@pytest.mark.parametrize("write", [write_dicom_archive, write_lits, write_msd])
def test_folders_are_read_alike_with_folder_objects(
    aws: None, tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    store = Store(f"s3://arco/{tmp_path.name}/raw")
    Store(f"s3://arco/{tmp_path.name}").upload_folder(write(tmp_path / "raw"), "raw")
    before = read_raw(store)
    listed = store.list()
    add_folder_objects(store)
    assert store.list() == listed
    assert read_raw(store) == before


def test_a_folder_with_folder_objects_is_prepared(aws: None, tmp_path: Path) -> None:
    raw = Store(f"s3://arco/{tmp_path.name}/raw")
    Store(f"s3://arco/{tmp_path.name}").upload_folder(write_msd(tmp_path / "raw"), "raw")
    add_folder_objects(raw)
    store = Store(f"s3://arco/{tmp_path.name}/store")
    assert len(prepare_dataset(raw.url, store, TINY, use_ray=False).cases) == 4
