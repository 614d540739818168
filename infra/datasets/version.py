"""A dataset version as its users see it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from arco_core.bricks import assemble
from arco_core.config import DataConfig
from arco_core.errors import DataError
from arco_core.preprocess import Geometry
from arco_core.samples import decode_bricks, decode_images, decode_labels
from infra.datasets.manifest import MANIFEST, Manifest
from infra.datasets.shards import open_shard
from infra.datasets.splits import SPLITS, choose_labeled, named_labeled
from infra.storage import NotFound, Store

CASES_SCHEMA = pa.schema(
    [
        pa.field("case_id", pa.string(), nullable=False),
        pa.field("patient_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("annotated", pa.bool_(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("row_groups", pa.list_(pa.int32()), nullable=False),
        pa.field("rows", pa.int32(), nullable=False),
        pa.field("reference_shard", pa.string()),
        pa.field("reference_row_groups", pa.list_(pa.int32()), nullable=False),
        pa.field("geometry", pa.string(), nullable=False),
        pa.field("source_images", pa.list_(pa.string()), nullable=False),
        pa.field("source_labels", pa.list_(pa.string()), nullable=False),
        pa.field("source_tags", pa.list_(pa.string()), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("source_sha256", pa.string(), nullable=False),
        pa.field("label_sha256", pa.string()),
        pa.field("content_sha256", pa.string(), nullable=False),
    ]
)

_TUPLES = ("row_groups", "reference_row_groups", "source_images", "source_labels", "source_tags")


@dataclass(frozen=True, kw_only=True)
class CaseEntry:
    """One scan of a version."""

    case_id: str
    patient_id: str
    split: str
    """`train`, `validation` or `test`."""
    annotated: bool
    shard: str
    """Path of the shard that holds the samples, relative to the dataset's folder."""
    row_groups: tuple[int, ...]
    rows: int
    """Number of slices, or of bricks."""
    reference_shard: str | None
    reference_row_groups: tuple[int, ...]
    geometry: Geometry
    source_images: tuple[str, ...]
    """Files of the scan, relative to the raw folder."""
    source_labels: tuple[str, ...]
    """Files of the annotation, relative to the raw folder."""
    source_tags: tuple[str, ...]
    """What the raw store's listing said of these files when they were read (`ObjectInfo.tag`): while it says
    the same, they need not be read again."""
    source: str
    """URL of the raw folder."""
    source_sha256: str
    """Of the image file; of its files' digests where each channel has its own."""
    label_sha256: str | None
    """Of the annotation's file."""
    content_sha256: str
    """Of the image's voxels, whatever file they are in; see `content_digest`."""


class DatasetVersion:
    """An immutable dataset in a store. Open it with `DatasetVersion.open`; can be pickled."""

    def __init__(self, store: Store, manifest: Manifest, cases: Iterable[CaseEntry]) -> None:
        self.store = store
        """The dataset's folder: a version may use shards that an earlier one wrote."""
        self.manifest = manifest
        self.cases = list(cases)
        """Sorted by case id."""

    @classmethod
    def open(cls, url: str) -> DatasetVersion:
        """The version at `url` (…/datasets/<name>/<version>).

        Raises `DataError` when there is none, or when its tables are not what the manifest says.
        """
        folder = Store(url)
        try:
            data = folder.read_bytes(MANIFEST)
        except NotFound as error:
            raise DataError(
                f"{url} is no dataset version: it has no {MANIFEST}; prepare the dataset, or correct the URL"
            ) from error
        manifest = Manifest.from_json(data, folder.join(MANIFEST))
        if folder.url.rpartition("/")[2] != manifest.version:
            raise DataError(
                f"{url} holds the manifest of version {manifest.version}: give the folder its name again, "
                "and copy datasets as a whole"
            )
        home = folder.parent()
        return cls(home, manifest, _read_cases(home, manifest))

    @property
    def url(self) -> str:
        """URL of the version's folder."""
        return self.store.join(self.version)

    @property
    def name(self) -> str:
        """Name of the dataset."""
        return self.manifest.name

    @property
    def version(self) -> str:
        """12 hexadecimal digits over scans, settings and format."""
        return self.manifest.version

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by label value, background first."""
        return self.manifest.classes

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return self.manifest.channels

    @property
    def data_config(self) -> DataConfig:
        """The settings that the scans were prepared with."""
        return self.manifest.data

    @property
    def is_volumetric(self) -> bool:
        """Whether samples are 3D bricks, not 2D slices."""
        return len(self.data_config.image_size) == 3

    def patients(self, split: str) -> tuple[str, ...]:
        """Sorted patients of `train`, `validation` or `test`."""
        if split not in SPLITS:
            raise DataError(f"split {split!r} does not exist; there are {', '.join(SPLITS)}")
        return self.manifest.splits[split]

    def labeled_patients(self, amount: float, seed: int) -> tuple[str, ...]:
        """Annotated train patients for an experiment with `amount` labels.

        `amount` >= 1 is a number of patients; below 1 a ratio of all train patients, rounded half
        up. Sets of one seed are nested; a dataset that gives the order itself has one set for all
        seeds. Raises `DataError` when it rounds to none or exceeds the
        annotated ones.
        """
        return choose_labeled(self.manifest.label_groups, self.patients("train"), amount, seed)

    def named_patients(self, names: Sequence[str]) -> tuple[str, ...]:
        """`names`, once each is known to be an annotated train patient. Raises `DataError` for any other."""
        return named_labeled(self.manifest.label_groups, names, self.manifest.splits)

    def cases_of(self, patients: Collection[str]) -> list[CaseEntry]:
        """Cases of `patients`, sorted by case id. Raises `DataError` for an unknown patient."""
        wanted = set(patients)
        unknown = wanted.difference(entry.patient_id for entry in self.cases)
        if unknown:
            raise DataError(f"{self.url} has no patient {', '.join(sorted(unknown)[:5])}")
        return [entry for entry in self.cases if entry.patient_id in wanted]

    def case(self, case_id: str) -> CaseEntry:
        """The entry of one case. Raises `DataError` for an unknown one."""
        try:
            return self._by_id[case_id]
        except KeyError as error:
            raise DataError(f"{self.url} has no case {case_id!r}") from error

    def read_case(self, case_id: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8] | None]:
        """A prepared case and, when annotated, its labels.

        Slices (S, C, H, W) and (S, H, W), or one volume (1, C, D, H, W) and (1, D, H, W).
        """
        entry = self.case(case_id)
        with open_shard(self.store, entry.shard) as shard:
            table = shard.read_row_groups(list(entry.row_groups), use_threads=False)
        if self.is_volumetric:
            image, label = assemble(decode_bricks(table, labels=entry.annotated))
            return image[np.newaxis], None if label is None else label[np.newaxis]
        order = np.argsort(table["index"].to_numpy())  # row groups hold every n-th slice
        labels = decode_labels(table)[order] if entry.annotated else None
        return decode_images(table)[order].astype(np.float32), labels

    def reference(self, case_id: str) -> npt.NDArray[np.uint8] | None:
        """The annotation (X, Y, Z) on the scan's own grid, or none for an unlabelled case."""
        entry = self.case(case_id)
        if entry.reference_shard is None:
            return None
        with open_shard(self.store, entry.reference_shard) as shard:
            table = shard.read_row_groups(list(entry.reference_row_groups), use_threads=False)
        flat = np.frombuffer(table["label"][0].as_py(), np.uint8)
        return flat.reshape(entry.geometry.shape).copy()

    @cached_property
    def _by_id(self) -> dict[str, CaseEntry]:
        return {entry.case_id: entry for entry in self.cases}


def _read_cases(home: Store, manifest: Manifest) -> list[CaseEntry]:
    try:
        table = home.read_bytes(manifest.cases_path)
    except NotFound as error:
        url = home.join(manifest.cases_path)
        raise DataError(
            f"{url}, the table of cases, is missing: remove the version, and prepare anew"
        ) from error
    if hashlib.sha256(table).hexdigest() != manifest.cases_sha256:
        raise DataError(
            f"{home.join(manifest.cases_path)} is not the table that {MANIFEST} names: remove the version "
            "(arco data rm), and prepare it again"
        )
    return decode_cases(table)


def encode_cases(cases: Iterable[CaseEntry]) -> bytes:
    """`cases.parquet`."""
    rows = [vars(entry) | {"geometry": entry.geometry.to_json()} for entry in cases]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=CASES_SCHEMA), sink, compression="zstd")
    return sink.getvalue()


def decode_cases(data: bytes) -> list[CaseEntry]:
    """The entries that `encode_cases` wrote."""
    # Not by `read_table`, whose threads may still run when the interpreter ends, and then abort the process.
    with pq.ParquetFile(pa.BufferReader(data)) as parquet:
        rows: list[dict[str, Any]] = parquet.read(use_threads=False).to_pylist()
    return [
        CaseEntry(
            **row
            | {key: tuple(row[key]) for key in _TUPLES}
            | {"geometry": Geometry.from_json(row["geometry"])}
        )
        for row in rows
    ]
