"""Scores of cases as tables: CSV for people, Parquet for programs, and back."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from arco_core.errors import DataError
from arco_core.metrics import ClassScore
from components.evaluate.scoring import CaseScore

_OWN = (
    ("method", pa.string()),
    ("labeled", pa.int32()),
    ("seed", pa.int32()),
    ("checkpoint", pa.string()),
    ("patient_id", pa.string()),
    ("case_id", pa.string()),
)
_SCORE = (
    ("class_name", pa.string()),
    ("dice", pa.float64()),
    ("surface_dice", pa.float64()),
    ("asd_mm", pa.float64()),
    ("hd95_mm", pa.float64()),
    ("asd_voxel", pa.float64()),
    ("hd95_voxel", pa.float64()),
    ("predicted_ml", pa.float64()),
    ("reference_ml", pa.float64()),
    ("predicted_voxels", pa.int64()),
    ("reference_voxels", pa.int64()),
    ("voxel_mm3", pa.float64()),
    ("missing", pa.bool_()),
    ("spurious", pa.bool_()),
)
SCHEMA = pa.schema([*_OWN, *_SCORE])
"""One row a method, amount of labels, seed, checkpoint, case and structure; null is a distance that does not
exist."""
_DERIVED = ("predicted_ml", "reference_ml", "missing", "spurious")


def cases_csv(scores: Iterable[CaseScore]) -> str:
    """The columns of SCHEMA; an empty cell is a distance that does not exist, 1 is yes."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(SCHEMA.names)
    for score in scores:
        writer.writerow([_cell(value) for value in _row(score).values()])
    return out.getvalue()


def cases_parquet(scores: Iterable[CaseScore]) -> bytes:
    """The columns of SCHEMA."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([_row(s) for s in scores], SCHEMA), sink, compression="zstd")
    return sink.getvalue()


def read_cases(data: bytes, source: str) -> list[CaseScore]:
    """The scores that `cases_parquet` wrote. Raises `DataError`, naming `source`, for any other table."""
    try:
        with pq.ParquetFile(pa.BufferReader(data)) as file:  # no threads, which may outlive the interpreter
            table = file.read(use_threads=False)
    except pa.ArrowInvalid as error:
        raise DataError(f"{source} is not a Parquet table ({error}): evaluate the run again.") from error
    if table.schema.names != SCHEMA.names:
        raise DataError(
            f"{source} has the columns {', '.join(table.schema.names)}, not {', '.join(SCHEMA.names)}: "
            "another version of ARCO wrote it; evaluate the run again."
        )
    fields = [name for name, _ in _SCORE if name not in _DERIVED]
    return [
        CaseScore(
            **{name: row[name] for name, _ in _OWN}, score=ClassScore(**{name: row[name] for name in fields})
        )
        for row in table.to_pylist()
    ]


def _row(score: CaseScore) -> dict[str, Any]:
    own = {name: getattr(score, name) for name, _ in _OWN}
    return own | {name: getattr(score.score, name) for name, _ in _SCORE}


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
