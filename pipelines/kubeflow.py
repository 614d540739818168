"""Pipelines on a Kubeflow: uploaded as versions named by their content, started, followed, scheduled."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import kfp
import kfp_server_api
import urllib3
from kfp import compiler
from kfp.dsl.base_component import BaseComponent

TOKEN_ENVIRONMENT = "KUBEFLOW_TOKEN"
"""Bearer token for a Kubeflow that asks for one."""
SUCCEEDED = "SUCCEEDED"
_ENDED = (SUCCEEDED, "FAILED", "CANCELED", "SKIPPED")
_PATIENCE = 600.0
"""Seconds for which an API that does not answer is asked again while a run is followed."""
_PAGE = 100

T = TypeVar("T")


class KubeflowError(Exception):
    """Kubeflow refused something, or did not answer."""


@dataclass(frozen=True, kw_only=True)
class Uploaded:
    """A version of a pipeline in Kubeflow."""

    pipeline_id: str
    version_id: str
    name: str
    """Of the version: it ends with a digest of the compiled file."""
    new: bool


class Kubeflow:
    """One Kubeflow, through `kfp.Client`. Every failure is a `KubeflowError`."""

    def __init__(self, host: str, namespace: str | None = None) -> None:
        """Args:
        host: URL of the API, such as http://localhost:8080 of a port-forward.
        namespace: where Kubeflow has several users, the namespace to run in.
        """
        self.host = host.rstrip("/")
        options: dict[str, Any] = {} if namespace is None else {"namespace": namespace}
        if token := os.environ.get(TOKEN_ENVIRONMENT):
            options["existing_token"] = token
        self._namespace = namespace
        self._client = self._call("connect", lambda: kfp.Client(host=self.host, **options))

    def upload(self, pipeline: BaseComponent) -> Uploaded:
        """Make the pipeline, and the version of it that `pipeline` is, where they are not there yet."""
        with tempfile.TemporaryDirectory() as folder:
            file = str(Path(folder) / "pipeline.yaml")
            compiler.Compiler().compile(pipeline, file)
            digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()[:12]
            name = str(pipeline.pipeline_spec.pipeline_info.name)
            version = f"{name}-{digest}"
            pipeline_id = self._pipeline_id(name) or self._create_pipeline(name, file)
            found = self._version_id(pipeline_id, version)
            if found is not None:
                return Uploaded(pipeline_id=pipeline_id, version_id=found, name=version, new=False)
            made = self._call(
                f"upload {version}",
                lambda: self._client.upload_pipeline_version(file, version, pipeline_id=pipeline_id),
            )
            made_id = str(made.pipeline_version_id)
            return Uploaded(pipeline_id=pipeline_id, version_id=made_id, name=version, new=True)

    def start(
        self, uploaded: Uploaded, title: str, parameters: Mapping[str, Any], *, service_account: str | None
    ) -> str:
        """Start a run and return its id."""
        experiment = self._experiment()
        run = self._call(
            f"start a run of {uploaded.name}",
            lambda: self._client.run_pipeline(
                experiment,
                title,
                params=dict(parameters),
                pipeline_id=uploaded.pipeline_id,
                version_id=uploaded.version_id,
                service_account=service_account,
            ),
        )
        return str(run.run_id)

    def link(self, run_id: str) -> str:
        """Where Kubeflow shows the run."""
        return f"{self.host}/#/runs/details/{run_id}"

    def wait(self, run_id: str, show: Callable[[str], None], *, pause: float = 10.0) -> str:
        """Follow a run to its end, telling every change of its state, and return the last one.

        kfp's own `wait_for_run_completion` does not know that a run can be cancelled.
        """
        state, answered = "", time.monotonic()
        while True:
            try:
                run = self._call("look at the run", lambda: self._client.get_run(run_id))
            except KubeflowError as error:
                if time.monotonic() - answered > _PATIENCE or not _passing(error):
                    raise
                time.sleep(pause)
                continue
            answered = time.monotonic()
            if (now := str(run.state or "PENDING")) != state:
                state = now
                show(f"run {run_id}: {state}")
            if state in _ENDED:
                for line in _reasons(run):
                    show(line)
                return state
            time.sleep(pause)

    def schedule(
        self,
        uploaded: Uploaded,
        title: str,
        cron: str,
        parameters: Mapping[str, Any],
        *,
        service_account: str | None,
    ) -> tuple[str, int]:
        """Run the pipeline at the times of `cron`, in place of schedules of the same title.

        Runs do not overlap, and those that were missed are not made up for.

        Args:
            uploaded: what to run.
            title: of the recurring run.
            cron: six fields, seconds first.
            parameters: of every run.
            service_account: of every run, or Kubeflow's own.

        Returns:
            The recurring run's id, and how many it replaces.
        """
        experiment = self._experiment()
        before = [one for one in self._recurring_runs(experiment) if one.display_name == title]
        made = self._call(
            f"schedule {uploaded.name}",
            lambda: self._client.create_recurring_run(
                experiment,
                title,
                cron_expression=cron,
                max_concurrency=1,
                no_catchup=True,
                params=dict(parameters),
                pipeline_id=uploaded.pipeline_id,
                version_id=uploaded.version_id,
                service_account=service_account,
            ),
        )
        for old in before:  # only now: a failure above leaves the old schedule as it was
            self._call("replace", partial(self._client.delete_recurring_run, old.recurring_run_id))
        return str(made.recurring_run_id), len(before)

    def _experiment(self) -> str:
        made = self._call(
            "open the experiment", lambda: self._client.create_experiment("arco", namespace=self._namespace)
        )
        return str(made.experiment_id)

    def _pipeline_id(self, name: str) -> str | None:
        found = self._call("list pipelines", lambda: self._client.get_pipeline_id(name))
        return None if found is None else str(found)

    def _create_pipeline(self, name: str, file: str) -> str:
        try:
            made = self._call(f"create {name}", lambda: self._client.upload_pipeline(file, name))
        except KubeflowError as error:
            found = self._pipeline_id(name)  # somebody else may have made it meanwhile
            if found is None:
                raise error
            return found
        return str(made.pipeline_id)

    def _version_id(self, pipeline_id: str, name: str) -> str | None:
        predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
        answer = self._call(
            "list versions",
            lambda: self._client.list_pipeline_versions(
                pipeline_id, page_size=_PAGE, filter=json.dumps({"predicates": [predicate]})
            ),
        )
        versions = answer.pipeline_versions or []
        return next((str(v.pipeline_version_id) for v in versions if v.display_name == name), None)

    def _recurring_runs(self, experiment: str) -> Iterator[Any]:
        token = ""
        while True:
            answer = self._call(
                "list schedules",
                partial(
                    self._client.list_recurring_runs,
                    page_token=token,
                    page_size=_PAGE,
                    experiment_id=experiment,
                ),
            )
            yield from answer.recurring_runs or []
            token = answer.next_page_token or ""
            if not token:
                return

    def _call(self, what: str, call: Callable[[], T]) -> T:
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")  # and its links: ours name the host that was asked
                return call()
        except kfp_server_api.ApiException as error:
            message = f"{self.host}: cannot {what}: {error.status} {error.reason} {_body(error)}"
            if error.status in (401, 403):
                message += f"; give a token in {TOKEN_ENVIRONMENT}, and with several users --namespace"
            raise KubeflowError(message) from error
        except (OSError, urllib3.exceptions.HTTPError, TimeoutError, ValueError) as error:
            raise KubeflowError(f"{self.host}: cannot {what}: {error}") from error


def _body(error: kfp_server_api.ApiException) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.body or "")[:500]


def _passing(error: KubeflowError) -> bool:
    """Whether the same question may yet get an answer."""
    cause = error.__cause__
    if isinstance(cause, kfp_server_api.ApiException):
        return cause.status in (0, 429, 500, 502, 503, 504)
    return not isinstance(cause, ValueError)


def _reasons(run: Any) -> Iterator[str]:
    """What a failed run says of itself and its steps."""
    if run.error is not None and run.error.message:
        yield f"error: {run.error.message}"
    for task in (run.run_details.task_details if run.run_details else None) or []:
        if task.state == "FAILED":
            yield f"step {task.display_name} failed" + (f": {task.error.message}" if task.error else "")
