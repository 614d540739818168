"""The published model: a folder that can be used without this repository's training code.

    model.safetensors   weights of the network
    teacher.safetensors weights of its teacher, where training had one: how far the two disagree is a measure
                        of uncertainty
    model.json          preprocessing, classes, network, metrics, provenance, checksums of the other files
    model.pt2           `torch.export` program: images (B, C, *S) -> logits (B, K, *S), any B; *S is the
                        size of a slice or of a patch, `image_size` in `model.json`
    model.onnx          the same as an ONNX graph, where it was asked for
    README.md           model card

`model.json` is written last: a folder without it is not a package.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from arco_core.config import DataConfig, InferenceConfig, NetworkConfig
from arco_core.errors import ArcoError
from arco_core.model_card import model_card
from arco_core.model_programs import export_onnx, export_program
from arco_core.networks import build_network

FORMAT = "arco-model"
FORMAT_VERSION = 2
DESCRIPTION, WEIGHTS, PROGRAM, CARD = "model.json", "model.safetensors", "model.pt2", "README.md"
TEACHER, ONNX = "teacher.safetensors", "model.onnx"

Config = TypeVar("Config", DataConfig, NetworkConfig, InferenceConfig)


class ModelPackageError(ArcoError):
    """A folder that is not a published model, or one that is damaged or of another format."""


@dataclass(frozen=True, kw_only=True)
class PublishedModel:
    """A network in evaluation mode, and what it takes to feed it."""

    network: nn.Module
    data_config: DataConfig
    """The preprocessing that the network was trained with."""
    network_config: NetworkConfig
    classes: tuple[str, ...]
    """Class names, background first; the network's output has one channel each."""
    channels: int
    """Channels of the input image."""
    teacher: nn.Module | None = None
    """The network's average over training, as the network."""
    inference_config: InferenceConfig = field(default_factory=InferenceConfig)
    """How volumes are predicted patch by patch."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """`metrics` and `provenance` of a loaded package."""


def save_package(
    folder: Path,
    model: PublishedModel,
    *,
    metrics: Mapping[str, Any],
    provenance: Mapping[str, Any],
    onnx: bool = False,
) -> None:
    """Write `model` to `folder`, which must be new or empty.

    Args:
        folder: created with its parents.
        model: its network may be in any mode and on any device, and stays so.
        metrics: scores by name, as `summary.json` has them; JSON-able.
        provenance: where the model comes from (dataset, seed, labelled patients, versions); JSON-able.
        onnx: write the ONNX graph, too, which takes a few seconds and the package `onnxscript`.

    Raises:
        ModelPackageError: `folder` holds something already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ModelPackageError(f"{folder} is not empty: choose another folder, or remove what it holds.")
    network = copy.deepcopy(model.network).cpu().eval()
    # Of weights in channels last torch warns when it saves a program.
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    _save_weights(network, folder / WEIGHTS)
    if model.teacher is not None:
        _save_weights(model.teacher, folder / TEACHER)
    image_shape = (model.channels, *model.data_config.image_size)
    program = export_program(network, image_shape, folder / PROGRAM)
    if onnx:
        export_onnx(program, image_shape, folder / ONNX)
    (folder / CARD).write_text(
        model_card(
            classes=model.classes,
            channels=model.channels,
            data_config=model.data_config,
            inference_config=model.inference_config,
            parameters=sum(p.numel() for p in network.parameters()),
            metrics=metrics,
            provenance=provenance,
            teacher=model.teacher is not None,
            onnx=onnx,
        ),
        encoding="utf-8",
    )
    description = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "classes": model.classes,
        "channels": model.channels,
        "data": asdict(model.data_config),
        "network": asdict(model.network_config),
        "inference": asdict(model.inference_config),
        "metrics": metrics,
        "provenance": provenance,
        "sha256": {file.name: _sha256(file) for file in sorted(folder.iterdir())},
    }
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def load_package(folder: Path, *, teacher: bool = False) -> PublishedModel:
    """Open a folder that `save_package` wrote; networks are on the CPU, in evaluation mode.

    Args:
        folder: with description and weights at least.
        teacher: open the network's teacher, too.

    Raises:
        ModelPackageError: the folder is no package, is of another format version, or is damaged; or there is
            no teacher.
    """
    description = read_description(folder)
    files = [WEIGHTS, TEACHER] if teacher else [WEIGHTS]
    if teacher and TEACHER not in description.get("sha256", {}):
        raise ModelPackageError(
            f"{folder} holds no teacher: its training had none, or an older version published it. Publish it "
            "again, or use what needs no teacher."
        )
    for name in files:
        _verify(folder / name, description)
    try:
        data_config = _config(DataConfig, description["data"])
        network_config = _config(NetworkConfig, description["network"])
        inference_config = _config(InferenceConfig, description["inference"])
        classes, channels = tuple(map(str, description["classes"])), int(description["channels"])
        networks = [build_network(channels, len(classes), network_config).eval() for _ in files]
        for network, name in zip(networks, files, strict=True):
            network.load_state_dict(load_file(folder / name))
        metadata = {key: description[key] for key in ("metrics", "provenance")}
    except KeyError as error:
        raise ModelPackageError(f"{folder / DESCRIPTION} has no {error}: the file is damaged.") from error
    except (TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelPackageError(f"{folder / DESCRIPTION} does not describe {WEIGHTS}: {error}") from error
    return PublishedModel(
        network=networks[0],
        teacher=networks[1] if teacher else None,
        data_config=data_config,
        network_config=network_config,
        inference_config=inference_config,
        classes=classes,
        channels=channels,
        metadata=metadata,
    )


def _save_weights(network: nn.Module, path: Path) -> None:
    save_file({k: v.cpu().contiguous() for k, v in network.state_dict().items()}, path)


def read_description(folder: Path) -> dict[str, Any]:
    """`model.json` of a package. Raises `ModelPackageError` where there is none that this code can read."""
    path = folder / DESCRIPTION
    if not path.is_file():
        hint = "it has no model.json" if folder.is_dir() else "there is no such folder"
        raise ModelPackageError(f"{folder} is not a published model: {hint}. Give a run's `model` folder.")
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelPackageError(f"{path} is not JSON: {error}. Fetch or publish the model again.") from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ModelPackageError(f"{path} does not describe an ARCO model: it must have format = {FORMAT!r}.")
    if description.get("format_version") != FORMAT_VERSION:
        raise ModelPackageError(
            f"{path} has format version {description.get('format_version')!r}, this code reads "
            f"{FORMAT_VERSION}: use the version of arco that published it, or publish it again."
        )
    return description


def _verify(path: Path, description: Mapping[str, Any]) -> None:
    if not path.is_file():
        raise ModelPackageError(f"{path} is missing: the package is incomplete, fetch or publish it again.")
    expected = description.get("sha256", {}).get(path.name)
    if _sha256(path) != expected:
        raise ModelPackageError(f"{path} is damaged: its sha256 is not the {expected} of {DESCRIPTION}.")


def _config(cls: type[Config], values: Mapping[str, Any]) -> Config:
    """A configuration table from JSON, where a tuple is a list."""
    arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return cls(**arguments)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
