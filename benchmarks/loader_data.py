"""The slices of `benchmarks/loader.py`, as a dataset version and as one HDF5 file a slice."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from arco_core.config import DataConfig, load
from arco_core.preprocess import prepare_image
from infra.datasets import DatasetVersion, prepare_dataset
from infra.datasets.readers.base import RawCase
from infra.datasets.readers.detect import leave_out, read_raw
from infra.datasets.synthetic import write_cohort
from infra.datasets.validate import stack_channels
from infra.storage import Store


@dataclass(frozen=True, kw_only=True)
class Slices:
    """The same slices twice."""

    source: str
    version: DatasetVersion
    patients: tuple[str, ...]
    shards: tuple[Path, ...]
    files: tuple[Path, ...]
    """HDF5, gzip: `image` float32 as it was before it became float16, `label` uint8."""

    @property
    def shard_bytes(self) -> int:
        """Of the sample tables."""
        return sum(path.stat().st_size for path in self.shards)

    @property
    def hdf5_bytes(self) -> int:
        """Of the HDF5 files."""
        return sum(path.stat().st_size for path in self.files)


def make_slices(folder: Path, data: str | None, count: int) -> Slices:
    """At least `count` annotated slices of 256 x 256, of ACDC's HDF5 files below `data` or of phantoms."""
    if data is None:
        data = str(write_cohort(folder / "raw", patients=-(-count // 8), labeled=-(-count // 8)))
        config, source = load(preset="demo").data, "synthetic phantoms"
    else:
        config, source = load(preset="acdc").data, f"ACDC ({data})"
    config = dataclasses.replace(config, name="bench", image_size=(256, 256), fit="resize", spacing_mm=())
    raw = Store(data)
    config, cases = _choose(raw, config, count)
    version = prepare_dataset(data, Store(str(folder / "store")), config, use_ray=False)
    files: list[Path] = []
    for case in cases:
        _, labels = version.read_case(case.case_id)
        assert labels is not None
        files += _write_hdf5(folder / "hdf5", case.case_id, float32_slices(raw, case, config), labels)
    root = Path(version.store.url)
    shards = tuple(root / shard.path for shard in version.manifest.shards if shard.kind == "labeled")
    os.sync()  # the page cache can only be dropped of what is on disk
    return Slices(
        source=source,
        version=version,
        patients=tuple(sorted({case.patient_id for case in cases})),
        shards=shards,
        files=tuple(files),
    )


def _choose(raw: Store, config: DataConfig, count: int) -> tuple[DataConfig, Sequence[RawCase]]:
    """The first annotated patients that have `count` slices together, the others left out."""
    dataset = leave_out(read_raw(raw), config.exclude)
    chosen: list[RawCase] = []
    patients: set[str] = set()
    slices = 0
    for case in dataset.cases:
        if case.annotation is not None and (slices < count or case.patient_id in patients):
            chosen.append(case)
            patients.add(case.patient_id)
            slices += case.channels[0].load(raw).voxels.shape[2]
    others = sorted({case.patient_id for case in dataset.cases} - patients)
    return dataclasses.replace(config, exclude=(*config.exclude, *others)), chosen


def float32_slices(raw: Store, case: RawCase, config: DataConfig) -> npt.NDArray[np.float32]:
    """The slices (S, C, H, W) of a case, prepared, before they become float16."""
    images = [channel.load(raw) for channel in case.channels]
    prepared, _ = prepare_image(stack_channels(images, len(images)), images[0].affine, config)
    return prepared.astype(np.float32)


def _write_hdf5(
    folder: Path, case: str, images: npt.NDArray[np.float32], labels: npt.NDArray[np.uint8]
) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = []
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        paths.append(folder / f"{case}_slice_{number}.h5")
        with h5py.File(paths[-1], "w") as file:
            file.create_dataset("image", data=image[0], compression="gzip")
            file.create_dataset("label", data=label, compression="gzip")
    return paths


class Hdf5Slices(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """One file a slice, opened when it is drawn."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        with h5py.File(self.files[index], "r") as file:
            return torch.from_numpy(file["image"][()][None]), torch.from_numpy(file["label"][()])
