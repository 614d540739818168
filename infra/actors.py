"""A function that is costly to set up, over many tasks: held by actors on Ray Data, or here."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from infra.alone import packed, run_alone, unpacked
from infra.ray_rows import map_rows

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
    if not tasks:
        return
    missing = set(range(len(tasks)))
    for number, result in map_rows(_Actor, tasks, **_options(make, actors, gpus)):
        missing.discard(number)
        yield number, unpacked(result)
    left = sorted(missing)
    function: Callable[[Task], T] = partial(_made_anew, make)
    yield from zip(left, run_alone(function, [tasks[number] for number in left], gpus=gpus), strict=True)


def _options(make: Callable[[], Any], actors: int, gpus: float) -> dict[str, Any]:
    import ray.data  # costs seconds; who works in this process does without

    return {
        "fn_constructor_args": (pickle.dumps(make),),
        "compute": ray.data.ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=2),
        "num_cpus": 1,
        "num_gpus": gpus or None,
        "max_task_retries": 1,
    }


def _made_anew(make: Callable[[], Callable[[Task], T]], task: Task) -> T:
    return make()(task)


class _Actor:
    """What Ray Data keeps on a worker."""

    def __init__(self, make: bytes) -> None:
        self.function = pickle.loads(make)()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"number": row["number"], "result": packed(self.function, row["task"])}
