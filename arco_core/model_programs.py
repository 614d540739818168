"""A network as programs that need none of this project's code: `torch.export`, and ONNX."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

INPUT, OUTPUT = "images", "logits"
"""Names of the ONNX graph's input and output."""


def export_program(network: nn.Module, image_shape: tuple[int, ...], path: Path) -> ExportedProgram:
    """Write images (B, C, *S) -> logits (B, K, *S), for any B and the (C, *S) of `image_shape`.

    The network must be on the CPU and in evaluation mode.
    """
    example = torch.zeros(2, *image_shape)
    program = torch.export.export(network, (example,), dynamic_shapes=({0: Dim("batch")},))
    torch.export.save(program, path)
    return program


def export_onnx(program: ExportedProgram, image_shape: tuple[int, ...], path: Path) -> None:
    """Write `program` as an ONNX graph of one file, input and output named `INPUT` and `OUTPUT`."""
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)  # it misses torchvision, which nothing here needs
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message=".*LeafSpec", category=FutureWarning
            )  # torch's own copying
            graph = torch.onnx.export(
                program,
                (torch.zeros(2, *image_shape),),
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: Dim("batch")},),
                verbose=False,
            )
    finally:
        quiet.setLevel(level)
    if graph is None:
        raise RuntimeError("torch.onnx.export returned no graph")
    graph.save(path, external_data=False)
