"""The loader's benchmark runs, and what does not depend on the machine holds."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from benchmarks.augment_cost import table
from benchmarks.loader import HDF5_WORKERS, report, run


@pytest.mark.slow
@pytest.mark.s3
def test_loader_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "AWS_ENDPOINT_URL",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_DEFAULT_REGION",
        "AWS_REQUEST_CHECKSUM_CALCULATION",
    ):
        monkeypatch.setenv(name, "")  # put back what the benchmark sets
    monkeypatch.setattr("infra.datasets.windows.WINDOW_BYTES", 2**30)
    args = argparse.Namespace(data=None, slices=30, repeats=1, device="cpu", folder=tmp_path, s3_script=None)
    result = run(args)
    assert 30 <= result["slices"] < 60 and result["source"] == "synthetic phantoms"
    for key in ("speedup_vs_hdf5", "ratio_to_disk", "s3_slices_per_s"):
        assert result[key] > 0
    assert result["size_ratio"] == result["shard_bytes"] / result["hdf5_bytes"] < 1
    assert set(result["slices_per_s"]) == {"hdf5_0", "hdf5_2", "disk", "pool", "s3"} | {
        f"hdf5_{HDF5_WORKERS[-1]}"
    }
    kinds = {
        "rotation, crop, flip",
        "thin-plate warp",
        "cutmix",
        "cutout",
        "classmix",
        "blur",
        "colour jitter",
    }
    assert kinds < set(result["augmentation"])
    text = report(result)
    assert "pool against HDF5" in text and table(result["augmentation"]) in text
    assert list(tmp_path.iterdir()) == []
