"""The comparison of methods: what is trained from what, and the table that it prints."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from benchmarks import methods as benchmark
from benchmarks.methods import markdown, train_seed
from components.training_options import TrainingOptions


def scores(dice: dict[str, float], asd: float | None, unit: str = "mm") -> dict[str, Any]:
    distance = {"mean": asd}
    return {"dice": {"per_seed": dice}, f"asd_{unit}": distance, f"hd95_{unit}": distance, "missing": 1}


def summary(methods: dict[str, Any], *, spacing_known: bool = True) -> dict[str, Any]:
    return {"methods": methods, "seeds": [0, 1], "spacing_known": spacing_known, "convention": "arco"}


def test_distances_are_in_voxels_where_their_size_is_not_known() -> None:
    """As of the semi-supervised literature's ACDC files."""
    methods = {"arco-sg": scores({"0": 0.85, "1": 0.9}, 2.5, "voxel")}
    head, _, row = markdown(summary(methods, spacing_known=False)).splitlines()
    assert "| ASD, voxel | HD95, voxel |" in head
    assert row == "| ARCO-SG | 85.0 | 90.0 | 87.5 ± 3.5 | 2.50 | 2.50 | 1 |  |"


def test_a_distance_that_no_volume_has_is_a_dash() -> None:
    methods = {
        "mean-teacher": scores({"0": 0.8, "1": 0.9}, 1.234),
        "arco-sg": scores({"0": 0.85, "1": 0.9}, None),
    }
    rows = markdown(summary(methods)).splitlines()[2:]
    assert rows == [
        "| Mean teacher | 80.0 | 90.0 | 85.0 ± 7.1 | 1.23 | 1.23 | 1 |  |",
        "| ARCO-SG | 85.0 | 90.0 | 87.5 ± 3.5 | – | – | 1 | +2.5 ± 3.5 |",
    ]


def test_methods_share_a_stage_one_of_their_own_framework(monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[str] = []

    def train(stage: str, options: TrainingOptions, init: str | None) -> str:
        settings = dict(setting.split("=") for setting in options.overrides)
        sampler = settings.get("finetune.contrast.sampler", "")
        framework = settings.get("pretrain.framework", "")
        trained.append(f"{stage} {framework} {sampler} of {options.labeled:g} from {init}")
        return f"{stage}-{framework}-{options.labeled:g}"

    monkeypatch.setattr(benchmark, "train", train)
    each = [TrainingOptions(dataset="d", run="r", labeled=labels) for labels in (2.0, 9.0)]
    wanted = ["supervised", "arco-sg", "arco-ns", "arco-sg+simclr"]
    with ThreadPoolExecutor(1) as pool:
        refs = train_seed(pool, wanted, each)  # type: ignore[arg-type]
    expected = []
    for n in (2, 9):
        expected += [
            f"supervised   of {n} from None",
            f"pretrain arco  of {n} from None",
            f"pretrain simclr  of {n} from None",
            f"finetune arco sg of {n} from pretrain-arco-{n}",
            f"finetune arco ns of {n} from pretrain-arco-{n}",
            f"finetune simclr sg of {n} from pretrain-simclr-{n}",
        ]
    assert sorted(trained) == sorted(expected)
    assert [[ref.method for ref in refs[n]] for n in (2.0, 9.0)] == [wanted, wanted]
