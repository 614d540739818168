"""The report of a pipeline's run."""

from __future__ import annotations

from components.compare import compare
from components.evaluate.report import REPORT
from infra.storage import Store


def report(*, summary: str, sweep: str) -> str:
    """The URL of the report: the evaluation's, or one of the evaluated run and its sweep together.

    Args:
        summary: URL of the summary in the run folder.
        sweep: URL of the sweep's folder, which the report of both goes to; empty where there was none.

    Raises as `components.compare.compare`.
    """
    if not sweep:
        return Store(summary.rpartition("/")[0]).join(REPORT)
    return compare(runs=[summary, sweep], output=sweep).report_url
