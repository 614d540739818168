"""Many small scans on Ray Data: scans a second by one and by two actors, and the driver's memory.

The scans are tiny, so that what is measured is all that comes with a scan and not the network: reading,
queueing, writing, the record and the bookkeeping. Each call is a process of its own with a Ray of its own, so
that the peak of one does not hide that of the other.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from arco_core.config import DataConfig, InferenceConfig, NetworkConfig
from arco_core.model_package import PublishedModel, save_package
from arco_core.networks import build_network

SIDE, SLICES = 32, 4
ACTORS = (1, 2)
ROOT = Path(__file__).resolve().parents[1]

DRIVER = """
import json, resource, sys, time
from components.predict.step import predict
from components.predict.model import ModelSpec

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # MiB on Linux

model, scans, output, workers = sys.argv[1:]
ModelSpec.find(model, flips=None, maps=()).open()
before, start = peak(), time.perf_counter()
made = predict(model=model, scans=scans, output=output, workers=int(workers))
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "done": len(made.done), "before_mib": before, "peak_mib": peak()}))
"""


def measure_folder(folder: Path, scans: int) -> dict[str, Any]:
    """By number of actors: seconds in all, scans a second once they run, and the driver's memory in MiB.

    Raises:
        RuntimeError: a call failed, or did not do every scan.
    """
    _write_model(folder / "model")
    for count in (scans, max(scans // 10, 2)):
        _write_scans(folder / f"scans-{count}", count)
    result: dict[str, Any] = {}
    for count, actors in ((max(scans // 10, 2), 1), *((scans, actors) for actors in ACTORS)):
        output = folder / f"masks-{count}-{actors}"
        found = _run(folder / "model", folder / f"scans-{count}", output, actors)
        if found["done"] != count:
            raise RuntimeError(
                f"{found['done']} of {count} scans are done: look at {output}/predictions.csv."
            )
        result[f"{count} scans, {actors} actor{'s' * (actors > 1)}"] = found | {"rate": _rate(output)}
    return result


def _run(model: Path, scans: Path, output: Path, actors: int) -> dict[str, Any]:
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", DRIVER, str(model), str(scans), str(output), str(actors)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)
    if done.returncode:
        raise RuntimeError(f"prediction by {actors} actors failed:\n{done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _rate(output: Path) -> float:
    """Scans a second between the first scan's record and the last one's: without the start of Ray."""
    times = sorted(path.stat().st_mtime for path in (output / "records").iterdir())
    return (len(times) - 1) / max(times[-1] - times[0], 1e-9)


def _write_model(folder: Path) -> None:
    """A small U-Net of random weights, which cost what trained ones do."""
    network = NetworkConfig(features=(8, 16), dropout=(0.0, 0.0))
    model = PublishedModel(
        network=build_network(1, 2, network),
        data_config=DataConfig(image_size=(SIDE, SIDE)),
        network_config=network,
        classes=("background", "structure"),
        channels=1,
        inference_config=InferenceConfig(),
    )
    save_package(folder, model, metrics={}, provenance={})


def _write_scans(folder: Path, count: int) -> None:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        voxels = rng.integers(-1000, 1000, (SIDE, SIDE, SLICES), dtype=np.int16)
        nib.save(nib.Nifti1Image(voxels, np.diag([1.0, 1.0, 5.0, 1.0])), folder / f"scan_{number:05d}.nii")


def describe_folder(result: Mapping[str, Any]) -> list[str]:
    """The result as lines of text."""
    return [
        f"  {name:<22} {found['rate']:7.1f} scans/s, {found['seconds']:6.1f} s in all; driver "
        f"{found['before_mib']:.0f} MiB with the model loaded, {found['peak_mib']:.0f} MiB at its peak"
        for name, found in result.items()
    ]
