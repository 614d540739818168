"""Finds what makes a step wait for the device, on a machine that has none.

On a GPU the host runs ahead of the device, unless it asks for a value, or for a shape that depends on
values, or copies from memory that is not pinned. Each of these is an operation that can be seen on a CPU.
"""

from __future__ import annotations

import traceback
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_VALUES = {"aten._local_scalar_dense", "aten.equal", "aten.is_nonzero"}
_SHAPES = {"aten.nonzero", "aten.masked_select", "aten._unique2", "aten.unique_dim", "aten.bincount"}
_SHAPES |= {"aten.repeat_interleave", "aten.unique_consecutive"}
_INDEXING = {"aten.index", "aten.index_put", "aten.index_put_", "aten._index_put_impl_"}
_COPIES = {torch.tensor, torch.as_tensor, torch.from_numpy, torch.unravel_index, torch.Tensor.new_tensor}
_COPIES |= {torch.Tensor.cpu, torch.Tensor.numpy, torch.Tensor.tolist}


class WouldWait(AssertionError):
    """The step does what would wait for a GPU."""


class NoWaiting:
    """Context that raises `WouldWait` where a GPU would be waited for."""

    def __enter__(self) -> None:
        self._modes = (_Operations(), _Functions())
        for mode in self._modes:
            mode.__enter__()

    def __exit__(self, *error: Any) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func.overloadpacket)
        if name in _VALUES | _SHAPES or (name in _INDEXING and _by_mask(args[1])):
            raise WouldWait(f"{name} at {_place()}")
        return func(*args, **(kwargs or {}))


class _Functions(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _COPIES:
            raise WouldWait(f"{func.__name__} at {_place()}")
        return func(*args, **(kwargs or {}))


def _by_mask(indices: Any) -> bool:
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)


def _place() -> str:
    own = [f for f in traceback.extract_stack() if "arco_core" in f.filename and "tests" not in f.filename]
    return f"{own[-1].filename}:{own[-1].lineno}" if own else "the test"
