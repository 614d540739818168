"""Set evaluated runs side by side: `arco compare`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.table import Table

from components.console import print_table
from components.evaluate.case_table import cases_csv, cases_parquet
from components.evaluate.comparison import Comparison, compare_results
from components.evaluate.report import REPORT, amount_title, report_files
from components.evaluate.results import CASES, CASES_PARQUET, FORMAT, read_results
from components.evaluate.table import results_table
from components.sweep.record import find_record
from infra.storage import Store

COMPARISON = "comparison.json"
_COMMON = (
    "dataset", "classes", "train_patients", "split", "cases", "patients", "spacing_known", "convention",
    "tolerance_mm", "statistics",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ComparisonResult:
    """Where the results are, and the comparison itself."""

    report_url: str
    comparison_url: str
    comparison: Comparison


def compare(*, runs: Sequence[str], output: str) -> ComparisonResult:
    """Report on evaluated runs together: `report.html`, its figures, the cases and `comparison.json`.

    Nothing is segmented or scored again, and no dataset or checkpoint is opened.

    Args:
        runs: URLs of run folders or of their `summary.json`, or of evaluated sweeps, of one dataset version.
        output: URL of the folder to write into.

    Raises:
        DataError: a run was not evaluated, or runs that cannot be compared.
        StoreError: a run cannot be read, or the output not be written.
    """
    store = Store(output)
    store.check_writable()
    evaluated, notes = _evaluated(runs)
    comparison = compare_results([read_results(url) for url in evaluated])
    comparison = replace(comparison, notes=[*comparison.notes, *notes])
    report = report_files(comparison)
    scores = [score for amount in comparison.amounts for score in amount.scores]
    store.write_bytes(CASES, cases_csv(scores).encode())
    store.write_bytes(CASES_PARQUET, cases_parquet(scores))
    for path, data in report.items():
        store.write_bytes(path, data)
    text = json.dumps(_to_json(comparison), indent=1, ensure_ascii=False)
    store.write_bytes(COMPARISON, (text + "\n").encode())
    return ComparisonResult(
        report_url=store.join(REPORT), comparison_url=store.join(COMPARISON), comparison=comparison
    )


def _evaluated(runs: Sequence[str]) -> tuple[list[str], list[str]]:
    """The runs, with those of a sweep in its place, and what is missing in sweeps."""
    urls: list[str] = []
    notes: list[str] = []
    for url in runs:
        record = find_record(url)
        urls += [url] if record is None else [record.evaluation(labeled) for labeled in record.amounts]
        notes += [] if record is None else record.notes
    return urls, notes


def print_comparison(result: ComparisonResult) -> None:
    """Print a comparison's tables and notes, and where it is."""
    for table in comparison_tables(result.comparison):
        print_table(table)
    for note in result.comparison.notes:
        print(f"note: {note}")
    print(f"report   {result.report_url}\nnumbers  {result.comparison_url}")


def comparison_tables(comparison: Comparison) -> list[Table]:
    """For each amount of labels what an evaluation prints."""
    common = comparison.common
    tables = []
    for amount in comparison.amounts:
        methods = {m: amount.summary["methods"][m] for m in amount.methods}
        table = results_table(dict(common) | {"methods": methods})
        table.title = f"{amount_title(comparison, amount.labeled)}. {table.title}"
        tables.append(table)
    return tables


def _to_json(comparison: Comparison) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "runs": dict(zip(comparison.names, (run.url for run in comparison.runs), strict=True)),
        "notes": list(comparison.notes),
        **{key: comparison.common[key] for key in _COMMON},
        "amounts": [
            {"labeled": amount.labeled, **amount.summary, "confusion": amount.confusion}
            for amount in comparison.amounts
        ],
    }
