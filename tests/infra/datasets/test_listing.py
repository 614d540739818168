"""What a raw folder may hold besides scans: links, and names in all languages."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from arco_core.errors import DataError
from infra.datasets import prepare_dataset
from infra.datasets.readers.detect import read_raw
from infra.datasets.readers.listing import list_folder
from infra.storage import Store

from .conftest import TINY


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


def test_links_in_a_circle_are_refused(raw: Path) -> None:
    (raw / "imagesUn" / "a.nii.gz").symlink_to("b.nii.gz")
    (raw / "imagesUn" / "b.nii.gz").symlink_to("a.nii.gz")
    with pytest.raises(DataError, match=r"imagesUn/[ab]\.nii\.gz is a link to itself"):
        list_folder(Store(str(raw)))


def test_links_in_hidden_folders_are_left_alone(raw: Path, tmp_path: Path) -> None:
    """As the files there are; version control keeps links of its own."""
    (raw / ".git" / "annex").mkdir(parents=True)
    (raw / ".git" / "annex" / "link").symlink_to(tmp_path)
    (raw / "imagesUn" / "Icon\r").touch()
    assert len(read_raw(Store(str(raw))).cases) == 6


def test_a_folder_that_is_not_there(raw: Path) -> None:
    with pytest.raises(DataError, match=r"raw/nothing does not exist: give the folder of the scans"):
        read_raw(Store(str(raw / "nothing")))
    with pytest.raises(DataError, match=r"dataset\.json is a file, not a folder"):
        read_raw(Store(str(raw / "dataset.json")))


def test_files_that_are_no_scans_by_their_names_are_told(raw: Path) -> None:
    """A label map with a mistyped ending leaves its scan unlabelled, and an unlabelled scan vanishes."""
    assert read_raw(Store(str(raw))).notes == ()
    (raw / "labelsTr" / "case_000.nii.gz").rename(raw / "labelsTr" / "case_000.NII.GZ")
    (raw / "labelsTr" / "case_001.nii.gz").rename(raw / "labelsTr" / "case_001.nii.gz.part")
    (raw / "labelsTr" / "notes").touch()
    (raw / "imagesUn" / "case_004.nii.gz").rename(raw / "imagesUn" / "case_004.mha")
    dataset = read_raw(Store(str(raw)))
    assert dataset.notes == (
        "labelsTr/ has files that no case takes (1 .NII.GZ, 1 .part, 1 without ending), "
        "such as labelsTr/case_000.NII.GZ",
        "imagesUn/ has files that no case takes (1 .mha), such as imagesUn/case_004.mha",
    )
    assert sum(case.annotation is not None for case in dataset.cases) == 2


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


@pytest.mark.parametrize("letter", ["\n", "\x1b", "\u2028", "\x85"])
def test_names_with_control_characters_are_refused(raw: Path, letter: str) -> None:
    (raw / "imagesUn" / f"a{letter}b.nii.gz").touch()
    with pytest.raises(DataError, match="has control characters: rename") as caught:
        list_folder(Store(str(raw)))
    assert letter not in str(caught.value)
