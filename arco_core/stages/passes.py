"""How the networks are run in training: in which precision, and whether compiled.

Low precision ends where a network ends: its logits and features come back as float32, so that sampling,
projections, similarities, softmaxes and losses never see it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from arco_core.config.run import RunConfig
from arco_core.networks import PyramidNetwork

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def _forward_pyramid(network: PyramidNetwork, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    return network.forward_pyramid(images)


class Passes:
    """Forward passes of student and teacher.

    Args:
        dtype: of convolutions and products, by `torch.autocast`; weights and outputs stay float32.
        compile: compile the passes. A compiled pass draws other dropout masks than an uncompiled one.
    """

    def __init__(self, dtype: torch.dtype = torch.float32, *, compile: bool = False) -> None:
        self.dtype = dtype
        # The function is compiled, not the module: names in checkpoints stay what they are.
        self._forward = torch.compile(_forward_pyramid, dynamic=False) if compile else _forward_pyramid

    @classmethod
    def on(cls, device: torch.device, run: RunConfig) -> Passes:
        """What `run` asks for, on a GPU; elsewhere float32 and not compiled."""
        if device.type != "cuda":
            return cls()
        return cls(_DTYPES[run.precision], compile=run.compile)

    def scaler(self, device: torch.device) -> torch.amp.GradScaler:
        """Scales the loss in fp16, where small gradients would vanish otherwise; does nothing elsewhere."""
        return torch.amp.GradScaler(device.type, enabled=self.dtype is torch.float16)

    def logits(self, network: PyramidNetwork, images: Tensor) -> Tensor:
        """Logits (B, K, *S) of images (B, C, *S), float32."""
        with self._autocast(images):
            logits, _ = self._forward(network, images)
        return logits.float()

    def __call__(self, network: PyramidNetwork, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits (B, K, *S) and pyramid, coarse to fine, of images (B, C, *S), all float32."""
        with self._autocast(images):
            logits, pyramid = self._forward(network, images)
        return logits.float(), [level.float() for level in pyramid]

    def _autocast(self, images: Tensor) -> torch.autocast:
        return torch.autocast(images.device.type, self.dtype, enabled=self.dtype is not torch.float32)
