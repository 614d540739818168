"""Which model is in service: a log of releases that is only ever appended to; the last one counts.

`service/<name>/releases/0004.json` is release 4. It is written once, by a conditional PUT, by whoever expects
release 3 to be in service: of two that would change it, one wins and the other is told. Going back to an
earlier model is a new release of it, so the log says what was in service when, and why.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from arco_core.errors import DataError, StoreError
from infra.storage import AlreadyExists, NotFound, Store

Action = Literal["promote", "rollback"]
FOLDER = "service"


class ReleaseConflict(StoreError):
    """Somebody else changed the model in service meanwhile."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """A model put into service."""

    number: int
    action: Action
    model: str
    """URL of the published model's folder."""
    checkpoint: str
    """URL of the training checkpoint that it was exported from: training goes on from there."""
    dataset: str
    """URL of the dataset version that it was trained on."""
    split: str
    """Of the frozen patients."""
    frozen: tuple[str, ...]
    """Patients on which this and all later models are judged: those of the first release."""
    parent: int | None
    """Release whose model the training of this one went on from; for a rollback, the release gone back to."""
    reason: str
    created: str
    """Time, in ISO 8601."""
    report: str | None = None
    """URL of the report of the decision."""


class Registry:
    """The releases of the model `name` in `store`."""

    def __init__(self, store: Store, name: str) -> None:
        self.folder = f"{FOLDER}/{name}"
        self.name = name
        self._store = store

    def releases(self) -> list[Release]:
        """All releases, the first one first. Raises `StoreError` where one cannot be read."""
        paths = self._store.list(f"{self.folder}/releases")
        return [_decode(self._store.read_bytes(path), self._store.join(path)) for path in paths]

    def current(self) -> Release | None:
        """The release in service, None before the first."""
        paths = self._store.list(f"{self.folder}/releases")
        return _decode(self._store.read_bytes(paths[-1]), self._store.join(paths[-1])) if paths else None

    def append(
        self,
        *,
        expected: int,
        action: Action,
        model: str,
        checkpoint: str,
        dataset: str,
        split: str,
        frozen: tuple[str, ...],
        parent: int | None,
        reason: str,
        report: str | None = None,
    ) -> Release:
        """Put a model into service in place of release number `expected`, 0 for none.

        Raises:
            ReleaseConflict: another release is in service by now.
        """
        release = Release(
            number=expected + 1, action=action, model=model, checkpoint=checkpoint, dataset=dataset,
            split=split, frozen=frozen, parent=parent, reason=reason, report=report,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )  # fmt: skip
        data = json.dumps(asdict(release), indent=1, ensure_ascii=False).encode()
        path = f"{self.folder}/releases/{release.number:04d}.json"
        try:
            self._store.put_if_absent(path, data)
        except AlreadyExists as error:
            there = _decode(self._store.read_bytes(path), self._store.join(path))
            # Ours where the store answered a repeated request, or this process was started again.
            if replace(release, created=there.created, reason=there.reason) != there:
                raise ReleaseConflict(
                    f"{self._store.join(path)}: another release of {self.name} came first, and stays"
                ) from error
            return there
        return release

    def promoted(self, *, parent: int, checkpoint: str) -> Release | None:
        """The release right after `parent`, where it is that of `checkpoint`, trained from there."""
        for release in self.releases():
            if release.number == parent + 1 and (release.parent, release.checkpoint) == (parent, checkpoint):
                return release if release.action == "promote" else None
        return None

    def lineage(self, number: int) -> list[Release]:
        """Release `number`, the one that its model went on from, and so on to one that a person promoted.

        Releases that were rolled back from are not among them.
        """
        by_number = {release.number: release for release in self.releases()}
        found, next_one = [], by_number.get(number)
        while next_one is not None:
            found.append(next_one)
            next_one = None if next_one.parent is None else by_number.get(next_one.parent)
        return found

    def note_scores(self, number: int, scores: Mapping[str, Any]) -> None:
        """Remember how the model of release `number` scored on the frozen patients, in any JSON."""
        self._store.write_bytes(self._scores(number), json.dumps(scores, indent=1).encode())

    def scores(self, number: int) -> dict[str, Any] | None:
        """What `note_scores` remembered, None where it was not scored."""
        try:
            found: dict[str, Any] = json.loads(self._store.read_bytes(self._scores(number)))
        except NotFound:
            return None
        return found

    def rollback(self, to: int | None, reason: str) -> Release:
        """Put the model of release `to` into service again; of the one before the current model without `to`.

        Raises:
            DataError: there is no such release, or none before.
            ReleaseConflict: another release came first.
        """
        releases = self.releases()
        if not releases:
            raise DataError(f"{self._store.join(self.folder)} has no release: promote a model first")
        current = releases[-1]
        target = self._before(releases) if to is None else next((r for r in releases if r.number == to), None)
        if target is None or target.model == current.model:
            known = ", ".join(f"{r.number} ({r.model})" for r in releases)
            raise DataError(f"no other model to go back to (asked for {to or 'the one before'}): {known}")
        return self.append(
            expected=current.number, action="rollback", model=target.model, checkpoint=target.checkpoint,
            dataset=target.dataset, split=target.split, frozen=target.frozen, parent=target.number,
            reason=reason,
        )  # fmt: skip

    def note_night(self, lease: int, run: str) -> None:
        """Remember the run folder of the retraining that holds `lease`."""
        self._store.write_bytes(self._night(lease), json.dumps({"run": run}).encode())

    def night(self, lease: int) -> str | None:
        """The run folder of the retraining that held `lease`, None where it began none."""
        try:
            return str(json.loads(self._store.read_bytes(self._night(lease)))["run"])
        except NotFound:
            return None

    def _scores(self, number: int) -> str:
        return f"{self.folder}/scores/{number:04d}.json"

    def _night(self, lease: int) -> str:
        return f"{self.folder}/nights/lease-{lease:04d}.json"

    def _before(self, releases: list[Release]) -> Release | None:
        """The release that the current model went on from, else the last one of another model."""
        by_number = {release.number: release for release in releases}
        current = releases[-1]
        if current.action == "rollback" and current.parent is not None:
            current = by_number[current.parent]
        before = [r for r in releases if r.number < current.number and r.model != current.model]
        return before[-1] if before else None


def _decode(data: bytes, url: str) -> Release:
    try:
        values: dict[str, Any] = json.loads(data)
        return Release(**values | {"frozen": tuple(values["frozen"])})
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{url} is no release of a model: {error}") from error
