"""The frameworks' defaults are those of their papers, or go with batch and encoder as docs/method.md says."""

from __future__ import annotations

import math

import pytest
import torch

from arco_core.banks import Bank
from arco_core.config import load
from arco_core.frameworks import FRAMEWORKS
from arco_core.frameworks.moco import MoCoV2
from arco_core.peers import Peers
from tests.arco_core.frameworks.test_frameworks import OTHERS, stage_of


def test_the_momentum_of_byol_rises_to_one_along_a_cosine() -> None:
    stage = stage_of("byol", "pretrain.steps=8000", "pretrain.byol.ema=0.9")
    momenta = []
    for stage.teacher_updates in (0, 2000, 4000, 8000):
        momenta.append(stage.ema)
    assert momenta == pytest.approx([0.9, 1 - 0.1 * (math.sqrt(0.5) + 1) / 2, 0.95, 1.0])


@pytest.mark.parametrize(
    ("framework", "ema"),
    [("arco", 0.99), ("moco-v2", 0.999), ("knn-moco", 0.999), ("byol", 0.996), ("isd", 0.999),
     ("simclr", 0.99), ("vicreg", 0.99)],
)  # fmt: skip
def test_published_momenta(framework: str, ema: float) -> None:
    assert stage_of(framework).ema == pytest.approx(ema)


def test_published_sizes() -> None:
    """Of a network whose encoder ends in 8 features."""
    network = ("network.features=[4,6,8]", "network.dropout=[0.0,0.1,0.1]")
    shapes = {}
    for name in OTHERS:
        config = load(overrides=[*network, f"pretrain.framework={name}"])
        with torch.device("meta"):
            framework = FRAMEWORKS[name](config, Peers(), 3)
        shapes[name] = [tuple(p.shape) for p in framework.parameters() if p.requires_grad and p.ndim == 2]
        sizes = {bank.size for bank in framework.modules() if isinstance(bank, Bank)}
        assert sizes <= {256 * 6 if isinstance(framework, MoCoV2) else 500 * 6}
    assert shapes["moco-v2"] == shapes["knn-moco"] == shapes["simclr"] == [(8, 8), (128, 8)]
    assert shapes["byol"] == [(4096, 8), (256, 4096), (4096, 256), (256, 4096)]
    assert shapes["isd"] == [(8, 8), (8, 8)]
    assert shapes["vicreg"] == [(1024, 8), (1024, 1024), (1024, 1024)]
