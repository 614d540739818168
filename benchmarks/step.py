"""One fine-tuning step: this project's against the dense formulation and against its U-Net passes alone.

    python benchmarks/step.py [--quick] [--json] [--threads 2] [--repeats 5]

Each variant runs in a process of its own, so that its peak memory is its own; the contrastive term (from
pyramids to gradients of pyramids and heads) and the whole step are timed; medians and ratios are printed.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from arco_core.config import load
from arco_core.stages import Stage, build_stage
from arco_core.stages.finetune import FinetuneStage
from benchmarks.dense import DenseStage, dense_representation

CLASSES = 4


def make_batch(batch: int, size: int) -> dict[str, Tensor]:
    """Labelled and unlabelled images of `size`², four nested or adjacent structures."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    radius = ((y - size / 2) ** 2 + (x - size / 2) ** 2).sqrt() / size
    labels = torch.zeros(size, size, dtype=torch.uint8)
    labels[radius < 0.16], labels[radius < 0.11] = 2, 3
    labels[((y - size / 2) ** 2 + (x - size / 4) ** 2).sqrt() / size < 0.08] = 1
    generator = torch.Generator().manual_seed(0)
    images = labels / 4 + 0.2 * torch.rand(2 * batch, 1, size, size, generator=generator)
    return {
        "labeled_image": images[:batch],
        "labeled_label": labels.expand(batch, -1, -1).contiguous(),
        "unlabeled_image": images[batch:],
    }


def median_seconds(action: Callable[[], None], repeats: int) -> float:
    """Median time of `action` after one warm-up."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def build(variant: str, batch: int, size: int) -> FinetuneStage:
    """The stage of a variant; both start from the same weights, and pseudo-labels always count."""
    overrides = [f"finetune.labeled_batch={batch}", f"finetune.unlabeled_batch={batch}", "run.workers=1"]
    config = load(preset="paper", overrides=[*overrides, "finetune.weak_threshold=0.0"])
    torch.manual_seed(0)
    if variant == "dense":
        return DenseStage(config, channels=1, classes=CLASSES, size=size)
    stage = build_stage("finetune", config, channels=1, classes=CLASSES)
    assert isinstance(stage, FinetuneStage)
    return stage


def time_step(stage: Stage, batch: dict[str, Tensor], repeats: int) -> float:
    """Forward, backward, optimiser and teacher update."""
    parameters = [p for p in stage.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9, nesterov=True)
    generator = torch.Generator().manual_seed(0)

    def action() -> None:
        optimizer.zero_grad()
        stage(batch, generator)["loss"].backward()
        optimizer.step()
        stage.after_step()

    return median_seconds(action, repeats)


def time_contrast(stage: FinetuneStage, batch: dict[str, Tensor], repeats: int) -> float:
    """From given pyramids to the loss and the gradients of the student's pyramid and head."""
    images = torch.cat([batch["labeled_image"], batch["unlabeled_image"]])
    labels = batch["labeled_label"].long().repeat(2, 1, 1)
    confidence = torch.ones(labels.shape)
    probability = torch.nn.functional.one_hot(labels, CLASSES).movedim(-1, 1).float()
    with torch.no_grad():
        pyramid = [p.clone() for p in stage.student.forward_pyramid(images)[1]]
    student = [p.clone().requires_grad_() for p in pyramid]
    generator = torch.Generator().manual_seed(0)

    def sampled() -> Tensor:
        return stage.contrast(
            labels=labels, confidence=confidence, teacher_probability=probability,
            student=(student, stage.student_head.matrix()),
            teacher=(pyramid, stage.teacher_head.matrix().detach()), generator=generator,
        ).loss  # fmt: skip

    def dense() -> Tensor:
        assert isinstance(stage, DenseStage)
        with torch.no_grad():
            teacher = dense_representation(stage.teacher_head, pyramid)
        maps = dense_representation(stage.student_head, student)
        return stage.dense_contrast(maps, teacher, labels, confidence, probability)

    loss = dense if isinstance(stage, DenseStage) else sampled
    return median_seconds(lambda: loss().backward(), repeats)


def time_floor(stage: FinetuneStage, batch: dict[str, Tensor], repeats: int) -> float:
    """The step's U-Net passes and nothing else: two of the student's with gradients, two of the teacher's."""
    images = torch.cat([batch["labeled_image"], batch["unlabeled_image"]])

    def action() -> None:
        with torch.no_grad():
            stage.teacher(batch["unlabeled_image"])
            stage.teacher(images)
        (stage.student(images).mean() + stage.student(images).mean()).backward()

    return median_seconds(action, repeats)


def measure(variant: str, batch: int, size: int, repeats: int) -> dict[str, float]:
    """Times in seconds and, for whole steps, peak memory in MiB of this process."""
    stage = build(variant, batch, size)
    stage.train()
    data = make_batch(batch, size)
    if variant == "floor":
        return {"step": time_floor(stage, data, repeats)}
    step = time_step(stage, data, repeats)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"step": step, "memory": memory, "contrast": time_contrast(stage, data, repeats)}


def run_all(batch: int, size: int, repeats: int, threads: int) -> dict[str, Any]:
    """Each variant in its own process; medians, ratios and sizes."""
    results: dict[str, dict[str, float]] = {}
    for variant in ("sampled", "floor", "dense"):
        count = max(1, repeats // 3) if variant == "dense" else repeats
        command = [sys.executable, __file__, "--variant", variant, "--batch", str(batch), "--size", str(size)]
        command += ["--repeats", str(count), "--threads", str(threads)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        results[variant] = json.loads(output.splitlines()[-1])
    ours, dense, floor = results["sampled"], results["dense"], results["floor"]
    return {
        "contrast_speedup": dense["contrast"] / ours["contrast"],
        "step_speedup": dense["step"] / ours["step"],
        "memory_ratio": dense["memory"] / ours["memory"],
        "floor_ratio": ours["step"] / floor["step"],
        "batch": f"{batch}+{batch}", "size": size, "classes": CLASSES, "queries": 256, "negatives": 512,
        "threads": threads, "repeats": repeats, "results": results,
    }  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="smaller batch and images, fewer repeats: under two minutes"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument(
        "--batch", type=int, help="labelled images, as many unlabelled ones (default 4; 2 with --quick)"
    )
    parser.add_argument("--size", type=int, help="side of an image (default 256; 128 with --quick)")
    parser.add_argument("--repeats", type=int, help="timed repeats (default 5; 3 with --quick)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--variant", choices=("sampled", "dense", "floor"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    batch = args.batch or (2 if args.quick else 4)
    size = args.size or (128 if args.quick else 256)
    repeats = args.repeats or (3 if args.quick else 5)
    torch.set_num_threads(args.threads)
    if args.variant:
        print(json.dumps(measure(args.variant, batch, size, repeats)))
        return
    result = run_all(batch, size, repeats, args.threads)
    if args.json:
        print(json.dumps(result))
        return
    sizes = f"batch {result['batch']} at {size}², {CLASSES} classes, 256 queries, 512 negatives"
    print(f"{sizes}, {args.threads} threads")
    print(f"{'':10}{'contrast s':>12}{'step s':>12}{'peak MiB':>12}")
    for variant, row in result["results"].items():
        cells = "".join(f"{row[k]:12.3f}" if k in row else f"{'':12}" for k in ("contrast", "step", "memory"))
        print(f"{variant:10}{cells}")
    for key in ("contrast_speedup", "step_speedup", "memory_ratio", "floor_ratio"):
        print(f"{key:18}{result[key]:8.2f}")


if __name__ == "__main__":
    main()
