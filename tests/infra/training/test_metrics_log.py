from __future__ import annotations

import json
from pathlib import Path

from infra.storage import Store
from infra.training.metrics_log import MetricsLog


def test_a_resumed_log_continues_where_training_resumes(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    log = MetricsLog(store, "metrics.jsonl")
    for step in (2, 4, 6):
        log.add(step, {"loss": 1 / step})
    log.flush()
    resumed = MetricsLog(store, "metrics.jsonl", resume_step=4)
    assert resumed.last == {"step": 4, "loss": 0.25}
    resumed.add(6, {"loss": 0.1})
    resumed.flush()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert lines[-1]["loss"] == 0.1


def test_a_new_log_forgets_what_lay_there(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 9}\n')
    assert MetricsLog(Store(str(tmp_path)), "metrics.jsonl").last == {}
