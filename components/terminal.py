"""What the user sees of a run on this machine: the plan, each step's progress, the result."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any

from rich.console import Console
from rich.text import Text

from components.console import print_table
from components.evaluate.table import results_table
from components.plan import RunPlan
from infra.progress import EVENTS_ENVIRONMENT, Bars, Event, Lines, Sink
from infra.storage import Store

_NOISE = re.compile(r"-{20,}|\[KFP Executor .*|.* - ERROR - Task .* finished with status .*|")
"""Lines of Kubeflow's local runner that say nothing: rules, its executor's log, what is told below."""
_DUMP = re.compile(r"\[KFP Executor .*Got executor_input:")
"""The line before the step's arguments as JSON."""

STEP_ENVIRONMENT = {EVENTS_ENVIRONMENT: "events", "PYTHONUNBUFFERED": "1"}
"""What steps find in their environment so that their output can be shown here."""


def print_plan(plan: RunPlan) -> None:
    """Print what is about to happen."""
    console = Console()
    for topic, text in plan.lines():
        console.print(Text.assemble((f"{topic:<9}", "dim"), text))


def print_result(run: str) -> None:
    """Print the scores of a run folder, where report and model are, and, last, the summary's path."""
    store = Store(run)
    summary: Mapping[str, Any] = json.loads(store.read_bytes("summary.json"))
    console = Console()
    console.print()
    print_table(results_table(summary))
    swept = [("sweep", "sweep/report.html")] if store.exists("sweep/report.html") else []
    for topic, name in (("report", "report.html"), *swept, ("model", "model")):
        console.print(Text.assemble((f"{topic:<9}", "dim"), store.join(name)), soft_wrap=True)
    print(store.join("summary.json"))


@contextmanager
def step_output() -> Iterator[StepOutput]:
    """Meanwhile, draw the progress that steps send to standard output, and leave out what says nothing."""
    console = Console(file=sys.stdout)  # by default rich would follow the redirection below
    sink: Sink = Bars(console) if console.is_terminal else Lines(sys.stdout)
    try:
        output = StepOutput(console, sink)
        with redirect_stdout(output):
            yield output
    finally:
        sink.close()


class StepOutput(io.TextIOBase):
    """Standard output while steps run."""

    def __init__(self, console: Console, sink: Sink) -> None:
        self._console, self._sink = console, sink
        self._rest = ""
        self._in_dump = False
        self._stopped = False

    def stop(self) -> None:
        """Raise `KeyboardInterrupt` in whoever writes from now on.

        Kubeflow's local runner works in a thread, which an interrupt does not reach, and would go on with the
        next step; but between two steps it prints.
        """
        self._stopped = True

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self._stopped:
            raise KeyboardInterrupt
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._show(line)
        return len(text)

    def _show(self, line: str) -> None:
        line = line.removeprefix("    ")  # Kubeflow indents what steps print
        if self._in_dump or _DUMP.match(line):
            self._in_dump = line != "}"
            return
        event = Event.decode(line)
        if event:
            self._sink.show(event)
        elif not _NOISE.fullmatch(line.strip()):
            self._console.print(Text.from_ansi(line), soft_wrap=True)
