"""How patient the client is. Tests have less time than clusters."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Timing:
    """All in seconds."""

    patience: float = 600.0
    """How long one request to the API server may keep failing in ways that should pass."""
    patience_at_end: float = 60.0
    """As `patience`, for the deletion of a job that is over."""
    patience_on_cancel: float = 15.0
    """As `patience`, for the deletion when this process is told to stop: Kubernetes kills it after 30 s."""
    backoff: float = 0.5
    """Between tries of a request: doubled from try to try."""
    backoff_limit: float = 15.0
    request: float = 10.0
    """Until the API server has answered a request; meanwhile, nothing can be cancelled."""
    watch: float = 60.0
    """Length of a watch, after which the job is read again."""
    silence: float = 300.0
    """Until a log without a line is opened again: its connection may be dead."""
    tick: float = 1.0
    """Between looks at clocks and at jobs on their way out."""
    head_check: float = 15.0
    """Between looks at the head pod."""
    head_loss: float = 45.0
    """How long the head must look lost, and the operator say nothing, until the cluster counts as lost."""
    status_stale: float = 600.0
    """As `head_loss`, for job statuses that the operator fails to read; it gives up after 300 s itself."""
    settle: float = 360.0
    """From the end of the driver until KubeRay must have said so; it takes at most 300 s."""
    overtime: float = 120.0
    """Over a deadline that KubeRay keeps, until the client keeps it."""
    log_tail: float = 10.0
    """For the rest of the driver's log after the job's end."""
    late: float = 2.0
    """For a request whose answer was lost to take effect."""
    removal: float = 120.0
    """For a deleted job to be gone."""
