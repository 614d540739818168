"""The benchmark of prediction, small enough to be quick: every part runs and is complete."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import predict


@pytest.mark.slow
def test_every_part_is_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = {"volume": (16, 32, 32), "patch": (16, 16, 16), "slices": 3, "side": 32}
    monkeypatch.setattr(predict, "QUICK", tiny)
    predict.main(["--quick", "--json", "--repeats", "1", "--threads", "1"])
    result = json.loads(capsys.readouterr().out)
    assert set(result["windows"]["seconds"]) == {
        "monai, batch 1",
        "monai, batch 2",
        "monai, batch 4",
        "ours",
        "ours, flips w",
    }
    assert set(result["slices"]["slices_per_second"]) == {
        "batch 1",
        "batch 4",
        "batch 16",
        "batch 32",
        "monai",
    }
    assert set(result["scan"]["seconds"]) == {"read", "prepare", "segment", "with both maps", "write"}
    assert 0 < result["scan"]["network_share"] < 1
    text = predict.describe(result, predict.parse(["--quick"])[0])
    assert "MONAI's time over ours, same batch: " in text and "slices/s" in text


def test_variants_take_turns() -> None:
    seen: list[str] = []
    actions = {name: lambda name=name: seen.append(name) for name in "ab"}
    assert set(predict.take_turns(actions, 2, torch.device("cpu"))) == {"a", "b"}
    assert "".join(seen) == "ababab"
