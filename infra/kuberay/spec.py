"""What a RayJob is asked to run, and where: typed parameters, validated on construction."""

from __future__ import annotations

from dataclasses import dataclass

from arco_core.config.errors import require
from infra.kuberay.names import (
    require_label_value,
    require_node_label,
    require_object_name,
    require_pinned_image,
    require_step_name,
    require_taint,
)

GPU = "nvidia.com/gpu"
"""The extended resource that a GPU is."""


@dataclass(frozen=True, kw_only=True)
class PodSize:
    """What each Ray pod of a kind asks for, and gets at most."""

    cpu: int = 1
    memory_gib: int = 4
    shm_gib: int = 1
    """Of the memory, what /dev/shm may take: Ray's object store and the loaders' batches."""
    gpu: int = 0

    def __post_init__(self) -> None:
        require(self.cpu >= 1, "cpu", self.cpu, "must be a number of cores, at least 1")
        require(self.memory_gib >= 1, "memory_gib", self.memory_gib, "must be GiB, at least 1")
        require(self.gpu >= 0, "gpu", self.gpu, "must be a number of GPUs, 0 for none")
        require(
            0 < self.shm_gib < self.memory_gib,
            "shm_gib",
            self.shm_gib,
            f"must be GiB above 0 and below memory_gib = {self.memory_gib}, which it counts against",
        )


@dataclass(frozen=True, kw_only=True)
class Place:
    """The nodes that Ray pods of a kind may run on."""

    node_selector: tuple[str, ...] = ()
    """Labels that a node must have, each `key=value`."""
    tolerations: tuple[str, ...] = ()
    """Taints that a node may have, each `key=value:effect`, or `key:effect` for any value."""

    def __post_init__(self) -> None:
        for label in self.node_selector:
            require_node_label("node_selector", label)
        for taint in self.tolerations:
            require_taint("tolerations", taint)


@dataclass(frozen=True, kw_only=True)
class Workers:
    """The Ray workers; without any, the head does the work. With room between the limits Ray scales them."""

    minimum: int = 1
    maximum: int = 1
    size: PodSize = PodSize()
    place: Place = Place()
    spot_label: str | None = None
    """`key=value` of the label that the cloud gives to spot nodes: workers go there, the head never."""

    def __post_init__(self) -> None:
        require(
            0 <= self.minimum <= self.maximum,
            "workers.minimum",
            self.minimum,
            f"must lie in [0, workers.maximum = {self.maximum}]",
        )
        if self.spot_label is not None:
            require_node_label("workers.spot_label", self.spot_label)

    @property
    def autoscaling(self) -> bool:
        """Whether their number may change."""
        return self.minimum < self.maximum


@dataclass(frozen=True, kw_only=True)
class Deadlines:
    """Seconds that a job may spend, and what then."""

    queue: int = 86400
    """Waiting to be admitted (Kueue) or begun; kept by who follows the job."""
    start: int = 1800
    """From admission until the cluster is ready; kept by KubeRay (preRunningDeadlineSeconds)."""
    active: int = 86400
    """From admission until the end; kept by KubeRay (activeDeadlineSeconds)."""
    after_end: int = 600
    """Until KubeRay removes the cluster of a job that nobody deleted (ttlSecondsAfterFinished)."""

    def __post_init__(self) -> None:
        for key in ("queue", "start", "active", "after_end"):
            value = getattr(self, key)
            require(1 <= value < 2**31, f"deadlines.{key}", value, "must be seconds, at least 1")
        require(
            self.start <= self.active,
            "deadlines.start",
            self.start,
            f"must not be above deadlines.active = {self.active}, which includes it",
        )


@dataclass(frozen=True, kw_only=True)
class RayClusterSettings:
    """The cluster that a job gets, and how it gets it."""

    head: PodSize = PodSize()
    head_place: Place = Place()
    workers: Workers = Workers()
    deadlines: Deadlines = Deadlines()
    namespace: str | None = None
    """Of the jobs; without one, that of who makes them."""
    service_account: str = "arco-ray"
    """Name of the service account whose identity the pods have towards the object store."""
    env_config_map: str | None = None
    """Name of a config map with environment variables, such as the object store's endpoint."""
    env_secret: str | None = None
    """Name of a secret with environment variables, for an object store without pod identities."""
    queue: str | None = None
    """Name of a Kueue queue (LocalQueue) that admits the job; without one, it starts at once."""
    priority_class: str | None = None
    """Name of the PriorityClass of all pods."""

    def __post_init__(self) -> None:
        names = ("namespace", "service_account", "env_config_map", "env_secret", "queue", "priority_class")
        for key in names:
            value = getattr(self, key)
            if value is not None:
                require_object_name(key, value)
        if self.queue and self.workers.autoscaling:
            rule = f"Kueue admits jobs of a fixed size: set workers.minimum = {self.workers.maximum}, too"
            require(False, "queue", self.queue, rule)


@dataclass(frozen=True, kw_only=True)
class RayJobSpec:
    """A command to run on a Ray cluster of its own."""

    run_id: str
    """The pipeline run that the job is a part of: a label value."""
    step: str
    """The pipeline step, in a few letters: the name of the job starts with it."""
    command: tuple[str, ...]
    """Program and arguments; the program by its absolute path in the image."""
    image: str
    """Of all Ray pods, by version or digest."""
    cluster: RayClusterSettings = RayClusterSettings()

    def __post_init__(self) -> None:
        require_label_value("run_id", self.run_id)
        require_step_name("step", self.step)
        require(bool(self.command), "command", self.command, "must be a program and its arguments")
        rule = "must be an absolute path: a bare name may resolve outside the image's environment"
        require(self.command[0].startswith("/"), "command[0]", self.command[0], rule)
        require_pinned_image("image", self.image)
