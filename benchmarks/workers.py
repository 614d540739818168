"""What the number of workers and the place of banks change: bytes and seconds a step, and what is learnt.

    python benchmarks/workers.py --data scans --preset hippocampus --seeds 0 1 --store /tmp/workers

Trains stage one once a seed and stage two in each of the ways below, each worker a process of this machine
(gloo, no Ray), and prints a table: payloads that a worker hands to collectives a step, seconds a step, the
last loss and the last Dice on the validation volumes. A way is `<workers>[-<workers>…][/local]`: how many
workers train each of as many equal parts of the steps, and `local` where banks hold a worker's own keys.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import socket
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from arco_core.config import dumps
from arco_core.errors import Stopped
from arco_core.training import Request
from components.prepare.step import prepare
from components.settings import add_config_options, load_settings
from components.training_options import labeled_amount, labeled_patients
from infra.datasets import DatasetVersion
from infra.storage import Store
from infra.training import StageJob, StageResult, collectives, worker
from infra.training.watch import Contact

WAYS = ("2", "2/local", "1", "2-1-2")
_KEYS, _GRADIENTS, _STATISTICS = "keys", "gradients", "statistics"


@dataclass(frozen=True)
class Way:
    """How many workers train each part of the steps, and where banks are."""

    name: str
    workers: tuple[int, ...]
    banks: str

    @staticmethod
    def parse(text: str) -> Way:
        counts, _, banks = text.partition("/")
        return Way(text, tuple(int(count) for count in counts.split("-")), banks or "shared")

    @property
    def overrides(self) -> list[str]:
        """Settings that ask for it."""
        least, most = min(self.workers), max(self.workers)
        return [f"run.workers={most}", f"run.min_workers={least}", f'run.banks="{self.banks}"']


def count_traffic(traffic: Counter[str]) -> None:
    """From now on add to `traffic` the bytes that this process hands to collectives."""

    def counted(kind: str, call: Callable[..., Any], size: Callable[..., int]) -> Callable[..., Any]:
        @wraps(call)
        def counting(*arguments: Any, **named: Any) -> Any:
            traffic[kind] += size(*arguments)
            return call(*arguments, **named)

        return counting

    def size_of_statistics(module: torch.nn.Module) -> int:
        return sum(b.nbytes for name, b in module.named_buffers() if "running_" in name)

    collectives.gather_rows = counted(_KEYS, collectives.gather_rows, lambda rows: rows.nbytes)
    collectives.average_running_statistics = counted(
        _STATISTICS, collectives.average_running_statistics, size_of_statistics
    )
    wrap = worker.data_parallel

    def wrapped(*arguments: Any) -> DistributedDataParallel:
        parallel = wrap(*arguments)
        traffic.clear()  # the rehearsal's
        parallel.register_comm_hook(None, hook)
        return parallel

    def hook(state, bucket):  # type: ignore[no-untyped-def]  # torch rejects annotations that are text
        traffic[_GRADIENTS] += bucket.buffer().nbytes
        future = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
        return future.then(lambda sent: sent.value()[0] / dist.get_world_size())

    worker.data_parallel = wrapped


def train(job: StageJob, world: int, until: int) -> dict[str, float]:
    """Train `job` to step `until` with `world` workers; bytes a step that the first one hands on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    processes = [
        context.Process(target=_work, args=(job.to_json(), rank, world, until, address, queue))
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise SystemExit(f"{job.title}: a worker failed")
    return dict(queue.get())


def _work(text: str, rank: int, world: int, until: int, address: str, queue: Any) -> None:
    job = StageJob.from_json(text)
    traffic: Counter[str] = Counter()
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=address, rank=rank, world_size=world)
        count_traffic(traffic)
    done: list[int] = []
    contact = Contact(
        report=lambda step, metrics: done.append(step),
        warn=print,
        alive=lambda step: None,
        # A request is heard a step later where there are several workers.
        request=lambda: Request.STOP if rank == 0 and done[-1] >= until else Request.GO_ON,
    )
    with suppress(Stopped):
        worker.run_worker(job, rank=rank, world=world, device=torch.device("cpu"), contact=contact)
    if rank == 0:
        steps = max(done[-1] - done[0], 1)
        queue.put({kind: count / steps for kind, count in traffic.items()})
    if world > 1:
        dist.destroy_process_group()


def finish(job: StageJob, way: Way) -> tuple[StageResult, dict[str, float]]:
    """Train `job` in the given way."""
    traffic: dict[str, float] = {}
    for part, world in enumerate(way.workers, 1):
        traffic |= train(job, world, job.steps * part // len(way.workers))
    result = worker.finished(job)
    if result is None:
        raise SystemExit(f"{job.title} did not end")
    return result, traffic


def measure(way: Way, make: Callable[..., StageJob], seeds: Sequence[int]) -> dict[str, Any]:
    """One row of the table."""
    rows = []
    for seed in seeds:
        first, _ = finish(make("pretrain", seed, overrides=["run.workers=2"]), Way.parse("2"))
        job = make("finetune", seed, overrides=way.overrides, init=first.checkpoint_url)
        result, traffic = finish(job, way)
        folder, _, name = result.metrics_url.rpartition("/")
        lines = [json.loads(line) for line in Store(folder).read_bytes(name).splitlines()]
        rows.append({
            "loss": statistics.fmean(line["loss"] for line in lines[-20:] if "loss" in line),
            "dice": 100 * result.final["validation/dice"],
            "seconds": statistics.median(line["seconds"] for line in lines if "seconds" in line),
            **traffic,
        })  # fmt: skip
        print(f"{way.name}, seed {seed}: {rows[-1]}", flush=True)
    return {"way": way.name, "seeds": rows}


def main() -> None:
    """Parse the command line, train, and print the table and JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="raw scans")
    parser.add_argument("--store", default="arco-store", help="where dataset version and trainings go")
    add_config_options(parser)
    parser.add_argument("--labeled", type=labeled_amount, default=9.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--ways", nargs="+", default=list(WAYS))
    options = parser.parse_args()
    store = str(Path(options.store).resolve())
    given = {"preset": options.preset, "config_file": options.config_file}
    dataset = prepare(data=options.data, store=store, overrides=options.overrides, use_ray=False, **given)
    version = DatasetVersion.open(dataset)

    def make(stage: Any, seed: int, *, overrides: Sequence[str], init: str | None = None) -> StageJob:
        config = load_settings(overrides=[*options.overrides, *overrides], **given)
        patients = labeled_patients(version, options.labeled, seed)
        return StageJob(
            stage=stage, config=dumps(config), dataset_url=dataset, labeled_patients=patients,
            channels=version.channels, classes=version.classes, run_url=f"{store}/runs/workers",
            seed=seed, init_checkpoint=init,
        )  # fmt: skip

    print(json.dumps([measure(Way.parse(way), make, options.seeds) for way in options.ways], indent=1))


if __name__ == "__main__":
    main()
