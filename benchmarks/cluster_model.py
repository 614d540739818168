"""A model on paper of what a step of stage two costs on 8 to 256 GPUs: all-reduce, key gather, reads.

Weak scaling: every GPU keeps its own batch. Nothing is taken to overlap with computing but reads, so the
efficiencies are lower bounds: data-parallel training sends gradients while it still computes others.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from arco_core.config.schema import ContrastConfig

FLOAT = 4
GPUS = (8, 16, 32, 64, 128, 256)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What is assumed of the hardware; docs/scaling.md says why."""

    step_s: float = 0.1
    """Of one GPU alone, with its own batch."""
    bytes_per_s: float = 3e9
    """In and out of a GPU at the same time: an eighth of a host's 200 Gbit/s card."""
    latency_s: float = 20e-6
    """Of a message between hosts."""


@dataclass(frozen=True, kw_only=True)
class Payload:
    """What one worker's step sends and reads."""

    gradients: int
    """Bytes of all gradients, heads included."""
    statistics: int
    """Bytes of batch norm's running averages, which are averaged."""
    classes: int
    keys_per_step: int
    """New keys a class and step, of all workers together."""
    dim: int
    """Channels of a key."""
    unlabeled: int
    """Unlabelled images of a worker: one key each, for L_nn."""
    images: int
    """Images of a worker, labelled and unlabelled."""
    slice_bytes: int
    """Of one image and its label in a shard."""

    @staticmethod
    def of(
        contrast: ContrastConfig, *, classes: int, dim: int, batch: int, slice_bytes: int, **sent: int
    ) -> Payload:
        """Of a worker with `batch` labelled and as many unlabelled images; `sent`: gradients, statistics."""
        return Payload(
            classes=classes,
            keys_per_step=contrast.keys_per_step,
            dim=dim,
            unlabeled=batch,
            images=2 * batch,
            slice_bytes=slice_bytes,
            **sent,
        )

    def keys(self, gpus: int) -> int:
        """Bytes of keys that each of `gpus` workers hands to the others in a step.

        Class keys are divided among workers, at least one each, and each comes with a byte that says whether
        it counts; of images, every worker hands in its own.
        """
        share = max(1, self.keys_per_step // gpus)
        return self.classes * share * (self.dim * FLOAT + 1) + self.unlabeled * self.dim * FLOAT


@dataclass(frozen=True, kw_only=True)
class Row:
    """One number of GPUs."""

    gpus: int
    all_reduce_ms: float
    gather_ms: float
    keys_received: int
    """Bytes of keys that a GPU receives in a step."""
    store_bytes_per_s: float
    """What all GPUs together ask of the object store."""
    efficiency: float
    """Step of one GPU over step of one of many."""


def predict(payload: Payload, machine: Machine, gpus: int) -> Row:
    """A step of `gpus` GPUs, with ring all-reduces and rings that gather."""
    hops = gpus - 1
    reduced = payload.gradients + payload.statistics
    reduce_s = 2 * hops * (reduced / gpus / machine.bytes_per_s + machine.latency_s)
    received = hops * payload.keys(gpus)
    gather_s = (
        received / machine.bytes_per_s + 3 * hops * machine.latency_s
    )  # keys, their marks, images' keys
    total = machine.step_s + reduce_s + gather_s
    return Row(
        gpus=gpus,
        all_reduce_ms=1000 * reduce_s,
        gather_ms=1000 * gather_s,
        keys_received=received,
        store_bytes_per_s=gpus * payload.images * payload.slice_bytes / total,
        efficiency=machine.step_s / total,
    )


def table(payload: Payload, machine: Machine | None = None) -> list[dict[str, float]]:
    """`predict` for 8 to 256 GPUs."""
    return [asdict(predict(payload, machine or Machine(), gpus)) for gpus in GPUS]
