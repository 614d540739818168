"""Scans and annotations that belong together by their files' names."""

from __future__ import annotations

import re

from arco_core.errors import DataError
from infra.datasets.readers.base import RawFolder


def pair_files(raw: RawFolder, pattern: re.Pattern[str]) -> dict[str, tuple[str, str | None]]:
    """Image and annotation (or none) of each case, sorted by case.

    `pattern` matches a whole path and has the groups `case` and `label`; the latter takes part in an
    annotation's path only. Raises `DataError` for two files of one kind, and for an annotation alone.
    """
    images: dict[str, str] = {}
    labels: dict[str, str] = {}
    for match in filter(None, map(pattern.fullmatch, raw.paths)):
        kind = images if match["label"] is None else labels
        known = kind.setdefault(match["case"], match.string)
        if known != match.string:
            raise DataError(
                f"case {match['case']!r} exists more than once: {known}, {match.string}; remove one"
            )
    orphans = sorted(labels.keys() - images.keys())
    if orphans:
        some = ", ".join(labels[case] for case in orphans[:5])
        raise DataError(f"{len(orphans)} annotations have no scan: {some}; copy the whole dataset again")
    return {case: (images[case], labels.get(case)) for case in sorted(images)}
