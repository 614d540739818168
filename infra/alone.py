"""A task in a process of its own, on the Ray that is up: its death is nobody else's."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from arco_core.errors import StoreError

Task = TypeVar("Task")
T = TypeVar("T")


def run_alone(
    function: Callable[[Task], T],
    tasks: Sequence[Task],
    *,
    gpus: float = 0,
    memory: int | None = None,
    retries: int = 0,
) -> Iterator[T | None]:
    """`function` of each of `tasks`, in their order; None where its process died, `retries` times more, too.

    All are submitted at once, a core each, with `gpus` and bytes of `memory` where these are given. A
    `StoreError` is raised as it is, any other error as Ray raises it.
    """
    import ray

    deaths = (
        ray.exceptions.WorkerCrashedError,
        ray.exceptions.OutOfMemoryError,
        ray.exceptions.NodeDiedError,
    )
    pickled = pickle.dumps(function)
    options = {"num_cpus": 1, "num_gpus": gpus, "memory": memory, "max_retries": retries, "max_calls": 1}
    alone = ray.remote(**options)(_run)
    for reference in [alone.remote(pickled, pickle.dumps(task)) for task in tasks]:
        try:
            result = ray.get(reference)
        except deaths:
            yield None
        else:
            yield unpacked(result)


def packed(function: Callable[[Task], T], task: bytes) -> bytes:
    """What `function` makes of a pickled task, pickled: its result or the `StoreError` that it raised.

    Raised on a worker, Ray would bury the error in a message of its own.
    """
    try:
        return pickle.dumps(function(pickle.loads(task)))
    except StoreError as error:
        return pickle.dumps(error)


def unpacked(result: bytes) -> Any:
    """The result that `packed` gave. Raises its `StoreError`."""
    value = pickle.loads(result)
    if isinstance(value, StoreError):
        raise value
    return value


def _run(function: bytes, task: bytes) -> bytes:
    return packed(pickle.loads(function), task)
