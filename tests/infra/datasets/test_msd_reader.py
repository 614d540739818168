"""The Decathlon's and nnU-Net's folders become the same cases."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from arco_core.errors import DataError
from infra.datasets.readers.base import RawDataset
from infra.datasets.readers.listing import list_folder
from infra.datasets.readers.msd import READER
from infra.storage import Store

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


def test_empty_or_absent_folder_is_refused(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match=r"holds no scans; it must hold imagesTr/\*\.nii\.gz"):
            read(root)


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
        ({"labels": {"background": 0, "whole": [1, 2]}}, "one number with one name"),
        ({"patients": ["a"]}, "'patients'"),
        ({"patients": {"case_000": 5}}, "'patients' gives case_000 no name"),
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
