"""Numbered attempts: of several processes that claim one, each gets its own number, a later one a higher."""

from __future__ import annotations

import os

from arco_core.errors import TrainingError
from infra.storage import AlreadyExists, Store

JOB_ATTEMPT_ENVIRONMENT = "ARCO_ATTEMPT"
"""Environment variable that holds the attempt's number in every process of a job on a cluster."""


def job_attempt() -> int | None:
    """The number of the attempt at the job that this process is a part of, None outside of such jobs.

    Raises:
        TrainingError: the environment variable holds no number from 1.
    """
    text = os.environ.get(JOB_ATTEMPT_ENVIRONMENT)
    if text is None:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise TrainingError(f"{JOB_ATTEMPT_ENVIRONMENT} = {text!r}: must be a number from 1, or not set")
    return int(text)


def newest_attempt(store: Store, prefix: str) -> int:
    """The highest number claimed in the folder `prefix`, 0 before the first."""
    return max((int(path.rpartition("/")[2].removesuffix(".json")) for path in store.list(prefix)), default=0)


def claim_attempt(store: Store, prefix: str) -> int:
    """Claim the next number in the folder `prefix`, from 1."""
    return claim_number(store, prefix, newest_attempt(store, prefix) + 1)


def claim_number(store: Store, prefix: str, first: int, *, last: int | None = None) -> int:
    """Claim the first number from `first` on that nobody has claimed in the folder `prefix`.

    Raises:
        TrainingError: all up to `last` are claimed.
    """
    number = first
    while last is None or number <= last:
        try:
            store.put_if_absent(f"{prefix}/{number:04d}.json", b"{}")
        except AlreadyExists:
            number += 1
        else:
            return number
    raise TrainingError(
        f"the attempts {first} to {last} in {store.join(prefix)} are all claimed: a job may start no more "
        "often; submit a new one"
    )
