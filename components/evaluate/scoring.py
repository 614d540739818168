"""Predict and score every annotated case of a split with every model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from arco_core.errors import DataError
from arco_core.inference import segment_prepared
from arco_core.metrics import ClassScore, Convention, score_case
from arco_core.preprocess import restore_label
from components.model_ref import ModelRef
from infra.datasets import CaseEntry, DatasetVersion
from infra.progress import Progress
from infra.training.load import load_network
from infra.training.stage_job import StageJob


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A model to evaluate, and the job that it came from."""

    ref: ModelRef
    network: nn.Module
    job: StageJob

    def segment(self, images: npt.NDArray[np.float32], image_size: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        """Class indices (N, *S) of slices or volumes (N, C, *S), prepared for `image_size`."""
        device = next(self.network.parameters()).device
        return segment_prepared(self.network, images, image_size, self.job.settings.inference, device=device)


@dataclass(frozen=True, kw_only=True)
class CaseScore:
    """The score of one structure in one volume by one model."""

    method: str
    seed: int
    case_id: str
    score: ClassScore


def load_models(refs: Sequence[ModelRef], version: DatasetVersion, split: str) -> list[TrainedModel]:
    """Load the networks, onto a GPU where there is one, and check that scoring them on `split` is fair.

    Raises:
        DataError: there is no model or one twice, a model knows other classes than the dataset or was trained
            on patients of `split`, or models of one seed were trained on different labelled patients.
    """
    keys = [(ref.method, ref.seed) for ref in refs]
    if not refs or len(set(keys)) < len(keys):
        raise DataError(f"models to evaluate {keys}: name at least one, and each method and seed once.")
    models = []
    for ref in refs:
        network, job = load_network(ref.checkpoint)
        gpu = job.settings.run.device != "cpu" and torch.cuda.is_available()
        models.append(TrainedModel(ref=ref, network=network.to("cuda" if gpu else "cpu"), job=job))
    for model in models:
        _check_model(model, version, split)
    _check_same_labels(models)
    return models


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
    version: DatasetVersion, models: Sequence[TrainedModel], split: str, *, convention: Convention
) -> list[CaseScore]:
    """Scores of every model, annotated case and structure, on the original grids."""
    cases = annotated_cases(version, split)
    scores: list[CaseScore] = []
    with Progress(f"evaluate, {split}", total=len(cases), unit="volumes") as progress:
        for done, case in enumerate(cases, start=1):
            scores += _score_case(version, models, case, convention)
            progress.update(done)
    return scores


def _score_case(
    version: DatasetVersion, models: Sequence[TrainedModel], case: CaseEntry, convention: Convention
) -> list[CaseScore]:
    images, _ = version.read_case(case.case_id)
    reference = version.reference(case.case_id)
    if reference is None:
        raise DataError(
            f"{version.url} has no reference of the annotated case {case.case_id}: prepare it again."
        )
    scores = []
    for model in models:
        mask = restore_label(model.segment(images, version.data_config.image_size), case.geometry)
        scores += [
            CaseScore(method=model.ref.method, seed=model.ref.seed, case_id=case.case_id, score=score)
            for score in score_case(
                mask, reference, case.geometry.voxel_spacing_mm, version.classes, convention=convention
            )
        ]
    return scores


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
    """Methods are compared seed by seed, which is fair only with the same labels."""
    first: dict[int, TrainedModel] = {}
    for model in models:
        other = first.setdefault(model.ref.seed, model)
        if set(other.job.labeled_patients) != set(model.job.labeled_patients):
            raise DataError(
                f"seed {model.ref.seed}: {other.ref.method} was trained on "
                f"{', '.join(other.job.labeled_patients)}, {model.ref.method} on "
                f"{', '.join(model.job.labeled_patients)}: train both on the same labelled patients."
            )
