"""One at a time: a lease, its heartbeat, and what becomes of a holder that was thought lost."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from infra.lease import Lease, LeaseHeld, LeaseLost
from infra.storage import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def test_one_at_a_time(store: Store) -> None:
    lease = Lease(store, "lease")
    first = lease.claim("a")
    assert lease.claim("a") == first  # the same step, tried again
    with pytest.raises(LeaseHeld, match="a is at work"):
        lease.claim("b")
    lease.release(first)
    assert lease.claim("b") == first + 1
    assert lease.open_of("b") == first + 1 and lease.open_of("a") is None


def test_of_many_one_gets_it(store: Store) -> None:
    together, got, held = threading.Barrier(8), [], []

    def claim(name: str) -> None:
        together.wait()
        try:
            got.append(Lease(store, "lease").claim(name))
        except LeaseHeld:
            held.append(name)

    threads = [threading.Thread(target=claim, args=(f"h{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [1] and len(held) == 7


def test_a_holder_without_a_heartbeat_is_replaced_and_fenced_off(store: Store) -> None:
    lost, taker = Lease(store, "lease"), Lease(store, "lease", stale_seconds=-1.0)
    first = lost.claim("lost")
    second = taker.claim("taker")
    assert second == first + 1
    with pytest.raises(LeaseLost, match="lease 2 of taker took over"):
        lost.check(first)
    with pytest.raises(LeaseLost):
        lost.beat(first)
    with pytest.raises(LeaseLost), lost.holding(first):
        pytest.fail("must not begin")


def test_work_during_which_the_lease_is_lost_ends_with_an_error(store: Store) -> None:
    lease = Lease(store, "lease")
    number = lease.claim("a")
    with pytest.raises(LeaseLost), lease.holding(number, beat_seconds=3600):
        Lease(store, "lease", stale_seconds=-1.0).claim("b")


def test_a_heart_beats(store: Store, tmp_path: Path) -> None:
    lease = Lease(store, "lease")
    number = lease.claim("a")
    beat = tmp_path / "lease/0001.beat"
    with lease.holding(number, beat_seconds=0.01):
        beat.unlink()
        for _ in range(6000):
            if beat.exists():
                break
            threading.Event().wait(0.01)
        assert beat.exists()
