"""What an API server keeps: objects with resource versions, and the events that made them what they are."""

from __future__ import annotations

import copy
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from tests.infra.kuberay.crd import crd_schemas, crd_validator

Resource = dict[str, Any]


class Refusal(Exception):
    """An answer that is no success: HTTP status, machine-readable reason, message."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


class Objects:
    """The objects of one kind in one namespace. Every change gets the next resource version, of all kinds."""

    def __init__(self, kind: str, clock: Clock) -> None:
        self.kind, self._clock = kind, clock
        self._objects: dict[str, Resource] = {}
        self._events: list[tuple[int, str, Resource]] = []
        self._forgotten = 0
        self.created: list[Resource] = []
        """Everything ever created."""

    def create(self, new: Resource) -> Resource:
        with self._clock.changed:
            name = new["metadata"]["name"]
            if name in self._objects:
                raise Refusal(409, "AlreadyExists", f'{self.kind} "{name}" already exists')
            new = validated(copy.deepcopy(new))
            new.pop("status", None)  # a subresource: only the operator writes it
            new["metadata"] |= {
                "uid": str(uuid.uuid4()),
                "creationTimestamp": timestamp(),
                "generation": 1,
            }
            self._objects[name] = new
            self._event("ADDED", new)
            self.created.append(copy.deepcopy(new))
            return copy.deepcopy(new)

    def get(self, name: str) -> Resource:
        with self._clock.changed:
            if name not in self._objects:
                raise Refusal(404, "NotFound", f'{self.kind} "{name}" not found')
            return copy.deepcopy(self._objects[name])

    def names(self) -> list[str]:
        with self._clock.changed:
            return sorted(self._objects)

    def list(self, matches: Callable[[Resource], bool]) -> tuple[list[Resource], str]:
        with self._clock.changed:
            found = [copy.deepcopy(one) for one in self._objects.values() if matches(one)]
            return found, str(self._clock.version)

    def change(self, name: str, edit: Callable[[Resource], None]) -> Resource:
        """Replace the object by one edited, which is validated like a new one."""
        with self._clock.changed:
            new = self.get(name)
            edit(new)
            new = validated(new)
            if new["metadata"].get("deletionTimestamp") and not new["metadata"].get("finalizers"):
                self._remove(new)
            else:
                self._objects[name] = new
                self._event("MODIFIED", new)
            return copy.deepcopy(new)

    def delete(self, name: str, uid: str | None = None) -> Resource:
        """Remove the object, or, while finalizers hold it, mark it as to be removed."""
        with self._clock.changed:
            found = self.get(name)
            if uid is not None and found["metadata"]["uid"] != uid:
                raise Refusal(409, "Conflict", f"the UID in the precondition ({uid}) does not match")
            if not found["metadata"].get("finalizers"):
                self._remove(found)
            elif not found["metadata"].get("deletionTimestamp"):
                found["metadata"]["deletionTimestamp"] = timestamp()
                self._objects[name] = found
                self._event("MODIFIED", found)
            return found

    def forget(self) -> None:
        """Compact the history: watches from a version before now on find it too old."""
        with self._clock.changed:
            self._forgotten = self._clock.version
            self._events.clear()

    def watch(self, since: int, seconds: float) -> Iterator[tuple[str, Resource]]:
        """The events after version `since`, as they come, for so long; `ERROR` when it is too old."""
        end = time.monotonic() + seconds
        while True:
            with self._clock.changed:
                if since < self._forgotten:
                    yield (
                        "ERROR",
                        status_object(Refusal(410, "Expired", f"too old resource version: {since}")),
                    )
                    return
                events = [event for event in self._events if event[0] > since]
                if not events:
                    left = end - time.monotonic()
                    if left <= 0 or self._clock.closed:
                        version = {"resourceVersion": str(self._clock.version)}
                        yield "BOOKMARK", {"kind": self.kind, "metadata": version}
                        return
                    self._clock.changed.wait(left)
            for version, kind, one in events:
                since = version
                yield kind, one

    def _remove(self, one: Resource) -> None:
        del self._objects[one["metadata"]["name"]]
        self._event("DELETED", one)

    def _event(self, kind: str, one: Resource) -> None:
        self._clock.version += 1
        one["metadata"]["resourceVersion"] = str(self._clock.version)
        self._events.append((self._clock.version, kind, copy.deepcopy(one)))
        self._clock.changed.notify_all()


class Clock:
    """The resource version that all kinds share, and the lock of everything."""

    def __init__(self) -> None:
        self.version = 100
        self.changed = threading.Condition(threading.RLock())
        self.closed = False

    def close(self) -> None:
        with self.changed:
            self.closed = True
            self.changed.notify_all()


def validated(one: Resource) -> Resource:
    """`one` with the schema's defaults, where there is a schema. Raises `Refusal`."""
    schemas = crd_schemas()
    if schemas is None or one["kind"] not in ("RayJob", "RayCronJob"):
        return one
    errors = schemas.errors(one)
    if errors:
        raise Refusal(422, "Invalid", f"{one['kind']} is invalid: {'; '.join(errors)}")
    return dict(crd_validator().prune_nulls(one, schemas.raw[one["apiVersion"], one["kind"]]))


def status_object(refusal: Refusal) -> Resource:
    """The body of an answer that is no success."""
    return {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": str(refusal), "reason": refusal.reason, "code": refusal.status,
    }  # fmt: skip


def timestamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
