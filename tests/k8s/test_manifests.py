"""What k8s/ renders to is valid, refers to what exists, and allows no more than it must."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from components.launch import HEAVY_STEPS
from infra.kuberay import RayClusterSettings, RayJobSpec, load_cluster_settings
from infra.kuberay.manifest import ray_job
from tests.infra.kuberay.crd import REPOSITORY, crd_schemas
from tests.k8s.conftest import Render, Rendered
from tests.k8s.rules import broken_rules, pods_of

VERSIONS = ("1.30", "1.37")
RAY_KINDS = ("RayJob", "RayCronJob")
PROVIDED = {
    ("Secret", "arco-store"): "keys of an object store without pod identities (overlay dev)",
    ("Secret", "arco-alerts"): "where a retraining's alerts go, if anywhere",
    ("LocalQueue", "arco"): "Kueue's queue (overlays gpu and spot)",
}
"""What is referred to and not made here; docs/kubernetes.md lists it."""


def named(manifests: Rendered) -> dict[tuple[str, str], dict[str, Any]]:
    return {(one["kind"], one["metadata"]["name"]): one for one in manifests}


def of_kind(manifests: Rendered, kind: str) -> list[dict[str, Any]]:
    return [one for one in manifests if one["kind"] == kind]


def settings_of(manifests: Rendered, tmp_path: Path) -> Iterator[tuple[str, RayClusterSettings]]:
    """The cluster settings of every step that the overlay knows."""
    text = named(manifests)["ConfigMap", "arco-clusters"]["data"]["clusters.toml"]
    file = tmp_path / "clusters.toml"
    file.write_text(text)
    for step in {"default", *HEAVY_STEPS, *re.findall(r"(?m)^\[(\w+)", text)}:
        yield step, load_cluster_settings(file, step)


def jobs_of(manifests: Rendered, tmp_path: Path) -> Iterator[tuple[RayJobSpec, dict[str, Any]]]:
    for step, settings in settings_of(manifests, tmp_path):
        spec = RayJobSpec(run_id="r", step=step, command=("/bin/true",), image="arco:1", cluster=settings)
        yield spec, ray_job(spec, 1)


@pytest.mark.parametrize("version", VERSIONS)
def test_native_kinds_are_valid(manifests: Rendered, version: str) -> None:
    assert len(manifests) > 10
    for one in manifests:
        if one["kind"] not in RAY_KINDS:
            kubernetes_validate.validate(one, version, strict=True)


def test_the_validator_is_strict() -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "lables": {}}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(namespace, VERSIONS[0], strict=True)


def test_files_of_the_base_are_valid_as_they_are() -> None:
    """Without kubectl, this much can be told."""
    base = REPOSITORY / "k8s/base"
    listed = yaml.safe_load((base / "kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == sorted(p.name for p in base.glob("*.yaml") if p.name != "kustomization.yaml")
    for name in listed:
        for one in yaml.safe_load_all((base / name).read_text()):
            kubernetes_validate.validate(one, VERSIONS[0], strict=True)


def test_every_object_is_ours_and_in_one_namespace(manifests: Rendered) -> None:
    (namespace,) = of_kind(manifests, "Namespace")
    for one in manifests:
        assert one["metadata"]["labels"]["app.kubernetes.io/part-of"] == "arco"
        if one["kind"] not in ("Namespace", "PriorityClass"):
            assert one["metadata"]["namespace"] == namespace["metadata"]["name"], one["metadata"]["name"]


def test_no_secret_is_in_the_repository(manifests: Rendered) -> None:
    assert not of_kind(manifests, "Secret")
    for one in of_kind(manifests, "ConfigMap"):
        assert not re.search(r"(?i)access_key|password|token *=", yaml.safe_dump(one["data"]))


def test_the_pipeline_may_manage_ray_jobs_and_read_a_head_and_its_log_and_nothing_else(
    manifests: Rendered,
) -> None:
    allowed = {
        (group, resource): sorted(rule["verbs"])
        for role in of_kind(manifests, "Role")
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert allowed == {
        ("ray.io", "rayjobs"): ["create", "delete", "get", "list", "watch"],
        ("", "pods"): ["get"],
        ("", "pods/log"): ["get"],
    }
    assert not of_kind(manifests, "ClusterRole") and not of_kind(manifests, "ClusterRoleBinding")


def test_roles_are_bound_to_accounts_that_exist(manifests: Rendered) -> None:
    (binding,) = of_kind(manifests, "RoleBinding")
    objects = named(manifests)
    assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) in objects
    (subject,) = binding["subjects"]
    account = objects[subject["kind"], subject["name"]]
    assert subject["namespace"] == account["metadata"]["namespace"]
    assert subject["name"] != RayClusterSettings().service_account, "Ray pods may do nothing in Kubernetes"


def test_steps_get_a_token_and_ray_pods_none(manifests: Rendered) -> None:
    """Kubeflow's pods do not ask for theirs."""
    tokens = {
        one["metadata"]["name"]: one["automountServiceAccountToken"]
        for one in of_kind(manifests, "ServiceAccount")
    }
    assert tokens == {"arco-pipeline": True, "arco-ray": False}


def test_steps_that_kubeflow_runs_may_tell_their_end_and_read_where_artifacts_go(render: Render) -> None:
    manifests = render("overlays/gpu", "kubeflow-profile")
    objects = named(manifests)
    rules = objects["Role", "arco-kubeflow-step"]["rules"]
    assert [(rule["resources"], sorted(rule["verbs"]), rule.get("resourceNames")) for rule in rules] == [
        (["workflowtaskresults"], ["create", "patch"], None),
        (["configmaps"], ["get"], ["kfp-launcher"]),
        (["secrets"], ["get"], ["mlpipeline-minio-artifact"]),
    ]
    (subject,) = objects["RoleBinding", "arco-kubeflow-step"]["subjects"]
    assert (subject["kind"], subject["name"]) in objects
    for one in manifests:
        if one["metadata"]["name"] == "arco-kubeflow-step":
            kubernetes_validate.validate(one, VERSIONS[0], strict=True)


def test_steps_reach_kubeflows_store_by_the_port_of_its_pods(manifests: Rendered) -> None:
    """MinIO's, and SeaweedFS's, whose service has MinIO's port."""
    (rule,) = named(manifests)["NetworkPolicy", "arco-kubeflow"]["spec"]["egress"]
    assert {8333, 9000} <= {port["port"] for port in rule["ports"]}


def test_kubeflow_may_make_jobs_where_its_component_is_used(render: Render) -> None:
    (binding,) = of_kind(render("overlays/gpu", "kubeflow-standalone"), "RoleBinding")
    assert [(one["namespace"], one["name"]) for one in binding["subjects"]] == [
        ("arco", "arco-pipeline"),
        ("kubeflow", "pipeline-runner"),
    ]


def test_the_schedule_is_rendered_into_its_namespace(render: Render, needs_schemas: None) -> None:
    manifests = render("overlays/dev", "schedule")
    (cron,) = of_kind(manifests, "RayCronJob")
    schemas = crd_schemas()
    assert schemas is not None
    assert schemas.errors(cron) == []
    assert broken_rules(cron) == []


def test_jobs_with_the_settings_of_the_overlay_are_valid(
    manifests: Rendered, tmp_path: Path, needs_schemas: None
) -> None:
    schemas = crd_schemas()
    assert schemas is not None
    for spec, job in jobs_of(manifests, tmp_path):
        assert schemas.errors(job) == [], spec.step
        assert broken_rules(job) == [], spec.step


def test_what_jobs_refer_to_exists_or_is_to_be_provided(manifests: Rendered, tmp_path: Path) -> None:
    documented = (REPOSITORY / "docs/kubernetes.md").read_text()
    for spec, job in jobs_of(manifests, tmp_path):
        settings = spec.cluster
        references = {
            ("ServiceAccount", settings.service_account),
            ("ConfigMap", settings.env_config_map),
            ("Secret", settings.env_secret),
            ("LocalQueue", settings.queue),
            ("PriorityClass", settings.priority_class),
            *(("Secret", name) for _, pod in pods_of(job) for name in secrets_of(pod)),
        }
        for kind, name in {(kind, name) for kind, name in references if name} - named(manifests).keys():
            assert (kind, name) in PROVIDED
            assert f"{kind} `{name}`" in documented
        for _, pod in pods_of(job):
            assert ("ServiceAccount", pod["serviceAccountName"]) in named(manifests)


def secrets_of(pod: dict[str, Any]) -> Iterator[str]:
    """The secrets that single environment variables come from."""
    for container in pod["containers"]:
        for variable in container["env"]:
            if "valueFrom" in variable:
                yield variable["valueFrom"]["secretKeyRef"]["name"]


def test_a_job_with_the_settings_of_the_overlay_fits_its_quota(manifests: Rendered, tmp_path: Path) -> None:
    """With what KubeRay adds: a submitter of 1 CPU and 1 GiB, an autoscaler of half of each."""
    (quota,) = of_kind(manifests, "ResourceQuota")
    hard = quota["spec"]["hard"]
    for spec, _ in jobs_of(manifests, tmp_path):
        head, workers = spec.cluster.head, spec.cluster.workers
        assert head.cpu + 2 + workers.maximum * workers.size.cpu <= int(hard["limits.cpu"])
        memory = head.memory_gib + 2 + workers.maximum * workers.size.memory_gib
        assert memory <= gibibytes(hard["limits.memory"])
        assert workers.maximum * workers.size.gpu <= int(hard["requests.nvidia.com/gpu"]), spec.step
        assert workers.maximum + 1 <= int(hard["pods"])
    for kind in ("cpu", "memory"):
        assert hard[f"requests.{kind}"] == hard[f"limits.{kind}"]


def gibibytes(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(Gi|Ti)", text).groups()  # type: ignore[union-attr]
    return int(number) * (1024 if unit == "Ti" else 1)


def test_the_disruption_budget_keeps_as_many_heads_as_there_may_be(
    manifests: Rendered, tmp_path: Path
) -> None:
    (budget,) = of_kind(manifests, "PodDisruptionBudget")
    (quota,) = of_kind(manifests, "ResourceQuota")
    assert budget["spec"]["minAvailable"] >= int(quota["spec"]["hard"]["count/rayjobs.ray.io"])
    for _, job in jobs_of(manifests, tmp_path):
        assert matches(budget["spec"]["selector"], head_labels(job))
        assert not matches(budget["spec"]["selector"], worker_labels(job))


def test_dashboards_cannot_be_made_public(manifests: Rendered) -> None:
    (quota,) = of_kind(manifests, "ResourceQuota")
    assert (
        quota["spec"]["hard"]["services.loadbalancers"] == quota["spec"]["hard"]["services.nodeports"] == "0"
    )
    assert not of_kind(manifests, "Service") and not of_kind(manifests, "Ingress")


def test_nobody_but_ray_and_the_operator_reaches_ray(manifests: Rendered, tmp_path: Path) -> None:
    policies = of_kind(manifests, "NetworkPolicy")
    for _, job in jobs_of(manifests, tmp_path):
        for labels in filter(None, (head_labels(job), worker_labels(job))):
            applied = [one["spec"] for one in policies if matches(one["spec"]["podSelector"], labels)]
            assert any({"Ingress", "Egress"} <= set(one["policyTypes"]) for one in applied)
            sources = [
                (peer, rule.get("ports"))
                for one in applied
                for rule in one.get("ingress", [])
                for peer in rule["from"]
            ]
            for peer, ports in sources:
                selector = peer["podSelector"]
                if matches(selector, labels):
                    assert "namespaceSelector" not in peer
                else:
                    assert labels["ray.io/node-type"] == "head"
                    assert selector == {"matchLabels": {"app.kubernetes.io/component": "kuberay-operator"}}
                    assert ports == [{"protocol": "TCP", "port": 8265}]
            assert sources


def test_pods_do_not_reach_the_metadata_of_nodes(manifests: Rendered) -> None:
    blocks = [
        peer["ipBlock"]
        for policy in of_kind(manifests, "NetworkPolicy")
        for rule in policy["spec"].get("egress", [])
        for peer in rule["to"]
        if "ipBlock" in peer
    ]
    assert {block["cidr"] for block in blocks} == {"0.0.0.0/0", "::/0"}
    assert all(block["except"] for block in blocks)
    assert "169.254.0.0/16" in blocks[0]["except"]


def test_spot_is_for_workers_only(render: Render, tmp_path: Path) -> None:
    for spec, job in jobs_of(render("overlays/spot"), tmp_path):
        (_, head), *rest = pods_of(job)
        if spec.cluster.workers.maximum == 0:
            assert head["affinity"]["nodeAffinity"] and not rest
            continue
        ((_, workers),) = rest
        assert workers["nodeSelector"]["karpenter.sh/capacity-type"] == "spot"
        assert head["affinity"]["nodeAffinity"]
        assert not any(one["key"] == "karpenter.sh/capacity-type" for one in head.get("tolerations", []))


def test_gpu_and_spot_differ_in_spot_only(render: Render, tmp_path: Path) -> None:
    gpu, spot = (dict(settings_of(render(f"overlays/{name}"), tmp_path)) for name in ("gpu", "spot"))
    assert gpu["default"].workers.size == spot["default"].workers.size
    assert gpu["prepare"].workers.size.gpu == 0 and gpu["default"].workers.size.gpu == 1
    assert gpu["default"].queue == spot["default"].queue == "arco"


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    return selector.get("matchLabels", {}).items() <= labels.items() and "matchExpressions" not in selector


def head_labels(job: dict[str, Any]) -> dict[str, str]:
    """With those that KubeRay adds (`labelPod`)."""
    template = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
    return {**template["metadata"]["labels"], "ray.io/is-ray-node": "yes", "ray.io/node-type": "head"}


def worker_labels(job: dict[str, Any]) -> dict[str, str]:
    """None where the head does the work alone."""
    groups = job["spec"]["rayClusterSpec"].get("workerGroupSpecs")
    if not groups:
        return {}
    template = groups[0]["template"]
    return {**template["metadata"]["labels"], "ray.io/is-ray-node": "yes", "ray.io/node-type": "worker"}
