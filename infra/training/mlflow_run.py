"""The metrics of a stage as an MLflow run, where `MLFLOW_TRACKING_URI` is set."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from arco_core.errors import TrainingError
from infra.storage import Store
from infra.training.metrics_log import VALIDATION, Line
from infra.training.stage_job import StageJob

URI = "MLFLOW_TRACKING_URI"
HANDED_ON = (URI, "MLFLOW_EXPERIMENT_NAME")
"""Variables that workers take over from the driver. Ray's dashboard shows them, so credentials are not among
them: those belong into the workers' own environment."""
_EXPERIMENT = "arco"
_STAGE, _LINES = "arco.stage", "arco.lines"
_MOST_METRICS, _MOST_PARAMS = 1000, 100  # of one request
_PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}


def require_mlflow() -> None:
    """Raise `TrainingError` where MLflow is asked for and its client is not installed."""
    if os.environ.get(URI) and importlib.util.find_spec("mlflow") is None:
        raise TrainingError(
            f"{URI} is set, and MLflow's client is not installed: pip install mlflow-skinny, or unset it"
        )


def mlflow_environment() -> dict[str, str]:
    """What workers need to know of the driver's environment."""
    return {name: os.environ[name] for name in HANDED_ON if os.environ.get(name)}


def open_mlflow(job: StageJob, warn: Callable[[str], None], *, known: int) -> MlflowRun | None:
    """The view of `job`, or None where no server is named. See `MlflowRun` for `known`."""
    return MlflowRun(job, warn, known=known) if os.environ.get(URI) else None


class MlflowRun:
    """A `View`: one MLflow run a stage, which an attempt that continues takes up again.

    A server that fails stops no training: `warn` is told, and what it missed is sent again with the next
    checkpoint.

    Args:
        job: the stage.
        warn: told of a server that fails.
        known: how many of the first lines were in the checkpoint that training goes on from, and may have
            been sent before. What was sent of others stays in the run: MLflow takes nothing back.
    """

    def __init__(self, job: StageJob, warn: Callable[[str], None], *, known: int = 0) -> None:
        self._job, self._warn, self._known = job, warn, known
        self._run_id: str | None = None
        self._shown = 0

    def show(self, lines: Sequence[Line]) -> None:
        """See `View`."""
        self._attempt(lambda: self._send(lines))

    def end(self, *, succeeded: bool) -> None:
        """Close the run."""
        self._attempt(lambda: self._close("FINISHED" if succeeded else "FAILED"))

    def _attempt(self, action: Callable[[], None]) -> None:
        from mlflow.exceptions import MlflowException

        try:
            action()
        except (MlflowException, OSError) as error:
            reason = str(error).splitlines()[0][:200]
            self._warn(f"MLflow at {os.environ.get(URI)} did not take the metrics, which are safe: {reason}")

    def _send(self, lines: Sequence[Line]) -> None:
        client = self._client()
        if self._run_id is None:
            self._run_id, self._shown = self._open(client)
        new = lines[self._shown :]
        for metrics in _parts(list(_metrics(new)), _MOST_METRICS):
            client.log_batch(self._run_id, metrics=metrics)
        if new:
            client.set_tag(self._run_id, _LINES, str(len(lines)))
        self._shown = len(lines)

    def _close(self, status: str) -> None:
        if self._run_id is not None:
            self._client().set_terminated(self._run_id, status)

    def _open(self, client: Any) -> tuple[str, int]:
        """The run's id, and how many of the lines it has: an earlier attempt may have had others after
        those of its checkpoint.
        """
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _EXPERIMENT)
        found = client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else client.create_experiment(name)
        folder = Store(self._job.run_url).join(self._job.folder)
        key = hashlib.sha256(folder.encode()).hexdigest()[:32]
        earlier = client.search_runs([experiment], f"tags.`{_STAGE}` = '{key}'", max_results=1)
        if earlier:
            run = earlier[0]
            client.update_run(run.info.run_id, status="RUNNING")
            return run.info.run_id, min(int(run.data.tags.get(_LINES, 0)), self._known)
        tags = {_STAGE: key, "arco.folder": folder, "arco.dataset": self._job.dataset_url}
        run = client.create_run(experiment, tags=tags, run_name=self._job.title)
        for params in _parts(list(_params(self._job)), _MOST_PARAMS):
            client.log_batch(run.info.run_id, params=params)
        return run.info.run_id, 0

    def _client(self) -> Any:
        for name, value in _PATIENCE.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        return MlflowClient()


def _metrics(lines: Sequence[Line]) -> Iterator[Any]:
    from mlflow.entities import Metric

    for line in lines:
        for name, value in line.items():
            if name not in ("step", "time") and value is not None:
                yield Metric(_key(name), float(value), int(1000 * line["time"]), line["step"])


def _key(name: str) -> str:
    """MLflow may keep metrics as files: `dice` and `dice/left` cannot both be there."""
    prefix, rest = (VALIDATION, name.removeprefix(VALIDATION)) if name.startswith(VALIDATION) else ("", name)
    return prefix + re.sub(r"[^\w. :-]", "_", rest.replace("/", "."))


def _params(job: StageJob) -> Iterator[Any]:
    from mlflow.entities import Param

    values = {"stage": job.stage, "seed": job.seed, "labeled_patients": len(job.labeled_patients)}
    for key, value in {**values, **_flat(asdict(job.settings))}.items():
        yield Param(key, str(value)[:500])


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _parts(items: list[Any], most: int) -> Iterator[list[Any]]:
    for first in range(0, len(items), most):
        yield items[first : first + most]
