"""The benchmark of distribution: what its model predicts is what two real workers send."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import scaling
from benchmarks.cluster_model import Machine, Payload, predict
from benchmarks.workers import Way, train

PAYLOAD = Payload(
    gradients=8_000_000,
    statistics=10_000,
    classes=4,
    keys_per_step=128,
    dim=496,
    unlabeled=4,
    images=8,
    slice_bytes=100_000,
)


def test_class_keys_are_divided_among_workers_and_images_bring_their_own() -> None:
    none = replace(PAYLOAD, unlabeled=0)
    assert [none.keys(gpus) * gpus for gpus in (2, 16, 128)] == [4 * 128 * (496 * 4 + 1)] * 3
    assert none.keys(256) == none.keys(128)  # one key a class at least
    assert PAYLOAD.keys(128) - none.keys(128) == 4 * 496 * 4


def test_a_step_of_many_gpus_by_hand() -> None:
    machine = Machine(step_s=0.1, bytes_per_s=1e9, latency_s=1e-5)
    row = predict(PAYLOAD, machine, 8)
    assert row.all_reduce_ms == pytest.approx(1000 * (2 * 7 / 8 * 8_010_000 / 1e9 + 2 * 7 * 1e-5))
    received = 7 * (4 * 16 * 1985 + 4 * 1984)
    assert row.keys_received == received
    assert row.gather_ms == pytest.approx(1000 * (received / 1e9 + 3 * 7 * 1e-5))
    step = 0.1 + (row.all_reduce_ms + row.gather_ms) / 1000
    assert row.efficiency == pytest.approx(0.1 / step)
    assert row.store_bytes_per_s == pytest.approx(8 * 8 * 100_000 / step)


def test_ways() -> None:
    assert Way.parse("2/local") == Way("2/local", (2,), "local")
    assert Way.parse("2-1-2").overrides == ["run.workers=2", "run.min_workers=1", 'run.banks="shared"']


@pytest.mark.dist
@pytest.mark.slow
def test_two_workers_send_what_the_model_says(tmp_path: Path) -> None:
    setting = scaling.Setting(size=32, batch=2, steps=4, folder=tmp_path)
    version = scaling.make_version(setting)
    traffic = train(setting.job("traffic", version, workers=2, batch=setting.batch), 2, setting.steps)
    result = scaling.predicted(version, setting, traffic)
    assert traffic["keys"] == pytest.approx(result["keys_predicted"], rel=1e-3)
    assert result["payload"]["gradients"] > 1_800_000 * 4  # a float for each weight of the U-Net
    assert [row["gpus"] for row in result["table"]] == [8, 16, 32, 64, 128, 256]
