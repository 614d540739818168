"""Of several processes that would work on the same thing, one at a time: a numbered lease with a heartbeat.

`<prefix>/0003.json` claims lease 3, by a conditional PUT: of several claimants one gets it. Whoever holds it
writes `0003.beat` again and again, and `0003.done` in the end. A lease whose beat is old has lost its holder;
then the next number may be claimed, and the old one is fenced off: `check` refuses it from there on. Times
are the store's own, so clocks of machines do not matter.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from arco_core.errors import ArcoError, StoreError
from infra.repeating import repeating
from infra.storage import AlreadyExists, Store

STALE_SECONDS = 1800.0
"""Without a beat for so long, a holder counts as lost. Longer than a pipeline pauses between two steps."""
BEAT_SECONDS = 60.0


class LeaseHeld(ArcoError):
    """Somebody else holds the lease."""


class LeaseLost(ArcoError):
    """The lease has been claimed by somebody else, for want of a heartbeat."""


class Lease:
    """Leases in the folder `prefix` of `store`."""

    def __init__(self, store: Store, prefix: str, *, stale_seconds: float = STALE_SECONDS) -> None:
        self._store, self._prefix, self._stale = store, prefix, stale_seconds

    def claim(self, holder: str) -> int:
        """Claim the lease and return its number; a `holder` that has it already gets it again.

        Raises:
            LeaseHeld: somebody else holds it.
        """
        newest = self._newest()
        if newest:
            name = self._holder(newest)
            if not self._over(newest):
                if name == holder:
                    self.beat(newest)
                    return newest
                raise LeaseHeld(
                    f"{self._url(newest)}: {name} is at work, its last heartbeat {self._age(newest):.0f} s "
                    f"ago; after {self._stale:.0f} s without one it counts as lost"
                )
        number = newest + 1
        try:
            self._store.put_if_absent(self._path(number, "json"), json.dumps({"holder": holder}).encode())
        except AlreadyExists as error:
            if self._holder(number) != holder:  # ours when the store answered a repeated request
                raise LeaseHeld(f"{self._url(number)}: {self._holder(number)} was faster") from error
        self.beat(number)
        return number

    def beat(self, number: int) -> None:
        """Show that the holder of lease `number` is alive. Raises `LeaseLost` where it holds it no more."""
        self.check(number)
        self._store.write_bytes(self._path(number, "beat"), b"")

    def check(self, number: int) -> None:
        """Raise `LeaseLost` unless `number` is the newest lease."""
        newest = self._newest()
        if newest != number:
            raise LeaseLost(
                f"{self._url(number)}: lease {newest} of {self._holder(newest)} took over; this one stops"
            )

    def open_of(self, holder: str) -> int | None:
        """The lease that `holder` has and has not given back, if any."""
        newest = self._newest()
        mine = newest and self._holder(newest) == holder
        return newest if mine and not self._store.exists(self._path(newest, "done")) else None

    def release(self, number: int) -> None:
        """Give lease `number` back."""
        self._store.write_bytes(self._path(number, "done"), b"")

    @contextmanager
    def holding(self, number: int, *, beat_seconds: float = BEAT_SECONDS) -> Iterator[None]:
        """Meanwhile, a thread keeps the lease alive; raises `LeaseLost` at start or end where it is lost."""
        self.beat(number)
        # A lost lease is told at the end, and a store that fails may be back by the next beat.
        with repeating(
            lambda: self.beat(number), every=beat_seconds, name="lease", but=(LeaseLost, StoreError)
        ):
            yield
        self.check(number)

    def _newest(self) -> int:
        numbers = [int(path.rpartition("/")[2][:4]) for path in self._store.list(self._prefix)]
        return max(numbers, default=0)

    def _over(self, number: int) -> bool:
        return self._store.exists(self._path(number, "done")) or self._age(number) > self._stale

    def _age(self, number: int) -> float:
        """Seconds since the last sign of life."""
        entries = self._store.entries(self._prefix)
        times = [e.modified for e in entries if e.path.rpartition("/")[2].startswith(f"{number:04d}.")]
        return self._store.clock() - max(times)

    def _holder(self, number: int) -> str:
        return str(json.loads(self._store.read_bytes(self._path(number, "json")))["holder"])

    def _path(self, number: int, kind: str) -> str:
        return f"{self._prefix}/{number:04d}.{kind}"

    def _url(self, number: int) -> str:
        return self._store.join(self._path(number, "json"))
