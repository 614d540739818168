"""One fine-tuning step: this project's against the dense formulation and against its U-Net passes alone.

    python benchmarks/step.py [--quick] [--json] [--threads 2] [--repeats 5]
    python benchmarks/step.py --device cuda [--precision bf16] [--compile]

Each variant runs in a process of its own, so that its peak memory is its own; the contrastive term (from
pyramids to gradients of pyramids and heads) and the whole step are timed; medians and ratios are printed.
`sampler_ratio` is the sampler's call for all queries of a step over one convolution of 16 to 16 channels.
Precision and compilation are those of the networks' passes, in every variant.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from arco_core.config import RunConfig, load
from arco_core.config.run import PRECISIONS
from arco_core.meter import Meter
from arco_core.session import Session, make_optimizer
from arco_core.stages import Passes, Stage, build_stage
from arco_core.stages.finetune import FinetuneStage
from benchmarks.dense import DenseStage, dense_representation
from benchmarks.timing import median_seconds, peak_mebibytes, waits

CLASSES = 4
VARIANTS = ("sampled", "floor", "dense")
QUICK_REPEATS = 3


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is measured, and on what."""

    batch: int
    """Labelled images; as many unlabelled ones."""
    size: int
    repeats: int
    threads: int
    device: str
    precision: str
    compile: bool

    def arguments(self) -> list[str]:
        """The command line that `main` makes it of."""
        values = {key: value for key, value in asdict(self).items() if key != "compile"}
        given = [text for key, value in values.items() for text in (f"--{key}", str(value))]
        return [*given, *(["--compile"] if self.compile else [])]


def make_batch(batch: int, size: int, device: torch.device) -> dict[str, Tensor]:
    """Labelled and unlabelled images of `size`², four nested or adjacent structures."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    radius = ((y - size / 2) ** 2 + (x - size / 2) ** 2).sqrt() / size
    labels = torch.zeros(size, size, dtype=torch.uint8)
    labels[radius < 0.16], labels[radius < 0.11] = 2, 3
    labels[((y - size / 2) ** 2 + (x - size / 4) ** 2).sqrt() / size < 0.08] = 1
    generator = torch.Generator().manual_seed(0)
    images = labels / 4 + 0.2 * torch.rand(2 * batch, 1, size, size, generator=generator)
    made = {
        "labeled_image": images[:batch],
        "labeled_label": labels.expand(batch, -1, -1).contiguous(),
        "unlabeled_image": images[batch:],
    }
    return {key: value.to(device) for key, value in made.items()}


def build(variant: str, setting: Setting) -> FinetuneStage:
    """The stage of a variant; both start from the same weights, and pseudo-labels always count."""
    batches = [f"finetune.{kind}_batch={setting.batch}" for kind in ("labeled", "unlabeled")]
    config = load(preset="paper", overrides=[*batches, "run.workers=1", "finetune.weak_threshold=0.0"])
    torch.manual_seed(0)
    stage = (
        DenseStage(config, channels=1, classes=CLASSES, size=setting.size)
        if variant == "dense"
        else build_stage("finetune", config, channels=1, classes=CLASSES)
    )
    assert isinstance(stage, FinetuneStage)
    device = torch.device(setting.device)
    stage.passes = Passes.on(device, RunConfig(precision=setting.precision, compile=setting.compile))
    return stage.to(device).train()


def time_step(
    stage: Stage, batch: dict[str, Tensor], repeats: int, *, warm_up: bool = True
) -> tuple[float, int]:
    """Forward, backward, optimiser and teacher update: seconds, and how often the host waits for a GPU."""
    device = batch["labeled_image"].device
    optimizer = make_optimizer(stage, stage.config.optimizer)
    session = Session(stage, optimizer, stage.passes.scaler(device), None, Meter(lambda values: values))
    generator = torch.Generator(device).manual_seed(0)

    def action() -> None:
        metrics = stage(batch, generator)
        session.descend(metrics["loss"], 0.01)
        stage.after_step()

    seconds = median_seconds(action, repeats, device, warm_up=warm_up)
    return seconds, waits(action, device)


def time_contrast(
    stage: FinetuneStage, batch: dict[str, Tensor], repeats: int, *, warm_up: bool = True
) -> float:
    """From given pyramids to the loss and the gradients of the student's pyramid and head."""
    images = torch.cat([batch["labeled_image"], batch["unlabeled_image"]])
    labels = batch["labeled_label"].long().repeat(2, 1, 1)
    confidence = torch.ones(labels.shape, device=images.device)
    probability = torch.nn.functional.one_hot(labels, CLASSES).movedim(-1, 1).float()
    with torch.no_grad():
        pyramid = [p.clone() for p in stage.passes(stage.student, images)[1]]
    student = [p.clone().requires_grad_() for p in pyramid]
    generator = torch.Generator(images.device).manual_seed(0)

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
    return median_seconds(lambda: loss().backward(), repeats, images.device, warm_up=warm_up)


def time_sampler(stage: FinetuneStage, batch: dict[str, Tensor], repeats: int) -> dict[str, float]:
    """A sampler's call for the queries of all classes, and a convolution of 16 to 16 channels, in seconds.

    The convolution is that of the finest level, of as many images, forwards only and in float32.
    """
    labels = batch["labeled_label"].repeat(2, 1, 1)
    mask = labels == torch.arange(CLASSES, device=labels.device).view(-1, 1, 1, 1)
    generator = torch.Generator(labels.device).manual_seed(0)
    convolution = torch.nn.Conv2d(16, 16, 3, padding=1)
    maps = torch.rand(len(labels), 16, *labels.shape[1:])
    convolution, maps = (x.to(labels.device, memory_format=torch.channels_last) for x in (convolution, maps))

    @torch.no_grad()
    def convolve() -> Tensor:
        return convolution(maps)

    contrast = stage.contrast
    actions = {
        "sampler": lambda: contrast.sampler.pixels(mask, contrast.queries, generator),
        "convolution": convolve,
    }
    return {name: median_seconds(action, 5 * repeats, labels.device) for name, action in actions.items()}


def time_floor(stage: FinetuneStage, batch: dict[str, Tensor], repeats: int) -> float:
    """The step's U-Net passes and nothing else: two of the student's with gradients, two of the teacher's."""
    images = torch.cat([batch["labeled_image"], batch["unlabeled_image"]])
    passes = stage.passes

    def action() -> None:
        with torch.no_grad():
            passes.logits(stage.teacher, batch["unlabeled_image"])
            passes.logits(stage.teacher, images)
        first, second = passes.logits(stage.student, images), passes.logits(stage.student, images)
        (first.mean() + second.mean()).backward()

    return median_seconds(action, repeats, images.device)


def measure(variant: str, setting: Setting) -> dict[str, float]:
    """Times in seconds and, for whole steps, peak memory in MiB.

    The dense form, whose calls take seconds, is called less often, and with `--quick` without a warm-up.
    """
    device, dense = torch.device(setting.device), variant == "dense"
    repeats = max(1, setting.repeats // 3) if dense else setting.repeats
    warm_up = not dense or setting.repeats > QUICK_REPEATS
    stage, data = build(variant, setting), make_batch(setting.batch, setting.size, device)
    if variant == "floor":
        return {"step": time_floor(stage, data, repeats)}
    step, waited = time_step(stage, data, repeats, warm_up=warm_up)
    result = {"step": step, "memory": peak_mebibytes(device), "waits": waited}
    result["contrast"] = time_contrast(stage, data, repeats, warm_up=warm_up)
    return result if dense else result | time_sampler(stage, data, repeats)


def run_all(setting: Setting) -> dict[str, Any]:
    """Each variant in its own process; medians, ratios and sizes."""
    results: dict[str, dict[str, float]] = {}
    for variant in VARIANTS:
        command = [sys.executable, __file__, "--variant", variant, *setting.arguments()]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise SystemExit(f"the variant {variant!r} failed, with exit code {done.returncode}; see above")
        results[variant] = json.loads(done.stdout.splitlines()[-1])
    ours, dense, floor = results["sampled"], results["dense"], results["floor"]
    gpu = torch.cuda.get_device_name() if setting.device == "cuda" else None
    return {
        "contrast_speedup": dense["contrast"] / ours["contrast"],
        "step_speedup": dense["step"] / ours["step"],
        "memory_ratio": dense["memory"] / ours["memory"],
        "floor_ratio": ours["step"] / floor["step"],
        "unet_share": floor["step"] / ours["step"],
        "sampler_ratio": ours["sampler"] / ours["convolution"],
        "images_per_second": 2 * setting.batch / ours["step"],
        "waits": ours["waits"],
        **asdict(setting),
        "batch": f"{setting.batch}+{setting.batch}", "gpu": gpu, "classes": CLASSES, "queries": 256,
        "negatives": 512, "results": results,
    }  # fmt: skip


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    where = f"{result['gpu']}, {result['precision']}" if result["gpu"] else f"{result['threads']} threads"
    compiled = ", compiled" * bool(result["gpu"] and result["compile"])
    sizes = f"batch {result['batch']} at {result['size']}², {CLASSES} classes, 256 queries, 512 negatives"
    print(f"{sizes}, {where}{compiled}")
    print(f"{'':10}{'contrast s':>12}{'step s':>12}{'peak MiB':>12}")
    for variant, row in result["results"].items():
        cells = "".join(f"{row[k]:12.4f}" if k in row else f"{'':12}" for k in ("contrast", "step"))
        print(f"{variant:10}{cells}" + (f"{row['memory']:12.0f}" if "memory" in row else ""))
    ratios = (
        "contrast_speedup",
        "step_speedup",
        "memory_ratio",
        "floor_ratio",
        "unet_share",
        "sampler_ratio",
    )
    for key in ratios:
        print(f"{key:18}{result[key]:9.2f}")
    print(f"{'images_per_second':18}{result['images_per_second']:9.1f}")
    if result["gpu"]:
        print(f"{'waits':18}{result['waits']:9.0f}")


def parse() -> tuple[Setting, argparse.Namespace]:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="smaller batch and images, fewer repeats: under two minutes"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument(
        "--batch", type=int, help="labelled images, as many unlabelled ones (default 4; 2 with --quick)"
    )
    parser.add_argument("--size", type=int, help="side of an image (default 256; 128 with --quick)")
    parser.add_argument("--repeats", type=int, help="timed repeats (default 5; 3 with --quick; 30 on a GPU)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="on a GPU")
    parser.add_argument("--compile", action="store_true", help="on a GPU")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU here; leave it out to measure on the CPU")
    repeats = 30 if args.device == "cuda" else QUICK_REPEATS if args.quick else 5
    setting = Setting(
        batch=args.batch or (2 if args.quick else 4),
        size=args.size or (128 if args.quick else 256),
        repeats=args.repeats or repeats,
        threads=args.threads,
        device=args.device,
        precision=args.precision,
        compile=args.compile,
    )
    return setting, args


def main() -> None:
    """Measure one variant in this process, or all of them, each in its own."""
    setting, args = parse()
    torch.set_num_threads(setting.threads)
    if args.variant:
        print(json.dumps(measure(args.variant, setting)))
        return
    result = run_all(setting)
    if args.json:
        print(json.dumps(result))
    else:
        show(result)


if __name__ == "__main__":
    main()
