"""Ray, started when nobody gave us one: an embedded Ray on this machine, or the cluster of `RAY_ADDRESS`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import ray

OBJECT_STORE_BYTES = 256 * 2**20
"""Enough for slices in flight; the embedded Ray must fit a laptop beside the training workers."""

_QUIET = {"RAY_DATA_LOG_LEVEL": "ERROR"}
_EMBEDDED_ENVIRONMENT = {
    # The embedded Ray listens on this machine only for the length of one run.
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Idle workers started ahead of need cost seconds on few cores; Ray Train starts its own anyway.
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    # Leave CUDA_VISIBLE_DEVICES alone where no GPU was asked for (Ray's coming default).
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@contextmanager
def ray_session(*, workers: int = 1) -> Iterator[str]:
    """Connect this process to Ray, and yield the address that other processes reach it by.

    A process that is connected already stays so. Else `RAY_ADDRESS` names the cluster to join, and where it
    is not set an embedded Ray with room for `workers` training workers of a thread each is started. What was
    started or joined here is left at the end, and nothing else.
    """
    if ray.is_initialized():
        yield _address()
        return
    _set_defaults(_QUIET)
    cluster = os.environ.get("RAY_ADDRESS")
    if cluster:
        ray.init(address=cluster, log_to_driver=False, logging_level="ERROR")
    else:
        _start_embedded(workers)
    try:
        yield _address()
    finally:
        ray.shutdown()


@contextmanager
def shared_ray(*, workers: int = 1) -> Iterator[str]:
    """As `ray_session`, and subprocesses started meanwhile join the same Ray, through `RAY_ADDRESS`.

    Starting Ray once for all steps of a run saves about five seconds a step.
    """
    with ray_session(workers=workers) as address:
        before = os.environ.get("RAY_ADDRESS")
        os.environ["RAY_ADDRESS"] = address
        try:
            yield address
        finally:
            if before is None:
                del os.environ["RAY_ADDRESS"]
            else:
                os.environ["RAY_ADDRESS"] = before


def starts_embedded() -> bool:
    """Whether `ray_session` would start a Ray here."""
    return not ray.is_initialized() and not os.environ.get("RAY_ADDRESS")


def _start_embedded(workers: int) -> None:
    # Logical CPUs are places for workers, and one more than workers keeps other tasks from starving.
    cpus = max(available_cores(), workers + 1)
    _set_defaults(
        {
            **_EMBEDDED_ENVIRONMENT,
            # As many processes start at once. Ray's own figure is `cpus`, and it warns of four times as many
            # processes: on two cores a sweep of two trainings at a time would be told of "8 PYTHON workers".
            "RAY_worker_maximum_startup_concurrency": str(max(cpus, 8)),
        }
    )
    ray.init(
        address="local",  # never attach to a Ray that somebody else left running here
        num_cpus=cpus,
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )


def _set_defaults(variables: Mapping[str, str]) -> None:
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def available_cores() -> int:
    """Cores that this process may use (macOS: all of them)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _address() -> str:
    return str(ray.get_runtime_context().gcs_address)
