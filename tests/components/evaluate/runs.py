"""Evaluated runs of made-up numbers, as an evaluation would leave them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from components.evaluate.results import FORMAT, RunResults
from components.evaluate.scoring import CHECKPOINTS, CaseScore
from components.evaluate.slices import CaseSlice
from components.evaluate.summary import STATISTICS, summarize
from components.evaluate.training_log import Curve, StageLog
from tests.components.evaluate.scores import score

CLASSES = ("background", "ring", "core")
CASES = ("p", "q", "r")
LEVELS = {"supervised": 0.6, "mean-teacher": 0.7, "arco-ns": 0.72, "arco-sg": 0.75}


def make_run(
    methods: Sequence[str] = ("arco-sg", "supervised"),
    seeds: Sequence[int] = (0, 1),
    *,
    url: str = "store/runs/toy",
    labeled: int = 2,
    cases: Sequence[str] = CASES,
    settings: str = "one",
    changes: Mapping[str, Any] | None = None,
    variance: Sequence[Mapping[str, str]] = (),
) -> RunResults:
    """Better with more labels and by later methods; deterministic; a patient has one volume."""
    scores = [
        made_up(method, seed, case, name, checkpoint, labeled)
        for method in methods
        for seed in seeds
        for case in cases
        for name in CLASSES[1:]
        for checkpoint in CHECKPOINTS
    ]
    keys = [(method, seed) for method in methods for seed in seeds]
    confusion = [[900, 10, 10], [20, 70, 10], [0, 25, 75]]
    summary = {
        "format": FORMAT,
        **summarize(scores, "mm"),
        "confusion": {m: {str(s): confusion for s in seeds} for m in methods},
        "statistics": STATISTICS,
        "dataset": "store/datasets/toy/0123456789ab",
        "classes": list(CLASSES),
        "labeled": labeled,
        "train_patients": 40,
        "spacing_known": True,
        "split_patients": {"train": 40, "validation": len(cases), "test": 5},
        "labeled_patients": {str(seed): [f"patient_{n}" for n in range(labeled)] for seed in seeds},
        "seeds": list(seeds),
        "steps": {"finetune": 300},
        "trainings": {
            m: {
                str(s): {
                    "checkpoint": f"{url}/{m}-{s}.pt",
                    "job": f"{m} {s} {settings}",
                    "settings": settings,
                    "code": f"code of {settings}",
                }
                for s in seeds
            }
            for m in methods
        },
        "configs": {m: f'[data]\nname = "{m}"\n' for m in methods},
        "code": "0a1b2c3d4e5f",
        "commit": "cafe01234567",
        "device": "CPU",
        "software": {"arco": "0.1.0", "python": "3.11"},
        "seconds": {"finetune": 12.6, "evaluate": 1.2},
        "split": "validation",
        "cases": len(cases),
        "patients": list(cases),
        "convention": "arco",
        "tolerance_mm": 2.0,
    }
    summary["best_checkpoints"] |= {"optimistic": True}
    return RunResults(
        url=url,
        summary=summary | dict(changes or {}),
        scores=scores,
        logs=[make_log(method, seed, labeled) for method, seed in keys],
        slice_of=lambda case: make_slice(case, keys),
        variance=variance,
    )


def made_up(method: str, seed: int, case: str, name: str, checkpoint: Any, labeled: int) -> CaseScore:
    """One score of `make_run`."""
    dice = LEVELS[method] + 0.02 * seed + 0.03 * CASES.index(case) + 0.01 * (labeled > 2)
    dice += 0.005 * (checkpoint == "best") - 0.01 * (name == "core")
    return score(method, seed, case, name, dice, 3 - dice, checkpoint=checkpoint, labeled=labeled)


def make_log(method: str, seed: int, labeled: int = 2) -> StageLog:
    """A stage's curves."""
    falling: Curve = tuple((float(step), 1.0 / (step + seed)) for step in range(10, 310, 10))
    rising: Curve = tuple((float(step), step / 400) for step in range(30, 330, 30))
    return StageLog(
        stage="supervised" if method == "supervised" else "finetune", seed=seed, method=method,
        labeled=labeled, steps=300, seconds=6.3,
        curves={"loss": falling, "contrast": falling[::2], "validation/dice": rising},
    )  # fmt: skip


def make_slice(case: str, drawn: Sequence[tuple[str, int]]) -> CaseSlice:
    """A square that the reference has a pixel to the right of where all models drew it."""
    image = np.zeros((24, 24), np.uint8)
    image[1:23, 1:23] = np.arange(22, dtype=np.uint8) * 10
    reference, prediction = np.zeros((24, 24), np.uint8), np.zeros((24, 24), np.uint8)
    reference[8:14, 9:16] = 1
    reference[10:12, 11:14] = 2
    prediction[8:14, 8:15] = 1
    return CaseSlice(
        case_id=case, slice_number=3, slices=9, pixel_mm=(1.0, 2.0), image=image, reference=reference,
        predictions=dict.fromkeys(drawn, prediction),
    )  # fmt: skip
