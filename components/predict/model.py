"""The published model that predicts: fetched, opened and put on a device."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from arco_core.config.inference import FLIP_AXES
from arco_core.errors import DataError
from arco_core.inference import MapName
from arco_core.model_package import (
    DESCRIPTION,
    TEACHER,
    WEIGHTS,
    ModelPackageError,
    PublishedModel,
    load_package,
    read_description,
)
from infra.storage import Store


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A published model, and how it is to be used. Can be pickled."""

    url: str
    sha256: str
    """Of its weights: what they must be wherever they are opened."""
    flips: str | None
    """In place of the model's own `inference.flips`."""
    teacher: bool

    @classmethod
    def find(cls, url: str, *, flips: str | None, maps: Sequence[MapName]) -> ModelSpec:
        """The model at `url`. Raises `ModelPackageError` or `StoreError` where there is none."""
        with _fetched(url, [DESCRIPTION]) as folder:
            description = read_description(folder)
        return cls(
            url=Store(url).url,
            sha256=str(description.get("sha256", {}).get(WEIGHTS)),
            flips=flips,
            teacher="disagreement" in maps,
        )

    def open(self) -> PublishedModel:
        """The model, on the CPU.

        Raises:
            ModelPackageError: it is damaged, has no teacher and should, or is another one by now.
            ConfigError: impossible flips.
            DataError: flips of an axis that the model's images do not have.
            StoreError: it cannot be read.
        """
        files = [DESCRIPTION, WEIGHTS, TEACHER] if self.teacher else [DESCRIPTION, WEIGHTS]
        with _fetched(self.url, files) as folder:
            found: Any = read_description(folder).get("sha256", {}).get(WEIGHTS)
            model = load_package(folder, teacher=self.teacher)
        if found != self.sha256:
            raise ModelPackageError(f"{self.url} was replaced while it was used: run again.")
        if self.flips is not None:
            inference = dataclasses.replace(model.inference_config, flips=self.flips)
            model = dataclasses.replace(model, inference_config=inference)
        axes = FLIP_AXES[-len(model.data_config.image_size) :]
        if not set(model.inference_config.flips) <= set(axes):
            raise DataError(f"--flips {self.flips}: {self.url} takes slices; name axes of {axes!r}.")
        return model


def to_device(model: PublishedModel) -> torch.device:
    """Move the model's networks onto a GPU where there is one; the device that they are on."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for network in (model.network, model.teacher):
        if network is not None:
            network.to(device)
    return device


@contextmanager
def _fetched(url: str, names: Sequence[str]) -> Iterator[Path]:
    """A folder with the files `names` of a published model, those there are."""
    store = Store(url)
    local = store.local_path(DESCRIPTION)
    if local is not None:
        yield local.parent
        return
    if not store.exists(DESCRIPTION):
        raise ModelPackageError(
            f"{url} is not a published model: it has no {DESCRIPTION}. Give a run's `model` folder."
        )
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            if store.exists(name):
                (Path(scratch) / name).write_bytes(store.read_bytes(name))
        yield Path(scratch)
