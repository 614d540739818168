"""One function over many tasks: in this process, or on Ray Data."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from arco_core.errors import StoreError

Task = TypeVar("Task")
T = TypeVar("T")


def run_tasks(function: Callable[[Task], T], tasks: Sequence[Task], *, use_ray: bool) -> Iterator[T]:
    """`function` of each of `tasks`, as they finish.

    With `use_ray`, one Ray Data task each on the Ray that is initialised: as many at a time as it has cores,
    started anew where a worker dies. `function`, tasks and results are pickled, and should be small: what is
    large belongs into the store. A `StoreError` is raised as it is, anything else as Ray raises it.
    """
    if use_ray and tasks:
        yield from _run_on_ray(function, tasks)
    else:
        yield from map(function, tasks)


def _run_on_ray(function: Callable[[Task], T], tasks: Sequence[Task]) -> Iterator[T]:
    import ray.data  # costs seconds; the in-process runner does without

    def run(row: dict[str, Any]) -> dict[str, bytes]:
        try:
            return {"result": pickle.dumps(function(pickle.loads(row["task"])))}
        except StoreError as error:  # raised here, Ray would bury it in a message of its own
            return {"result": pickle.dumps(error)}

    rows = [{"task": pickle.dumps(task)} for task in tasks]
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map(run)
    dataset.context.enable_progress_bars = False
    for row in dataset.iter_rows():
        result = pickle.loads(row["result"])
        if isinstance(result, StoreError):
            raise result
        yield result
