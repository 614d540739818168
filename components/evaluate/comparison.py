"""Evaluated runs set side by side: which may be, under which names, and their numbers by amount of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from arco_core.errors import DataError
from components.evaluate.results import RunResults
from components.evaluate.scoring import CaseScore
from components.evaluate.slices import CaseSlice, DrawnBy
from components.evaluate.summary import best_seed, summarize, unit_of
from components.evaluate.training_log import StageLog
from components.model_ref import BASELINE, method_rank

Naming = Mapping[tuple[int, str], str]
"""(number of a run, its name of a method) -> the comparison's name of it."""

_SAME = {
    "split": "evaluate all on one split",
    "convention": "evaluate all with one --convention",
    "tolerance_mm": "evaluate all with one --tolerance-mm",
}


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A model whose predictions are shown."""

    method: str
    seed: int
    dice: Mapping[str, float]
    """Mean over structures of each case, between 0 and 1."""


@dataclass(frozen=True, kw_only=True)
class Amount:
    """All methods that were trained with one amount of labels."""

    labeled: int
    """Patients."""
    scores: Sequence[CaseScore]
    """Of last and best checkpoints."""
    summary: Mapping[str, Any]
    """`methods`, `paired`, `tests`, `best_checkpoints` and `common_seeds`, as in `summary.json`."""
    confusion: Mapping[str, Mapping[str, Any]]
    """Method -> seed -> voxels by reference class (row) and predicted class (column)."""
    logs: Sequence[StageLog]
    drawn: Mapping[DrawnBy, tuple[RunResults, DrawnBy]]
    """Where the pictures of a method and seed are."""

    @property
    def methods(self) -> list[str]:
        """In the order of tables: the baseline first, ARCO last."""
        return sorted(self.summary["methods"], key=method_rank)

    @property
    def best_method(self) -> str:
        """Of the highest mean Dice, the baseline only where it is all there is."""
        methods = self.summary["methods"]
        others = [m for m in self.methods if m != BASELINE] or self.methods
        return max(others, key=lambda m: methods[m]["dice"]["mean"])

    def best_seed(self, method: str) -> int:
        """The seed with which `method` reached its highest mean Dice."""
        return best_seed(self.summary, method)

    def shown(self, method: str, seed: int) -> Shown:
        """A model whose pictures are to be shown."""
        dice: dict[str, list[float]] = {}
        for s in self.scores:
            if (s.method, s.seed, s.checkpoint) == (method, seed, "last"):
                dice.setdefault(s.case_id, []).append(s.score.dice)
        means = {case_id: fmean(values) for case_id, values in dice.items()}
        return Shown(method=method, seed=seed, dice=means)

    def shown_beside(self, primary: Shown) -> list[Shown]:
        """All methods, with the seed of `primary` or, where a method has not that one, with its best."""
        chosen = []
        for method in self.methods:
            own = (method, primary.seed) in self.drawn
            chosen.append(self.shown(method, primary.seed if own else self.best_seed(method)))
        return chosen

    def slice_of(self, case_id: str, shown: Sequence[Shown]) -> CaseSlice:
        """A case's slice with what `shown` drew on it, from whichever runs they are."""
        predictions = {}
        cut: CaseSlice | None = None
        for model in shown:
            run, by = self.drawn[model.method, model.seed]
            own = run.slice_of(case_id)
            cut = cut or own
            predictions[model.method, model.seed] = own.predictions[by]
        if cut is None:
            raise ValueError("no model to show")
        return replace(cut, predictions=predictions)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Runs of one dataset version that were evaluated on the same cases; one run is a comparison, too."""

    runs: Sequence[RunResults]
    names: Sequence[str]
    """A short name for each run."""
    amounts: Sequence[Amount]
    """From few labels to many."""
    notes: Sequence[str]
    """What a reader must know before comparing."""

    @property
    def common(self) -> Mapping[str, Any]:
        """The summary of the first run, for what all have in common."""
        return self.runs[0].summary

    @property
    def dataset(self) -> str:
        """Name of the dataset."""
        return dataset_version(self.common).partition("/")[0]

    @property
    def methods(self) -> list[str]:
        """In the order of tables."""
        return sorted({m for amount in self.amounts for m in amount.methods}, key=method_rank)


def compare_results(runs: Sequence[RunResults]) -> Comparison:
    """Set runs side by side.

    Runs may hold different methods, amounts of labels and seeds. Seeds of one method, amount and settings are
    put together; where two runs differ in more, the method's name is followed by the run's.

    Raises:
        DataError: there is no run or one twice, or runs differ in dataset version, split, convention,
            tolerance, or in the patients or volumes that they were evaluated on.
    """
    urls = [run.url for run in runs]
    if not runs or len(set(urls)) < len(urls):
        raise DataError(f"runs to compare: {', '.join(urls) or 'none'}; name at least one, and each once.")
    for other in runs[1:]:
        _check_comparable(runs[0], other)
    names = short_names(urls)
    naming = _name_methods(runs, names)
    labeled = sorted({int(run.summary["labeled"]) for run in runs})
    amounts = [_amount(runs, naming, amount) for amount in labeled]
    return Comparison(runs=runs, names=names, amounts=amounts, notes=_notes(runs, naming))


def dataset_version(summary: Mapping[str, Any]) -> str:
    """`<name>/<version>`: the same wherever the store is."""
    return "/".join(str(summary["dataset"]).rsplit("/", 2)[-2:])


def short_names(urls: Sequence[str]) -> list[str]:
    """The last part of each URL, and as many before it as tell them apart."""
    parts = [url.rstrip("/").split("/") for url in urls]
    length = next(
        n for n in range(1, max(map(len, parts)) + 1) if len({tuple(p[-n:]) for p in parts}) == len(parts)
    )
    return ["/".join(p[-length:]) for p in parts]


def _check_comparable(first: RunResults, other: RunResults) -> None:
    versions = dataset_version(first.summary), dataset_version(other.summary)
    both = f"{first.url} and {other.url}"
    if versions[0] != versions[1]:
        raise DataError(
            f"{both} are of the dataset versions {versions[0]} and {versions[1]}: "
            "compare runs of one version."
        )
    for key, advice in _SAME.items():
        values = first.summary[key], other.summary[key]
        if values[0] != values[1]:
            raise DataError(f"{both} were evaluated with {key} {values[0]} and {values[1]}: {advice}.")
    for what, field in (("patients", "patient_id"), ("volumes", "case_id")):
        sets = [{getattr(s, field) for s in run.scores} for run in (first, other)]
        if sets[0] != sets[1]:
            only = [", ".join(sorted(own - rest)) or "none" for own, rest in (sets, sets[::-1])]
            raise DataError(
                f"{both} were evaluated on different {what}; only the first on: {only[0]}; only the second "
                f"on: {only[1]}. Evaluate both on the same ones."
            )


def _name_methods(runs: Sequence[RunResults], names: Sequence[str]) -> Naming:
    """A method's own name, followed by the run's where it would stand for two things."""
    owners: dict[tuple[int, str], list[int]] = {}
    for number, run in enumerate(runs):
        for method in run.summary["trainings"]:
            owners.setdefault((run.summary["labeled"], method), []).append(number)
    naming = {}
    for (_, method), numbers in owners.items():
        alike = _are_seeds_of_one([runs[number].summary["trainings"][method] for number in numbers])
        for number in numbers:
            naming[number, method] = method if alike else f"{method} ({names[number]})"
    return naming


def _are_seeds_of_one(trainings: Sequence[Mapping[str, Mapping[str, str]]]) -> bool:
    """Whether all settings are the same and, of each seed, all trainings."""
    settings = {t["settings"] for run in trainings for t in run.values()}
    by_seed: dict[str, set[str]] = {}
    for run in trainings:
        for seed, training in run.items():
            by_seed.setdefault(seed, set()).add(training["job"])
    return len(trainings) == 1 or (len(settings) == 1 and all(len(jobs) == 1 for jobs in by_seed.values()))


def _amount(runs: Sequence[RunResults], naming: Naming, labeled: int) -> Amount:
    scores: list[CaseScore] = []
    confusion: dict[str, dict[str, Any]] = {}
    logs: list[StageLog] = []
    drawn: dict[DrawnBy, tuple[RunResults, DrawnBy]] = {}
    for number, run in enumerate(runs):
        if run.summary["labeled"] != labeled:
            continue
        new = set()
        for method, trainings in run.summary["trainings"].items():
            for seed in map(int, trainings):
                key = naming[number, method], seed
                if key not in drawn:  # a training that two runs share counts once
                    new.add((method, seed))
                    drawn[key] = run, (method, seed)
                    confusion.setdefault(key[0], {})[str(seed)] = run.summary["confusion"][method][str(seed)]
        scores += [
            replace(s, method=naming[number, s.method]) for s in run.scores if (s.method, s.seed) in new
        ]
        for log in run.logs:
            named = replace(log, method=naming[number, log.method]) if log.method else log
            if named not in logs:
                logs.append(named)
    summary = summarize(scores, unit_of(runs[0].summary))
    return Amount(
        labeled=labeled, scores=scores, summary=summary, confusion=confusion, logs=logs, drawn=drawn
    )


def _notes(runs: Sequence[RunResults], naming: Naming) -> list[str]:
    """What makes methods of one amount of labels hard to compare."""
    notes = []
    patients: dict[tuple[int, str], set[tuple[str, ...]]] = {}
    seeds: dict[int, dict[str, set[str]]] = {}
    for number, run in enumerate(runs):
        labeled = run.summary["labeled"]
        for seed, names in run.summary["labeled_patients"].items():
            patients.setdefault((labeled, seed), set()).add(tuple(names))
        for method, trainings in run.summary["trainings"].items():
            own = seeds.setdefault(labeled, {}).setdefault(naming[number, method], set())
            own.update(trainings)
    for (labeled, seed), sets in sorted(patients.items()):
        if len(sets) > 1:
            notes.append(
                f"With {labeled} labelled and seed {seed}, runs were trained on different labelled patients."
            )
    for labeled, by_method in sorted(seeds.items()):
        if len({frozenset(s) for s in by_method.values()}) > 1:
            listed = "; ".join(f"{m}: {', '.join(sorted(s, key=int))}" for m, s in by_method.items())
            common = sorted(set.intersection(*by_method.values()), key=int)
            notes.append(
                f"With {labeled} labelled, methods have different seeds ({listed}), that is, other trainings "
                "and labelled patients: their means and tests mix them. "
                + (
                    f"A table and tests over the common seeds ({', '.join(common)}) are beside."
                    if common
                    else "None is common to all."
                )
            )
    return notes
