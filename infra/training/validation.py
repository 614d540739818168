"""Validation during training: Dice of whole volumes, on the scans' own grids.

As the evaluation step does it, the student segments every annotated volume of the validation split. Its
weights, the random state and the feed are left as they are: training goes on as if nothing had happened.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from arco_core.config import InferenceConfig
from arco_core.dice import volume_dice
from arco_core.errors import DataError
from arco_core.inference import segment_scan
from infra.datasets import CaseEntry, DatasetVersion
from infra.training.metrics_log import VALIDATION, Line

_CACHE_BYTES = 256 * 2**20
"""Validation scans up to this size (float16, a worker) stay in memory between validations."""


@dataclass(frozen=True, kw_only=True)
class Validation:
    """How good the student was after `step` steps."""

    step: int
    dice: float
    """Mean over foreground classes of `per_class`."""
    per_class: dict[str, float]
    """Mean over volumes."""
    predicted: int
    """Classes that were predicted anywhere, background included."""

    def to_line(self) -> dict[str, float]:
        """As metrics."""
        per_class = {f"{VALIDATION}dice/{name}": value for name, value in self.per_class.items()}
        return {f"{VALIDATION}dice": self.dice, **per_class, f"{VALIDATION}predicted_classes": self.predicted}


def validations_of(lines: Sequence[Line], classes: Sequence[str]) -> list[Validation]:
    """The validations that were logged, in order."""
    return [
        Validation(
            step=line["step"],
            dice=line[f"{VALIDATION}dice"],
            per_class={name: line[f"{VALIDATION}dice/{name}"] for name in classes[1:]},
            predicted=line[f"{VALIDATION}predicted_classes"],
        )
        for line in lines
        if f"{VALIDATION}dice" in line
    ]


def best_of(validations: Sequence[Validation]) -> Validation | None:
    """The one of the highest mean Dice, of equal ones the first; None of none."""
    return max(validations, key=lambda v: v.dice, default=None)


class Validator:
    """The annotated validation volumes, shared among the workers.

    Args:
        version: the dataset.
        inference: how volumes are predicted patch by patch.
        rank, world: which of how many workers this is; each segments every `world`-th volume.
        gather: values of all workers, in order of rank.
        alive: called after every volume.
    """

    def __init__(
        self,
        version: DatasetVersion,
        inference: InferenceConfig,
        *,
        rank: int,
        world: int,
        gather: Callable[[Any], list[Any]],
        alive: Callable[[], None],
    ) -> None:
        self._version, self._inference, self._gather, self._alive = version, inference, gather, alive
        cases = annotated_cases(version)
        self.volumes = len(cases)
        self._own = cases[rank::world]
        voxels = sum(math.prod(case.geometry.size) for case in self._own)
        self._keep = voxels * version.channels * np.dtype(np.float16).itemsize <= _CACHE_BYTES
        self._cache: dict[str, tuple[npt.NDArray[np.float16], npt.NDArray[np.uint8]]] = {}

    def __call__(self, network: nn.Module, step: int) -> Validation:
        """Validate `network`; every worker must call it, and gets the same result."""
        device = next(network.parameters()).device
        own = [self._score(network, case, device) for case in self._own]
        scores = [score for worker in self._gather(own) for score in worker]
        # A fixed order of volumes: the sum must not depend on the number of workers.
        scores.sort(key=lambda score: score[0])
        table = np.array([dice for _, dice, _ in scores])
        per_class = dict(zip(self._version.classes[1:], table.mean(0).tolist(), strict=True))
        return Validation(
            step=step,
            dice=sum(per_class.values()) / len(per_class),
            per_class=per_class,
            predicted=len(set().union(*(found for _, _, found in scores))),
        )

    def _score(
        self, network: nn.Module, case: CaseEntry, device: torch.device
    ) -> tuple[str, tuple[float, ...], set[int]]:
        """Case id, Dice of each foreground class, and the classes that were predicted."""
        images, reference = self._read(case)
        image_size = self._version.data_config.image_size
        mask = segment_scan(
            network, images.astype(np.float32), case.geometry, image_size, self._inference, device=device
        )
        dice = volume_dice(mask, reference, len(self._version.classes))
        self._alive()
        return case.case_id, dice, set(np.unique(mask).tolist())

    def _read(self, case: CaseEntry) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.uint8]]:
        if case.case_id in self._cache:
            return self._cache[case.case_id]
        images, _ = self._version.read_case(case.case_id)
        reference = self._version.reference(case.case_id)
        if reference is None:
            raise DataError(
                f"{self._version.url} has no reference of the annotated case {case.case_id}: prepare it again"
            )
        read = images.astype(np.float16), reference  # float16 is what the dataset holds
        if self._keep:
            self._cache[case.case_id] = read
        return read


def annotated_cases(version: DatasetVersion) -> list[CaseEntry]:
    """The cases to validate on, in order of their ids."""
    return [case for case in version.cases_of(version.patients("validation")) if case.annotated]
