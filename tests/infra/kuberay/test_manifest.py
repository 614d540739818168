from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.retrain.report import ALERT_ENVIRONMENT
from infra.kuberay import Deadlines, Place, PodSize, RayJobSpec, Workers
from infra.kuberay.manifest import is_job_of, job_name, ray_job, spec_digest
from tests.infra.kuberay.conftest import with_cluster
from tests.infra.kuberay.crd import REPOSITORY, crd_schemas
from tests.k8s.rules import broken_rules

GPU_PLACE = Place(node_selector=("pool=gpu",), tolerations=("nvidia.com/gpu:NoSchedule",))
SPOT = Workers(minimum=4, maximum=4, spot_label="karpenter.sh/capacity-type=spot")


@pytest.fixture
def specs(spec: RayJobSpec) -> dict[str, RayJobSpec]:
    return {
        "plain": spec,
        "without workers": with_cluster(spec, workers=Workers(minimum=0, maximum=0)),
        "GPUs": with_cluster(
            spec, workers=Workers(size=PodSize(cpu=8, memory_gib=64, shm_gib=16, gpu=2), place=GPU_PLACE)
        ),
        "spot workers": with_cluster(spec, workers=SPOT),
        "autoscaling": with_cluster(spec, workers=Workers(minimum=1, maximum=8)),
        "queue": with_cluster(spec, queue="research", priority_class="training"),
        "environment": with_cluster(spec, env_config_map="arco-store", env_secret="arco-store-keys"),
    }


def cluster_of(spec: RayJobSpec) -> dict[str, Any]:
    return dict(ray_job(spec, 1)["spec"]["rayClusterSpec"])


def pods_of(spec: RayJobSpec) -> Iterator[dict[str, Any]]:
    cluster = cluster_of(spec)
    for group in (cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])):
        yield group["template"]["spec"]


def test_every_variant_is_valid_by_the_crd(specs: dict[str, RayJobSpec], needs_schemas: None) -> None:
    schemas = crd_schemas()
    assert schemas is not None
    for name, spec in specs.items():
        assert schemas.errors(ray_job(spec, 1)) == [], name


def test_every_variant_keeps_the_rules_that_no_schema_makes(specs: dict[str, RayJobSpec]) -> None:
    for name, spec in specs.items():
        assert broken_rules(ray_job(spec, 1)) == [], name


def test_how_the_job_begins_and_ends_is_set(spec: RayJobSpec) -> None:
    job = ray_job(with_cluster(spec, deadlines=Deadlines(start=60, active=600, after_end=30)), 3)
    assert job["spec"]["submissionMode"] == "SidecarMode"
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    assert job["spec"]["preRunningDeadlineSeconds"] == 60
    assert job["spec"]["activeDeadlineSeconds"] == 600
    assert job["spec"]["ttlSecondsAfterFinished"] == 30
    assert "suspend" not in job["spec"]


def test_ray_asks_for_a_token_everywhere_and_shows_its_dashboard_nowhere(
    specs: dict[str, RayJobSpec],
) -> None:
    for spec in specs.values():
        cluster = cluster_of(spec)
        assert cluster["authOptions"] == {"mode": "token"}
        assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
        assert cluster["headGroupSpec"]["enableIngress"] is False
        for pod in pods_of(spec):
            environment = {one["name"]: one.get("value") for one in pod["containers"][0]["env"]}
            assert environment["RAY_AUTH_MODE"] == "token"
            assert environment["RAY_grpc_client_keepalive_time_ms"] == "3000"
            assert environment["RAY_grpc_keepalive_timeout_ms"] == "3000"
            assert environment["ARCO_ATTEMPT"] == "1"


def test_credentials_are_named_and_never_held(
    specs: dict[str, RayJobSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    for spec in specs.values():
        text = json.dumps(ray_job(spec, 1))
        assert not re.search(r"very-secret|SECRET_ACCESS_KEY|auth_token|RAY_AUTH_TOKEN", text)
    for pod in pods_of(specs["environment"]):
        assert pod["serviceAccountName"] == "arco-ray"
        assert pod["containers"][0]["envFrom"] == [
            {"configMapRef": {"name": "arco-store"}},
            {"secretRef": {"name": "arco-store-keys"}},
        ]


def test_jobs_know_where_alerts_go_by_the_secret_of_the_steps(specs: dict[str, RayJobSpec]) -> None:
    """Else a model that a job's judgement keeps is told in the store only."""
    reference = {"name": "arco-alerts", "key": ALERT_ENVIRONMENT, "optional": True}
    for spec in specs.values():
        head = next(pods_of(spec))
        assert {"name": ALERT_ENVIRONMENT, "valueFrom": {"secretKeyRef": reference}} in head["containers"][0][
            "env"
        ]


def test_spot_workers_and_a_head_on_demand(specs: dict[str, RayJobSpec]) -> None:
    head, workers = pods_of(specs["spot workers"])
    assert workers["nodeSelector"] == {"karpenter.sh/capacity-type": "spot"}
    assert workers["tolerations"] == [
        {"key": "karpenter.sh/capacity-type", "operator": "Equal", "value": "spot", "effect": "NoSchedule"}
    ]
    (term,) = head["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    assert term["matchExpressions"] == [
        {"key": "karpenter.sh/capacity-type", "operator": "NotIn", "values": ["spot"]}
    ]
    assert "tolerations" not in head


def test_gpus_go_to_workers(specs: dict[str, RayJobSpec]) -> None:
    head, workers = pods_of(specs["GPUs"])
    amounts = {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": "2"}
    for kind in ("requests", "limits"):
        assert amounts.items() <= workers["containers"][0]["resources"][kind].items()
    assert workers["nodeSelector"] == {"pool": "gpu"}
    assert workers["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "16Gi"}} in workers["volumes"]
    assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}} in head["volumes"]
    assert "nvidia.com/gpu" not in head["containers"][0]["resources"]["limits"]
    assert "nodeSelector" not in head


def test_the_head_works_only_where_there_are_no_workers(specs: dict[str, RayJobSpec]) -> None:
    assert cluster_of(specs["plain"])["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    alone = cluster_of(specs["without workers"])
    assert alone["headGroupSpec"]["rayStartParams"] == {} and "workerGroupSpecs" not in alone


def test_workers_come_and_go_between_their_limits(specs: dict[str, RayJobSpec]) -> None:
    cluster = cluster_of(specs["autoscaling"])
    (workers,) = cluster["workerGroupSpecs"]
    assert (workers["replicas"], workers["minReplicas"], workers["maxReplicas"]) == (1, 1, 8)
    assert cluster["enableInTreeAutoscaling"] is True and cluster["autoscalerOptions"]["version"] == "v2"
    head, worker = pods_of(specs["autoscaling"])
    assert head["automountServiceAccountToken"] is True, "the autoscaler talks to the API server"
    assert worker["automountServiceAccountToken"] is False
    assert "enableInTreeAutoscaling" not in cluster_of(specs["plain"])
    assert "autoscalerOptions" not in cluster_of(specs["plain"])


def test_kueue_gets_the_queue_and_pods_their_priority(specs: dict[str, RayJobSpec]) -> None:
    job = ray_job(specs["queue"], 1)
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"
    assert job["spec"]["suspend"] is True
    assert [pod["priorityClassName"] for pod in pods_of(specs["queue"])] == ["training", "training"]


def test_the_name_tells_the_run_and_differs_with_the_spec(
    spec: RayJobSpec, specs: dict[str, RayJobSpec]
) -> None:
    names = {job_name(one) for one in specs.values()}
    assert len(names) == len(specs)
    assert job_name(spec) == job_name(replace(spec))
    assert job_name(spec).startswith("finetune-run-1-")
    for run_id in ("r" * 63, "Nightly_2026.11.01", "1", "A--B"):
        name = job_name(replace(spec, run_id=run_id))
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name) and len(name) <= 47


def test_the_attempt_changes_neither_name_nor_digest(spec: RayJobSpec) -> None:
    first, second = ray_job(spec, 1), ray_job(spec, 2)
    assert first["metadata"]["name"] == second["metadata"]["name"]
    assert is_job_of(first, spec) and is_job_of(second, spec)
    assert first != second
    assert not is_job_of(first, replace(spec, image="arco:0.2.0"))
    assert len(spec_digest(spec)) == 64


def test_the_template_is_in_the_installed_package(monkeypatch: pytest.MonkeyPatch) -> None:
    setuptools = pytest.importorskip("setuptools", reason="setuptools, which builds the package, is not here")
    monkeypatch.chdir(REPOSITORY)
    distribution = setuptools.Distribution()
    distribution.parse_config_files(["pyproject.toml"])
    assert "k8s" in distribution.packages
    patterns = distribution.package_data[""]  # setuptools writes "*" so
    assert [file for file in Path("k8s").iterdir() if any(file.match(pattern) for pattern in patterns)] == [
        Path("k8s/rayjob.yaml")
    ]


@pytest.mark.parametrize(
    "argument",
    ["a b", "it's", 'say "no"', "$HOME", "$(HOME)", "$$(HOME)", "`id`", "a\\nb", "a;b", "*", "Δ", ""],
)
def test_arguments_arrive_as_they_were(spec: RayJobSpec, argument: str) -> None:
    """Kubernetes expands $(NAME) and $$, bash reads the submitter's arguments, Ray quotes, a shell runs."""
    command = ("/usr/bin/printf", "%s|", argument, "end")
    entrypoint = ray_job(replace(spec, command=command), 1)["spec"]["entrypoint"]
    expanded = kubernetes_expansion(entrypoint, {"HOME": "/root"})
    parsed = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {expanded} ;"], capture_output=True, text=True, check=True
    ).stdout.split("\0")[:-1]
    shown = subprocess.run(shlex.join(parsed), shell=True, capture_output=True, text=True, check=True).stdout
    assert shown == f"{argument}|end|"


def kubernetes_expansion(text: str, environment: dict[str, str]) -> str:
    """What the kubelet makes of a container's argument (Kubernetes, third_party/forked/golang/expansion)."""

    def replaced(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return environment.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([^)]*)\)", replaced, text)
