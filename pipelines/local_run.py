"""Run a pipeline on this machine, with Kubeflow's local runner: one subprocess a step, no container."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kfp import local
from kfp.dsl.base_component import BaseComponent

_COLOR = re.compile(r"\x1b\[\d+m")
_FAILED = re.compile(r"Inner task failed: '(?P<step>[^']+)'")


class StepFailed(Exception):
    """A step of the pipeline failed; it has said why."""


def run_locally(pipeline: BaseComponent, arguments: Mapping[str, Any], *, root: Path) -> None:
    """Run `pipeline` with `arguments`; Kubeflow's own files go below `root`.

    Raises:
        StepFailed: a step failed. Steps that had finished before keep their results.
    """
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(root))
    warnings.filterwarnings("ignore", module=r"kfp\.local")  # what has no effect here: limits, labels
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # Kubeflow's commentary; what steps print is not logged
    _take_back_retries(pipeline)
    try:
        pipeline(**arguments)
    except RuntimeError as error:
        failed = _FAILED.search(_COLOR.sub("", str(error)))
        if failed is None:
            raise
        raise StepFailed(failed["step"]) from error
    finally:
        logging.disable(before)


def _take_back_retries(pipeline: BaseComponent) -> None:
    """On a cluster a second try may find a healthy node; here it would say the same error again, later."""
    spec = pipeline.pipeline_spec
    for dag in (spec.root.dag, *(component.dag for component in spec.components.values())):
        for task in dag.tasks.values():
            task.ClearField("retry_policy")
