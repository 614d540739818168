"""What a training needs of the machines that it will run on, and what they have; nothing is started."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import ray
import torch

from arco_core.config import ConfigError, RunConfig
from arco_core.errors import StoreError
from infra.ray_session import available_cores
from infra.storage import Store

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_TIMEOUT = 5.0


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a machine, or a node of a cluster, has for workers."""

    cpus: float
    gpus: float
    memory: int
    """Bytes."""

    def places(self, *, cores: int, gpu: bool, memory: int) -> int:
        """Workers of so many `cores`, `memory` bytes and, if asked for, a GPU that fit here."""
        by_cores = self.cpus // cores
        return int(min(by_cores, self.gpus if gpu else by_cores, self.memory // memory))


def this_machine() -> Machine:
    """Cores that this process may use, GPUs that torch finds, and the memory, used or not."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if _CGROUP_LIMIT.exists():  # a container's limit, which the kernel's numbers know nothing of
        limit = _CGROUP_LIMIT.read_text().strip()
        memory = min(memory, int(limit)) if limit.isdecimal() else memory
    return Machine(cpus=available_cores(), gpus=torch.cuda.device_count(), memory=memory)


def cluster(address: str) -> list[Machine]:
    """The nodes of the Ray cluster at `address`, all they have, used or not.

    Raises `ConfigError` when no cluster answers there.
    """
    with _joined(address):
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [
        Machine(cpus=node.get("CPU", 0), gpus=node.get("GPU", 0), memory=int(node.get("memory", 0)))
        for node in nodes
    ]


def check_workers(run: RunConfig, backend: str, *, memory: int) -> str:
    """Whether the workers that `run` asks for have places, and where, in words.

    Args:
        run: the settings.
        backend: one of `infra.training.BACKENDS`.
        memory: bytes that a worker needs at least.

    Raises:
        ConfigError: they have not.
    """
    if backend == "in-process" and run.workers != 1:
        raise ConfigError(f"run.workers = {run.workers}: must be 1 to train in-process.")
    address = os.environ.get("RAY_ADDRESS") if backend == "ray" else None
    machines = cluster(address) if address else [this_machine()]
    where = f"the Ray cluster at {address}" if address else "this machine"
    least = run.least_workers
    asked = f"run.{'min_workers' if least < run.workers else 'workers'} = {least}"
    gpus = sum(int(machine.gpus) for machine in machines)
    gpu = run.device == "cuda" or (run.device == "auto" and gpus >= least)
    if gpu and gpus < least:
        raise ConfigError(
            f"run.device = 'cuda': {asked} need a GPU each, {where} has {gpus}: set that or run.device."
        )
    if not address:  # the embedded Ray gives every worker a place, and they share the cores
        asked, least = f"run.workers = {run.workers}", min(run.workers, gpus) if gpu else run.workers
        machines = [Machine(cpus=float(run.cores), gpus=m.gpus, memory=m.memory) for m in machines]
    threads = run.threads_per_worker
    places = sum(machine.places(cores=threads, gpu=gpu, memory=memory) for machine in machines)
    if places < least:
        raise ConfigError(
            f"{asked}: {where} has places for {places}, each {threads} core{'s' * (threads > 1)}, "
            f"{gigabytes(memory)} of memory"
            f"{' and a GPU' if gpu else ''}: lower that, or take more or larger machines."
        )
    cores = sum(int(machine.cpus) for machine in machines) if address else available_cores()
    on = "one GPU each" if gpu else f"{cores} cores"
    now = f", places for {places}" if places < run.workers else ""
    return f"{_count(run)} ({backend}) on {where}, {on}{now}; {gigabytes(memory)} each at least"


def _count(run: RunConfig) -> str:
    """How many workers, in words."""
    if run.least_workers < run.workers:
        return f"{run.least_workers} to {run.workers} workers"
    return f"{run.workers} worker{'s' * (run.workers > 1)}"


def check_space(store: Store, needed: int) -> str:
    """How much room there is for `needed` bytes of checkpoints, in words.

    Raises `StoreError` when there is not enough; of an object store nobody knows.
    """
    folder = store.local_path("probe")
    if folder is None:
        return f"{gigabytes(needed)} of checkpoints"
    existing = next(parent for parent in folder.parents if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise StoreError(
            f"the store {store.url} has {gigabytes(free)} free, checkpoints take {gigabytes(needed)}: "
            "make room, or choose another store."
        )
    return f"{gigabytes(needed)} of checkpoints, {gigabytes(free)} free"


def gigabytes(count: float) -> str:
    """`count` bytes for people."""
    return f"{count / 2**30:.1f} GiB"


@contextmanager
def _joined(address: str) -> Iterator[None]:
    """Meanwhile, this process is a driver of the cluster at `address`."""
    if ray.is_initialized():
        yield
        return
    _check_answers(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _no_cluster(address, error) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Find out in seconds what Ray would try for a minute."""
    parts = urlsplit(address if "://" in address else f"ray://{address}")
    if parts.hostname is None or parts.port is None:
        return  # "auto" and the like
    try:
        socket.create_connection((parts.hostname, parts.port), _TIMEOUT).close()
    except OSError as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"RAY_ADDRESS = {address!r}: no Ray cluster answers there ({error}): correct it, or unset it to "
        "train on this machine."
    )
