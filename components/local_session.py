"""What the steps of a local run share: one Ray, their environment, and a folder for Kubeflow's files."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from arco_core.config import ConfigError
from components.plan import RunPlan
from components.terminal import STEP_ENVIRONMENT, StepOutput, step_output
from infra.ray_session import shared_ray
from infra.storage import Store

_REPLACED = "python3"
"""Kubeflow's local runner replaces this word, wherever it stands, by the interpreter's path."""


@contextmanager
def local_session(plan: RunPlan) -> Iterator[Path]:
    """Meanwhile, steps started as subprocesses share one Ray, and their output is shown on the terminal.

    Yields the folder for Kubeflow's own files: in the store, or a temporary one where that is not a folder.

    Raises:
        ConfigError: a path that Kubeflow's local runner cannot take.
    """
    with ExitStack() as stack:
        root = Store(plan.store).local_path("kfp")
        if root is None:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="arco-kfp-")))
        check_paths([plan.data, plan.run, *plan.overrides, str(root)])
        stack.enter_context(_environment(STEP_ENVIRONMENT))
        if plan.backend == "ray":
            stack.enter_context(shared_ray(workers=plan.config.run.cores))
        stack.enter_context(_stopping_on_interrupt(stack.enter_context(step_output())))
        yield root


def check_paths(texts: list[str]) -> None:
    """Raise `ConfigError` for a text, or an interpreter, that Kubeflow's local runner would garble."""
    for text in texts:
        if _REPLACED in text:
            raise ConfigError(
                f"{text!r} contains {_REPLACED!r}, a word that Kubeflow's local runner replaces: "
                "give the folder another name, or choose another store"
            )
    if any(character.isspace() for character in sys.executable):
        raise ConfigError(
            f"the Python interpreter {sys.executable!r} has a space in its path, which Kubeflow's local "
            "runner cannot take: move the project to a folder without one"
        )


@contextmanager
def _stopping_on_interrupt(output: StepOutput) -> Iterator[None]:
    """Meanwhile, Ctrl-C ends the run; the step that is running gets it from the terminal, too."""

    def stop(number: int, frame: FrameType | None) -> None:
        output.stop()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
