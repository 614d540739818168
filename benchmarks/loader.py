"""Slices per second out of the pools, against one HDF5 file a slice and against the disk itself.

    python benchmarks/loader.py [--quick] [--json] [--data FOLDER] [--slices N] [--repeats 5]

Slices of 256 x 256 with their labels, in batches of 8, as float32, before augmentation:
pool            the pool as the trainer draws from it, from Parquet shards on the local disk
hdf5_0, hdf5_2  gzip-compressed HDF5 files through a PyTorch DataLoader with 0 and 2 workers, and with one for
                each CPU where these are more; the fastest counts
disk            one sequential read of the same shards' bytes, in blocks of 1 MiB; nothing is decoded
s3              the pool, from an S3 server on this machine: moto, or what --s3-script starts
Before each timing the page cache forgets the files (posix_fadvise), for all alike. Workers are started and
the first batch or window is drawn before the clock starts. All is repeated in turn; medians are printed.
Real slices come from --data or $ARCO_REAL_DATA/ACDC (the literature's HDF5 files), else phantoms are drawn.
The cost of augmentation follows (augment_cost.py).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.augment_cost import augmentation_costs, table
from benchmarks.loader_data import Hdf5Slices, Slices, make_slices
from benchmarks.s3_server import s3_server
from infra.datasets import DatasetVersion, SlicePool, windows
from infra.datasets.row_groups import row_groups_of
from infra.training.feed import TrainingFeed

BATCH = 8
WINDOWS = 6
"""Windows of an epoch: the pool is made larger than memory by making the memory small."""
BLOCK = 2**20
SCRIPT = "ARCO_S3_SERVER_SCRIPT"  # as the tests have it
HDF5_WORKERS = sorted({0, 2, max(2, os.cpu_count() or 2)})


def forget(paths: Iterable[Path]) -> None:
    """Drop `paths` from the page cache, where the system can."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in paths:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def pool_rate(version: DatasetVersion, patients: tuple[str, ...], shards: Iterable[Path]) -> float:
    """Slices per second of an epoch after its first window."""
    groups = row_groups_of(version, patients, annotated_only=True)
    windows.WINDOW_BYTES = sum(group.bytes for group in groups) // WINDOWS
    forget(shards)
    with SlicePool(version, patients, labels=True, batch=BATCH, cache=False) as pool:
        feed = TrainingFeed(pool, None)
        first = -(-pool.size // (WINDOWS * BATCH))
        for _ in range(first):
            feed.next()
        batches = pool.size // BATCH - first
        start = time.perf_counter()
        for _ in range(batches):
            feed.next()
        return batches * BATCH / (time.perf_counter() - start)


def hdf5_rate(loader: DataLoader[Any], files: tuple[Path, ...]) -> float:
    """Slices per second of an epoch."""
    forget(files)
    count, start = 0, 0.0
    for number, (images, _) in enumerate(loader):
        if number == 0:
            start = time.perf_counter()  # the workers have the files' names by now
        else:
            count += len(images)
    return count / (time.perf_counter() - start)


def disk_rate(shards: Iterable[Path], slices: int) -> float:
    """Slices whose bytes are read in a second."""
    forget(shards)
    buffer = bytearray(BLOCK)
    start = time.perf_counter()
    for path in shards:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return slices / (time.perf_counter() - start)


def measure(
    slices: Slices, s3: DatasetVersion, repeats: int
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Rates of every way to read, repeated in turn; processor time of this process, µs a slice, at best."""
    loaders = {
        f"hdf5_{workers}": DataLoader(
            Hdf5Slices(slices.files),
            batch_size=BATCH,
            shuffle=True,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        for workers in HDF5_WORKERS
    }
    ways: dict[str, Callable[[], float]] = {
        name: lambda loader=loader: hdf5_rate(loader, slices.files)  # type: ignore[misc]
        for name, loader in loaders.items()
    }
    for loader in loaders.values():  # starts the workers
        next(iter(loader))
    ways |= {
        "disk": lambda: disk_rate(slices.shards, len(slices.files)),
        "pool": lambda: pool_rate(slices.version, slices.patients, slices.shards),
        "s3": lambda: pool_rate(s3, slices.patients, ()),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    busy = {name: float("inf") for name in ways if not _elsewhere(name)}
    for _ in range(repeats):
        for name, rate in ways.items():
            start = time.process_time()
            rates[name].append(rate())
            if name in busy:
                microseconds = 1e6 * (time.process_time() - start) / len(slices.files)
                busy[name] = min(busy[name], microseconds)
    return rates, busy


def run(args: argparse.Namespace) -> dict[str, Any]:
    """All measurements, as printed by --json."""
    with tempfile.TemporaryDirectory(prefix="arco-loader-", dir=args.folder) as folder:
        slices = make_slices(Path(folder), args.data, args.slices)
        with s3_server(Path(folder), args.s3_script) as (server, bucket):
            bucket.upload_folder(Path(slices.version.store.url), "dataset")
            s3 = DatasetVersion.open(bucket.join("dataset", slices.version.version))
            rates, busy = measure(slices, s3, args.repeats)
        hdf5 = [max(turn) for turn in zip(*(rates[f"hdf5_{n}"] for n in HDF5_WORKERS), strict=True)]
        return {
            "speedup_vs_hdf5": _ratio(rates["pool"], hdf5),
            "ratio_to_disk": _ratio(rates["pool"], rates["disk"]),
            "s3_slices_per_s": statistics.median(rates["s3"]),
            "size_ratio": slices.shard_bytes / slices.hdf5_bytes,
            "slices_per_s": {name: statistics.median(values) for name, values in rates.items()},
            "cpu_us_per_slice": busy,
            "shard_bytes": slices.shard_bytes, "hdf5_bytes": slices.hdf5_bytes,
            "slices": len(slices.files), "source": slices.source, "s3_server": server,
            "size": 256, "batch": BATCH, "repeats": args.repeats, "cpus": os.cpu_count(),
            "page_cache": "dropped" if hasattr(os, "posix_fadvise") else "warm",
            "augmentation": augmentation_costs(args.repeats, torch.device(args.device)),
        }  # fmt: skip


def _elsewhere(name: str) -> bool:
    """Whether it is other processes, the workers, that read."""
    return name.startswith("hdf5_") and name != "hdf5_0"


def _ratio(above: list[float], below: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def report(result: dict[str, Any]) -> str:
    """`result` for people."""
    rates = result["slices_per_s"]
    return "\n".join(
        [
            f"{result['slices']} slices of 256 x 256, {result['source']}; {result['cpus']} CPUs, page cache "
            f"{result['page_cache']}, medians of {result['repeats']}",
            *(
                f"{name:8}{rate:9.0f} slices/s"
                + (f"{result['cpu_us_per_slice'][name]:9.0f} µs of a CPU" if not _elsewhere(name) else "")
                for name, rate in rates.items()
            ),
            f"pool against HDF5       {result['speedup_vs_hdf5']:6.2f} x",
            f"pool against the disk   {result['ratio_to_disk']:6.2f} x",
            f"bytes against HDF5      {result['size_ratio']:6.2f} x",
            "",
            table(result["augmentation"]),
        ]
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    real = os.environ.get("ARCO_REAL_DATA")
    parser.add_argument("--quick", action="store_true", help="fewer slices and repeats: under two minutes")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--data", default=f"{real}/ACDC" if real else None, help="ACDC as HDF5 files")
    parser.add_argument("--slices", type=int, help="at least so many (default 1200; 300 with --quick)")
    parser.add_argument("--repeats", type=int, help="default 5; 3 with --quick")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch, as a training worker has")
    parser.add_argument("--device", default="cpu", help="of augmentation")
    parser.add_argument("--folder", help="where files are written and read (default: the temporary folder)")
    parser.add_argument("--s3-script", default=os.environ.get(SCRIPT), help="see s3_server.py")
    args = parser.parse_args()
    args.slices = args.slices or (300 if args.quick else 1200)
    args.repeats = args.repeats or (3 if args.quick else 5)
    torch.set_num_threads(args.threads)
    result = run(args)
    print(json.dumps(result) if args.json else report(result))


if __name__ == "__main__":
    main()
