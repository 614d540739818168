from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from arco_core.errors import StoreError, TrainingError
from infra.checkpoints import CheckpointStore, Damaged, TakenOver, read_checkpoint
from infra.storage import Store


@pytest.fixture
def checkpoints(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(Store(str(tmp_path)), "run/checkpoints")


def state(value: float) -> dict[str, object]:
    return {"stage": {"weight": torch.full((3,), value)}, "step": int(value), "feeds": [{"labeled": 1}]}


def test_the_latest_checkpoint_is_what_was_saved_last(checkpoints: CheckpointStore) -> None:
    assert checkpoints.latest() is None
    attempt = checkpoints.begin_attempt()
    checkpoints.save(1, state(1), attempt)
    url = checkpoints.save(2, state(2), attempt)
    step, found = checkpoints.latest() or (0, {})
    assert step == 2
    assert torch.equal(found["stage"]["weight"], torch.full((3,), 2.0))
    assert found["feeds"] == [{"labeled": 1}]
    assert read_checkpoint(url)["step"] == 2
    assert checkpoints.url(2) == url


def test_only_the_last_two_are_kept(checkpoints: CheckpointStore, tmp_path: Path) -> None:
    attempt = checkpoints.begin_attempt()
    for step in (1, 2, 3, 4):
        checkpoints.save(step, state(step), attempt)
    assert checkpoints.steps() == [3, 4]
    assert len(list((tmp_path / "run/checkpoints").glob("step-*"))) == 2


def test_the_best_one_is_kept_until_there_is_a_better(checkpoints: CheckpointStore) -> None:
    attempt = checkpoints.begin_attempt()
    for step in (1, 2, 3, 4, 5):
        checkpoints.save(step, state(step), attempt, keep_step=2 if step < 5 else 5)
        if step == 4:
            assert checkpoints.steps() == [2, 3, 4]
    assert checkpoints.steps() == [4, 5]


def test_a_state_without_commit_does_not_exist(checkpoints: CheckpointStore, tmp_path: Path) -> None:
    attempt = checkpoints.begin_attempt()
    checkpoints.save(1, state(1), attempt)
    folder = tmp_path / "run/checkpoints"
    half = folder / "step-00000002-a1-00000000.pt"
    half.write_bytes(b"half a checkpoint")
    assert checkpoints.steps() == [1]
    with pytest.raises(StoreError, match="not committed"):
        read_checkpoint(str(half))
    checkpoints.save(3, state(3), checkpoints.begin_attempt())
    assert not half.exists()


def damage(url: str) -> None:
    data = bytearray(Path(url).read_bytes())
    data[len(data) // 2] ^= 1
    Path(url).write_bytes(data)


def test_a_damaged_state_is_an_error(checkpoints: CheckpointStore) -> None:
    url = checkpoints.save(1, state(1), checkpoints.begin_attempt())
    damage(url)
    with pytest.raises(Damaged, match="the file was changed or damaged"):
        checkpoints.latest()
    with pytest.raises(StoreError, match="damaged"):
        read_checkpoint(url)
    with pytest.raises(Damaged):
        checkpoints.latest(lambda step, reason: None)  # there is no other one


@pytest.mark.parametrize("what", ["bits", "state", "commit"])
def test_the_one_before_replaces_a_damaged_checkpoint(
    checkpoints: CheckpointStore, tmp_path: Path, what: str
) -> None:
    first = checkpoints.begin_attempt()
    for step in (1, 2, 3):
        url = checkpoints.save(step, state(step), first)
    (commit,) = (tmp_path / "run/checkpoints").glob("COMMITTED-00000003*")
    if what == "bits":
        damage(url)
    elif what == "state":
        Path(url).unlink()
    else:
        commit.write_bytes(commit.read_bytes()[:20])
    warnings: list[tuple[int, str]] = []
    step, found = checkpoints.latest(lambda step, reason: warnings.append((step, reason))) or (0, {})
    assert step == found["step"] == 2
    assert [step for step, _ in warnings] == [3]
    second = checkpoints.begin_attempt()
    again = checkpoints.save(3, state(3), second)
    assert read_checkpoint(again)["step"] == 3
    assert checkpoints.steps() == [2, 3] and checkpoints.url(3) == again
    assert len(list((tmp_path / "run/checkpoints").glob("step-*"))) == 2, "the damaged one is gone"


def test_a_damaged_checkpoint_does_not_outlive_the_steps_that_are_taken_again(
    checkpoints: CheckpointStore,
) -> None:
    first = checkpoints.begin_attempt()
    for step in (2, 4):
        url = checkpoints.save(step, state(step), first)
    damage(url)
    checkpoints.save(3, state(3), checkpoints.begin_attempt())
    assert checkpoints.steps() == [2, 3]


def test_an_older_attempt_can_save_no_more(checkpoints: CheckpointStore) -> None:
    old, new = checkpoints.begin_attempt(), checkpoints.begin_attempt()
    assert (old, new) == (1, 2)
    with pytest.raises(TakenOver, match="attempt 2 has taken over"):
        checkpoints.save(5, state(5), old)
    checkpoints.save(5, state(5), new)
    assert checkpoints.steps() == [5]


class Sleep:
    """Lets others act before, or after, the first matching call of a method of `Store`."""

    def __init__(self, patch: pytest.MonkeyPatch, method: str, part: str, *, after: bool = False) -> None:
        self.meanwhile: Callable[[], None] | None = None
        real = getattr(Store, method)

        def sleepy(store: Store, path: str = "", *arguments: Any) -> Any:
            meanwhile = self.meanwhile if part in path else None
            if meanwhile:
                self.meanwhile = None
            if meanwhile and not after:
                meanwhile()
            result = real(store, path, *arguments)
            if meanwhile and after:
                meanwhile()
            return result

        patch.setattr(Store, method, sleepy)


@pytest.mark.parametrize(
    ("method", "part", "after"),
    [
        ("write_bytes", "step-00000040-a1", False),
        ("write_bytes", "step-00000040-a1", True),
        ("write_bytes", "COMMITTED-00000040-a1", False),
        ("write_bytes", "COMMITTED-00000040-a1", True),
        ("list", "attempts", True),
    ],
    ids=["before the upload", "after it", "before the commit", "after it", "while it looks for others"],
)
def test_one_that_sleeps_while_it_saves_takes_nothing_from_its_successor(
    checkpoints: CheckpointStore, monkeypatch: pytest.MonkeyPatch, method: str, part: str, after: bool
) -> None:
    old = checkpoints.begin_attempt()
    checkpoints.save(20, state(20), old)
    sleep = Sleep(monkeypatch, method, part, after=after)
    urls: dict[int, str] = {}

    def successor() -> None:
        new = checkpoints.begin_attempt()
        for step in (40, 60, 80, 100):
            urls[step] = checkpoints.save(step, state(step), new, keep_step=60)

    sleep.meanwhile = successor
    with pytest.raises(TakenOver):
        checkpoints.save(40, state(40), old, keep_step=20)
    for step in (60, 80, 100):
        assert checkpoints.url(step) == urls[step]
        assert read_checkpoint(urls[step])["step"] == step
    step, found = checkpoints.latest() or (0, {})
    assert step == found["step"] == 100


def test_what_a_sleeper_committed_goes_with_the_next_checkpoint(
    checkpoints: CheckpointStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Too late for the last look for others, it is beside the newer attempt's, and in nobody's way."""
    old = checkpoints.begin_attempt()
    checkpoints.save(20, state(20), old)
    sleep = Sleep(monkeypatch, "write_bytes", "COMMITTED-00000060-a1")
    new = 0

    def successor() -> None:
        nonlocal new
        new = checkpoints.begin_attempt()
        for step in (40, 60):
            checkpoints.save(step, state(-step), new)

    sleep.meanwhile = successor
    with pytest.raises(TakenOver):
        checkpoints.save(60, state(60), old)
    assert checkpoints.load(60)["step"] == -60, "of one step the newest attempt's counts"
    checkpoints.save(80, state(80), new)
    assert checkpoints.steps() == [60, 80]
    assert all("-a2" in path.name for path in (tmp_path / "run/checkpoints").glob("*-000*"))


def test_a_step_saved_again_by_a_later_attempt_is_that_ones(
    checkpoints: CheckpointStore, tmp_path: Path
) -> None:
    checkpoints.save(1, state(1), checkpoints.begin_attempt())
    again = checkpoints.save(1, state(1), checkpoints.begin_attempt())
    assert checkpoints.url(1) == again
    assert len(list((tmp_path / "run/checkpoints").glob("step-*"))) == 1


def test_starts_of_an_older_job_cannot_fence_a_newer_one(checkpoints: CheckpointStore) -> None:
    old = checkpoints.begin_attempt(job=1)
    assert checkpoints.begin_attempt(job=1) == old + 1
    new = checkpoints.begin_attempt(job=2)
    with pytest.raises(TrainingError, match="job attempt 1 starts, but attempt 2 has taken over"):
        checkpoints.begin_attempt(job=1)
    with pytest.raises(TrainingError, match="has taken over"):
        checkpoints.save(5, state(5), old + 1)
    checkpoints.save(5, state(5), new)
    assert checkpoints.begin_attempt() == new + 1, "outside of jobs, the newest start goes on"


def test_a_job_that_begins_meanwhile_is_not_fenced_by_an_older_one(
    checkpoints: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleep = Sleep(monkeypatch, "list", "attempts", after=True)
    newer: list[int] = []
    sleep.meanwhile = lambda: newer.append(checkpoints.begin_attempt(job=2))
    old = checkpoints.begin_attempt(job=1)
    assert (old, newer) == (10001, [20001])
    checkpoints.save(5, state(5), 20001)
    with pytest.raises(TakenOver):
        checkpoints.save(5, state(5), old)
