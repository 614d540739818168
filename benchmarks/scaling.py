"""What distribution costs: Ray Train against the plain loop, more workers, and a model of many GPUs.

    python benchmarks/scaling.py [--quick] [--json] [--workers 1 2] [--repeats 3]

Trains stage two on a synthetic cohort, each worker with one thread; times are medians of the seconds a step
that the training logs itself, without start, validation and checkpoints. The plain loop and one worker under
Ray alternate. Strong: the same batch divided among workers. Weak: the same batch for each worker.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from arco_core.config import dumps, load
from benchmarks.cluster_model import Machine, Payload, table
from benchmarks.workers import train as train_and_count
from infra.datasets import DatasetVersion, prepare_dataset
from infra.datasets.synthetic import write_cohort
from infra.ray_session import ray_session
from infra.storage import Store
from infra.training import StageJob
from infra.training.run import run_stage

LOG_EVERY = 5


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is trained."""

    size: int
    batch: int
    """Labelled images of a step; as many unlabelled ones."""
    steps: int
    folder: Path

    def job(self, name: str, version: DatasetVersion, *, workers: int, batch: int) -> StageJob:
        """Stage two on `version`, in a run folder of its own."""
        config = load(
            preset="paper",
            overrides=[
                f"finetune.steps={self.steps}",
                f"finetune.labeled_batch={batch}",
                f"finetune.unlabeled_batch={batch}",
                f"pretrain.labeled_batch={batch}",
                f"pretrain.unlabeled_batch={batch}",
                f"supervised.labeled_batch={batch}",
                "finetune.weak_threshold=0.0",  # pseudo-labels count from the first step
                "run.device=cpu",
                f"run.workers={workers}",
                f"run.log_every={LOG_EVERY}",
                "run.validate_every=0",
                f"run.checkpoint_every={self.steps}",
            ],
        )
        return StageJob(
            stage="finetune",
            config=dumps(config),
            dataset_url=version.url,
            labeled_patients=version.labeled_patients(2, seed=0),
            channels=version.channels,
            classes=version.classes,
            run_url=str(self.folder / name),
            seed=0,
        )


@dataclass(frozen=True)
class Timing:
    """One training."""

    step: float
    """Median seconds a step; of the first lines, in which caches fill, nothing counts."""
    start: float
    """Seconds besides the steps: start and end."""


def timed(job: StageJob, backend: str) -> Timing:
    """Train `job`, silently."""
    start = time.perf_counter()
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        result = run_stage(job, backend)
    total = time.perf_counter() - start
    folder, _, name = result.metrics_url.rpartition("/")
    lines = [json.loads(line) for line in Store(folder).read_bytes(name).splitlines()]
    seconds = [line["seconds"] for line in lines if "seconds" in line]
    return Timing(step=statistics.median(seconds[1:]), start=total - job.steps * statistics.fmean(seconds))


def make_version(setting: Setting) -> DatasetVersion:
    """A synthetic cohort, prepared at the setting's size."""
    raw = write_cohort(setting.folder / "raw", patients=12, labeled=8)
    size = f"data.image_size=[{setting.size},{setting.size}]"
    config = load(preset="demo", overrides=[size, 'data.fit="resize"'])
    return prepare_dataset(str(raw), Store(str(setting.folder / "store")), config.data, use_ray=False)


def measure(setting: Setting, workers: Sequence[int], repeats: int) -> dict[str, Any]:
    """Everything that can be measured on this machine."""
    version = make_version(setting)
    plain, on_ray = [], []
    scaling: dict[str, dict[int, float]] = {"strong": {}, "weak": {}}
    with ray_session(workers=max(workers)):
        for repeat in range(repeats):
            for backend, timings in (("in-process", plain), ("ray", on_ray)):
                job = setting.job(f"{backend}-{repeat}", version, workers=1, batch=setting.batch)
                timings.append(timed(job, backend))
        for count in workers:
            for kind, batch in (("strong", setting.batch), ("weak", setting.batch * count)):
                timings = on_ray
                if count > 1:
                    jobs = [
                        setting.job(f"{kind}-{count}-{r}", version, workers=count, batch=batch)
                        for r in range(repeats)
                    ]
                    timings = [timed(job, "ray") for job in jobs]
                scaling[kind][count] = statistics.median(t.step for t in timings)
    job = setting.job("traffic", version, workers=2, batch=setting.batch)
    traffic = train_and_count(job, 2, job.steps)
    return {
        "ray_overhead": statistics.median(r.step / p.step for r, p in zip(on_ray, plain, strict=True)),
        "start_s": {
            "in-process": statistics.median(t.start for t in plain),
            "ray": statistics.median(t.start for t in on_ray),
        },
        "step_s": {"in-process": statistics.median(t.step for t in plain), **scaling},
        "bytes_per_step": traffic,
        "model": predicted(version, setting, traffic),
        "size": setting.size,
        "batch": f"{setting.batch}+{setting.batch}",
        "steps": setting.steps,
        "repeats": repeats,
        "cpus": os.cpu_count(),
    }


def predicted(version: DatasetVersion, setting: Setting, traffic: dict[str, float]) -> dict[str, Any]:
    """The model of many GPUs, and the keys that it predicts for the measurement with two workers."""
    config = load(preset="paper")
    rows = sum(shard.rows for shard in version.manifest.shards)
    payload = Payload.of(
        config.finetune.contrast,
        classes=len(version.classes),
        dim=sum(config.network.features),
        batch=setting.batch,
        slice_bytes=sum(shard.bytes for shard in version.manifest.shards) // rows,
        gradients=round(traffic["gradients"]),
        statistics=round(traffic["statistics"]),
    )
    of_two = replace(payload, unlabeled=setting.batch // 2)
    return {
        "keys_predicted": of_two.keys(2),
        "payload": asdict(payload),
        "assumed": asdict(Machine()),
        "table": table(payload),
    }


def report(result: dict[str, Any]) -> Iterator[str]:
    """The lines that are printed."""
    yield f"one worker under Ray Train: {result['ray_overhead']:.3f} x the plain loop's time a step"
    starts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in result["start_s"].items())
    yield f"start and end: {starts}"
    for kind in ("strong", "weak"):
        times = result["step_s"][kind]
        alone = times[min(times)]
        for workers, seconds in times.items():
            ratio = alone / seconds
            ideal = workers if kind == "strong" else 1
            yield f"{kind:<7}{workers:>3} workers  {seconds:7.3f} s a step   {ratio / ideal:5.0%} of ideal"
    sent = ", ".join(f"{kind} {count / 1e6:.2f} MB" for kind, count in result["bytes_per_step"].items())
    keys = result["model"]["keys_predicted"]
    yield f"a worker of two hands on, a step: {sent} (the model's keys: {keys / 1e6:.2f} MB)"
    for row in result["model"]["table"]:
        yield (
            f"model  {row['gpus']:>3} GPUs  all-reduce {row['all_reduce_ms']:6.2f} ms  "
            f"gather {row['gather_ms']:6.2f} ms  store {row['store_bytes_per_s'] / 1e6:6.0f} MB/s  "
            f"{row['efficiency']:5.1%} of ideal"
        )


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="64², 30 steps, once: under two minutes")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.quick:
        options.size, options.steps, options.repeats = 64, 30, 1
    with tempfile.TemporaryDirectory(prefix="arco-scaling-") as folder:
        setting = Setting(
            size=options.size, batch=options.batch, steps=options.steps, folder=Path(folder)
        )  # fmt: skip
        result = measure(setting, options.workers, options.repeats)
    print(json.dumps(result) if options.json else "\n".join(report(result)))


if __name__ == "__main__":
    main()
