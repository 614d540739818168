"""Cases that fail in ways that no check foresees: their message, and workers that they end."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from arco_core.errors import DataError, StoreError
from infra.datasets import groups as module
from infra.datasets import packing, prepare_dataset
from infra.datasets.convert import Digests, convert_case
from infra.datasets.groups import run_groups
from infra.datasets.nifti import NiftiFile
from infra.datasets.packing import (
    MEMORY_FACTOR,
    PACKED_FACTOR,
    WORKER_BYTES,
    CaseGroup,
    HashedGroup,
    group_cases,
)
from infra.datasets.readers.base import RawCase
from infra.datasets.runner import RETRIES, run_tasks
from infra.storage import Store

from .conftest import TINY


def spoilt(error: type[Exception]) -> Callable[..., Any]:
    """`convert_case`, which has one case's header text in an error of a library's."""

    def convert(source: Store, case: RawCase, **settings: Any) -> Any:
        if case.case_id == "case_002":
            raise error("SECRET^NAME")
        return convert_case(source, case, **settings)

    return convert


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError, r"ValueError in datasets/test_groups\.py, line \d+, in convert, which no check"),
        (MemoryError, "it does not fit into the memory of its worker .*give workers more"),
    ],
)
def test_an_unforeseen_error_is_one_cases_failure(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception], words: str
) -> None:
    monkeypatch.setattr(packing, "convert_case", spoilt(error))
    store = Store(str(tmp_path / "store"))
    with pytest.raises(DataError, match=f"1 of 6 cases cannot be used:\n  case_002: {words}") as caught:
        prepare_dataset(str(raw), store, TINY, use_ray=False)
    assert "SECRET" not in str(caught.value)
    version = prepare_dataset(str(raw), store, replace(TINY, max_failures=1), use_ray=False)
    assert [case.case_id for case in version.manifest.skipped] == ["case_002"] and len(version.cases) == 5


def test_a_failing_store_is_no_cases_failure(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "convert_case", spoilt(StoreError))
    with pytest.raises(StoreError, match="SECRET"):
        prepare_dataset(
            str(raw), Store(str(tmp_path / "store")), replace(TINY, max_failures=9), use_ray=False
        )


def case(name: str, *paths: str) -> RawCase:
    channels = tuple(NiftiFile(path) for path in paths or (f"{name}.nii",))
    return RawCase(case_id=name, patient_id=name, channels=channels, annotation=None)


def group_of(number: int, names: str) -> CaseGroup:
    return CaseGroup(number=number, cases=tuple(case(name) for name in names))


def named(deadly: str, folder: Path, group: CaseGroup) -> HashedGroup:
    """Ends its process, as the kernel does that runs out of memory, at the cases of `deadly`."""
    for one in group.cases:
        if one.case_id in deadly:
            (folder / f"{one.case_id}-{os.getpid()}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
    digests = tuple(Digests(case_id=one.case_id, image="x", label=None) for one in group.cases)
    return HashedGroup(digests=digests, failures=())


@pytest.mark.slow
@pytest.mark.dist
def test_cases_that_end_their_worker_each_time_are_named_and_left_out(
    ray_address: str, tmp_path: Path
) -> None:
    from infra.ray_session import ray_session

    function = partial(named, "b", tmp_path)
    with ray_session():
        groups = [group_of(0, "abc"), group_of(1, "de")]
        found = list(run_groups(function, groups, attempt=function, use_ray=True, allowed=1))
    assert sorted(d.case_id for group in found for d in group.digests) == ["a", "c", "d", "e"]
    (failure,) = [failure for group in found for failure in group.failures]
    assert failure.case_id == "b" and f"died {RETRIES + 1} times" in failure.message
    assert len(list(tmp_path.iterdir())) == 2 * (RETRIES + 1)  # in its group, and alone


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> list[CaseGroup]:
    """All tasks are lost on Ray; those that are tried alone do as if they were here. What was tried alone."""
    tried: list[CaseGroup] = []

    def on_ray(function: object, tasks: list[CaseGroup], **_: object) -> Iterator[tuple[int, None]]:
        yield from ((number, None) for number in range(len(tasks)))

    def alone(function: Callable[[CaseGroup], object], tasks: list[CaseGroup], **_: object) -> list[object]:
        tried.extend(tasks)
        return [function(task) for task in tasks]

    monkeypatch.setattr(module, "run_tasks", on_ray)
    monkeypatch.setattr(module, "run_alone", alone)
    return tried


def test_a_group_that_ends_its_worker_with_no_case_that_does(lost: list[CaseGroup]) -> None:
    def only_alone(group: CaseGroup) -> HashedGroup | None:
        return named("", Path(), group) if len(group.cases) == 1 else None

    with pytest.raises(DataError, match="cases a to c died 3 times, though with none of them alone: give"):
        list(run_groups(only_alone, [group_of(0, "abc")], attempt=only_alone, use_ray=True, allowed=0))  # type: ignore[type-var]
    assert [len(group.cases) for group in lost] == [1, 1, 1, 3]


def test_no_more_is_tried_than_the_user_needs_to_know(lost: list[CaseGroup]) -> None:
    def never(group: CaseGroup) -> HashedGroup | None:
        return None if group.cases else HashedGroup(digests=(), failures=())

    groups = [group_of(number, "ab") for number in range(5)]
    found = list(run_groups(never, groups, attempt=never, use_ray=True, allowed=3))  # type: ignore[type-var]
    assert [len(group.failures) for group in found] == [2, 2]  # type: ignore[attr-defined]


def test_memory_of_a_task_is_that_of_its_largest_case() -> None:
    cases = [case("a"), case("b", "b.nii.gz"), case("c", "c_0.nii.gz", "c_1.nii.gz")]
    sizes = {"a.nii": 100, "b.nii.gz": 10, "c_0.nii.gz": 40, "c_1.nii.gz": 30}
    group = group_cases([case("small", "s.nii")], {})[0]
    assert group.memory == WORKER_BYTES
    needed = {one.cases[0].case_id: one.memory for one in group_cases(cases, sizes)}
    assert needed == {
        "a": WORKER_BYTES + 100 * MEMORY_FACTOR,
        "b": WORKER_BYTES + 10 * PACKED_FACTOR,
        "c": WORKER_BYTES + 70 * PACKED_FACTOR,
    }


def _number(task: int) -> int:
    return task


@pytest.mark.slow
@pytest.mark.dist
def test_a_task_for_more_memory_than_any_node_has_still_runs(ray_address: str) -> None:
    from infra.ray_session import ray_session

    with ray_session():
        assert sorted(run_tasks(_number, [0, 1], use_ray=True, memory=2**60)) == [(0, 0), (1, 1)]
