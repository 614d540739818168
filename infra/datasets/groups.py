"""Groups of cases as tasks, and what to do where a case ends every process that reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from arco_core.errors import DataError
from infra.alone import run_alone
from infra.datasets.packing import CaseGroup, Failure, HashedGroup, PackedGroup
from infra.datasets.runner import RETRIES, run_tasks

T = TypeVar("T")
G = TypeVar("G", HashedGroup, PackedGroup)


def run_groups(
    function: Callable[[CaseGroup], G],
    groups: Sequence[CaseGroup],
    *,
    attempt: Callable[[CaseGroup], object],
    use_ray: bool,
    allowed: int,
    memory: int = 0,
) -> Iterator[G]:
    """What `function` makes of each of `groups`, as they finish; see `run_tasks`.

    Where the worker of a group dies each time, its cases are tried one after the other, each in a process
    that does nothing else. Those that end it are failures, and the group goes on without them.

    Args:
        function: the work.
        groups: its tasks.
        attempt: as `function`, for a group of one case, and leaves nothing behind.
        use_ray: as in `run_tasks`.
        allowed: failures that the user allows: with more of these, the rest is not looked at.
        memory: bytes that a task needs.

    Raises:
        DataError: a group that ends its worker although none of its cases does.
    """
    lost: list[CaseGroup] = []
    for number, result in run_tasks(function, groups, use_ray=use_ray, memory=memory):
        if result is None:
            lost.append(groups[number])
        else:
            yield result
    fatal = 0
    for group in lost:
        failures = _fatal_cases(attempt, group)
        fatal += len(failures)
        ended = {failure.case_id for failure in failures}
        rest = replace(group, cases=tuple(case for case in group.cases if case.case_id not in ended))
        remaining = _alone(function, rest)
        if remaining is None:
            raise DataError(
                f"the worker that takes the cases {group.cases[0].case_id} to {group.cases[-1].case_id} died "
                f"{RETRIES + 1} times, though with none of them alone: give workers more memory"
            )
        all_failures: tuple[Failure, ...] = remaining.failures + failures
        yield replace(remaining, failures=all_failures)
        if fatal > allowed:
            return


def _fatal_cases(attempt: Callable[[CaseGroup], object], group: CaseGroup) -> tuple[Failure, ...]:
    """The cases of `group` that end a process of their own each time; one at a time, to have all memory."""
    failures = []
    for case in group.cases:
        if _alone(attempt, replace(group, cases=(case,))) is None:
            message = (
                f"the process that reads it died {RETRIES + 1} times, with no other case in it. Most often "
                "it needs more memory than there is: give workers more, or leave it out (data.exclude)"
            )
            failures.append(Failure(case_id=case.case_id, message=message))
    return tuple(failures)


def _alone(function: Callable[[CaseGroup], T], group: CaseGroup) -> T | None:
    return next(iter(run_alone(function, [group], retries=RETRIES)))
