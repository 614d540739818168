"""What can go wrong with a RayJob, by what to do about it."""

from __future__ import annotations

from typing import ClassVar

from arco_core.errors import ArcoError


class RayJobError(ArcoError):
    """A RayJob did not succeed."""

    retryable: ClassVar[bool] = False
    """Whether the cluster is to blame, so that the same job may well succeed on a new one."""


class RayJobFailed(RayJobError):
    """The job's own program failed, or KubeRay refuses the job as it is; a new start would fail likewise."""


class RayClusterLost(RayJobError):
    """The Ray cluster failed under the job: head lost, submission failed, status no longer to be had."""

    retryable = True


class RayJobTimeout(RayJobError):
    """The job waited or ran longer than its deadlines allow."""


class RayJobDeleted(RayJobError):
    """Somebody else deleted the job while it was followed."""


class RayJobConflict(RayJobError):
    """Another job has the name."""


class RayJobCancelled(RayJobError):
    """The process that follows the job was told to stop."""


class KubernetesError(RayJobError):
    """The API server refused a request."""

    def __init__(self, message: str, *, status: int, reason: str = "") -> None:
        """Args:
        message: what was asked, and the answer.
        status: HTTP status of the answer.
        reason: machine-readable reason in the answer, such as `AlreadyExists`.
        """
        super().__init__(message)
        self.status, self.reason = status, reason


class KubernetesUnavailable(RayJobError):
    """The API server did not answer, or with an error that should pass."""

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        """Args:
        message: what was asked, and what came of it.
        retry_after: seconds that the API server wants to be left alone.
        """
        super().__init__(message)
        self.retry_after = retry_after
