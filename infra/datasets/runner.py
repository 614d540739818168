"""One function over all cases: in this process, or as Ray Data tasks."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from arco_core.errors import DataError, StoreError
from infra.datasets.readers.base import RawCase

T = TypeVar("T")
CASES_PER_TASK = 8
"""Starting a task costs as much as preparing a small scan."""
TASKS_PER_CORE = 4
"""At least so many, so that cores finish together."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A case that broke a rule. Anything else that goes wrong is raised at once."""

    case_id: str
    message: str


def run_cases(
    function: Callable[[RawCase], T], cases: Sequence[RawCase], *, use_ray: bool
) -> Iterator[T | Failure]:
    """`function` of each case, in the cases' order, as a stream that holds few results at a time.

    With `use_ray`, tasks of a few cases on the Ray that is initialised; Ray Data keeps the results
    in flight within its object store's budget. Results and `function` are pickled.
    """
    if use_ray:
        yield from _run_on_ray(function, cases)
    else:
        yield from (_attempt(function, case) for case in cases)


def _attempt(function: Callable[[RawCase], T], case: RawCase) -> T | Failure:
    try:
        return function(case)
    except DataError as error:
        return Failure(case_id=case.case_id, message=str(error))


def _run_on_ray(function: Callable[[RawCase], T], cases: Sequence[RawCase]) -> Iterator[T | Failure]:
    import ray.data  # costs seconds; the in-process runner does without

    def task(row: dict[str, Any]) -> dict[str, bytes]:
        try:
            return {"result": pickle.dumps(_attempt(function, pickle.loads(row["case"])))}
        except StoreError as error:  # raised here, Ray would bury it in a message of its own
            return {"result": pickle.dumps(error)}

    cores = int(ray.cluster_resources().get("CPU", 1))
    tasks = min(len(cases), max(len(cases) // CASES_PER_TASK, TASKS_PER_CORE * cores))
    rows = [{"case": pickle.dumps(case)} for case in cases]
    dataset = ray.data.from_items(rows, override_num_blocks=tasks).map(task)
    dataset.context.enable_progress_bars = False
    dataset.context.execution_options.preserve_order = True
    for row in dataset.iter_rows():
        result = pickle.loads(row["result"])
        if isinstance(result, StoreError):
            raise result
        yield result
