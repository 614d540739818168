"""The Decathlon's and nnU-Net's folders become the same cases."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from arco_core.errors import DataError
from infra.datasets import prepare_dataset
from infra.datasets.readers.base import RawDataset
from infra.datasets.readers.listing import list_folder
from infra.datasets.readers.msd import READER
from infra.storage import Store

from .conftest import TINY

MSD = {"name": "Heart", "modality": {"0": "MRI"}, "labels": {"1": "lv", "0": "background", "2": "rv"}}
NNUNET = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "lv": 1}}


def folder(root: Path, description: dict[str, object], *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    (root / "dataset.json").write_text(json.dumps(description))
    return root


def read(root: Path) -> RawDataset:
    return READER.read(list_folder(Store(str(root))))


def test_decathlon_folder(tmp_path: Path) -> None:
    dataset = read(
        folder(
            tmp_path,
            MSD,
            "imagesTr/b 2.nii.gz",
            "imagesTr/a_0001.nii",
            "imagesTr/._a_0001.nii",
            "imagesTr/readme.txt",
            "labelsTr/a_0001.nii.gz",
            "imagesUn/ü.nii.gz",
            "imagesTs/held_out.nii.gz",
        )
    )
    assert (dataset.name, dataset.classes, dataset.channels) == ("Heart", ("background", "lv", "rv"), 1)
    assert [(c.case_id, c.patient_id, c.image_paths, c.label_paths) for c in dataset.cases] == [
        ("a_0001", "a_0001", ("imagesTr/a_0001.nii",), ("labelsTr/a_0001.nii.gz",)),
        ("b 2", "b 2", ("imagesTr/b 2.nii.gz",), ()),
        ("ü", "ü", ("imagesUn/ü.nii.gz",), ()),
    ]


def test_nnunet_folder_groups_channels(tmp_path: Path) -> None:
    dataset = read(
        folder(
            tmp_path,
            NNUNET,
            "imagesTr/x_0001.nii.gz",
            "imagesTr/x_0000.nii.gz",
            "labelsTr/x.nii.gz",
        )
    )
    assert (dataset.classes, dataset.channels) == (("background", "lv"), 2)
    assert dataset.cases[0].image_paths == ("imagesTr/x_0000.nii.gz", "imagesTr/x_0001.nii.gz")
    assert dataset.cases[0].label_paths == ("labelsTr/x.nii.gz",)


def test_first_nnunet_generation_is_known_by_its_labels(tmp_path: Path) -> None:
    dataset = read(folder(tmp_path, MSD, "imagesTr/x_0000.nii.gz", "labelsTr/x.nii.gz"))
    assert [case.case_id for case in dataset.cases] == ["x"]


def test_patients_may_have_several_cases(tmp_path: Path) -> None:
    description = MSD | {"patients": {"p1_es": "p1", "p1_ed": "p1"}}
    dataset = read(folder(tmp_path, description, *(f"imagesTr/{c}.nii.gz" for c in ("p1_es", "p1_ed", "p2"))))
    assert [case.patient_id for case in dataset.cases] == ["p1", "p1", "p2"]


def test_patients_of_names_in_decomposed_letters(tmp_path: Path) -> None:
    """As a Mac writes them, in the file's name or in the description, case and patient alike."""
    composed, decomposed = "é", "e\N{COMBINING ACUTE ACCENT}"
    description = MSD | {"patients": {f"{composed}1": "pé", f"{decomposed}2": f"p{decomposed}"}}
    dataset = read(folder(tmp_path, description, f"imagesTr/{decomposed}1.nii", f"imagesTr/{composed}2.nii"))
    assert [(c.case_id, c.patient_id) for c in dataset.cases] == [("é1", "pé"), ("é2", "pé")]


def test_annotated_test_scans_are_the_test_split(tmp_path: Path) -> None:
    description = MSD | {"patients": {"t1": "p1", "t2": "p1", "left": "p2"}}
    files = ("imagesTr/a.nii", "labelsTr/a.nii", "imagesTs/t1.nii", "imagesTs/t2.nii", "imagesTs/left.nii")
    dataset = read(folder(tmp_path, description, *files, "labelsTs/t1.nii", "labelsTs/t2.nii.gz"))
    assert [(c.case_id, *c.image_paths, *c.label_paths) for c in dataset.cases] == [
        ("a", "imagesTr/a.nii", "labelsTr/a.nii"),
        ("t1", "imagesTs/t1.nii", "labelsTs/t1.nii"),
        ("t2", "imagesTs/t2.nii", "labelsTs/t2.nii.gz"),
    ]
    assert dataset.held_out == {"test": ("p1",)}


def test_annotated_test_scans_are_prepared_as_the_test_split(
    raw: Path, tmp_path: Path, describe: Callable[..., None]
) -> None:
    """With all scans of their patients, as no patient may be in two splits."""
    for part in ("images", "labels"):
        (raw / f"{part}Ts").mkdir()
        (raw / f"{part}Tr" / "case_003.nii.gz").rename(raw / f"{part}Ts" / "case_003.nii.gz")
    describe(raw, patients={"case_003": "p", "case_004": "p"})
    version = prepare_dataset(str(raw), Store(str(tmp_path / "store")), TINY, use_ray=False)
    assert version.patients("test") == ("p",)
    assert {case.case_id: case.annotated for case in version.cases if case.patient_id == "p"} == {
        "case_003": True,
        "case_004": False,
    }


def test_channels_of_test_scans(tmp_path: Path) -> None:
    files = ("imagesTr/a_0000.nii", "imagesTr/a_0001.nii", "imagesTs/t_0000.nii", "imagesTs/t_0001.nii")
    dataset = read(folder(tmp_path, NNUNET, *files, "labelsTs/t.nii", "imagesTs/left_0001.nii"))
    assert [(c.case_id, len(c.channels)) for c in dataset.cases] == [("a", 2), ("t", 2)]
    assert dataset.held_out == {"test": ("t",)}


def test_test_scans_without_annotations_are_left_alone(tmp_path: Path) -> None:
    dataset = read(folder(tmp_path, MSD, "imagesTr/a.nii", "imagesTs/a.nii", "imagesTs/a.nii.gz"))
    assert ([c.case_id for c in dataset.cases], dataset.held_out) == (["a"], {})


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            ("labelsTr/a.nii", "labelsTr/a.nii.gz"),
            r"'a' has several label maps: labelsTr/a\.nii, labels",
        ),
        (
            ("imagesTs/a.nii", "labelsTs/a.nii"),
            "'a' exists more than once: imagesTr/a.nii, imagesTs/a.nii;",
        ),
        (("imagesTs/t.nii", "labelsTs/u.nii"), r"1 label maps have no image: u; each labelsTs/<case>"),
    ],
)
def test_contradicting_files_are_refused(tmp_path: Path, files: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(folder(tmp_path, MSD, "imagesTr/a.nii", *files))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("x_0000.nii", "x_0000.nii.gz"), "'x' exists more than once"),
        (("x.nii", "x_0000.nii"), "'x' exists more than once"),
        (("x_0000.nii", "x_0002.nii"), "'x' lacks channels: it has imagesTr/x_0000.nii, imagesTr/x_0002.nii"),
        (("x_0001.nii",), "'x' lacks channels"),
    ],
)
def test_channels_that_are_not_what_they_count_as(
    tmp_path: Path, files: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read(folder(tmp_path, NNUNET, *(f"imagesTr/{name}" for name in files)))


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no scans; it must hold imagesTr/\*\.nii\.gz"):
        read(tmp_path)


def test_labels_without_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has labels but no images"):
        read(folder(tmp_path, MSD, "labelsTr/a.nii.gz"))
    with pytest.raises(DataError, match="1 label maps have no image: a;"):
        read(folder(tmp_path, MSD, "imagesTr/b.nii.gz"))


def test_case_in_two_places_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="case 'a' exists more than once"):
        read(folder(tmp_path, MSD, "imagesTr/a.nii.gz", "imagesUn/a.nii.gz"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, "lacks the key 'labels'"),
        ({"modality": None}, "lacks the key 'modality'"),
        ({"labels": {}}, "must be a table"),
        ({"labels": {"0": "background", "2": "x"}}, "without gaps"),
        ({"labels": {"background": 0, "a": None}}, "one number with one name"),
        ({"labels": {"0": "background", "1": "x", "2": "x"}}, "has the name 'x' more than once"),
        ({"labels": {"0": "background", "1": ""}}, "has the name '' more than once, or none"),
        ({"labels": {str(n): f"c{n}" for n in range(257)}}, "has 257 classes; each of at most 256 values"),
        (
            {"labels": {"background": 0, "whole": [1, 2], "core": 2}},
            r"regions \(whole\), which overlap",
        ),
        (
            {"labels": {"background": 0, "a": 1, "ignore": 2}},
            "'ignore' = 2; ARCO takes every voxel",
        ),
        ({"patients": ["a"]}, "'patients'"),
        ({"patients": {"case_000": 5}}, "'patients' gives case_000 no name"),
        ({"patients": {"case_000.nii.gz": "p"}}, r"case_000\.nii\.gz, no case .* \(nearest .*: 'case_000'\)"),
        ({"patients": {"é": "p", "e\N{COMBINING ACUTE ACCENT}": "q"}}, "'patients' gives 'é' two patients"),
        ({"name": "\ud800"}, "is not JSON: .*surrogates not allowed"),
    ],
)
def test_bad_description_is_refused(
    raw: Path, describe: Callable[..., None], changes: dict[str, object], message: str
) -> None:
    describe(raw, channel_names=None, modality={"0": "MRI"})
    describe(raw, **changes)
    with pytest.raises(DataError, match=message):
        read(raw)


@pytest.mark.parametrize(
    ("content", "message"), [(None, "does not exist"), ("{", "not JSON"), ("[]", "object")]
)
def test_unreadable_description_is_refused(raw: Path, content: str | None, message: str) -> None:
    (raw / "dataset.json").unlink()
    if content is not None:
        (raw / "dataset.json").write_text(content)
    with pytest.raises(DataError, match=f"dataset.json.*{message}"):
        read(raw)
