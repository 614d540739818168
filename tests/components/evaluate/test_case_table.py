"""The table of cases, written and read."""

from __future__ import annotations

import csv
import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from arco_core.errors import DataError
from components.evaluate.case_table import cases_csv, cases_parquet, read_cases
from tests.components.evaluate.scores import score

SCORES = [
    score("supervised", 0, "q", "a", 0.7, 3.0, patient="p"),
    score("arco-sg", 1, "q", "b", 0.0, None, missing=True, checkpoint="best", labeled=7),
]


def test_csv_has_a_line_a_score() -> None:
    rows = list(csv.DictReader(io.StringIO(cases_csv(SCORES))))
    assert rows[0] == {
        "method": "supervised", "labeled": "2", "seed": "0", "checkpoint": "last", "patient_id": "p",
        "case_id": "q", "class_name": "a", "dice": "0.7", "surface_dice": "0.7", "asd_mm": "3",
        "hd95_mm": "3", "asd_voxel": "3", "hd95_voxel": "3", "predicted_ml": "0.06", "reference_ml": "0.04",
        "predicted_voxels": "30", "reference_voxels": "20", "voxel_mm3": "2", "missing": "0", "spurious": "0",
    }  # fmt: skip
    assert (rows[1]["asd_mm"], rows[1]["missing"], rows[1]["checkpoint"]) == ("", "1", "best")


def test_parquet_holds_the_same_and_is_read_back() -> None:
    data = cases_parquet(SCORES)
    table = pq.read_table(io.BytesIO(data))
    assert table.schema.names == cases_csv([]).strip().split(",")
    assert table["asd_mm"].to_pylist() == [3.0, None]
    assert read_cases(data, "cases.parquet") == SCORES


def test_another_file_is_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"run/cases\.parquet is not a Parquet table.*evaluate the run again"):
        read_cases(b"nothing", "run/cases.parquet")
    sink = io.BytesIO()
    pq.write_table(pa.table({"dice": [0.5]}), sink)
    with pytest.raises(DataError, match=r"has the columns dice, not method.*evaluate the run again"):
        read_cases(sink.getvalue(), "cases.parquet")
