"""A stage in float64 that tells what it drew and which passes it made, for `reference.py` to use again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, NamedTuple

import pytest
from torch import Tensor

import arco_core.stages
from arco_core.networks import PyramidNetwork
from arco_core.sampling import PixelSample
from arco_core.stages import Passes, Stage


class Call(NamedTuple):
    """Arguments of something random that the stage called, and what it got."""

    arguments: tuple[Any, ...]
    result: Any


@dataclass
class Draws:
    """One step's draws, each list in the order in which the stage asked for them."""

    affine: list[Call] = field(default_factory=list)
    jitter: list[Call] = field(default_factory=list)
    boxes: list[Call] = field(default_factory=list)
    warp: list[Call] = field(default_factory=list)
    pixels: list[Call] = field(default_factory=list)
    ranks: list[Call] = field(default_factory=list)
    passes: list[tuple[str, Tensor]] = field(default_factory=list)
    """Network and images, of every pass."""

    @property
    def queries(self) -> tuple[Tensor, PixelSample]:
        """Mask that queries were drawn from, and the queries."""
        return self.pixels[0].arguments[0], self.pixels[0].result

    @property
    def keys(self) -> tuple[Tensor, PixelSample]:
        """Mask that keys for the bank were drawn from, and the keys."""
        return self.pixels[1].arguments[0], self.pixels[1].result

    def clear(self) -> None:
        """Forget the last step."""
        for calls in vars(self).values():
            calls.clear()


class ExactPasses(Passes):
    """In the precision of the network, float64."""

    def __init__(self, names: dict[PyramidNetwork, str], seen: list[tuple[str, Tensor]]) -> None:
        super().__init__()
        self.names, self.seen = names, seen

    def __call__(self, network: PyramidNetwork, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        self.seen.append((self.names[network], images.detach()))
        return network.forward_pyramid(images)

    def logits(self, network: PyramidNetwork, images: Tensor) -> Tensor:
        return self(network, images)[0]


def record(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Draws:
    """Turn `stage` into float64 and record all that it draws from now on."""
    draws = Draws()
    stage.double()
    names = {stage.get_submodule(name): name for name in ("student", "teacher") if hasattr(stage, name)}
    stage.passes = ExactPasses(names, draws.passes)

    def spy(owner: Any, name: str, calls: list[Call]) -> None:
        real: Callable[..., Any] = getattr(owner, name)

        def called(*args: Any) -> Any:
            calls.append(Call(args, real(*args)))
            return calls[-1].result

        monkeypatch.setattr(owner, name, called)

    spy(arco_core.stages.base, "random_affine", draws.affine)
    spy(arco_core.stages.pretrain, "jitter", draws.jitter)
    spy(arco_core.stages.finetune, "jitter", draws.jitter)
    spy(import_module("arco_core.augment.mix"), "_boxes", draws.boxes)  # the package exports a function `mix`
    if hasattr(stage, "contrast"):
        spy(stage.random_warp, "grid", draws.warp)
        spy(stage.contrast.sampler, "pixels", draws.pixels)
        spy(stage.contrast.sampler, "ranks", draws.ranks)
    return draws
