"""The published programs give PyTorch's mask in an environment that holds neither this project nor MONAI.

The environment is a folder of links to one library and what it requires, for a Python that sees nothing else.
"""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest
import torch

from arco_core.config import DataConfig, NetworkConfig
from arco_core.model_package import PublishedModel, load_package, save_package
from arco_core.networks import build_network
from arco_core.preprocess import prepare_image

WITH_TORCH = """
import torch
for folder in ("slices", "patches"):
    images = torch.load(f"{folder}/images.pt")
    network = torch.export.load(f"{folder}/model/model.pt2").module()
    torch.save(network(images), f"{folder}/logits.pt")
"""
WITH_ONNX = """
import numpy, onnxruntime
for folder in ("slices", "patches"):
    session = onnxruntime.InferenceSession(f"{folder}/model/model.onnx", providers=["CPUExecutionProvider"])
    logits = session.run(None, {"images": numpy.load(f"{folder}/images.npy")})[0]
    numpy.save(f"{folder}/logits.npy", logits)
"""
ALONE = """
import sys
sys.path.insert(0, {site!r})
for name in {absent}:
    try:
        __import__(name)
    except ImportError:
        continue
    raise SystemExit(f"the environment is not clean: it has {{name}}")
"""


def required(*names: str) -> set[str]:
    """Distributions that `names` need, themselves included, without extras."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = re.sub("[-_.]+", "-", left.pop()).lower()
        if name in found:
            continue
        try:
            requirements = distribution(name).requires or []
        except PackageNotFoundError:
            continue  # for another platform
        found.add(name)
        left += [re.split(r"[ ;<>=!~\[(]", r, maxsplit=1)[0] for r in requirements if "extra ==" not in r]
    return found


def environment(folder: Path, *names: str) -> Path:
    """A folder with links to all that the distributions `names` consist of."""
    folder.mkdir()
    for name in required(*names):
        installed = distribution(name)
        tops = {file.parts[0] for file in installed.files or [] if file.parts[0] not in ("..", "__pycache__")}
        for top in tops:
            if not (folder / top).exists():
                (folder / top).symlink_to(Path(str(installed.locate_file(top))))
    return folder


def run_alone(folder: Path, site: str, code: str, *absent: str) -> None:
    program = ALONE.format(site=site, absent=absent) + code
    command = [sys.executable, "-I", "-S", "-c", program]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr


def check_same_mask(found: np.ndarray, expected: np.ndarray) -> None:
    """Classes are equal wherever rounding does not decide them."""
    best = np.sort(expected, axis=1)
    clear = best[:, -1] - best[:, -2] > 1e-4
    assert clear.mean() > 0.99
    assert len(np.unique(expected.argmax(1))) > 1
    np.testing.assert_array_equal(found.argmax(1)[clear], expected.argmax(1)[clear])
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of slices and one of patches, each with images of a scan, prepared as it asks for."""
    folder = tmp_path_factory.mktemp("clean")
    write_model(folder / "slices", "unet", (32, 48))
    write_model(folder / "patches", "vnet", (16, 32, 16))
    return folder


def write_model(folder: Path, kind: str, size: tuple[int, ...]) -> None:
    config = NetworkConfig(kind=kind, features=(4, 8, 8), dropout=(0.0, 0.0, 0.0))
    data = DataConfig(name="toy", classes=("background", "a", "b"), image_size=size)
    torch.manual_seed(0)
    network = build_network(1, 3, config)
    torch.nn.init.normal_(network.head.weight)
    scan = np.random.default_rng(0).normal(size=(*size[-2:], 5)).cumsum(axis=0)
    prepared = torch.from_numpy(prepare_image(scan, np.diag([-1.0, -1, 1, 1]), data)[0])
    images = prepared[(..., *(slice(side) for side in size))]
    with torch.no_grad():
        network(torch.cat([images, images.flip(-1)]))  # so that running statistics fit
        logits = network.eval()(images)
        network.head.bias.sub_(logits.mean(dim=[0, *range(2, logits.ndim)]))  # and every class is found
    model = PublishedModel(
        network=network,
        data_config=data,
        network_config=config,
        classes=("background", "a", "b"),
        channels=1,
    )
    save_package(folder / "model", model, metrics={}, provenance={}, onnx=True)
    torch.save(images, folder / "images.pt")
    np.save(folder / "images.npy", images.numpy())
    with torch.inference_mode():
        np.save(folder / "expected.npy", load_package(folder / "model").network(images).numpy())


@pytest.mark.slow
def test_with_nothing_but_torch(published: Path) -> None:
    environment(published / "torch", "torch")
    run_alone(published, "torch", WITH_TORCH, "arco_core", "infra", "monai", "safetensors", "nibabel")
    for kind in ("slices", "patches"):
        logits = torch.load(published / kind / "logits.pt").detach().numpy()
        check_same_mask(logits, np.load(published / kind / "expected.npy"))


@pytest.mark.slow
def test_with_nothing_but_onnx_runtime(published: Path) -> None:
    environment(published / "onnx-runtime", "onnxruntime")
    run_alone(published, "onnx-runtime", WITH_ONNX, "arco_core", "infra", "monai", "torch", "onnx")
    for kind in ("slices", "patches"):
        found = np.load(published / kind / "logits.npy")
        check_same_mask(found, np.load(published / kind / "expected.npy"))
