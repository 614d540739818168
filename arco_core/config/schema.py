"""What can be configured. Each class checks itself on construction.

Batch sizes are global: they are divided among the workers, so results are comparable whatever
their number. Defaults are the `paper` preset's (You et al. 2023, appendix; 2D).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from arco_core.config.data import DataConfig
from arco_core.config.errors import require, require_in, require_range
from arco_core.config.frameworks import (
    ARCO,
    FRAMEWORK_NAMES,
    BYOLConfig,
    ISDConfig,
    KnnMoCoConfig,
    MoCoConfig,
    SimCLRConfig,
    VICRegConfig,
)
from arco_core.config.inference import InferenceConfig
from arco_core.config.network import NetworkConfig
from arco_core.config.released import RELEASED_SAMPLERS, ReleasedConfig
from arco_core.config.run import RunConfig

SAMPLER_NAMES = ("ns", "sg", "sag", "hilbert", "hilbert-antithetic", "hilbert-systematic")


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Augmentation of both branches (rotation, crop, flip) and of the strong view (intensity)."""

    rotation_degrees: float = 20.0
    crop_min: float = 0.8
    """A random crop keeps at least this share of the side."""
    flip_probability: float = 0.5
    jitter_probability: float = 0.8
    contrast: float = 0.4
    brightness: float = 0.4
    blur_probability: float = 0.5
    blur_sigma: float = 1.15
    """Largest standard deviation of the blur, in pixels."""
    noise: float = 0.1
    """Largest standard deviation of the noise, relative to the image's own."""

    def __post_init__(self) -> None:
        require_range("augment.rotation_degrees", self.rotation_degrees, 0.0, 180.0)
        require(0 < self.crop_min <= 1, "augment.crop_min", self.crop_min, "must lie in (0, 1]")
        for key in ("flip_probability", "jitter_probability", "blur_probability", "contrast"):
            require_range(f"augment.{key}", getattr(self, key), 0.0, 1.0)
        require(
            self.blur_sigma >= 0.15, "augment.blur_sigma", self.blur_sigma, "must be at least 0.15 pixels"
        )
        for key in ("brightness", "noise"):
            require(getattr(self, key) >= 0, f"augment.{key}", getattr(self, key), "must not be negative")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """SGD, as in the paper."""

    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 1e-4
    nesterov: bool = True
    schedule: str = "poly"
    """`poly`: (1 - step/steps)^0.9. `step`: divide by 10 every `decay_every` steps."""
    decay_every: int = 2500

    def __post_init__(self) -> None:
        require(self.lr > 0, "optimizer.lr", self.lr, "must be positive")
        require_range("optimizer.momentum", self.momentum, 0.0, 1.0)
        require_in("optimizer.schedule", self.schedule, ("poly", "step"))


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Stage one (METHOD sections 2, 6; paper E.1); temperatures, bank and embedding are those of `arco`."""

    framework: str = ARCO
    """What unlabelled images are learnt from: `arco`, ARCO's relational distillation, or another framework
    of self-supervision, with the settings in its own table below."""
    steps: int = 30_000
    labeled_batch: int = 3
    unlabeled_batch: int = 3
    student_temperature: float = 0.1
    teacher_temperature: float = 0.01
    bank_size: int = 36
    fresh_keys: int = 5
    embedding_dim: int = 512
    supervised_weight: float = 1.0
    global_weight: float = 1.0
    """Of the term on whole images, which every framework has."""
    local_weight: float = 1.0
    """Of the term on windows, which `arco` alone has."""
    ema: float = 0.99
    """Of the teacher, unless the framework brings its own."""
    moco: MoCoConfig = field(default_factory=MoCoConfig)
    """Of `moco-v2` and `knn-moco`."""
    knn_moco: KnnMoCoConfig = field(default_factory=KnnMoCoConfig)
    simclr: SimCLRConfig = field(default_factory=SimCLRConfig)
    byol: BYOLConfig = field(default_factory=BYOLConfig)
    isd: ISDConfig = field(default_factory=ISDConfig)
    vicreg: VICRegConfig = field(default_factory=VICRegConfig)

    def __post_init__(self) -> None:
        require_in("pretrain.framework", self.framework, FRAMEWORK_NAMES)
        require(self.steps >= 0, "pretrain.steps", self.steps, "must not be negative")
        for key in ("labeled_batch", "fresh_keys", "supervised_weight"):
            require(getattr(self, key) > 0, f"pretrain.{key}", getattr(self, key), "must be positive")
        require(
            self.bank_size >= self.fresh_keys,
            "pretrain.bank_size", self.bank_size, f"must hold fresh_keys = {self.fresh_keys}",
        )  # fmt: skip
        require_range("pretrain.ema", self.ema, 0.0, 1.0)
        for key in ("global_weight", "local_weight"):
            require(getattr(self, key) >= 0, f"pretrain.{key}", getattr(self, key), "must not be negative")
        queue = self.moco.queue_batches * self.batch
        require(
            self.framework != "knn-moco" or self.knn_moco.neighbors <= queue,
            "pretrain.knn_moco.neighbors", self.knn_moco.neighbors,
            f"must not exceed the queue, pretrain.moco.queue_batches = {self.moco.queue_batches} batches of "
            f"{self.batch}",
        )  # fmt: skip

    @property
    def batch(self) -> int:
        """Images of a step, over all workers."""
        return self.labeled_batch + self.unlabeled_batch


@dataclass(frozen=True, kw_only=True)
class ContrastConfig:
    """The contrastive term of stage two (METHOD sections 3 and 4)."""

    sampler: str = "sg"
    grid: int = 4
    """Cells along each axis of the class's bounding box (sg, sag)."""
    queries: int = 256
    """Queries per class, over all workers; each takes its share, in whole sets of negatives."""
    negatives: int = 512
    """Negative keys per query."""
    queries_per_negative_set: int = 64
    """Queries that share one draw of negatives; 1 draws afresh for each query."""
    bank_size: int = 2048
    """Keys kept per class."""
    keys_per_step: int = 128
    """New keys per class and step, over all workers."""
    temperature: float = 0.5
    query_threshold: float = 0.3
    """A query needs at least this teacher probability for its class."""

    def __post_init__(self) -> None:
        require_in("finetune.contrast.sampler", self.sampler, SAMPLER_NAMES + RELEASED_SAMPLERS)
        for key in ("grid", "queries", "negatives", "bank_size", "keys_per_step"):
            require(
                getattr(self, key) > 0, f"finetune.contrast.{key}", getattr(self, key), "must be positive"
            )
        require(
            self.keys_per_step <= self.bank_size,
            "finetune.contrast.keys_per_step",
            self.keys_per_step,
            f"must not exceed bank_size = {self.bank_size}",
        )
        require(
            self.queries_per_negative_set > 0 and self.queries % self.queries_per_negative_set == 0,
            "finetune.contrast.queries_per_negative_set", self.queries_per_negative_set,
            f"must divide queries = {self.queries}",
        )  # fmt: skip
        require(self.temperature > 0, "finetune.contrast.temperature", self.temperature, "must be positive")
        require_range("finetune.contrast.query_threshold", self.query_threshold, 0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """The lambdas of stage two; a weight of 0 switches the term (and its cost) off."""

    supervised: float = 1.0
    contrast: float = 0.01
    unsupervised: float = 1.0
    neighbors: float = 1.0
    equivariance: float = 1.0

    def __post_init__(self) -> None:
        require(self.supervised > 0, "finetune.weights.supervised", self.supervised, "must be positive")
        for key in ("contrast", "unsupervised", "neighbors", "equivariance"):
            require(
                getattr(self, key) >= 0, f"finetune.weights.{key}", getattr(self, key), "must not be negative"
            )

    @property
    def all_off(self) -> bool:
        """Only the supervised term is left."""
        return not (self.contrast or self.unsupervised or self.neighbors or self.equivariance)


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Stage two: anatomical contrastive fine-tuning (METHOD section 3; paper E.2, E.3)."""

    steps: int = 30_000
    labeled_batch: int = 4
    unlabeled_batch: int = 4
    weights: LossWeights = field(default_factory=LossWeights)
    contrast: ContrastConfig = field(default_factory=ContrastConfig)
    mix: str = "cutmix"
    strong_threshold: float = 0.97
    """Teacher confidence that counts in the weight of the unsupervised term."""
    weak_threshold: float = 0.7
    """Teacher confidence above which an unlabelled pixel carries its pseudo-label."""
    neighbor_bank: int = 36
    neighbors: int = 5
    ema: float = 0.99

    def __post_init__(self) -> None:
        require(self.steps >= 0, "finetune.steps", self.steps, "must not be negative")
        require(self.labeled_batch > 0, "finetune.labeled_batch", self.labeled_batch, "must be positive")
        require(
            self.unlabeled_batch > 0, "finetune.unlabeled_batch", self.unlabeled_batch, "must be positive"
        )
        require_in("finetune.mix", self.mix, ("cutmix", "cutout", "classmix", "none"))
        require_range("finetune.strong_threshold", self.strong_threshold, 0.0, 1.0)
        require_range("finetune.weak_threshold", self.weak_threshold, 0.0, 1.0)
        require_range("finetune.ema", self.ema, 0.0, 1.0)
        require(
            0 < self.neighbors <= self.neighbor_bank,
            "finetune.neighbors", self.neighbors, f"must lie in [1, neighbor_bank = {self.neighbor_bank}]",
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SupervisedConfig:
    """The baseline: the same labels, network, augmentation and optimiser; no unlabelled scan."""

    steps: int = 60_000
    """0 means as many steps as both stages together."""
    labeled_batch: int = 4

    def __post_init__(self) -> None:
        require(self.steps >= 0, "supervised.steps", self.steps, "must not be negative")
        require(self.labeled_batch > 0, "supervised.labeled_batch", self.labeled_batch, "must be positive")


@dataclass(frozen=True, kw_only=True)
class ArcoConfig:
    """Everything a run depends on, besides the dataset version and the amount of labels."""

    data: DataConfig = field(default_factory=DataConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    supervised: SupervisedConfig = field(default_factory=SupervisedConfig)
    released: ReleasedConfig = field(default_factory=ReleasedConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        batches = {
            "pretrain.labeled_batch": self.pretrain.labeled_batch,
            "pretrain.unlabeled_batch": self.pretrain.unlabeled_batch,
            "finetune.labeled_batch": self.finetune.labeled_batch,
            "finetune.unlabeled_batch": self.finetune.unlabeled_batch,
            "supervised.labeled_batch": self.supervised.labeled_batch,
        }
        for key, batch in batches.items():
            require(
                batch % self.run.workers == 0,
                key, batch, f"must be a multiple of run.workers = {self.run.workers}",
            )  # fmt: skip
        axes, kind = self.network.spatial_axes, self.network.kind
        require(
            len(self.data.image_size) == axes,
            "data.image_size", self.data.image_size, f"needs {axes} sides for network.kind = {kind!r}",
        )  # fmt: skip
        require(
            axes == 3 or "d" not in self.inference.flips,
            "inference.flips", self.inference.flips,
            f"slices have no depth (network.kind = {kind!r}): name axes of 'hw'",
        )  # fmt: skip
        require(
            axes == 2 or not self.finetune.weights.equivariance,
            "finetune.weights.equivariance", self.finetune.weights.equivariance,
            f"must be 0 in 3D (network.kind = {kind!r}): its warps are of slices",
        )  # fmt: skip

    @property
    def supervised_steps(self) -> int:
        """Optimiser steps of the baseline: its own, or those of both stages together."""
        return self.supervised.steps or self.pretrain.steps + self.finetune.steps
