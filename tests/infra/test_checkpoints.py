from __future__ import annotations

from pathlib import Path

import pytest
import torch

from arco_core.errors import StoreError, TrainingError
from infra.checkpoints import CheckpointStore, read_checkpoint
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


def test_a_damaged_state_is_an_error(checkpoints: CheckpointStore, tmp_path: Path) -> None:
    url = checkpoints.save(1, state(1), checkpoints.begin_attempt())
    data = bytearray(Path(url).read_bytes())
    data[len(data) // 2] ^= 1
    Path(url).write_bytes(data)
    with pytest.raises(StoreError, match="damaged"):
        checkpoints.latest()
    with pytest.raises(StoreError, match="damaged"):
        read_checkpoint(url)


def test_an_older_attempt_can_save_no_more(checkpoints: CheckpointStore) -> None:
    old, new = checkpoints.begin_attempt(), checkpoints.begin_attempt()
    assert (old, new) == (1, 2)
    with pytest.raises(TrainingError, match="attempt 2 has taken over"):
        checkpoints.save(5, state(5), old)
    checkpoints.save(5, state(5), new)
    assert checkpoints.steps() == [5]


def test_a_committed_step_stays_as_it_is(checkpoints: CheckpointStore, tmp_path: Path) -> None:
    first = checkpoints.save(1, state(1), checkpoints.begin_attempt())
    again = checkpoints.save(1, state(1), checkpoints.begin_attempt())
    assert again == first
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
