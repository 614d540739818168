"""`manifest.json`, written last: it alone makes a dataset version exist."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal

from arco_core.config import DataConfig
from arco_core.errors import DataError
from infra.datasets.splits import LabelGroups, Splits

FORMAT = 5
"""Raised when samples or their order change for the same scans and settings, or this file's meaning."""
MANIFEST = "manifest.json"

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
class Skipped:
    """A case that could not be used and was left out, as the user allows (`data.max_failures`)."""

    case_id: str
    reason: str


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
    parent: str | None
    """The version that this one goes on from: patients stayed in its splits, and its shards are used."""
    source: str
    """URL of the raw scans; each case names its own."""
    created: str
    """UTC time, ISO 8601."""
    code_version: str
    classes: tuple[str, ...]
    channels: int
    label_groups: LabelGroups
    """Annotated train patients, in the order in which experiments label them; see `splits.LabelGroups`."""
    spacing_known: bool
    """Whether the scans say how large a voxel is; else it counts as 1 mm."""
    data: DataConfig
    splits: Splits
    """Patients of train, validation and test."""
    counts: Counts
    shards: tuple[Shard, ...]
    """Every shard that holds a sample or an annotation of this version, whichever version wrote it."""
    skipped: tuple[Skipped, ...]
    cases_path: str
    """The table of cases, relative to the dataset's folder. Its name holds its content's hash, so that two
    writers of one version never replace each other's."""
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
                    "label_groups": tuple(tuple(group) for group in values["label_groups"]),
                    "skipped": tuple(Skipped(**case) for case in values["skipped"]),
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
