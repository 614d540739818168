"""What every format of raw scans is turned into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from infra.storage import Store


@dataclass(frozen=True, kw_only=True)
class RawCase:
    """One scan as it lies in the raw folder; paths are relative to it."""

    case_id: str
    patient_id: str
    image_paths: tuple[str, ...]
    """One file, or one a channel in the channels' order."""
    label_path: str | None
    """The annotation, or none for an unlabelled scan."""


@dataclass(frozen=True, kw_only=True)
class RawDataset:
    """A raw folder's scans and what its own description says about them."""

    name: str
    classes: tuple[str, ...]
    """Class names by label value, background first."""
    channels: int
    cases: tuple[RawCase, ...]
    """Sorted by case id."""


class Reader(Protocol):
    """Lists the scans of one format; reads no voxel."""

    def read(self, raw: Store) -> RawDataset:
        """The scans below `raw`. Raises `DataError` for a folder that breaks the format's rules."""
        ...
