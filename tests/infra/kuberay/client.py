"""A client of the double, and times for tests."""

from __future__ import annotations

from kubernetes import client

from infra.kuberay import Timing
from infra.kuberay.api import api_client
from tests.infra.kuberay.api_server import ApiServer

QUICK = Timing(
    patience=30.0,
    patience_at_end=30.0,
    patience_on_cancel=10.0,
    backoff=0.005,
    backoff_limit=0.05,
    request=3.0,
    watch=1.0,
    silence=1.0,
    tick=0.01,
    head_check=0.02,
    head_loss=0.1,
    status_stale=60.0,
    settle=0.2,
    overtime=0.2,
    log_tail=3.0,
    late=0.1,
    removal=5.0,
)
"""A cluster's minutes as a test's tenths of a second."""


def client_of(server: ApiServer, token: str) -> client.ApiClient:
    """A client with a bearer token."""
    return address_client(server.url, token)


def address_client(url: str, token: str) -> client.ApiClient:
    """The same in another process than the server's."""
    configuration = client.Configuration(host=url)
    configuration.api_key = {"authorization": f"Bearer {token}"}
    return api_client(configuration)
