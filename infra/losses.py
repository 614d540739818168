"""Tells a training's mailbox of lost workers, from the process of Ray Train's controller.

It has a module of its own because Ray imports it there: it has to be light.
"""

from __future__ import annotations

from typing import Any

import ray
from ray.train import UserCallback


class Losses(UserCallback):
    """Called by the controller, before it starts other workers.

    Args:
        mailbox: what `infra.mailbox.open_mailbox` gave.
    """

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """A worker has failed, or is gone, and the controller ends the others."""
        ray.get(self._mailbox.lose.remote())
