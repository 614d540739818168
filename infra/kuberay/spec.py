"""What a RayJob is asked to run, and where: typed parameters, validated on construction."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from arco_core.config.errors import require

GPU = "nvidia.com/gpu"
"""The extended resource that a GPU is."""

TaintEffect = Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]

_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_STEP = re.compile(r"[a-z]([-a-z0-9]{0,18}[a-z0-9])?")
_IMAGE = re.compile(
    r"(?P<name>[^\s:@]+(:\d+/[^\s:@]+)?)(:(?P<tag>[\w][\w.-]{0,127}))?(@sha256:[0-9a-f]{64})?"
)


@dataclass(frozen=True, kw_only=True)
class Toleration:
    """Lets pods onto nodes with a taint; without a value, whatever the taint's value is."""

    key: str
    value: str | None = None
    effect: TaintEffect = "NoSchedule"

    def __post_init__(self) -> None:
        require(_matches(_LABEL_KEY, self.key), "toleration.key", self.key, "must be the key of a taint")
        if self.value is not None:
            _require_label_value("toleration.value", self.value)
        effects = get_args(TaintEffect)
        require(
            self.effect in effects, "toleration.effect", self.effect, f"must be one of {', '.join(effects)}"
        )


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

    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()

    def __post_init__(self) -> None:
        for key, value in self.node_selector.items():
            require(_matches(_LABEL_KEY, key), "node_selector", key, "must be the key of a node label")
            _require_label_value(f"node_selector[{key!r}]", value)


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
            key, separator, value = self.spot_label.partition("=")
            ok = bool(separator) and _matches(_LABEL_KEY, key) and _matches(_LABEL_VALUE, value)
            rule = "must be key=value of a node label, such as karpenter.sh/capacity-type=spot"
            require(ok, "workers.spot_label", self.spot_label, rule)

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
    head: PodSize = PodSize()
    head_place: Place = Place()
    workers: Workers = Workers()
    deadlines: Deadlines = Deadlines()
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
        _require_label_value("run_id", self.run_id)
        rule = "must be at most 20 of a-z, 0-9 and '-', and start with a letter"
        require(_matches(_STEP, self.step), "step", self.step, rule)
        require(bool(self.command), "command", self.command, "must be a program and its arguments")
        rule = "must be an absolute path: a bare name may resolve outside the image's environment"
        require(self.command[0].startswith("/"), "command[0]", self.command[0], rule)
        _require_pinned("image", self.image)
        for key in ("service_account", "env_config_map", "env_secret", "queue", "priority_class"):
            value = getattr(self, key)
            if value is not None:
                require(_matches(_NAME, value), key, value, "must be the name of a Kubernetes object")
        if self.queue and self.workers.autoscaling:
            rule = f"Kueue admits jobs of a fixed size: set workers.minimum = {self.workers.maximum}, too"
            require(False, "queue", self.queue, rule)


def _require_pinned(key: str, image: str) -> None:
    found = _IMAGE.fullmatch(image)
    rule = "must be name:version or name@sha256:digest, and the version not latest"
    require(found is not None, key, image, rule)
    if found is not None:
        require("@" in image or found["tag"] not in (None, "latest"), key, image, rule)


def _require_label_value(key: str, value: str) -> None:
    rule = "must be a label value: at most 63 letters, digits, '-', '_', '.', the first and last alphanumeric"
    require(_matches(_LABEL_VALUE, value), key, value, rule)


def _matches(pattern: re.Pattern[str], text: str) -> bool:
    return pattern.fullmatch(text) is not None
