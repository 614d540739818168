from __future__ import annotations

import pytest
import ray

from arco_core.config import RunConfig
from infra.tuning import ray_tune


def test_as_many_trainings_as_there_are_cpus_and_gpus_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(have: dict[str, float], *runs: RunConfig, limit: int | None = None) -> int:
        monkeypatch.setattr(ray, "cluster_resources", lambda: have)
        return ray_tune._as_many_as_fit(runs, limit)

    one, two = RunConfig(workers=1), RunConfig(workers=2, threads_per_worker=4)
    assert fit({"CPU": 16.0}, one) == 16
    assert fit({"CPU": 16.0}, one, two) == 2
    assert fit({"CPU": 16.0, "GPU": 1.0}, one) == 1  # device = auto takes it
    assert fit({"CPU": 16.0, "GPU": 1.0}, RunConfig(workers=1, device="cpu")) == 16
    assert fit({"CPU": 1.0}, two) == 1
    assert fit({"CPU": 3.0}, one, limit=2) == 2
