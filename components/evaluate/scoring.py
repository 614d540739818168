"""Predict and score every annotated case of a split with every model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from arco_core.config import DataConfig
from arco_core.dice import confusion_matrix
from arco_core.errors import DataError
from arco_core.inference import segment_scan
from arco_core.metrics import TOLERANCE_MM, ClassScore, Convention, score_case
from arco_core.preprocess import prepare_label
from components.evaluate.slices import DrawnBy, SliceWriter, cut_slice
from components.model_ref import ModelRef
from infra.datasets import CaseEntry, DatasetVersion
from infra.progress import Progress
from infra.training.load import load_network
from infra.training.stage_job import StageJob
from infra.training.worker import finished

CheckpointName = Literal["last", "best"]
CHECKPOINTS: tuple[CheckpointName, ...] = ("last", "best")


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A model to evaluate, and the job that it came from."""

    ref: ModelRef
    network: nn.Module
    job: StageJob
    step: int
    """Optimiser steps of the last stage behind it."""
    checkpoints: tuple[CheckpointName, ...] = ("last",)
    """Which of its training's checkpoints it is: the last, the best on validation, or both."""

    def segment(
        self, images: npt.NDArray[np.float32], case: CaseEntry, data: DataConfig
    ) -> npt.NDArray[np.uint8]:
        """Class indices (X, Y, Z) of `case` on its own grid, from its prepared `images` (N, C, *S)."""
        device, inference = next(self.network.parameters()).device, self.job.settings.inference
        return segment_scan(self.network, images, case.geometry, data.image_size, inference, device=device)


@dataclass(frozen=True, kw_only=True)
class CaseScore:
    """The score of one structure in one volume by one model."""

    method: str
    labeled: int
    """Labelled patients that it was trained on."""
    seed: int
    checkpoint: CheckpointName
    patient_id: str
    case_id: str
    score: ClassScore


ModelKey = tuple[str, int, CheckpointName]
"""Method, seed and checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What came of scoring models on one set of cases."""

    cases: list[CaseScore] = field(default_factory=list)
    confusion: dict[ModelKey, npt.NDArray[np.int64]] = field(default_factory=dict)
    """Voxels by reference class (row) and predicted class (column), over all cases."""

    def of(self, checkpoint: CheckpointName) -> list[CaseScore]:
        """The scores of every training's `last` or `best` checkpoint."""
        return [s for s in self.cases if s.checkpoint == checkpoint]


def load_models(refs: Sequence[ModelRef], version: DatasetVersion, split: str) -> list[TrainedModel]:
    """Load the networks, onto a GPU where there is one, and check that scoring them on `split` is fair.

    Behind each model that was validated during training comes its best checkpoint, where that is another one.

    Raises:
        DataError: there is no model or one twice, a model knows other classes than the dataset, was trained
            on patients of `split` or has left no result, or models of one seed were trained on different
            labelled patients, or models on different numbers of them.
    """
    keys = [(ref.method, ref.seed) for ref in refs]
    if not refs or len(set(keys)) < len(keys):
        raise DataError(f"models to evaluate {keys}: name at least one, and each method and seed once.")
    models = [model for ref in refs for model in _load(ref)]
    for model in models:
        _check_model(model, version, split)
    _check_same_labels(models)
    return models


def _load(ref: ModelRef) -> Iterator[TrainedModel]:
    network, job = load_network(ref.checkpoint)
    result = finished(job)
    if result is None:
        raise DataError(f"{job.title}: {job.run_url}/{job.folder} holds no result: run the stage again.")
    gpu = job.settings.run.device != "cpu" and torch.cuda.is_available()
    device, best = "cuda" if gpu else "cpu", result.best
    last_is_best = best is not None and best.step == result.steps
    yield TrainedModel(
        ref=ref,
        network=network.to(device),
        job=job,
        step=result.steps,
        checkpoints=CHECKPOINTS if last_is_best else ("last",),
    )
    if best is not None and not last_is_best:
        network, _ = load_network(best.checkpoint_url)
        yield TrainedModel(
            ref=ref, network=network.to(device), job=job, step=best.step, checkpoints=("best",)
        )


def annotated_cases(version: DatasetVersion, split: str) -> list[CaseEntry]:
    """The cases of `split` that have a reference. Raises `DataError` when there is none."""
    cases = [case for case in version.cases_of(version.patients(split)) if case.annotated]
    if not cases:
        raise DataError(
            f"{version.url} has no annotated case in its {split} split, so nothing to score against: "
            f"raise data.{split}_fraction, or evaluate another split."
        )
    return cases


def score_models(
    version: DatasetVersion,
    models: Sequence[TrainedModel],
    split: str,
    *,
    convention: Convention,
    tolerance_mm: float = TOLERANCE_MM,
    slices: SliceWriter | None = None,
) -> Scores:
    """Scores of every model, annotated case and structure, on the original grids.

    A slice of each case goes to `slices`, with what the last checkpoints drew on it.
    """
    cases = annotated_cases(version, split)
    scores = Scores()
    classes, known = version.classes, version.manifest.spacing_known
    with Progress(f"evaluate, {split}", total=len(cases), unit="volumes") as progress:
        for done, case in enumerate(cases, start=1):
            images, labels = version.read_case(case.case_id)
            reference = version.reference(case.case_id)
            if reference is None or labels is None:
                raise DataError(
                    f"{version.url} has no reference of the annotated case {case.case_id}: prepare it again."
                )
            drawn: dict[DrawnBy, npt.NDArray[np.uint8]] = {}
            for model in models:
                mask = model.segment(images, case, version.data_config)
                if "last" in model.checkpoints:
                    drawn[model.ref.method, model.ref.seed] = prepare_label(mask, case.geometry)
                found = score_case(
                    mask, reference, case.geometry.voxel_spacing_mm if known else None, classes,
                    convention=convention, tolerance_mm=tolerance_mm,
                )  # fmt: skip
                _add(scores, model, case, found, confusion_matrix(mask, reference, len(classes)))
            if slices is not None:
                slices.add(cut_slice(case, images, labels, drawn))
            progress.update(done)
    return scores


def _add(
    scores: Scores,
    model: TrainedModel,
    case: CaseEntry,
    found: Sequence[ClassScore],
    confusion: npt.NDArray[np.int64],
) -> None:
    for checkpoint in model.checkpoints:
        scores.cases.extend(
            CaseScore(
                method=model.ref.method,
                labeled=len(model.job.labeled_patients),
                seed=model.ref.seed,
                checkpoint=checkpoint,
                patient_id=case.patient_id,
                case_id=case.case_id,
                score=score,
            )
            for score in found
        )
        key = (model.ref.method, model.ref.seed, checkpoint)
        scores.confusion[key] = scores.confusion.get(key, 0) + confusion


def _check_model(model: TrainedModel, version: DatasetVersion, split: str) -> None:
    job = model.job
    if job.classes != version.classes or job.channels != version.channels:
        raise DataError(
            f"{model.ref.checkpoint} was trained for {job.channels} channel(s) and the classes "
            f"{', '.join(job.classes)}; {version.url} has {version.channels} and "
            f"{', '.join(version.classes)}: evaluate it on the dataset that it was trained on."
        )
    seen = sorted(set(job.labeled_patients) & set(version.patients(split)))
    if seen:
        raise DataError(
            f"{model.ref.checkpoint} was trained on the labels of {', '.join(seen)}, which are in the "
            f"{split} split: evaluate it on patients that it has not seen."
        )


def _check_same_labels(models: Sequence[TrainedModel]) -> None:
    """Methods are compared seed by seed, which is fair only with the same labels; tables need one amount."""
    first: dict[int, TrainedModel] = {}
    for model in models:
        other = first.setdefault(model.ref.seed, model)
        if set(other.job.labeled_patients) != set(model.job.labeled_patients):
            raise DataError(
                f"seed {model.ref.seed}: {other.ref.method} was trained on "
                f"{', '.join(other.job.labeled_patients)}, {model.ref.method} on "
                f"{', '.join(model.job.labeled_patients)}: train both on the same labelled patients."
            )
    amounts = sorted({len(model.job.labeled_patients) for model in models})
    if len(amounts) > 1:
        raise DataError(
            f"models trained on {', '.join(map(str, amounts))} labelled patients: evaluate each amount into "
            "a run folder of its own, and set them side by side with arco compare."
        )
