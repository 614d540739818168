"""An API server's double with an operator's, and a submitter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from infra.kuberay import Deadlines, RayClusterSettings, RayJobSpec
from tests.infra.kuberay.api_server import ApiServer
from tests.infra.kuberay.crd import crd_schemas
from tests.infra.kuberay.operator import Operator, Script
from tests.infra.kuberay.runner import Runner

StartOperator = Callable[..., Operator]


@pytest.fixture
def server() -> Iterator[ApiServer]:
    crd_schemas()  # loaded once, before anything is timed
    with ApiServer() as running:
        yield running


@pytest.fixture
def operator(server: ApiServer) -> Iterator[StartOperator]:
    """Starts an operator that drives the jobs by scripts; what goes wrong in them fails the test."""
    started: list[Operator] = []

    def start(*scripts: Script) -> Operator:
        started.append(Operator(server, *scripts))
        return started[-1]

    yield start
    for one in started:
        assert not one.errors, one.errors


@pytest.fixture
def run(server: ApiServer) -> Runner:
    return Runner(server)


@pytest.fixture
def spec() -> RayJobSpec:
    return RayJobSpec(
        run_id="run-1",
        step="finetune",
        command=("/opt/arco/bin/python", "-m", "components.finetune", "--run", "s3://arco/runs/run 1"),
        image="registry.example/arco:0.1.0",
        cluster=RayClusterSettings(deadlines=Deadlines(queue=60, start=60, active=60)),
    )


@pytest.fixture(scope="session")
def needs_schemas() -> None:
    if crd_schemas() is None:
        pytest.skip("no CRD schemas here: neither $ARCO_SHARED nor ../shared has tools/crd_validate.py")


def with_cluster(spec: RayJobSpec, **settings: object) -> RayJobSpec:
    """The spec with other settings of its cluster."""
    return replace(spec, cluster=replace(spec.cluster, **settings))  # type: ignore[arg-type]
