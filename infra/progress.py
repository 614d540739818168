"""Progress of a step: a bar on a terminal, a line now and then elsewhere, or events for another process.

Kubeflow's local runner pipes what a step prints, so a step cannot draw there. It prints events instead
(`ARCO_PROGRESS=events`), and the process that owns the terminal draws them with `Bars`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as RichProgress

EVENTS_ENVIRONMENT = "ARCO_PROGRESS"
EVENT_MARK = "@progress "
_LINES = 20
"""Lines printed for one progress where nothing can be drawn: one every 5 %."""
_LINE_SECONDS = 60.0
_REDRAW_SECONDS = 0.2
_RATE_SECONDS = 0.5
"""A rate is shown once it rests on so long: units that come in blocks come all at once."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """How far something has come."""

    title: str
    done: int
    total: int
    unit: str
    text: str
    """Metrics and throughput, ready to print."""
    seconds_left: float | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    """What `text` tells of, as numbers."""

    def line(self) -> str:
        """The event as one line of text."""
        parts = [f"{self.title}  {self.done}/{self.total} {self.unit}", self.text, self.eta()]
        return "  ".join(part for part in parts if part)

    def eta(self) -> str:
        """Time left as m:ss, empty when unknown or over."""
        if self.seconds_left is None or self.done >= self.total:
            return ""
        minutes, seconds = divmod(round(self.seconds_left), 60)
        return f"{minutes}:{seconds:02d} left"

    def encode(self) -> str:
        """The event for another process, as one line that `decode` reads."""
        return EVENT_MARK + json.dumps(asdict(self))

    @staticmethod
    def decode(line: str) -> Event | None:
        """The event in `line`, or None when it holds none."""
        _, mark, payload = line.partition(EVENT_MARK)
        return Event(**json.loads(payload)) if mark else None


class Sink(Protocol):
    """Shows events."""

    def show(self, event: Event) -> None: ...

    def warn(self, text: str) -> None: ...

    def close(self) -> None: ...


class Lines:
    """Prints a line at the first and the last event, at every 5 % between, and after a minute without."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._shown: dict[str, int] = {}
        self._last = 0.0

    def show(self, event: Event) -> None:
        """Print `event` unless this twentieth of its title was printed already, within the last minute."""
        part, now = event.done * _LINES // max(event.total, 1), time.monotonic()
        if part > self._shown.get(event.title, -1) or now - self._last >= _LINE_SECONDS:
            self._shown[event.title], self._last = part, now
            self.warn(event.line())

    def warn(self, text: str) -> None:
        """Print `text`."""
        self._out.write(text + "\n")
        self._out.flush()

    def close(self) -> None:
        """Nothing to put away."""


class Events:
    """Prints events for `Bars` in another process, at most five a second."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._last = 0.0

    def show(self, event: Event) -> None:
        """Print `event`, unless one was printed just before and this is not the last."""
        now = time.monotonic()
        if event.done >= event.total or now - self._last >= _REDRAW_SECONDS:
            self._last = now
            self.warn(event.encode())

    def warn(self, text: str) -> None:
        """Print `text`, which is no event."""
        self._out.write(text + "\n")
        self._out.flush()

    def close(self) -> None:
        """Nothing to put away."""


class Bars:
    """Draws events as bars on a terminal, one a title; finished ones stay above."""

    def __init__(self, console: Console) -> None:
        self._rich = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[unit]}"),
            TextColumn("[cyan]{task.fields[text]}"),
            TextColumn("[dim]{task.fields[eta]}"),
            console=console,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._tasks: dict[str, TaskID] = {}

    def show(self, event: Event) -> None:
        """Draw or redraw the bar of `event.title`."""
        if not self._rich.live.is_started:
            self._rich.start()
        if event.title not in self._tasks:
            self._tasks[event.title] = self._rich.add_task(event.title, unit=event.unit, text="", eta="")
        self._rich.update(
            self._tasks[event.title],
            completed=event.done, total=event.total, text=event.text, eta=event.eta(),
        )  # fmt: skip

    def warn(self, text: str) -> None:
        """Print `text` above the bars."""
        self._rich.console.print(text, style="bold red", markup=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the bars as they are and give the terminal back."""
        self._rich.stop()
        self._tasks.clear()


class Progress:
    """Progress of one piece of work, shown where this process may show it.

    ```
    with Progress("pretrain, seed 0", total=100, unit="steps", images_per_unit=8) as progress:
        progress.update(10, loss=0.7)
    ```
    """

    def __init__(
        self, title: str, total: int, unit: str, *, images_per_unit: int = 0, sink: Sink | None = None
    ) -> None:
        """Args:
        title: what is being done.
        total: how many units make it complete.
        unit: what is counted, in the plural.
        images_per_unit: shows the throughput in images a second instead of units a second.
        sink: where to show it; by default what standard output allows.
        """
        self._title, self._total, self._unit = title, total, unit
        self._images_per_unit = images_per_unit
        self._sink = sink or default_sink()
        self._first: tuple[int, float] | None = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sink.close()

    def announce(self, text: str) -> None:
        """Show `text` while nothing is done yet."""
        self._show(0, text, None)

    def warn(self, text: str) -> None:
        """Show what somebody should look at, to stay."""
        self._sink.warn(f"warning: {self._title}: {text}")

    def update(self, done: int, **metrics: float) -> None:
        """Show that `done` of the total are complete; `metrics` are printed beside."""
        now = time.monotonic()
        if self._first is None:
            self._first = (done, now)
        done_before, start = self._first
        measured = done > done_before and now - start >= _RATE_SECONDS
        rate = (done - done_before) / (now - start) if measured else 0.0
        parts = [f"{name} {value:.3f}" for name, value in metrics.items()]
        if rate:
            unit, per_second = self._unit, rate
            if self._images_per_unit:
                unit, per_second = "images", rate * self._images_per_unit
            parts.append(f"{per_second:.3g} {unit}/s" if per_second < 100 else f"{per_second:.0f} {unit}/s")
        left = (self._total - done) / rate if rate else None
        self._show(done, "  ".join(parts), left, metrics)

    def _show(
        self, done: int, text: str, seconds_left: float | None, metrics: Mapping[str, float] | None = None
    ) -> None:
        self._sink.show(
            Event(
                title=self._title,
                done=done,
                total=self._total,
                unit=self._unit,
                text=text,
                seconds_left=seconds_left,
                metrics=metrics or {},
            )
        )


def default_sink() -> Sink:
    """Events where the parent process asked for them, bars on a terminal, lines elsewhere."""
    if os.environ.get(EVENTS_ENVIRONMENT) == "events":
        return Events(sys.stdout)
    if sys.stdout.isatty():
        return Bars(Console())
    return Lines(sys.stdout)
