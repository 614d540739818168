"""The metrics of a stage: lines that its checkpoints hold, and views of them that people open.

The lines are part of every checkpoint, so an attempt that continues from one has exactly the lines that led
to it: none is missing, and none is there twice. Object stores cannot append; views are brought up to date
whenever a checkpoint is committed.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from arco_core.meter import Values
from infra.storage import Store

Line = dict[str, Any]
"""`step`, `time` (s, Unix), `elapsed` (s of training) and metrics by name: `a/b` is metric a of class b, what
starts with `validation/` is of validation, and all else of training."""

VALIDATION = "validation/"
TIMES = frozenset({"time", "elapsed", "seconds", "data_wait", "images_per_second", "validation/seconds"})
"""What differs between two runs that compute the same."""
ROLLBACK = "rollback"
"""Metric of the line that tells of a return to a checkpoint: the step at which training had diverged."""
DAMAGED = "damaged_checkpoint"
"""Metric of the line that tells of a checkpoint that could not be read: its step."""
EVENTS = frozenset({ROLLBACK, DAMAGED})
"""What is told once, and is no curve."""


class View(Protocol):
    """Something that shows the lines of a stage."""

    def show(self, lines: Sequence[Line]) -> None:
        """Show all of `lines`, which begin with those shown before."""
        ...


class JsonLines:
    """The lines as JSON, in the object `path`."""

    def __init__(self, store: Store, path: str) -> None:
        self._store, self._path = store, path

    def show(self, lines: Sequence[Line]) -> None:
        """See `View`."""
        self._store.write_bytes(self._path, encode(lines).encode())


def encode(lines: Sequence[Line]) -> str:
    """JSON lines. JSON has no NaN: a number that is not finite becomes null."""
    return "".join(json.dumps({k: _finite(v) for k, v in line.items()}) + "\n" for line in lines)


def decode(text: str) -> list[Line]:
    """The lines that `encode` wrote."""
    return [json.loads(line) for line in text.splitlines()]


def flatten(values: Values, classes: Sequence[str]) -> dict[str, float]:
    """`values` with one entry a class and metric, `<metric>/<class>`."""
    flat: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, float):
            flat[name] = value
        else:
            flat |= {f"{name}/{of}": number for of, number in zip(classes, value, strict=True)}
    return flat


def last_values(lines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The last value of every metric."""
    last: dict[str, float] = {}
    for line in lines:
        last |= {key: value for key, value in line.items() if value is not None}
    return last


def event_line(step: int, name: str, value: float, earlier: Sequence[Line]) -> Line:
    """The line, after those `earlier`, that tells of the event `name` before training goes on from `step`."""
    elapsed = earlier[-1]["elapsed"] if earlier else 0.0
    return {"step": step, "time": round(time.time(), 3), "elapsed": elapsed, name: value}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
