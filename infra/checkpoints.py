"""Checkpoints that are either whole or not there.

`<folder>/step-00000300-a2-….pt` is the state, `<folder>/COMMITTED-00000300-a2.json` commits it: written last,
and with the state's sha256. A reader that goes by the commits never sees a half-written state.

Attempts are numbered by claims (`<folder>/attempts/0002.json`); one that a newer one has followed may not
save. It may find out late, having slept inside an upload, so nobody writes an object of another attempt's,
and nobody removes a newer attempt's. On a cluster an attempt is a job with a number of its own
(`ARCO_ATTEMPT`), within which training may start several times: start 2 of job 3 is attempt 30002. Whatever
an old job does, it cannot fence a new one.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from arco_core.errors import StoreError, TrainingError
from infra.attempts import claim_number, newest_attempt
from infra.storage import NotFound, Store

_COMMIT = "COMMITTED-"
_ATTEMPTS = "attempts"
_STARTS_OF_A_JOB = 10_000
_OBJECT = re.compile(r"(?P<kind>COMMITTED|step)-(?P<step>\d{8,})-a(?P<attempt>\d+)(-[0-9a-f]+\.pt|\.json)")


class TakenOver(TrainingError):
    """A newer attempt has taken over: this one may write no more."""


class Damaged(StoreError):
    """A checkpoint is not what was committed."""


@dataclass(frozen=True, order=True)
class _Saved:
    """Which checkpoint an object belongs to."""

    step: int
    attempt: int


class CheckpointStore:
    """Checkpoints of one training in the folder `prefix` of `store`; the last `keep` are kept."""

    def __init__(self, store: Store, prefix: str, *, keep: int = 2) -> None:
        self._store, self._prefix, self._keep = store, prefix, keep

    def begin_attempt(self, job: int | None = None) -> int:
        """Claim the next attempt number, from 1; attempts before it can save no more.

        Args:
            job: number of the job that this is a start of; without one, it takes over from all.

        Raises:
            TakenOver: a newer job has begun.
        """
        newest = self._newest_attempt()
        if job is None:
            return claim_number(self._store, self._path(_ATTEMPTS), newest + 1)
        first, last = job * _STARTS_OF_A_JOB + 1, (job + 1) * _STARTS_OF_A_JOB - 1
        if newest > last:
            raise TakenOver(
                f"job attempt {job} starts, but attempt {newest // _STARTS_OF_A_JOB} has taken over "
                f"{self._url()}; this one stops"
            )
        # Whoever claims meanwhile, the number is one of this job's.
        return claim_number(self._store, self._path(_ATTEMPTS), max(newest + 1, first), last=last)

    def check_newest(self, attempt: int) -> None:
        """Raise `TakenOver` when an attempt newer than `attempt` has begun."""
        newest = self._newest_attempt()
        if newest > attempt:
            raise TakenOver(
                f"attempt {attempt} wants to write, but attempt {newest} has taken over {self._url()}; "
                "this one stops"
            )

    def save(self, step: int, state: Mapping[str, Any], attempt: int, *, keep_step: int | None = None) -> str:
        """Commit `state` as the checkpoint of `step`, and return the URL of its state file.

        What earlier attempts committed for `step` and for later steps goes: theirs is another history. The
        checkpoint of `keep_step` is kept, however old.

        Raises:
            TakenOver: a newer attempt has begun.
        """
        self.check_newest(attempt)
        data = _encode(state)
        name = f"step-{step:08d}-a{attempt}-{uuid.uuid4().hex[:8]}.pt"
        self._store.write_bytes(self._path(name), data)
        try:
            self.check_newest(attempt)  # the upload may have taken longer than this attempt was given up for
        except TakenOver:
            self._store.delete(self._path(name))
            raise
        commit = {"step": step, "file": name, "sha256": hashlib.sha256(data).hexdigest(), "attempt": attempt}
        self._store.write_bytes(self._commit_path(_Saved(step, attempt)), json.dumps(commit).encode())
        self._delete_old(_Saved(step, attempt), keep_step)
        return self._store.join(self._path(name))

    def steps(self) -> list[int]:
        """Committed steps, ascending."""
        return sorted(self._committed())

    def latest(self, warn: Callable[[int, str], None] | None = None) -> tuple[int, dict[str, Any]] | None:
        """The last committed step and its state, or None before the first.

        Args:
            warn: told of a damaged checkpoint, its step and what is wrong, which the one before it then
                replaces; without it, damage is an error.

        Raises:
            Damaged: no checkpoint is whole.
        """
        damage: Damaged | None = None
        for step in reversed(self.steps()):
            try:
                return step, self.load(step)
            except Damaged as error:
                if warn is None:
                    raise
                damage = error
                warn(step, str(error))
        if damage is not None:
            raise damage
        return None

    def load(self, step: int) -> dict[str, Any]:
        """The state committed for `step`.

        Raises:
            NotFound: it is not committed.
            Damaged: it is not what was committed.
        """
        file, sha256 = self._commit(step)
        try:
            data = self._store.read_bytes(self._path(file))
        except NotFound as error:
            raise Damaged(f"the checkpoint of step {step} is gone, its commit is not: {error}") from error
        return _decode(data, sha256, self._store.join(self._path(file)))

    def url(self, step: int) -> str:
        """The URL of the state file of a committed step, for `read_checkpoint`."""
        file, _ = self._commit(step)
        return self._store.join(self._path(file))

    def _commit(self, step: int) -> tuple[str, str]:
        """Name and sha256 of the state that is committed for `step`."""
        saved = self._committed().get(step)
        if saved is None:
            raise NotFound(f"{self._url()} has no checkpoint of step {step}")
        path = self._commit_path(saved)
        try:
            commit = json.loads(self._store.read_bytes(path))
            return commit["file"], commit["sha256"]
        except (ValueError, KeyError) as error:
            raise Damaged(f"the commit {self._store.join(path)} is damaged: {error!r}") from error

    def _committed(self) -> dict[int, _Saved]:
        """The commits, by step; of one step, the newest attempt's."""
        return {saved.step: saved for saved in _committed(self._store.list(self._prefix))}

    def _newest_attempt(self) -> int:
        return newest_attempt(self._store, self._path(_ATTEMPTS))

    def _delete_old(self, last: _Saved, keep_step: int | None) -> None:
        """Uncommit, then delete, all but the last `keep` and `keep_step`, and what earlier attempts left.

        What goes is settled before the attempt is checked once more. One that begins after that starts from
        what is kept here; whatever it writes later has a number that is not deleted.
        """
        paths = self._store.list(self._prefix)
        history = {saved.step: saved for saved in _committed(paths) if saved.step <= last.step}
        last_steps = sorted(history)[-self._keep :]
        kept = {saved for step, saved in history.items() if step in last_steps or step == keep_step}
        mine = [(path, saved) for path in paths if (saved := _saved(path)) and saved.attempt <= last.attempt]
        old = [path for path, saved in mine if saved not in kept]
        self.check_newest(last.attempt)
        for path in sorted(old, key=lambda path: not _is_commit(path)):
            self._store.delete(path)

    def _commit_path(self, saved: _Saved) -> str:
        return self._path(f"{_COMMIT}{saved.step:08d}-a{saved.attempt}.json")

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
        if _is_commit(path) and name.encode() in (commit := store.read_bytes(path)):
            return _decode(store.read_bytes(name), json.loads(commit)["sha256"], url)
    raise StoreError(f"checkpoint {url} is not committed: train the stage again, or name a committed one")


def _saved(path: str) -> _Saved | None:
    """Which checkpoint the object at `path` belongs to."""
    found = _OBJECT.fullmatch(path.rpartition("/")[2])
    return _Saved(int(found["step"]), int(found["attempt"])) if found else None


def _is_commit(path: str) -> bool:
    return path.rpartition("/")[2].startswith(_COMMIT)


def _committed(paths: Iterable[str]) -> list[_Saved]:
    """The checkpoints whose commits are among `paths`, by step, of one step by attempt."""
    return sorted(saved for path in paths if _is_commit(path) and (saved := _saved(path)))


def _encode(state: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


def _decode(data: bytes, sha256: str, url: str) -> dict[str, Any]:
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise Damaged(
            f"checkpoint {url} has sha256 {found}, committed was {sha256}: the file was changed or damaged; "
            "delete its folder to train the stage again"
        )
    return dict(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))
