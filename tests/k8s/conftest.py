"""The manifests as `kubectl kustomize` renders them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.infra.kuberay.conftest import needs_schemas
from tests.infra.kuberay.crd import REPOSITORY

__all__ = ["needs_schemas"]

Rendered = list[dict[str, Any]]
Render = Callable[..., Rendered]

PLACES = ("base", "overlays/dev", "overlays/gpu", "overlays/spot")


@cache
def _kustomize(folder: Path) -> str:
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def render(tmp_path: Path) -> Render:
    """Renders a folder of k8s/, with components of it."""
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl here to render k8s/ with")

    def rendered(place: str, *components: str) -> Rendered:
        folder = REPOSITORY / "k8s" / place
        if components:
            text = yaml.safe_dump(
                {
                    "resources": [os.path.relpath(folder, tmp_path)],
                    "components": [
                        os.path.relpath(REPOSITORY / "k8s/components" / c, tmp_path) for c in components
                    ],
                }
            )
            (tmp_path / "kustomization.yaml").write_text(text)
            folder = tmp_path
        return list(yaml.safe_load_all(_kustomize(folder)))

    return rendered


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def manifests(render: Render, place: str) -> Rendered:
    return render(place)
