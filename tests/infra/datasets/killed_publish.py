"""Preparations that are killed at every step of every write; test_publish.py runs this as a process.

python killed_publish.py RAW STORE

STORE holds a version of some of RAW's scans. For each point, a child goes on from there and is killed, and
another one does the same in peace. Prints one JSON object a point. It forks, and so starts no thread itself.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

from infra.datasets import DatasetVersion, prepare_dataset
from infra.datasets.catalog import list_versions
from infra.datasets.readers.detect import all_readers
from infra.datasets.remove import remove_unreferenced, unreferenced
from infra.datasets.verify import verify
from infra.storage import Store
from infra.storage.local import LocalBackend
from infra.storage.s3 import S3Backend
from tests.infra.datasets.conftest import TINY

WRITES = ("write_bytes", "put_if_absent", "upload_file", "delete")


class Killer:
    """Ends this process, without a word, at its step number `at`."""

    def __init__(self, at: int) -> None:
        self.at, self.steps = at, 0

    def step(self) -> None:
        if self.steps == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.steps += 1

    def watch(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **options: Any) -> Any:
            self.step()
            result = function(*arguments, **options)
            self.step()
            return result

        return watched

    def install(self) -> None:
        for backend in (LocalBackend, S3Backend):
            for name in WRITES:
                setattr(backend, name, self.watch(getattr(backend, name)))
        # a file is complete, and does not have its name yet
        for name in ("replace", "link"):
            setattr(os, name, self.watch(getattr(os, name)))


def in_child(function: Callable[[], None]) -> int:
    """Exit status of a child process that runs `function`; -9 when it was killed."""
    child = os.fork()
    if child == 0:
        try:
            function()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def check(store: Store) -> list[str]:
    """Every version that is listed is whole; their names."""
    listed = list_versions(store, TINY.name).versions
    for version in listed:
        problems = verify(DatasetVersion.open(version.url))
        assert not problems, problems
    return [version.key for version in listed]


def go_on(raw: str, root: Store, store: Store, point: int) -> None:
    """From a copy of `root`, up to the end at `point`."""
    for path in root.list():
        store.write_bytes(path, root.read_bytes(path))
    Killer(point).install()
    prepare_dataset(raw, store, TINY, use_ray=False)


def finish(raw: str, store: Store) -> None:
    """Look at what was left, prepare again, and tidy up."""
    check(store)
    prepare_dataset(raw, store, TINY, use_ray=False)
    check(store)
    remove_unreferenced(store, unreferenced(store, older_than_s=-3600))
    print(json.dumps({"versions": check(store), "objects": store.list()}), flush=True)


def main() -> None:
    """See above."""
    raw, root = sys.argv[1], Store(sys.argv[2])
    all_readers(), root.exists("x")  # so that children need not import them, nor make a client
    for point in range(100):
        store = Store(f"{root.url}-{point}")
        status = in_child(partial(go_on, raw, root, store, point))
        assert status in (0, -signal.SIGKILL), status
        assert in_child(partial(finish, raw, store)) == 0, f"after point {point}"
        if status == 0:
            return
    raise AssertionError("more points than there can be")


if __name__ == "__main__":
    main()
