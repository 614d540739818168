"""What augmentation costs a batch: each kind against a plain copy, and against kornia where it is installed.

    python benchmarks/augment_cost.py [--device cuda] [--repeats 20]

A batch of 8 images of 256 x 256, parameters drawn anew for each image; geometric kinds move the labels, too,
by the same grid. Kornia (no dependency of this project) is given what comes nearest, on the images alone.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from arco_core.augment import RandomWarp, invert, jitter, mix, random_affine, warp
from arco_core.augment.intensity import blur
from arco_core.config import AugmentConfig

BATCH, SIDE, CLASSES = 8, 256, 4
COLOURS = AugmentConfig(jitter_probability=1.0, blur_probability=0.0, noise=0.0)

Rows = dict[str, Callable[[], Any]]


def ours(images: Tensor, labels: Tensor) -> Rows:
    """Every kind of augmentation, as the stages call it."""
    generator = torch.Generator(images.device).manual_seed(0)
    config, random_warp = AugmentConfig(), RandomWarp()
    confidence = torch.rand(labels.shape, device=images.device)
    classes = labels.long()
    sigma = torch.linspace(0.2, config.blur_sigma, BATCH, device=images.device)
    grid = random_warp.grid(BATCH, (SIDE, SIDE), generator)

    def move(grid: Tensor) -> None:
        warp(images, grid, border=True)
        warp(labels[:, None].to(images.dtype), grid, nearest=True, border=True)

    def mixed(mode: str) -> Callable[[], Any]:
        return lambda: mix(mode, images, classes, confidence, classes=CLASSES, generator=generator)

    return {
        "copy": images.clone,
        "rotation, crop, flip": lambda: move(random_affine(BATCH, (SIDE, SIDE), config, generator)),
        "thin-plate warp": lambda: move(random_warp.grid(BATCH, (SIDE, SIDE), generator)),
        "its inverse": lambda: invert(grid),
        "colour jitter": lambda: jitter(images, COLOURS, generator),
        "blur": lambda: blur(images, sigma, radius=3),
        "jitter, blur, noise": lambda: jitter(images, config, generator),
        "cutmix": mixed("cutmix"),
        "cutout": mixed("cutout"),
        "classmix": mixed("classmix"),
    }


def kornias(images: Tensor) -> Rows:
    """What kornia has of it; empty where it is not installed."""
    try:
        import kornia.augmentation as K
    except ImportError:
        return {}
    flip = K.RandomHorizontalFlip(p=0.5)
    affine = K.RandomAffine(degrees=20.0, translate=(0.1, 0.1), scale=(1.0, 1.25), p=1.0)
    spline = K.RandomThinPlateSpline(scale=0.01, p=1.0)
    colours = K.ColorJiggle(brightness=0.4, contrast=0.4, p=1.0)
    gauss = K.RandomGaussianBlur((7, 7), (0.2, 1.15), p=1.0)
    cut = K.RandomCutMixV2(p=1.0, use_correct_lambda=True)
    erase = K.RandomErasing(scale=(0.5, 0.5), p=1.0)
    targets = torch.zeros(len(images), device=images.device)
    return {
        "rotation, crop, flip": lambda: affine(flip(images)),
        "thin-plate warp": lambda: spline(images),
        "colour jitter": lambda: colours(images.expand(-1, 3, -1, -1)),
        "blur": lambda: gauss(images),
        "cutmix": lambda: cut(images, targets),
        "cutout": lambda: erase(images),
    }


def milliseconds(action: Callable[[], Any], repeats: int, device: torch.device) -> float:
    """Median time of `action` after two warm-ups."""
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[2:])


def augmentation_costs(repeats: int, device: torch.device) -> dict[str, dict[str, float]]:
    """Milliseconds a batch of every kind (`ms`), in copies (`copies`), and kornia's (`kornia_ms`)."""
    images = torch.rand(BATCH, 1, SIDE, SIDE, device=device)
    labels = (images[:, 0] * CLASSES).to(torch.uint8)
    rows = {name: {"ms": milliseconds(act, repeats, device)} for name, act in ours(images, labels).items()}
    copy = rows["copy"]["ms"]
    for row in rows.values():
        row["copies"] = row["ms"] / copy
    for name, action in kornias(images).items():
        rows[name]["kornia_ms"] = milliseconds(action, repeats, device)
    return rows


def table(rows: dict[str, dict[str, float]]) -> str:
    """`rows` as text."""
    lines = [f"{'augmentation of a batch':26}{'ms':>8}{'copies':>8}{'kornia ms':>11}"]
    for name, row in rows.items():
        other = f"{row['kornia_ms']:11.2f}" if "kornia_ms" in row else ""
        lines.append(f"{name:26}{row['ms']:8.2f}{row['copies']:8.1f}{other}")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(table(augmentation_costs(args.repeats, torch.device(args.device))))


if __name__ == "__main__":
    main()
