"""`manifest.json`, written last: it alone makes a dataset version exist."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal

from arco_core.config import DataConfig
from arco_core.errors import DataError

FORMAT = 4
"""Raised when samples or their order change for the same scans and settings, or this file's meaning."""
MANIFEST = "manifest.json"
CASES = "cases.parquet"

ShardKind = Literal["labeled", "unlabeled", "references"]


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One Parquet file of a version."""

    path: str
    """Relative to the dataset's folder: it begins with the version that wrote the shard."""
    kind: ShardKind
    rows: int
    bytes: int
    sha256: str

    @property
    def writer(self) -> str:
        """The version that wrote it."""
        return self.path.partition("/")[0]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How much a version holds."""

    cases: int
    annotated_cases: int
    annotated_patients: int
    samples: int
    """Rows of the sample table: slices or patches."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a dataset version consists of and where it came from."""

    name: str
    version: str
    source: str
    """URL of the raw scans."""
    created: str
    """UTC time, ISO 8601."""
    code_version: str
    classes: tuple[str, ...]
    channels: int
    labeled_order: tuple[str, ...]
    """Patients in the order in which the literature labels them; empty where a seed draws it."""
    spacing_known: bool
    """Whether the scans say how large a voxel is; else it counts as 1 mm."""
    data: DataConfig
    splits: dict[str, tuple[str, ...]]
    """Patients of train, validation and test."""
    counts: Counts
    shards: tuple[Shard, ...]
    """Every shard that holds a sample or an annotation of this version, whichever version wrote it."""
    cases_sha256: str
    format: int = FORMAT

    def to_json(self) -> bytes:
        """Indented JSON that `from_json` reads back."""
        return json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False).encode()

    @classmethod
    def from_json(cls, data: bytes, url: str) -> Manifest:
        """The manifest that `to_json` wrote. Raises `DataError`, naming `url`, for anything else."""
        try:
            values: dict[str, Any] = json.loads(data)
            if values["format"] != FORMAT:
                raise DataError(
                    f"{url} has format {values['format']}, this version of ARCO reads {FORMAT}: prepare anew"
                )
            return cls(
                **values
                | {
                    "classes": tuple(values["classes"]),
                    "labeled_order": tuple(values["labeled_order"]),
                    "data": DataConfig(**{k: _frozen(v) for k, v in values["data"].items()}),
                    "splits": {split: tuple(patients) for split, patients in values["splits"].items()},
                    "counts": Counts(**values["counts"]),
                    "shards": tuple(Shard(**shard) for shard in values["shards"]),
                }
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{url} is no dataset manifest ({error!r}): prepare the dataset again") from error


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
