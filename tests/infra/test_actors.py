"""Tasks on actors: a task that kills its worker costs only itself."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from arco_core.errors import StoreError
from infra.actors import run_on_actors
from infra.ray_session import ray_session


def make() -> Callable[[int], int]:
    def square(task: int) -> int:
        if task == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return task * task

    return square


def make_refused() -> Callable[[int], int]:
    def refused(task: int) -> int:
        raise StoreError("no space left")

    return refused


@pytest.mark.slow
def test_a_task_that_kills_its_worker_is_left_out_and_the_others_are_done(ray_address: str) -> None:
    with ray_session():
        results = dict(run_on_actors(make, range(8), actors=2))
        assert results == {n: None if n == 3 else n * n for n in range(8)}
        with pytest.raises(StoreError, match="no space left"):
            list(run_on_actors(make_refused, [1], actors=1))
        assert list(run_on_actors(make, [], actors=1)) == []
