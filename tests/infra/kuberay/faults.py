"""What can go wrong with one request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tests.infra.kuberay.objects import Refusal


@dataclass(frozen=True)
class Fault:
    """Orders for one request; several may be combined."""

    refusal: Refusal | None = None
    """Answer this, and do nothing."""
    retry_after: str = ""
    reset: Literal["", "before", "after"] = ""
    """Reset the connection before the request takes effect, or after, instead of answering."""
    cut_after: int | None = None
    """Reset the connection after so many bytes of the answer's body."""
    forget: bool = False
    """Forget the history of all jobs first: the version of a watch is too old."""
    signal: int = 0
    """Sent to this process before anything else happens."""
    delay: float = 0.0
    """Seconds before the request is looked at."""


def refused(status: int, reason: str, retry_after: str = "") -> Fault:
    return Fault(refusal=Refusal(status, reason, f"ordered by the test: {reason}"), retry_after=retry_after)


LOST = "reset after it took effect"
PASSING = {
    "reset before it takes effect": Fault(reset="before"),
    LOST: Fault(reset="after"),
    "answer cut off": Fault(cut_after=40),
    "429": refused(429, "TooManyRequests", retry_after="0"),
    "500": refused(500, "InternalError"),
    "503": refused(503, "ServiceUnavailable"),
}
"""Faults that the client has to survive, whichever request they hit."""
