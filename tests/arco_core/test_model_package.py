"""The published model survives the round trip, and says clearly what is wrong with a folder that is none."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from arco_core.config import DataConfig, InferenceConfig, NetworkConfig
from arco_core.model_card import model_card
from arco_core.model_package import ModelPackageError, PublishedModel, load_package, save_package
from arco_core.networks import build_network

METRICS = {
    "split": "validation",
    "cases": 5,
    "patients": 4,
    "dice": {
        "mean": 0.8125,
        "per_class": {"a": 0.9, "b": 0.725},
        "interval": [0.75, 0.875],
        "per_class_interval": {"a": [0.85, 0.95], "b": None},
    },
    "all_seeds": {"dice": {"mean": 0.75, "sd": 0.05}},
    "asd_mm": {"mean": 1.5, "per_class": {"a": 1.5, "b": None}},
    "hd95_mm": {"mean": 4.25, "per_class": {"a": 4.25, "b": None}},
    "missing": 1,
}
PROVENANCE = {
    "method": "arco-sg",
    "seed": 3,
    "dataset": "store/datasets/d/0123456789ab",
    "labeled_patients": ["p1", "p7"],
    "train_patients": 40,
}
DATA = DataConfig(name="toy", classes=("background", "a", "b"), image_size=(32, 48), spacing_mm=(1.5, 1.25))
NETWORK = NetworkConfig(features=(4, 8, 8), dropout=(0.1, 0.2, 0.3))


def toy_model() -> PublishedModel:
    torch.manual_seed(0)
    network = build_network(2, 3, NETWORK)
    network.train()
    network(torch.randn(8, 2, 32, 48))  # so that the running statistics are not the initial ones
    return PublishedModel(
        network=network,
        data_config=DATA,
        network_config=NETWORK,
        classes=("background", "a", "b"),
        channels=2,
    )


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "new" / "model"
    save_package(folder, toy_model(), metrics=METRICS, provenance=PROVENANCE)
    return folder


@pytest.fixture
def copied(package: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in package.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_a_3d_model_survives_the_round_trip(tmp_path: Path) -> None:
    """Its program takes patches of the size that it was trained on, in any batch."""
    config = NetworkConfig(kind="vnet", features=(4, 8), dropout=(0.5, 0.0))
    torch.manual_seed(0)
    model = PublishedModel(
        network=build_network(1, 2, config),
        data_config=DataConfig(name="toy", image_size=(16, 32, 16), spacing_mm=(2.0, 1.0, 1.0), crop="body"),
        network_config=config,
        classes=("background", "a"),
        channels=1,
        inference_config=InferenceConfig(overlap=0.25),
    )
    save_package(tmp_path / "model", model, metrics=METRICS, provenance=PROVENANCE)
    loaded = load_package(tmp_path / "model")
    assert loaded.data_config == model.data_config and loaded.network_config == config
    assert loaded.inference_config == InferenceConfig(overlap=0.25)
    program = torch.export.load(tmp_path / "model" / "model.pt2").module()
    for batch in (1, 3):
        patches = torch.randn(batch, 1, 16, 32, 16, generator=torch.Generator().manual_seed(batch))
        with torch.inference_mode():
            torch.testing.assert_close(program(patches), loaded.network(patches))
    card = (tmp_path / "model" / "README.md").read_text()
    assert "patch by patch, with a 3D V-Net" in card and "float32 (B, 1, 16, 32, 16), any B" in card
    assert "resampled to 2 x 1 x 1 mm" in card and "16 x 32 x 16 voxels that overlap by 25%" in card


def images(batch: int) -> torch.Tensor:
    return torch.randn(batch, 2, 32, 48, generator=torch.Generator().manual_seed(batch))


def test_round_trip_keeps_everything(package: Path) -> None:
    original, loaded = toy_model(), load_package(package)
    assert (loaded.data_config, loaded.network_config) == (DATA, NETWORK)
    assert (loaded.classes, loaded.channels) == (original.classes, 2)
    assert loaded.metadata == {"metrics": METRICS, "provenance": PROVENANCE}
    assert not loaded.network.training
    with torch.inference_mode():
        assert torch.equal(loaded.network(images(3)), original.network.eval()(images(3)))


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_exported_program_gives_the_networks_mask(package: Path, batch: int) -> None:
    program = torch.export.load(package / "model.pt2").module()
    network = load_package(package).network
    with torch.inference_mode():
        ours, theirs = network(images(batch)), program(images(batch))
    torch.testing.assert_close(theirs, ours)
    assert np.array_equal(theirs.argmax(1).numpy(), ours.argmax(1).numpy())


def test_saving_leaves_the_callers_network_as_it_is(tmp_path: Path) -> None:
    model = toy_model()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=UserWarning)
        save_package(tmp_path / "model", model, metrics=METRICS, provenance=PROVENANCE)
    assert model.network.training
    assert model.network.head.weight.is_contiguous(memory_format=torch.channels_last)


def test_card_says_scores_limits_and_use(package: Path) -> None:
    card = (package / "README.md").read_text()
    assert "Validation patients (4), 5 volumes, seed 3" in card
    assert "| a | 90.0 (85.0 to 95.0) | 1.50 | 4.25 |" in card
    assert "| b | 72.5 | – | – |" in card
    assert "| **mean** | 81.2 (75.0 to 87.5) | 1.50 | 4.25 |" in card
    assert "seeds the mean DSC is 75.0 ± 5.0 %" in card
    assert "Settings were chosen on these patients" in card and "mirror images" not in card
    assert "Dataset version: `store/datasets/d/0123456789ab`" in card
    assert "Not a medical device" in card
    assert "2 labelled patients (of 40 in training; 5.0%)" in card
    assert "`p1`, `p7`" in card
    assert "0 background, 1 a, 2 b" in card
    assert "float32 (B, 2, 32, 48), any B" in card
    assert "resampled to 1.5 x 1.25 mm" in card


def test_card_says_what_is_unknown() -> None:
    model = toy_model()
    card = model_card(
        classes=model.classes,
        channels=model.channels,
        data_config=model.data_config,
        inference_config=InferenceConfig(flips="hw"),
        parameters=1,
        metrics={},
        provenance={},
    )
    assert (
        "an unknown number" in card
        and "best of several seeds" not in card
        and "mirror images along every combination of the axes h, w" in card
        and "| **mean** | – | – | – |" in card
    )


def test_an_occupied_folder_is_left_alone(copied: Path) -> None:
    before = {f.name: f.read_bytes() for f in copied.iterdir()}
    with pytest.raises(ModelPackageError, match="is not empty"):
        save_package(copied, toy_model(), metrics=METRICS, provenance=PROVENANCE)
    assert {f.name: f.read_bytes() for f in copied.iterdir()} == before


def test_a_folder_that_is_no_package(tmp_path: Path) -> None:
    with pytest.raises(ModelPackageError, match=r"it has no model\.json\. Give a run's `model` folder"):
        load_package(tmp_path)
    with pytest.raises(ModelPackageError, match="there is no such folder"):
        load_package(tmp_path / "absent")


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "model.json"
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not ...}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "nnunet"}, "must have format = 'arco-model'"),
        ({"format_version": 1}, "format version 1, this code reads 2"),
        ({"format_version": ...}, "format version None"),
        ({"classes": ...}, "has no 'classes'"),
        ({"classes": ["background", "a"]}, "does not describe model.safetensors"),
        ({"channels": 7}, "does not describe model.safetensors"),
        ({"inference": ...}, "has no 'inference'"),
        ({"inference": {"overlap": 1.0}}, "inference.overlap = 1.0"),
        ({"data": {"image_sizes": [32, 48]}}, "image_sizes"),
        ({"data": {"image_size": [30, 48]}}, "multiples of 16"),
        ({"sha256": {}}, "is damaged"),
    ],
)
def test_a_wrong_description_is_named(copied: Path, changes: dict[str, Any], message: str) -> None:
    edit(copied, **changes)
    with pytest.raises(ModelPackageError, match=message):
        load_package(copied)


@pytest.mark.parametrize("text", ["{", "[]", "null"])
def test_a_description_that_is_not_a_json_table(copied: Path, text: str) -> None:
    (copied / "model.json").write_text(text)
    with pytest.raises(ModelPackageError, match=r"model\.json"):
        load_package(copied)


def test_truncated_or_missing_weights(copied: Path) -> None:
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelPackageError, match="is damaged"):
        load_package(copied)
    weights.unlink()
    with pytest.raises(ModelPackageError, match="is missing"):
        load_package(copied)
