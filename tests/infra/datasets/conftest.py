"""Raw folders and prepared versions for the dataset tests."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from arco_core.config import DataConfig
from infra.datasets import DatasetVersion, prepare_dataset
from infra.storage import Store

TINY = DataConfig(name="tiny", image_size=(32, 32), validation_fraction=0.25, test_fraction=0.0)


@pytest.fixture
def raw(tiny_raw: Path, tmp_path: Path) -> Path:
    """A copy of the tiny folder, to be spoilt."""
    return Path(shutil.copytree(tiny_raw, tmp_path / "raw"))


@pytest.fixture(scope="session")
def tiny(tiny_raw: Path, tmp_path_factory: pytest.TempPathFactory) -> DatasetVersion:
    """The tiny folder, prepared: 4 slices a case, 6 patients, 4 annotated, 1 of them for validation."""
    store = Store(str(tmp_path_factory.mktemp("store")))
    return prepare_dataset(str(tiny_raw), store, TINY, use_ray=False)


Spoil = Callable[[Path, Callable[[np.ndarray], np.ndarray]], None]


@pytest.fixture
def change_voxels() -> Spoil:
    """Rewrite a NIfTI file with its voxels changed."""

    def change(path: Path, function: Callable[[np.ndarray], np.ndarray]) -> None:
        image = nib.load(path)
        nib.save(nib.Nifti1Image(function(np.asarray(image.dataobj)), image.affine), path)

    return change


@pytest.fixture
def describe() -> Callable[..., None]:
    """Change keys of a folder's dataset.json; a value of None removes the key."""

    def change(folder: Path, **values: object) -> None:
        path = folder / "dataset.json"
        merged = json.loads(path.read_text()) | values
        path.write_text(json.dumps({k: v for k, v in merged.items() if v is not None}))

    return change
