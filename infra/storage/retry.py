"""Trying again when a store did not answer."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from infra.storage.errors import Unavailable

T = TypeVar("T")
PAUSES_S = (1.0, 5.0, 25.0)
"""Between attempts, each up to half as long again, so that many workers do not return at one time. The
client's own retries are within each attempt."""


def retrying(function: Callable[[], T]) -> T:
    """`function()`, again when it raises `Unavailable`; the last attempt's error is raised.

    Only for what may be done twice.
    """
    for pause in PAUSES_S:
        try:
            return function()
        except Unavailable:
            time.sleep(pause * random.uniform(1.0, 1.5))
    return function()
