"""Clean-up after a pipeline run."""

from __future__ import annotations

from collections.abc import Sequence

from components.launch import RAYJOB, remove_ray_jobs


def cleanup(backend: str, cluster: Sequence[str]) -> None:
    """Remove the RayJobs of this pipeline run that are left, with their Ray clusters.

    Steps remove theirs themselves; this is for those whose pod was killed outright. Other backends have none.

    Raises:
        ConfigError: this is no pod of a pipeline.
        RayJobError: the API server refused, or did not answer.
    """
    if backend != RAYJOB:
        return
    removed = remove_ray_jobs(cluster)
    print(f"cleanup: removed {', '.join(removed) or 'nothing'}", flush=True)
