"""A Ray cluster of several nodes, for some of the tests with the marker `dist`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.infra.ray_cluster import RayCluster, start_cluster
from tests.s3_servers import S3Server


@pytest.fixture(scope="session")
def cluster(moto_server: S3Server) -> Iterator[RayCluster]:
    """A head and three nodes of one CPU each, which know the S3 server."""
    with start_cluster({**moto_server.environment, "AWS_ENDPOINT_URL": moto_server.endpoint}) as cluster:
        yield cluster
