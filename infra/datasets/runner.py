"""One function over many tasks: in this process, or on Ray Data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from infra.alone import packed, unpacked
from infra.ray_rows import map_rows

Task = TypeVar("Task")
T = TypeVar("T")
RETRIES = 2
"""Times that a task is started again after its worker died: a lost node is no fault of the task's, and is not
lost three times in a row. Without a limit, which is Ray Data's own rule, a task that exhausts its worker's
memory is started again for ever."""


def run_tasks(
    function: Callable[[Task], T], tasks: Sequence[Task], *, use_ray: bool, memory: int = 0
) -> Iterator[tuple[int, T | None]]:
    """The number of each of `tasks` and what `function` makes of it, as they finish.

    With `use_ray`, one Ray Data task each on the Ray that is initialised: as many at a time as it has cores,
    and as have `memory` bytes each. A task whose worker dies is started again `RETRIES` times, then its
    result is None; so it is after an error. These come last. `function`, tasks and results are pickled, and
    should be small: what is large belongs into the store. A `StoreError` is raised as it is.
    """
    if use_ray and tasks:
        yield from _run_on_ray(function, tasks, memory)
    else:
        yield from enumerate(map(function, tasks))


def _run_on_ray(
    function: Callable[[Task], T], tasks: Sequence[Task], memory: int
) -> Iterator[tuple[int, T | None]]:
    def run(row: dict[str, Any]) -> dict[str, Any]:
        return {"number": row["number"], "result": packed(function, row["task"])}

    missing = set(range(len(tasks)))
    for number, result in map_rows(run, tasks, memory=_available(memory) or None, max_retries=RETRIES):
        missing.discard(number)
        yield number, unpacked(result)
    for number in sorted(missing):
        yield number, None


def _available(memory: int) -> int:
    """`memory`, or what the largest node has where that is less: Ray would wait for a larger one for ever."""
    import ray

    nodes = [int(node["Resources"].get("memory", 0)) for node in ray.nodes() if node["Alive"]]
    return min([memory, *sorted(nodes)[-1:]])
