from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from arco_core.errors import TrainingError
from infra.attempts import (
    JOB_ATTEMPT_ENVIRONMENT,
    claim_attempt,
    claim_number,
    job_attempt,
    newest_attempt,
)
from infra.storage import Store


def test_every_claim_gets_a_number_of_its_own(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    assert newest_attempt(store, "attempts") == 0
    with ThreadPoolExecutor(4) as pool:
        numbers = list(pool.map(lambda _: claim_attempt(store, "attempts"), range(12)))
    assert sorted(numbers) == list(range(1, 13))
    assert newest_attempt(store, "attempts") == 12


def test_a_claim_stays_within_its_numbers(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    assert claim_number(store, "attempts", 20001) == 20001
    assert claim_number(store, "attempts", 10001, last=10002) == 10001, "whatever others have claimed"
    assert claim_number(store, "attempts", 10001, last=10002) == 10002
    with pytest.raises(TrainingError, match=r"the attempts 10001 to 10002 .* are all claimed"):
        claim_number(store, "attempts", 10001, last=10002)
    assert claim_attempt(store, "attempts") == 20002


def test_the_attempt_of_a_job_comes_from_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(JOB_ATTEMPT_ENVIRONMENT, raising=False)
    assert job_attempt() is None
    monkeypatch.setenv(JOB_ATTEMPT_ENVIRONMENT, "3")
    assert job_attempt() == 3
    for wrong in ("", "0", "-1", "two"):
        monkeypatch.setenv(JOB_ATTEMPT_ENVIRONMENT, wrong)
        with pytest.raises(TrainingError, match="must be a number from 1"):
            job_attempt()
