"""The metrics as TensorBoard reads them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import RecordWriter

from infra.storage import Store
from infra.training.metrics_log import VALIDATION, Line


class TensorBoard:
    """Event files in the folder `prefix`, one for the lines of each `show`, named by its last step.

    No file is ever written twice, so TensorBoard may read while training writes, from S3, too. What an
    earlier attempt wrote is replaced by what this one knows.
    """

    def __init__(self, store: Store, prefix: str) -> None:
        self._store, self._prefix = store, prefix
        self._shown: int | None = None

    def show(self, lines: Sequence[Line]) -> None:
        """See `View`."""
        if self._shown is None:
            for path in self._store.list(self._prefix):
                self._store.delete(path)
        new = lines[self._shown or 0 :]
        self._shown = len(lines)
        if not new:
            return
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "events"
            _write(file, new)
            name = f"events.out.tfevents.{new[-1]['step']:010d}.arco"
            self._store.upload_file(file, f"{self._prefix}/{name}")


def _write(file: Path, lines: Sequence[Line]) -> None:
    writer = RecordWriter(str(file))
    header: Any = Event(wall_time=lines[0]["time"], file_version="brain.Event:2")
    writer.write(header.SerializeToString())
    for line in lines:
        event: Any = Event(wall_time=line["time"], step=line["step"])
        for name, value in line.items():
            if name not in ("step", "time") and value is not None:
                tag = name if name.startswith(VALIDATION) else f"training/{name}"
                event.summary.value.add(tag=tag, simple_value=value)
        writer.write(event.SerializeToString())
    writer.close()
