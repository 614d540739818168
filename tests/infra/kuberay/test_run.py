from __future__ import annotations

import itertools
from collections.abc import Callable

from kubernetes.client import ApiClient

from infra.kuberay import RayJobSpec, run_ray_job
from infra.kuberay.manifest import job_name
from tests.infra.kuberay.api_server import NAMESPACE, ApiServer
from tests.infra.kuberay.conftest import QUICK
from tests.infra.kuberay.operator import Operator, succeed

Start = Callable[..., Operator]


class Run:
    """`run_ray_job` against the double, and what it showed."""

    def __init__(self, api: ApiClient) -> None:
        self._api = api
        self.shown: list[str] = []
        self.attempts = itertools.count(1)

    def __call__(self, spec: RayJobSpec, **options: object):  # type: ignore[no-untyped-def]
        return run_ray_job(
            spec,
            namespace=NAMESPACE,
            claim_attempt=lambda: next(self.attempts),
            api=self._api,
            show=self.shown.append,
            **{"timing": QUICK, **options},  # type: ignore[arg-type]
        )


def test_a_job_runs_is_followed_and_removed(
    server: ApiServer, operator: Start, api: ApiClient, spec: RayJobSpec
) -> None:
    operator(succeed)
    run = Run(api)
    outcome = run(spec)
    assert (outcome.name, outcome.attempt) == (job_name(spec), 1)
    assert len(server.rayjobs.created) == 1
    assert server.rayjobs.names() == [] and server.pods.names() == []
    assert [line for line in run.shown if line.startswith("step")] == ["step 1 of 2", "step 2 of 2"]
    statuses = [line for line in run.shown if line.startswith("ray job")]
    assert "submitted, attempt 1" in statuses[0]
    assert any("Initializing" in line for line in statuses)
    assert any("Complete, driver succeeded" in line for line in statuses)
