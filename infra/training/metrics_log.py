"""The metrics of a stage, as JSON lines in the store."""

from __future__ import annotations

import json
from typing import Any

from infra.storage import Store


class MetricsLog:
    """Lines `{"step": …, <metric>: …}` in the object `path`, written as a whole by `flush`.

    Object stores cannot append. A log is flushed with each checkpoint, so a resumed training finds the lines
    up to the step where it resumes.
    """

    def __init__(self, store: Store, path: str, *, resume_step: int = 0) -> None:
        """Keep what an earlier attempt logged up to `resume_step`, and forget the rest."""
        self._store, self._path = store, path
        self._lines: list[dict[str, Any]] = []
        if resume_step and store.exists(path):
            lines = (json.loads(line) for line in store.read_bytes(path).splitlines())
            self._lines = [line for line in lines if line["step"] <= resume_step]

    @property
    def last(self) -> dict[str, Any]:
        """The last line, empty before the first."""
        return self._lines[-1] if self._lines else {}

    def add(self, step: int, metrics: dict[str, float]) -> None:
        """Log the metrics of a step."""
        self._lines.append({"step": step, **metrics})

    def flush(self) -> None:
        """Write all lines to the store."""
        text = "".join(json.dumps(line) + "\n" for line in self._lines)
        self._store.write_bytes(self._path, text.encode())
