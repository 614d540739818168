"""Prediction: windows against MONAI's own inferer, slices by batch, a whole scan, and a folder on Ray Data.

    python benchmarks/predict.py [--quick] [--json] [--threads 2] [--repeats 3] [--device cuda]

Variants of one part take turns, so that a machine that slows down does so for all of them; medians of all
turns and ratios are printed. Our masks and MONAI's must be the same but for rounding. Networks have random
weights, which cost what trained ones do.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from monai.inferers import SliceInferer, SlidingWindowInferer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from arco_core.config import DataConfig, InferenceConfig, NetworkConfig
from arco_core.inference import (
    PATCHES_PER_BATCH,
    predict_slices,
    predict_windows,
    segment_prepared,
    slices_per_batch,
)
from arco_core.model_package import PublishedModel
from arco_core.networks import build_network
from arco_core.preprocess import prepare_image
from benchmarks.predict_folder import describe_folder, measure_folder
from components.predict.outputs import nifti_bytes
from components.predict.scans import Segmented
from infra.datasets.nifti import decode_nifti
from infra.storage import Store

CLASSES = 4
OVERLAP = 0.5


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is measured, and on what."""

    volume: tuple[int, int, int]
    patch: tuple[int, int, int]
    slices: int
    side: int
    repeats: int
    scans: int
    """Of the folder."""
    device: str


FULL = {"volume": (64, 128, 128), "patch": (32, 64, 64), "slices": 32, "side": 192, "scans": 1000}
QUICK = {"volume": (16, 64, 64), "patch": (16, 32, 32), "slices": 8, "side": 96, "scans": 20}
LEAST_AGREEMENT = 0.999
"""Share of voxels that our masks and MONAI's must have in common; ties may fall either way."""


def take_turns(
    actions: Mapping[str, Callable[[], object]], repeats: int, device: torch.device
) -> dict[str, float]:
    """Median seconds of each action; one unmeasured turn goes first."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(repeats + 1):
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def agreement(ours: object, monai: object) -> float:
    """Share of voxels with the same class, of probabilities (K, …) and (1, K, …).

    Raises:
        RuntimeError: it is below LEAST_AGREEMENT: what would be timed is not the same thing.
    """
    arrays = [np.asarray(probabilities) for probabilities in (ours, monai)]
    masks = [array.reshape(-1, *array.shape[-4:]).argmax(axis=1) for array in arrays]
    share = float((masks[0] == masks[1]).mean())
    if share < LEAST_AGREEMENT:
        raise RuntimeError(f"our masks and MONAI's agree in {share:.4%} of the voxels: must be 99.9%.")
    return share


def measure_windows(setting: Setting) -> dict[str, Any]:
    """Seconds a volume through a V-Net: ours, MONAI's inferer in its own words, and with mirror images."""
    device = torch.device(setting.device)
    network = build_network(1, CLASSES, NetworkConfig(kind="vnet")).eval().to(device)
    volume = np.random.default_rng(0).normal(size=(1, *setting.volume)).astype(np.float32)

    def monai(batch: int) -> Callable[[], object]:
        inferer = SlidingWindowInferer(
            setting.patch, batch, overlap=OVERLAP, mode="gaussian", sw_device=device, device="cpu"
        )

        def run() -> object:
            with torch.inference_mode():
                return inferer(torch.from_numpy(volume)[None], classify)

        return run

    def classify(batch: torch.Tensor) -> torch.Tensor:
        """As ours: it is probabilities that are blended."""
        probabilities: torch.Tensor = network(batch).softmax(dim=1)
        return probabilities

    def ours(flips: str = "") -> Callable[[], object]:
        return lambda: predict_windows(
            network, volume, setting.patch, overlap=OVERLAP, flips=flips, device=device
        )

    actions = {f"monai, batch {batch}": monai(batch) for batch in (1, PATCHES_PER_BATCH, 4)}
    actions |= {"ours": ours(), "ours, flips w": ours("w")}
    seconds = take_turns(actions, setting.repeats, device)
    same = seconds[f"monai, batch {PATCHES_PER_BATCH}"]
    return {
        "seconds": seconds,
        "monai_over_ours": same / seconds["ours"],
        "agreement": agreement(ours()(), monai(PATCHES_PER_BATCH)()),
    }


def measure_slices(setting: Setting) -> dict[str, Any]:
    """Slices a second through a U-Net: by batch, and through MONAI's slice inferer by our batch and by 16."""
    device = torch.device(setting.device)
    network = build_network(1, CLASSES, NetworkConfig()).eval().to(device)
    size = (setting.slices, 1, setting.side, setting.side)
    slices = np.random.default_rng(0).normal(size=size).astype(np.float32)
    own = slices_per_batch(size[2:], device)

    def monai(batch: int) -> Callable[[], object]:
        inferer = SliceInferer(
            roi_size=size[2:], spatial_dim=0, sw_batch_size=batch, sw_device=device, device="cpu"
        )

        def run() -> object:
            with torch.inference_mode():
                return inferer(torch.from_numpy(slices).transpose(0, 1)[None], network).softmax(dim=1)

        return run

    def ours(batch: int | None = None) -> Callable[[], object]:
        return lambda: predict_slices(network, slices, batch=batch, device=device)

    actions = {"ours": ours()} | {f"ours, batch {batch}": ours(batch) for batch in (1, 4, 16, 32)}
    actions |= {f"monai, batch {batch}": monai(batch) for batch in sorted({own, 16})}
    seconds = take_turns(actions, setting.repeats, device)
    return {
        "batch": own,
        "slices_per_second": {name: setting.slices / value for name, value in seconds.items()},
        "batch_speedup": seconds["ours, batch 1"] / seconds["ours"],
        "over_batch_16": seconds["ours, batch 16"] / seconds["ours"],
        "monai_over_ours": seconds[f"monai, batch {own}"] / seconds["ours"],
        "agreement": agreement(np.moveaxis(np.asarray(ours()()), 0, 1), monai(own)()),
    }


def measure_scan(setting: Setting) -> dict[str, Any]:
    """Seconds of each part of a scan's way from file to mask, by slices."""
    device = torch.device(setting.device)
    data = DataConfig(image_size=(setting.side, setting.side))
    network = build_network(1, CLASSES, NetworkConfig()).eval().to(device)
    model = PublishedModel(
        network=network,
        data_config=data,
        network_config=NetworkConfig(),
        classes=tuple("0123"),
        channels=1,
        inference_config=InferenceConfig(),
    )
    shape = (setting.side, setting.side, setting.slices)
    voxels = np.random.default_rng(0).integers(-1000, 1000, shape, dtype=np.int16)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scan.nii.gz"
        nib.save(nib.Nifti1Image(voxels, np.diag([1.0, 1.0, 5.0, 1.0])), path)
        store = Store(folder)
        volume = decode_nifti(path.read_bytes(), path.name)
        images, geometry = prepare_image(volume.voxels, volume.affine, data)
        result = segment_prepared(model, images, geometry, device=device)
        segmented = Segmented(result=result, affine=volume.affine, raw=store)
        actions: dict[str, Callable[[], object]] = {
            "read": lambda: decode_nifti(store.read_bytes(path.name), path.name),
            "prepare": lambda: prepare_image(volume.voxels, volume.affine, data),
            "segment": lambda: segment_prepared(model, images, geometry, device=device),
            "with both maps": lambda: segment_prepared(
                model, images, geometry, maps=("probabilities", "entropy"), device=device
            ),
            "write": lambda: store.write_bytes("mask.nii.gz", nifti_bytes(blobs(result.mask), segmented)),
        }
        seconds = take_turns(actions, setting.repeats, device)
    whole = sum(seconds[name] for name in ("read", "prepare", "segment", "write"))
    return {"seconds": seconds, "network_share": seconds["segment"] / whole, "scans_per_minute": 60 / whole}


def measure_scans(setting: Setting) -> dict[str, Any]:
    """A folder of small scans, see `predict_folder`."""
    with tempfile.TemporaryDirectory() as folder:
        return measure_folder(Path(folder), setting.scans)


def blobs(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A mask of the same size that compresses as real ones do; that of random weights is noise."""
    whole = np.zeros_like(mask)
    inner = tuple(slice(side // 4, 3 * side // 4) for side in mask.shape)
    whole[inner] = 1
    return whole


def run(setting: Setting) -> dict[str, Any]:
    """All four parts."""
    parts: dict[str, Callable[[Setting], dict[str, Any]]] = {
        "windows": measure_windows,
        "slices": measure_slices,
        "scan": measure_scan,
        "folder": measure_scans,
    }
    return {name: measure(setting) for name, measure in parts.items()}


def parse(arguments: list[str] | None = None) -> tuple[Setting, argparse.Namespace]:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small images, seconds")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, help="measured turns; default 3, or 1 with --quick")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    options = parser.parse_args(arguments)
    sizes: Any = QUICK if options.quick else FULL
    repeats = options.repeats or (1 if options.quick else 3)
    return Setting(**sizes, repeats=repeats, device=options.device), options


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    setting, options = parse(arguments)
    torch.set_num_threads(options.threads)
    result = run(setting) | {"setting": vars(setting), "threads": options.threads}
    print(json.dumps(result) if options.json else describe(result, setting))


def describe(result: Mapping[str, Any], setting: Setting) -> str:
    """The result as text."""
    windows, slices, scan = result["windows"], result["slices"], result["scan"]
    lines = [f"a volume of {setting.volume}, patches of {setting.patch}, overlap {OVERLAP:.0%}, V-Net:"]
    lines += [f"  {name:<16} {seconds:8.3f} s" for name, seconds in windows["seconds"].items()]
    lines += [f"  MONAI's time over ours, same batch: {windows['monai_over_ours']:.2f}"]
    lines += [f"  voxels with the same class: {windows['agreement']:.4%}"]
    lines += [f"slices of {setting.side} x {setting.side}, U-Net, ours by {slices['batch']}:"]
    lines += [f"  {name:<16} {rate:8.1f} slices/s" for name, rate in slices["slices_per_second"].items()]
    lines += [f"  MONAI's time over ours, same batch: {slices['monai_over_ours']:.2f}"]
    lines += [f"  time of 16 a batch over ours: {slices['over_batch_16']:.2f}"]
    lines += [f"  voxels with the same class: {slices['agreement']:.4%}"]
    lines += [f"a scan of {setting.slices} slices, {scan['scans_per_minute']:.1f} a minute:"]
    lines += [f"  {name:<16} {seconds:8.3f} s" for name, seconds in scan["seconds"].items()]
    lines += ["folders of small scans on Ray Data:", *describe_folder(result["folder"])]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
