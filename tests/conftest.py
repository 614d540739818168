"""What several tests need: raw scans, datasets, and the rules of the markers."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from arco_core.config import load
from infra.datasets import prepare_dataset
from infra.ray_session import shared_ray
from infra.storage import Store
from tests.containers import containers as containers
from tests.s3_servers import aws as aws
from tests.s3_servers import moto_server as moto_server
from tests.s3_servers import real_aws as real_aws
from tests.s3_servers import real_s3_server as real_s3_server

torch.set_num_threads(1)  # small tensors; threads of parallel test processes would only spin for each other


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip, with the reason, what cannot run on this machine; several processes begin with the slow files."""
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="torch finds no GPU here"))
    if hasattr(config, "workerinput"):  # one of the processes of `pytest -n`
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        slowest = {item.path for item in items if item.get_closest_marker("container")}
        items.sort(key=lambda item: (item.path not in slowest, item.path not in slow))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real scans, `$ARCO_REAL_DATA`; skips where there is none."""
    folder = os.environ.get("ARCO_REAL_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip(f"no real scans here: ARCO_REAL_DATA = {folder!r} names no folder")
    return Path(folder)


TINY_SETTINGS = (
    "data.image_size=[32,32]",
    "data.validation_fraction=0.25",
    "data.test_fraction=0.0",
    "network.features=[4,8]",
    "network.dropout=[0.1,0.2]",
    "pretrain.steps=4",
    "pretrain.labeled_batch=2",
    "pretrain.unlabeled_batch=2",
    "finetune.steps=4",
    "finetune.labeled_batch=2",
    "finetune.unlabeled_batch=2",
    "supervised.labeled_batch=2",
    "run.workers=1",
    "run.device=cpu",
    "run.log_every=1",
    "run.checkpoint_every=2",
)
"""Overrides that make a run over `tiny_raw` take seconds."""


def write_msd_folder(
    folder: Path, *, patients: int = 6, labeled: int = 4, shape: tuple[int, int, int] = (32, 32, 4)
) -> Path:
    """A tiny dataset in the Medical Segmentation Decathlon layout: bright discs, in two classes, on noise."""
    rng = np.random.default_rng(0)
    for part in ("imagesTr", "labelsTr", "imagesUn"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    for number in range(patients):
        center = rng.uniform(12, 20, size=2)
        distance = np.hypot(rows - center[0], columns - center[1])
        plane = np.where(distance < 4, 2, np.where(distance < 8, 1, 0)).astype(np.uint8)
        label = np.repeat(plane[:, :, None], shape[2], axis=2)
        image = (label * 100 + rng.normal(0, 20, size=shape)).astype(np.float32)
        affine = np.diag([1.5, 1.5, 8.0, 1.0])
        part = "imagesTr" if number < labeled else "imagesUn"
        nib.save(nib.Nifti1Image(image, affine), folder / part / f"case_{number:03d}.nii.gz")
        if number < labeled:
            nib.save(nib.Nifti1Image(label, affine), folder / "labelsTr" / f"case_{number:03d}.nii.gz")
    description = {
        "name": "Tiny",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "ring", "2": "core"},
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


@pytest.fixture(scope="session")
def tiny_raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of scans: six patients, four of them annotated."""
    return write_msd_folder(tmp_path_factory.mktemp("raw") / "tiny")


@pytest.fixture(scope="session")
def tiny_dataset(tiny_raw: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """URL of `tiny_raw` prepared as a dataset version."""
    config = load(preset="generic", overrides=TINY_SETTINGS)
    store = Store(str(tmp_path_factory.mktemp("store")))
    return prepare_dataset(str(tiny_raw), store, config.data, use_ray=False).url


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """One small Ray for all tests that need one; subprocesses find it too."""
    with shared_ray(workers=2) as address:
        yield address
