"""Checkpoints that are either whole or not there.

`<folder>/step-00000300-a2-….pt` is the state, `<folder>/COMMITTED-00000300.json` commits it: written last,
once, and with the state's sha256. A reader that goes by the commits never sees a half-written state.
Attempts are numbered by claims (`<folder>/attempts/0002.json`); one that a newer one has followed may not
save. On a cluster an attempt is a job with a number of its own (`ARCO_ATTEMPT`), within which training may
start several times: start 2 of job 3 is attempt 30002. Whatever an old job does, it cannot fence a new one.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import uuid
from collections.abc import Mapping
from typing import Any

import torch

from arco_core.errors import StoreError, TrainingError
from infra.attempts import claim_attempt, newest_attempt
from infra.storage import AlreadyExists, Store

_COMMIT = "COMMITTED-"
_ATTEMPTS = "attempts"
_STARTS_OF_A_JOB = 10_000
_STATE = re.compile(r"step-\d+-a(?P<attempt>\d+)-[0-9a-f]+\.pt")


class CheckpointStore:
    """Checkpoints of one training in the folder `prefix` of `store`; the last `keep` are kept."""

    def __init__(self, store: Store, prefix: str, *, keep: int = 2) -> None:
        self._store, self._prefix, self._keep = store, prefix, keep

    def begin_attempt(self, job: int | None = None) -> int:
        """Claim the next attempt number, from 1; attempts before it can save no more.

        Args:
            job: number of the job that this is a start of; without one, it takes over from all.

        Raises:
            TrainingError: a newer job has taken over.
        """
        first = 1 if job is None else job * _STARTS_OF_A_JOB + 1
        newest = self._newest_attempt()
        if job is not None and newest >= first + _STARTS_OF_A_JOB - 1:
            raise TrainingError(
                f"job attempt {job} starts, but attempt {newest // _STARTS_OF_A_JOB} has taken over "
                f"{self._url()}; this one stops"
            )
        return claim_attempt(self._store, self._path(_ATTEMPTS), at_least=first)

    def save(self, step: int, state: Mapping[str, Any], attempt: int, *, keep_step: int | None = None) -> str:
        """Commit `state` as the checkpoint of `step`, and return the URL of its state file.

        A step that is committed already stays as it is: training is deterministic, it holds the same state.
        The checkpoint of `keep_step` is kept, however old.

        Raises:
            TrainingError: a newer attempt has taken over.
        """
        newest = self._newest_attempt()
        if newest > attempt:
            raise TrainingError(
                f"attempt {attempt} saves step {step}, but attempt {newest} has taken over {self._url()}; "
                "this one stops"
            )
        data = _encode(state)
        name = f"step-{step:08d}-a{attempt}-{uuid.uuid4().hex[:8]}.pt"
        self._store.write_bytes(self._path(name), data)
        commit = {"step": step, "file": name, "sha256": hashlib.sha256(data).hexdigest(), "attempt": attempt}
        try:
            self._store.put_if_absent(self._path(f"{_COMMIT}{step:08d}.json"), json.dumps(commit).encode())
        except AlreadyExists:
            committed = self._commit(step)["file"]
            if committed != name:  # it is ours when the store answered a repeated request
                self._store.delete(self._path(name))
                name = committed
        self._delete_old(attempt, keep_step)
        return self._store.join(self._path(name))

    def steps(self) -> list[int]:
        """Committed steps, ascending."""
        names = (path.rpartition("/")[2] for path in self._store.list(self._prefix))
        return sorted(
            int(n.removeprefix(_COMMIT).removesuffix(".json")) for n in names if n.startswith(_COMMIT)
        )

    def latest(self) -> tuple[int, dict[str, Any]] | None:
        """The last committed step and its state, or None before the first."""
        steps = self.steps()
        return (steps[-1], self.load(steps[-1])) if steps else None

    def load(self, step: int) -> dict[str, Any]:
        """The state committed for `step`.

        Raises:
            StoreError: it is not committed, or not what was committed.
        """
        commit = self._commit(step)
        return _decode(self._store.read_bytes(self._path(commit["file"])), commit["sha256"], self.url(step))

    def url(self, step: int) -> str:
        """The URL of the state file of a committed step, for `read_checkpoint`."""
        return self._store.join(self._path(self._commit(step)["file"]))

    def _commit(self, step: int) -> dict[str, Any]:
        return dict(json.loads(self._store.read_bytes(self._path(f"{_COMMIT}{step:08d}.json"))))

    def _newest_attempt(self) -> int:
        return newest_attempt(self._store, self._path(_ATTEMPTS))

    def _delete_old(self, attempt: int, keep_step: int | None) -> None:
        """Uncommit, then delete, all but the last `keep` and `keep_step`, and what earlier attempts left
        uncommitted.
        """
        for step in self.steps()[: -self._keep]:
            if step == keep_step:
                continue
            self._store.delete(self._path(f"{_COMMIT}{step:08d}.json"))
        kept = {self._commit(step)["file"] for step in self.steps()}
        for path in self._store.list(self._prefix):
            written = _STATE.fullmatch(path.rpartition("/")[2])
            if written and written[0] not in kept and int(written["attempt"]) <= attempt:
                self._store.delete(path)

    def _path(self, name: str) -> str:
        return f"{self._prefix}/{name}"

    def _url(self) -> str:
        return self._store.join(self._prefix)


def read_checkpoint(url: str) -> dict[str, Any]:
    """The state in the file at `url`, which `CheckpointStore.save` or `.url` gave.

    Raises:
        StoreError: the file is missing, not committed, or not what was committed.
    """
    folder, _, name = url.rpartition("/")
    store = Store(folder)
    for path in store.list():
        if path.startswith(_COMMIT):
            commit = json.loads(store.read_bytes(path))
            if commit["file"] == name:
                return _decode(store.read_bytes(name), commit["sha256"], url)
    raise StoreError(f"checkpoint {url} is not committed: train the stage again, or name a committed one")


def _encode(state: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


def _decode(data: bytes, sha256: str, url: str) -> dict[str, Any]:
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise StoreError(
            f"checkpoint {url} has sha256 {found}, committed was {sha256}: the file was changed or damaged; "
            "delete its folder to train the stage again"
        )
    return dict(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))
