"""How a run is carried out: on what, in which precision, how often it is saved."""

from __future__ import annotations

from dataclasses import dataclass

from arco_core.config.errors import require, require_in

BANKS = ("shared", "local")
PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """How a run is carried out."""

    seed: int = 0
    labeled_patients: tuple[str, ...] = ()
    """Labelled patients by name, the same for every seed; none leaves the choice to the amount of labels."""
    workers: int = 2
    """Workers that train together; batches are divided among them."""
    min_workers: int | None = None
    """Fewest workers to start with while there is no place for all; none waits for all of them.

    As many train as find a place and both batches can be divided among, anew after every failure and when
    places come back.
    """
    banks: str = "shared"
    """`shared` banks hold the keys of all workers, the same on each; `local` ones those of a worker's own
    images, and no key is sent."""
    threads_per_worker: int = 1
    """Of each worker, which takes a CPU for each."""
    device: str = "auto"
    """`auto` takes a GPU where the worker has one."""
    precision: str = "fp32"
    """Of the networks' passes on a GPU: `fp32`, `bf16` or `fp16`; all else, and all on a CPU, is float32."""
    compile: bool = False
    """Compile the networks' passes on a GPU: a minute at the start, faster steps after."""
    log_every: int = 10
    checkpoint_every: int = 500
    validate_every: int | None = None
    """Steps between validations: none is a tenth of the stage's steps, 0 is never."""
    stall_minutes: float = 30.0
    """A training that takes no step for so long starts again from its last checkpoint; 0 is never."""
    max_failures: int = 3
    """Worker failures that a stage recovers from, from its last checkpoint, before it gives up; they are
    counted anew once a checkpoint has been written since."""

    def __post_init__(self) -> None:
        names = self.labeled_patients
        require(
            len(set(names)) == len(names) and all(names),
            "run.labeled_patients",
            names,
            "must be different names",
        )
        require(self.workers >= 1, "run.workers", self.workers, "must be at least 1")
        require(
            self.min_workers is None or 1 <= self.min_workers <= self.workers,
            "run.min_workers", self.min_workers, f"must be between 1 and run.workers = {self.workers}",
        )  # fmt: skip
        require_in("run.banks", self.banks, BANKS)
        require(
            self.threads_per_worker >= 1,
            "run.threads_per_worker",
            self.threads_per_worker,
            "must be at least 1",
        )
        require_in("run.device", self.device, ("auto", "cpu", "cuda"))
        require_in("run.precision", self.precision, PRECISIONS)
        require(self.log_every >= 1, "run.log_every", self.log_every, "must be at least 1")
        require(
            self.checkpoint_every >= 1, "run.checkpoint_every", self.checkpoint_every, "must be at least 1"
        )
        require(self.stall_minutes >= 0, "run.stall_minutes", self.stall_minutes, "must not be negative")
        every = self.validate_every
        require(every is None or every >= 0, "run.validate_every", every, "must not be negative")
        require(self.max_failures >= 0, "run.max_failures", self.max_failures, "must not be negative")

    @property
    def least_workers(self) -> int:
        """Fewest workers that may train."""
        return self.workers if self.min_workers is None else self.min_workers

    @property
    def cores(self) -> int:
        """That all workers take: each as many as it has threads."""
        return self.workers * self.threads_per_worker

    @property
    def result_settings(self) -> dict[str, int | str | bool | tuple[str, ...]]:
        """The settings that change what is computed; all others only change how it is done."""
        return {
            "workers": self.workers,
            "min_workers": self.least_workers,
            "banks": self.banks,
            "threads_per_worker": self.threads_per_worker,  # they decide in which order torch sums
            "precision": self.precision,
            "compile": self.compile,
            "labeled_patients": self.labeled_patients,
        }
