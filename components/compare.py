"""Set evaluated runs side by side: `arco compare`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from components.evaluate.case_table import cases_csv, cases_parquet
from components.evaluate.comparison import Comparison, compare_results
from components.evaluate.report import REPORT, amount_title, report_files
from components.evaluate.results import CASES, CASES_PARQUET, FORMAT, read_results
from components.evaluate.table import results_table
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
        runs: URLs of run folders or of their `summary.json`, of one dataset version.
        output: URL of the folder to write into.

    Raises:
        DataError: a run was not evaluated, or runs that cannot be compared.
        StoreError: a run cannot be read, or the output not be written.
    """
    store = Store(output)
    store.check_writable()
    comparison = compare_results([read_results(url) for url in runs])
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
