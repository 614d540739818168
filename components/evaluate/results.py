"""What an evaluation leaves in a run folder, written and read: all that a report needs, and no model."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from arco_core.errors import DataError
from components.evaluate.case_table import cases_csv, cases_parquet, read_cases
from components.evaluate.scoring import CaseScore
from components.evaluate.slices import CaseSlice, read_slice
from components.evaluate.training_log import StageLog, logs_from_json, logs_to_json
from infra.storage import NotFound, Store

SUMMARY, CASES, CASES_PARQUET = "summary.json", "cases.csv", "cases.parquet"
SLICES, TRAINING, VARIANCE = "slices.parquet", "training.json", "variance.csv"

FORMAT = 3
"""Of `summary.json`."""


@dataclass(frozen=True, kw_only=True)
class RunResults:
    """An evaluated run."""

    url: str
    """The run folder."""
    summary: Mapping[str, Any]
    scores: Sequence[CaseScore]
    """Of last and best checkpoints."""
    logs: Sequence[StageLog]
    slice_of: Callable[[str], CaseSlice]
    """The slice of a case, with what the last checkpoints drew on it."""
    variance: Sequence[Mapping[str, str]] = ()
    """The rows of the run's `variance.csv`; none where it was not measured."""


def write_results(store: Store, results: RunResults, slices: bytes) -> None:
    """Write all but the summary, which makes the results valid and comes last: see `write_summary`."""
    store.write_bytes(CASES, cases_csv(results.scores).encode())
    store.write_bytes(CASES_PARQUET, cases_parquet(results.scores))
    store.write_bytes(SLICES, slices)
    store.write_bytes(TRAINING, logs_to_json(results.logs).encode())


def write_summary(store: Store, summary: Mapping[str, Any]) -> str:
    """Write `summary.json` and return its URL."""
    store.write_bytes(SUMMARY, (json.dumps(summary, indent=1, ensure_ascii=False) + "\n").encode())
    return store.join(SUMMARY)


def read_results(url: str) -> RunResults:
    """The results in a run folder; `url` is the folder's or its summary's.

    Raises:
        DataError: nothing was evaluated there, or by another version of ARCO.
        StoreError: the folder cannot be read.
    """
    store = Store(url.removesuffix(f"/{SUMMARY}"))
    summary = read_summary(store)
    cases, slices = store.join(CASES_PARQUET), store.join(SLICES)
    pictures = store.read_bytes(SLICES)
    return RunResults(
        url=store.url,
        summary=summary,
        scores=read_cases(store.read_bytes(CASES_PARQUET), cases),
        logs=logs_from_json(store.read_bytes(TRAINING).decode()),
        slice_of=lambda case_id: read_slice(pictures, case_id, slices),
        variance=read_variance(store),
    )


def read_variance(store: Store) -> list[dict[str, str]]:
    """The rows of the `variance.csv` that `arco variance -o RUN` left in a run folder, if it did."""
    try:
        text = store.read_bytes(VARIANCE).decode()
    except NotFound:
        return []
    return list(csv.DictReader(io.StringIO(text)))


def read_summary(store: Store) -> dict[str, Any]:
    """The `summary.json` of a run folder. Raises `DataError`: there is none, or another version's."""
    try:
        data = store.read_bytes(SUMMARY)
    except NotFound as error:
        raise DataError(
            f"{store.url} is no evaluated run: it has no {SUMMARY}; run the evaluation step first."
        ) from error
    try:
        summary = dict(json.loads(data))
    except ValueError as error:
        raise DataError(f"{store.join(SUMMARY)} is not JSON ({error}): evaluate the run again.") from error
    if summary.get("format") != FORMAT:
        raise DataError(
            f"{store.join(SUMMARY)} has format {summary.get('format', 1)}, not {FORMAT}: another version of "
            "ARCO wrote it; evaluate the run again."
        )
    return summary
