"""Whether a new model may take the place of the one in service: the rule, and the scores that it goes by.

The rule is one of non-inferiority, class by class. On the frozen test patients, d is the difference of a
patient's Dice, new minus old, the mean over the patient's volumes. Patients are resampled with replacement,
5000 times. The new model passes in a class when the 5th percentile of the mean of d, the lower end of a
one-sided 95 % interval, is above -margin; it is promoted when it passes in every class. A class that fewer
than `min_patients` have, in reference or prediction, is not judged, and then nothing is promoted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from arco_core.errors import DataError
from components.evaluate.scoring import CaseScore, TrainedModel, score_models
from components.evaluate.statistics import RESAMPLES, bootstrap_means
from components.model_ref import ModelRef
from infra.datasets import DatasetVersion
from infra.training.load import load_network

OLD, NEW = "in service", "new"
_PERCENTILE = 5.0


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the rule says."""

    promote: bool
    reason: str
    rule: str
    classes: tuple[dict[str, Any], ...]
    """Of each class: name, patients, mean Dice of both, difference, lower bound, whether it passes."""


def judge(
    *, dataset: str, split: str, frozen: Sequence[str], old: str, new: str, margin: float, min_patients: int
) -> Verdict:
    """Score the checkpoints `old` and `new` on the frozen patients, and apply the rule.

    Args:
        dataset: URL of a dataset version that holds the patients in `split`.
        split: of the patients.
        frozen: the patients.
        old: URL of the checkpoint behind the model in service.
        new: URL of the new model's checkpoint.
        margin: Dice that may be lost.
        min_patients: that it takes to judge a class.

    Raises:
        DataError: the dataset has lost a frozen patient, or a model knows other classes.
        StoreError: something cannot be read.
    """
    version = DatasetVersion.open(dataset)
    lost = sorted(set(frozen) - set(version.patients(split)))
    if lost:
        raise DataError(f"{dataset}: the frozen patients {', '.join(lost)} are not in its {split} split")
    models = [_model(name, url, version, frozen) for name, url in ((OLD, old), (NEW, new))]
    scores = score_models(version, models, split, convention="arco")
    chosen = [score for score in scores.cases if score.patient_id in set(frozen)]
    return decide(chosen, margin=margin, min_patients=min_patients)


def decide(scores: Sequence[CaseScore], *, margin: float, min_patients: int) -> Verdict:
    """The rule, on the scores of the models `OLD` and `NEW`."""
    names = list(dict.fromkeys(score.score.class_name for score in scores))
    rows = tuple(_row(name, scores, margin, min_patients) for name in names)
    rule = (
        f"in every class, the 5th percentile of the mean difference of Dice over {RESAMPLES} resamples of "
        f"the patients must be above -{margin:g}; {min_patients} patients are needed"
    )
    failed = [row for row in rows if not row["passes"]]
    if not failed:
        reason = "not worse in any class by more than the margin"
    else:
        reason = "; ".join(
            f"{row['class']}: only {row['patients']} patients"
            if row["lower"] is None
            else f"{row['class']}: the difference may be as low as {row['lower']:.4f}"
            for row in failed
        )
    return Verdict(promote=bool(rows) and not failed, reason=reason, rule=rule, classes=rows)


def _row(name: str, scores: Sequence[CaseScore], margin: float, min_patients: int) -> dict[str, Any]:
    of_class = [score for score in scores if score.score.class_name == name]
    patients = sorted({score.patient_id for score in of_class})
    old, new = (_by_patient(of_class, model, patients) for model in (OLD, NEW))
    there = {s.patient_id for s in of_class if s.score.reference_voxels or s.score.predicted_voxels}
    both = np.array([patient in there for patient in patients])
    row: dict[str, Any] = {"class": name, "patients": int(both.sum()), "old": None, "new": None}
    row |= {"difference": None, "lower": None, "passes": False}
    if both.any():
        differences = new[both] - old[both]
        row |= {"old": float(old[both].mean()), "new": float(new[both].mean())}
        row["difference"] = float(differences.mean())
        if both.sum() >= min_patients:
            means = bootstrap_means(differences, np.arange(len(differences)))
            row["lower"] = float(np.percentile(means, _PERCENTILE))
            row["passes"] = row["lower"] > -margin
    return row


def _by_patient(scores: Sequence[CaseScore], model: str, patients: Sequence[str]) -> npt.NDArray[np.float64]:
    """Mean Dice over each patient's volumes."""
    found = [[s.score.dice for s in scores if (s.method, s.patient_id) == (model, p)] for p in patients]
    return np.array([np.mean(values) for values in found])


def _model(name: str, url: str, version: DatasetVersion, frozen: Sequence[str]) -> TrainedModel:
    network, job = load_network(url)
    if job.classes != version.classes or job.channels != version.channels:
        raise DataError(
            f"{url} was trained for the classes {', '.join(job.classes)}, not for {version.url}'s"
        )
    seen = sorted(set(job.labeled_patients) & set(frozen))
    if seen:
        raise DataError(f"{url} was trained on the labels of frozen patients: {', '.join(seen)}")
    ref = ModelRef(method=name, seed=job.seed, checkpoint=url)
    return TrainedModel(ref=ref, network=network, job=job, step=job.steps)
