"""An actor between the workers of a training and the process that watches them.

It has a module of its own because Ray imports that module in the actor's process: it has to be light.
"""

from __future__ import annotations

from typing import Any

import ray

News = tuple[int, dict[str, float]]
"""A step that is done, and its metrics."""


class Mailbox:
    """What workers have to say. Use it through `open_mailbox`."""

    def __init__(self) -> None:
        self._news: News | None = None
        self._refusal = ""

    def post(self, step: int, metrics: dict[str, float]) -> None:
        """Leave the news of a step; only the last are kept."""
        self._news = (step, metrics)

    def take(self) -> News | None:
        """The last news, once."""
        news, self._news = self._news, None
        return news

    def refuse(self, reason: str) -> None:
        """Leave what keeps the training from going on, for the user to mend."""
        self._refusal = self._refusal or reason

    def refusal(self) -> str:
        """The first reason given to `refuse`, or nothing."""
        return self._refusal


def open_mailbox() -> Any:
    """The handle of a new mailbox; it ends with the process that opened it."""
    return ray.remote(num_cpus=0)(Mailbox).remote()
