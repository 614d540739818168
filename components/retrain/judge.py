"""Whether a new model may take the place of the one in service: the rule, and the scores that it goes by.

The rule is one of non-inferiority, class by class. On the frozen test patients, d is the difference of a
patient's Dice, new minus old, the mean over the patient's volumes. Patients are resampled with replacement,
5000 times. The new model passes in a class when the 5th percentile of the mean of d, the lower end of a
one-sided 95 % interval, is above -margin; it is promoted when it passes in every class. A class that fewer
than `min_patients` have, in reference or prediction, is not judged, and then nothing is promoted.

A margin a night would add up. So the same must hold against the best of the models that the one in service
comes from, in each class the release with the highest mean Dice on the same patients and references.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from arco_core.errors import DataError
from components.evaluate.scoring import CaseScore, TrainedModel, score_models
from components.evaluate.statistics import RESAMPLES, bootstrap_means
from components.model_ref import ModelRef
from infra.datasets import DatasetVersion
from infra.training.load import load_network

OLD, NEW = "in service", "new"
_PERCENTILE = 5.0

Dice = dict[str, dict[str, float]]
"""By class and patient."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the rule says."""

    promote: bool
    reason: str
    rule: str
    classes: tuple[dict[str, Any], ...]
    """Of each class: name, patients, mean Dice of both, difference, lower bound, the same to the best
    release before, and whether it passes."""
    scores: dict[str, Dice] = field(default_factory=dict)
    """Of the models `OLD` and `NEW`."""


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """How a release before the one in service scored."""

    release: int
    scores: Dice


def judge(
    *,
    dataset: str,
    split: str,
    frozen: Sequence[str],
    old: str,
    new: str,
    margin: float,
    min_patients: int,
    earlier: Sequence[Earlier] = (),
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
        earlier: scores of releases before, on the same patients and references.

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
    return decide(chosen, margin=margin, min_patients=min_patients, earlier=earlier)


def references_digest(dataset: str, frozen: Sequence[str]) -> str:
    """Names the scans and annotations of the frozen patients: scores are comparable while it is the same."""
    cases = [case for case in DatasetVersion.open(dataset).cases if case.patient_id in set(frozen)]
    text = json.dumps(sorted((c.case_id, c.source_sha256, c.label_sha256 or "") for c in cases))
    return hashlib.sha256(text.encode()).hexdigest()


def decide(
    scores: Sequence[CaseScore], *, margin: float, min_patients: int, earlier: Sequence[Earlier] = ()
) -> Verdict:
    """The rule, on the scores of the models `OLD` and `NEW`."""
    names = list(dict.fromkeys(score.score.class_name for score in scores))
    rows = tuple(_row(name, scores, margin, min_patients, earlier) for name in names)
    rule = (
        f"in every class, the 5th percentile of the mean difference of Dice over {RESAMPLES} resamples of "
        f"the patients must be above -{margin:g}, to the model in service and to the best release that it "
        f"comes from; {min_patients} patients are needed"
    )
    failed = [row for row in rows if not row["passes"]]
    reason = "; ".join(_why(row, margin) for row in failed)
    return Verdict(
        promote=bool(rows) and not failed,
        reason=reason or "not worse in any class by more than the margin",
        rule=rule,
        classes=rows,
        scores={model: _dice(scores, model) for model in (OLD, NEW)},
    )


def _why(row: Mapping[str, Any], margin: float) -> str:
    if row["lower"] is None:
        return f"{row['class']}: only {row['patients']} patients"
    if row["lower"] <= -margin:
        return f"{row['class']}: the difference may be as low as {row['lower']:.4f}"
    best = f"the difference to release {row['best_release']}"
    return f"{row['class']}: {best} may be as low as {row['best_lower']:.4f}"


def _row(
    name: str, scores: Sequence[CaseScore], margin: float, min_patients: int, earlier: Sequence[Earlier]
) -> dict[str, Any]:
    of_class = [score for score in scores if score.score.class_name == name]
    there = {s.patient_id for s in of_class if s.score.reference_voxels or s.score.predicted_voxels}
    patients = sorted(there)
    row: dict[str, Any] = {"class": name, "patients": len(patients), "old": None, "new": None}
    row |= {"difference": None, "lower": None, "passes": False}
    row |= {"best": None, "best_release": None, "best_lower": None}
    if not patients:
        return row
    old, new = (_by_patient(_dice(of_class, model)[name], patients) for model in (OLD, NEW))
    row |= {"old": float(old.mean()), "new": float(new.mean()), "difference": float((new - old).mean())}
    best = _best(name, patients, earlier)
    if best is not None:
        row |= {"best": float(best[1].mean()), "best_release": best[0]}
    if len(patients) >= min_patients:
        row["lower"] = _lower(new - old)
        row["best_lower"] = None if best is None else _lower(new - best[1])
        row["passes"] = all(low is None or low > -margin for low in (row["lower"], row["best_lower"]))
    return row


def _lower(differences: npt.NDArray[np.float64]) -> float:
    means = bootstrap_means(differences, np.arange(len(differences)))
    return float(np.percentile(means, _PERCENTILE))


def _best(
    name: str, patients: Sequence[str], earlier: Sequence[Earlier]
) -> tuple[int, npt.NDArray[np.float64]] | None:
    """The earlier release with the highest mean Dice, and its Dice by patient."""
    found = [
        (one.release, _by_patient(one.scores[name], patients))
        for one in earlier
        if set(patients) <= one.scores.get(name, {}).keys()
    ]
    return max(found, key=lambda one: float(one[1].mean()), default=None)


def _by_patient(scores: Mapping[str, float], patients: Sequence[str]) -> npt.NDArray[np.float64]:
    return np.array([scores[patient] for patient in patients])


def _dice(scores: Sequence[CaseScore], model: str) -> Dice:
    """Mean Dice over each patient's volumes."""
    volumes: dict[str, dict[str, list[float]]] = {}
    for one in scores:
        if one.method == model:
            of_class = volumes.setdefault(one.score.class_name, {})
            of_class.setdefault(one.patient_id, []).append(one.score.dice)
    return {
        name: {patient: float(np.mean(found)) for patient, found in patients.items()}
        for name, patients in volumes.items()
    }


def _model(name: str, url: str, version: DatasetVersion, frozen: Sequence[str]) -> TrainedModel:
    network, job = load_network(url)
    gpu = job.settings.run.device != "cpu" and torch.cuda.is_available()
    if job.classes != version.classes or job.channels != version.channels:
        raise DataError(
            f"{url} was trained for the classes {', '.join(job.classes)}, not for {version.url}'s"
        )
    seen = sorted(set(job.labeled_patients) & set(frozen))
    if seen:
        raise DataError(f"{url} was trained on the labels of frozen patients: {', '.join(seen)}")
    ref = ModelRef(method=name, seed=job.seed, checkpoint=url)
    return TrainedModel(ref=ref, network=network.to("cuda" if gpu else "cpu"), job=job, step=job.steps)
