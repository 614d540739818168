"""What every format of raw scans is turned into."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from infra.datasets.volume import VolumeSource
from infra.storage import Store


@dataclass(frozen=True, kw_only=True)
class RawCase:
    """One scan as it lies in the raw folder."""

    case_id: str
    patient_id: str
    channels: tuple[VolumeSource, ...]
    """The scan: one volume, or one a channel in the channels' order."""
    annotation: VolumeSource | None
    """The annotation, or none for an unlabelled scan."""
    label_affine: bool = True
    """Whether the annotation's affine must be the scan's; false where a dataset is known to lie about it and
    the two agree voxel by voxel."""

    @property
    def image_paths(self) -> tuple[str, ...]:
        """Files of the scan, relative to the raw folder."""
        return tuple(path for channel in self.channels for path in channel.paths)

    @property
    def label_paths(self) -> tuple[str, ...]:
        """Files of the annotation, relative to the raw folder; empty for an unlabelled scan."""
        return self.annotation.paths if self.annotation is not None else ()


@dataclass(frozen=True, kw_only=True)
class RawDataset:
    """A raw folder's scans and what its own description says about them."""

    name: str
    classes: tuple[str, ...]
    """Class names by label value, background first."""
    channels: int
    cases: tuple[RawCase, ...]
    """Sorted by case id."""
    held_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Patients of `validation` and `test` where the dataset fixes them; what it leaves open is drawn."""
    labeled_order: tuple[str, ...] = ()
    """Patients in the order in which the literature labels them; where it is empty, a seed draws one."""
    spacing_known: bool = True
    """Whether the files say how large a voxel is; else it counts as 1 mm."""
    notes: tuple[str, ...] = ()
    """What the user should know about how the folder was read, a sentence each."""


@dataclass(frozen=True)
class RawFolder:
    """A raw folder, listed once."""

    store: Store
    paths: tuple[str, ...]
    """Its files, sorted, without hidden ones; relative to the store, also where it is a part of a folder."""
    part: str = ""
    """The subfolder that it is the content of."""

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.store.url.rstrip("/").rpartition("/")[2]

    @property
    def url(self) -> str:
        """Where it is."""
        return self.store.url

    def below(self, folder: str) -> list[str]:
        """The files below `folder`."""
        return [path for path in self.paths if path.startswith(f"{folder}/")]

    def scan_name(self, path: str) -> tuple[str, str]:
        """Case and patient of the scan at `path`, without ending: its path, and the first subfolder on it."""
        inner = unicodedata.normalize("NFC", path.removeprefix(self.part).strip("/"))
        parts = inner.split("/") if inner else [self.name]
        return "_".join(parts), parts[0]


class Reader(Protocol):
    """Lists the scans of one format; reads no voxel. A module of this package offers one as `READER`."""

    name: str
    """The format, for messages."""
    layout: str
    """What lies where in the folder, in a line."""
    generic: bool
    """Whether it takes any scans of its kind: asked only where no other reader recognises the folder."""

    def detect(self, raw: RawFolder) -> bool:
        """Whether the folder looks like this format, by its files' names."""
        ...

    def read(self, raw: RawFolder) -> RawDataset:
        """The scans in `raw`. Raises `DataError` for a folder that breaks the format's rules."""
        ...
