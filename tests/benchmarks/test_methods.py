"""The table that the comparison of methods prints."""

from __future__ import annotations

from typing import Any

from benchmarks.methods import markdown


def scores(dice: dict[str, float], asd: float | None) -> dict[str, Any]:
    distance = {"mean": asd}
    return {"dice": {"per_seed": dice}, "asd_mm": distance, "hd95_mm": distance, "missing": 1}


def test_a_distance_that_no_volume_has_is_a_dash() -> None:
    """The semi-supervised literature's ACDC files hold no voxel size, so there is no distance in mm."""
    methods = {
        "mean-teacher": scores({"0": 0.8, "1": 0.9}, 1.234),
        "arco-sg": scores({"0": 0.85, "1": 0.9}, None),
    }
    rows = markdown({"methods": methods, "seeds": [0, 1]}).splitlines()[2:]
    assert rows == [
        "| Mean teacher | 80.0 | 90.0 | 85.0 ± 7.1 | 1.23 | 1.23 | 1 |  |",
        "| ARCO-SG | 85.0 | 90.0 | 87.5 ± 3.5 | – | – | 1 | +2.5 ± 3.5 |",
    ]
