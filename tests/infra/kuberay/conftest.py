"""An API server's double with an operator's, and a client for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from kubernetes import client

from infra.kuberay import Deadlines, RayJobSpec, Timing
from infra.kuberay.api import api_client
from tests.infra.kuberay.api_server import PIPELINE, ApiServer
from tests.infra.kuberay.crd import crd_schemas
from tests.infra.kuberay.operator import Operator, Script

QUICK = Timing(
    patience=5.0,
    patience_at_end=5.0,
    patience_on_cancel=2.0,
    backoff=0.01,
    backoff_limit=0.05,
    request=0.5,
    watch=1.0,
    silence=1.0,
    tick=0.02,
    head_check=0.02,
    head_loss=0.2,
    status_stale=60.0,
    settle=0.3,
    overtime=0.3,
    log_tail=1.0,
    removal=2.0,
)
"""A cluster's minutes as a test's tenths of a second."""


@pytest.fixture
def server() -> Iterator[ApiServer]:
    crd_schemas()  # loaded once, before anything is timed
    with ApiServer() as running:
        yield running


@pytest.fixture
def operator(server: ApiServer) -> Iterator[Callable[..., Operator]]:
    """Starts an operator that drives the jobs by scripts; what goes wrong in them fails the test."""
    started: list[Operator] = []

    def start(*scripts: Script) -> Operator:
        started.append(Operator(server, *scripts))
        return started[-1]

    yield start
    for one in started:
        assert not one.errors, one.errors


@pytest.fixture
def api(server: ApiServer) -> client.ApiClient:
    return client_of(server, PIPELINE)


def client_of(server: ApiServer, token: str) -> client.ApiClient:
    configuration = client.Configuration(host=server.url)
    configuration.api_key = {"authorization": f"Bearer {token}"}
    return api_client(configuration)


@pytest.fixture
def spec() -> RayJobSpec:
    return RayJobSpec(
        run_id="run-1",
        step="finetune",
        command=("/opt/arco/bin/python", "-m", "components.finetune", "--run", "s3://arco/runs/run 1"),
        image="registry.example/arco:0.1.0",
        deadlines=Deadlines(queue=60, start=60, active=60),
    )


@pytest.fixture(scope="session")
def needs_schemas() -> None:
    if crd_schemas() is None:
        pytest.skip("no CRD schemas here: neither $ARCO_SHARED nor ../shared has tools/crd_validate.py")
