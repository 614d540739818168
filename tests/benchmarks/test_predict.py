"""The benchmark of prediction, small enough to be quick: every part runs and is complete."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from benchmarks import predict


@pytest.mark.slow
@pytest.mark.dist
def test_every_part_is_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = {"volume": (16, 32, 32), "patch": (16, 16, 16), "slices": 3, "side": 32, "scans": 20}
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
        "ours",
        "ours, batch 1",
        "ours, batch 4",
        "ours, batch 16",
        "ours, batch 32",
        "monai, batch 16",
    }
    assert set(result["scan"]["seconds"]) == {"read", "prepare", "segment", "with both maps", "write"}
    assert 0 < result["scan"]["network_share"] < 1
    assert result["windows"]["agreement"] > 0.999 and result["slices"]["agreement"] > 0.999
    folder = result["folder"]
    assert list(folder) == ["2 scans, 1 actor", "20 scans, 1 actor", "20 scans, 2 actors"]
    assert all(0 < part["before_mib"] <= part["peak_mib"] for part in folder.values())
    text = predict.describe(result, predict.parse(["--quick"])[0])
    assert "MONAI's time over ours, same batch: " in text and "slices/s" in text


def test_masks_that_differ_are_no_basis_for_times() -> None:
    ours = np.random.default_rng(0).normal(size=(3, 10, 10, 10))
    assert predict.agreement(ours, torch.from_numpy(ours)[None]) == 1.0
    with pytest.raises(RuntimeError, match=r"agree in 99\.8000% of the voxels"):
        other = ours.copy()
        other[:, 0, 0, :2] = np.roll(other[:, 0, 0, :2], 1, axis=0)
        predict.agreement(ours, other[None])


def test_variants_take_turns() -> None:
    seen: list[str] = []
    actions = {name: lambda name=name: seen.append(name) for name in "ab"}
    assert set(predict.take_turns(actions, 2, torch.device("cpu"))) == {"a", "b"}
    assert "".join(seen) == "ababab"
