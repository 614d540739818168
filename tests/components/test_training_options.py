from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from arco_core.config import ConfigError, load
from arco_core.errors import DataError
from components.training_options import (
    ALL_LABELED,
    TrainingOptions,
    labeled_amount,
    labeled_patients,
    parse_training_options,
    train,
)
from infra.datasets import DatasetVersion


@pytest.mark.parametrize(("text", "amount"), [("2", 2.0), ("0.05", 0.05), ("all", ALL_LABELED)])
def test_amounts_of_labels(text: str, amount: float) -> None:
    assert labeled_amount(text) == amount


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "two", "nan"])
def test_impossible_amounts_of_labels(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=f"'{text}'.*or all"):
        labeled_amount(text)


def test_all_labels_are_those_of_the_training_patients(tiny_dataset: str) -> None:
    version = DatasetVersion.open(tiny_dataset)
    chosen = labeled_patients(version, ALL_LABELED, seed=0)
    annotated = {case.patient_id for case in version.cases if case.annotated}
    assert set(chosen) == annotated - set(version.patients("validation"))
    assert labeled_patients(version, 2, seed=0) == chosen[:2]


def test_the_command_line_of_a_step() -> None:
    arguments = ["--dataset", "d", "--run", "r", "--labeled", "3", "--set", "run.workers=1", "--init", "c.pt"]
    options, extra = parse_training_options("finetune", "", arguments)
    assert (options.dataset, options.run, options.labeled) == ("d", "r", 3.0)
    assert options.overrides == ["run.workers=1"]
    assert extra == {"init": "c.pt", "continued": False, "check": False, "result": None}


def test_stage_two_needs_stage_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_training_options("finetune", "", ["--dataset", "d", "--run", "r"])
    assert "--init" in capsys.readouterr().err


def test_a_network_for_patches_refuses_slices(tiny_dataset: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"image_size = \[32, 32\], and network.kind = 'vnet' takes 3 sides"):
        train("supervised", TrainingOptions(dataset=tiny_dataset, run=str(tmp_path), preset="la"))


def test_labelled_patients_by_name(tiny_dataset: str) -> None:
    arguments = ["--dataset", "d", "--run", "r", "--labeled-patients", "case_003, case_000"]
    options, _ = parse_training_options("supervised", "", arguments)
    names = load(overrides=options.overrides).run.labeled_patients
    assert names == ("case_003", "case_000")
    version = DatasetVersion.open(tiny_dataset)
    train = [p for group in version.manifest.label_groups for p in group]
    assert labeled_patients(version, ALL_LABELED, 0, train[:2]) == tuple(train[:2])
    assert labeled_patients(version, ALL_LABELED, 1, train[:2]) == tuple(train[:2])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nobody", "'nobody' does not exist; annotated train patients are case_0"),
        ("case_005", "'case_005' is not annotated: name annotated train patients only"),
        ("validation", "is held out for validation"),
    ],
)
def test_names_that_cannot_be_labelled(tiny_dataset: str, name: str, message: str) -> None:
    version = DatasetVersion.open(tiny_dataset)
    name = version.patients("validation")[0] if name == "validation" else name
    with pytest.raises(DataError, match=message):
        labeled_patients(version, ALL_LABELED, 0, [name])


def test_names_and_an_amount_are_refused(tiny_dataset: str) -> None:
    version = DatasetVersion.open(tiny_dataset)
    with pytest.raises(
        ConfigError, match=r"run\.labeled_patients = \['case_000'\] names .* labeled = 2 asks"
    ):
        labeled_patients(version, 2, 0, ["case_000"])
    with pytest.raises(ConfigError, match="must be different names"):
        load(overrides=["run.labeled_patients=['a','a']"])
