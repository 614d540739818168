"""A function that is costly to set up, over many tasks: held by actors on Ray Data, or here."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from arco_core.errors import StoreError

Task = TypeVar("Task")
T = TypeVar("T")


def run_on_actors(
    make: Callable[[], Callable[[Task], T]], tasks: Sequence[Task], *, actors: int, gpus: float = 0
) -> Iterator[tuple[int, T | None]]:
    """The number of each of `tasks` and what `make()` makes of it, as they finish, on the Ray that is up.

    Each actor calls `make` once and then takes one task after the other; a task more waits at each, so that
    no more is in memory than actors can hold. `make`, tasks and results are pickled, and should be small.
    An actor that dies is replaced, and what it had is tried once more; what is lost then is tried in a
    process of its own. Where that dies too (most often for lack of memory), the result is None, and the
    others go on. A `StoreError` is raised as it is.

    Args:
        make: sets up the function.
        tasks: one call each.
        actors: how many; each takes a core.
        gpus: GPUs of an actor.
    """
    import ray.data  # costs seconds; who works in this process does without

    rows = [{"number": number, "task": pickle.dumps(task)} for number, task in enumerate(tasks)]
    if not rows:
        return
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        _Actor,
        fn_constructor_args=(pickle.dumps(make),),
        compute=ray.data.ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=2),
        num_cpus=1,
        num_gpus=gpus or None,
        max_task_retries=1,
    )
    dataset.context.enable_progress_bars = False
    dataset.context.max_errored_blocks = -1  # a block is one task
    missing = set(range(len(rows)))
    for row in dataset.iter_rows():
        missing.discard(row["number"])
        yield row["number"], _result(row)
    yield from _run_alone(make, [row for row in rows if row["number"] in missing], gpus)


def _run_alone(
    make: Callable[[], Callable[[Task], T]], rows: Sequence[dict[str, Any]], gpus: float
) -> Iterator[tuple[int, T | None]]:
    """Each of `rows` in a process of its own: a death there is nobody else's."""
    import ray

    def run(row: dict[str, Any]) -> dict[str, Any]:
        return _Actor(pickled)(row)

    deaths = (
        ray.exceptions.WorkerCrashedError,
        ray.exceptions.OutOfMemoryError,
        ray.exceptions.NodeDiedError,
    )
    pickled = pickle.dumps(make)
    alone = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0, max_calls=1)(run)
    for number, reference in [(row["number"], alone.remote(row)) for row in rows]:
        try:
            row = ray.get(reference)
        except deaths:
            yield number, None
        else:
            yield number, _result(row)


def _result(row: dict[str, Any]) -> Any:
    """What the task returned. Raises its `StoreError`."""
    result = pickle.loads(row["result"])
    if isinstance(result, StoreError):
        raise result
    return result


class _Actor:
    """What Ray Data keeps on a worker."""

    def __init__(self, make: bytes) -> None:
        self.function = pickle.loads(make)()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            result = self.function(pickle.loads(row["task"]))
        except StoreError as error:  # raised here, Ray would bury it in a message of its own
            result = error
        return {"number": row["number"], "result": pickle.dumps(result)}
