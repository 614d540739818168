"""Time and memory of work on a CPU or a GPU."""

from __future__ import annotations

import resource
import statistics
import time
import warnings
from collections.abc import Callable
from itertools import pairwise

import torch

_WARM_UP = {"cpu": 1, "cuda": 5}
"""Unmeasured calls before: on a GPU kernels are chosen, compiled and cached in the first ones."""


def median_seconds(
    action: Callable[[], object], repeats: int, device: torch.device, *, warm_up: bool = True
) -> float:
    """Median time of `action`, after a warm-up unless told otherwise.

    On a GPU from event to event, without waiting in between: what the device is busy or waits for the host.
    """
    for _ in range(_WARM_UP[device.type] if warm_up else 0):
        action()
    if device.type == "cuda":
        return _median_on_gpu(action, repeats)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _median_on_gpu(action: Callable[[], object], repeats: int) -> float:
    events = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    torch.cuda.synchronize()
    events[0].record()
    for event in events[1:]:
        action()
        event.record()
    torch.cuda.synchronize()
    return statistics.median(before.elapsed_time(after) for before, after in pairwise(events)) / 1000


def peak_mebibytes(device: torch.device) -> float:
    """Largest memory so far: of this process, or on a GPU of its tensors."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def waits(action: Callable[[], object], device: torch.device) -> int:
    """How often `action` makes the host wait for a GPU; 0 on a CPU."""
    if device.type != "cuda":
        return 0
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            action()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)
