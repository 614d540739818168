"""Heavy steps on Kubernetes: a KubeRay RayJob for each, with its own Ray cluster. See docs/kubernetes.md."""

from infra.kuberay.errors import (
    KubernetesError,
    KubernetesUnavailable,
    RayClusterLost,
    RayJobCancelled,
    RayJobConflict,
    RayJobDeleted,
    RayJobError,
    RayJobFailed,
    RayJobTimeout,
)
from infra.kuberay.run import RayJobOutcome, delete_run_jobs, run_ray_job
from infra.kuberay.settings import load_cluster_settings
from infra.kuberay.spec import Deadlines, Place, PodSize, RayClusterSettings, RayJobSpec, Workers
from infra.kuberay.timing import Timing

__all__ = [
    "Deadlines",
    "KubernetesError",
    "KubernetesUnavailable",
    "Place",
    "PodSize",
    "RayClusterLost",
    "RayClusterSettings",
    "RayJobCancelled",
    "RayJobConflict",
    "RayJobDeleted",
    "RayJobError",
    "RayJobFailed",
    "RayJobOutcome",
    "RayJobSpec",
    "RayJobTimeout",
    "Timing",
    "Workers",
    "delete_run_jobs",
    "load_cluster_settings",
    "run_ray_job",
]
