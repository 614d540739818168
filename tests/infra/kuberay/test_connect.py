"""Where the cluster is, and who we are to it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from kubernetes.config import incluster_config

from infra.kuberay import delete_run_jobs
from infra.kuberay.api import connect
from tests.infra.kuberay.api_server import NAMESPACE, PIPELINE, ApiServer

pytestmark = pytest.mark.k8s


def test_in_a_pod_its_service_account_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in (("TOKEN", "a-token"), ("CERT", "a certificate")):
        (tmp_path / name).write_text(content)
        monkeypatch.setattr(incluster_config, f"SERVICE_{name}_FILENAME", str(tmp_path / name))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    configuration = connect().configuration
    assert configuration.host == "https://10.0.0.1:443"
    assert configuration.get_api_key_with_prefix("authorization") == "bearer a-token"
    assert configuration.retries is False


def test_elsewhere_kubectls_context_counts(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeconfig = {
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "double", "user": "pipeline"}}],
        "clusters": [{"name": "double", "cluster": {"server": server.url}}],
        "users": [{"name": "pipeline", "user": {"token": PIPELINE}}],
    }
    (tmp_path / "config").write_text(yaml.safe_dump(kubeconfig))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(
        "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "config")
    )
    assert delete_run_jobs("run-1", namespace=NAMESPACE) == []
    assert [call.verb for call in server.calls] == ["list"]
