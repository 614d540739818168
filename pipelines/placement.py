"""What Kubeflow gives to the pods of steps. A laptop's runner heeds none of it.

GPUs, their nodes, taints and /dev/shm are not here: heavy steps get them as Ray clusters of their own, by
`clusters.toml` and the parameter `cluster`.
"""

from __future__ import annotations

from kfp import dsl, kubernetes

from components.image import IMAGE, IMAGE_ENVIRONMENT
from components.launch import CLUSTERS_ENVIRONMENT, NAMESPACE_ENVIRONMENT, RUN_ENVIRONMENT, STEP_SECONDS

_FOLDER = "/etc/arco"
_USER = 1000
"""Of the image, and of Ray pods. Kubeflow sees to the rest: no capabilities, no privileges, seccomp."""
_STORE_SETTINGS = ("AWS_DEFAULT_REGION", "AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_ENDPOINT_URL")
_ALERTS = "ARCO_ALERT_URL"
_STORE_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def waiting(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """A step that has a RayJob do the work: little room, and time for the job to queue and to run, twice.

    Tried again, it finds its job. Kubeflow ignores retries within a loop (kubeflow/pipelines#12389); there
    the step's own second try, after the loss of a cluster, has to do.
    """
    return _place(task, cpu="1", memory="4Gi", seconds=STEP_SECONDS)


def working(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """A step that does its light work itself."""
    return _place(task, cpu="2", memory="8Gi", seconds=3600)


def _place(task: dsl.PipelineTask, *, cpu: str, memory: str, seconds: int) -> dsl.PipelineTask:
    task.set_cpu_request("500m").set_cpu_limit(cpu)
    task.set_memory_request("1Gi").set_memory_limit(memory)
    task.set_retry(2, backoff_duration="60s", backoff_factor=2, backoff_max_duration="600s")
    task.set_env_variable(IMAGE_ENVIRONMENT, IMAGE)
    task.set_env_variable(CLUSTERS_ENVIRONMENT, f"{_FOLDER}/clusters.toml")
    kubernetes.set_timeout(task, seconds)
    kubernetes.set_security_context(task, run_as_user=_USER, run_as_group=_USER, run_as_non_root=True)
    kubernetes.add_pod_label(task, "app.kubernetes.io/name", "arco")
    kubernetes.add_pod_label(task, "app.kubernetes.io/part-of", "arco")  # what the network policies select
    kubernetes.use_field_path_as_env(task, RUN_ENVIRONMENT, "metadata.labels['pipeline/runid']")
    kubernetes.use_field_path_as_env(task, NAMESPACE_ENVIRONMENT, "metadata.namespace")
    kubernetes.use_config_map_as_volume(task, "arco-clusters", _FOLDER)
    settings, keys = ({name: name for name in names} for names in (_STORE_SETTINGS, _STORE_KEYS))
    kubernetes.use_config_map_as_env(task, "arco-store", settings, optional=True)
    kubernetes.use_secret_as_env(task, "arco-store", keys, optional=True)
    kubernetes.use_secret_as_env(task, "arco-alerts", {_ALERTS: _ALERTS}, optional=True)
    return task
