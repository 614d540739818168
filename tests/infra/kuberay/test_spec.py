from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from arco_core.config import ConfigError
from infra.kuberay import Deadlines, Place, PodSize, RayClusterSettings, RayJobSpec, Workers

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    "image", ["arco:0.1.0", "registry.example:5000/team/arco:0.1.0-cuda", f"arco@{DIGEST}", f"a/b:1@{DIGEST}"]
)
def test_a_pinned_image_is_taken(spec: RayJobSpec, image: str) -> None:
    assert replace(spec, image=image).image == image


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("image", "arco", "image = 'arco': must be name:version"),
        ("image", "arco:latest", "image = 'arco:latest': .* not latest"),
        ("image", "registry.example:5000/arco", "must be name:version"),
        ("image", "arco@sha256:abc", "must be name:version"),
        ("run_id", "a run", "run_id = 'a run': must be a label value"),
        ("run_id", "r" * 64, "at most 63"),
        ("step", "2nd", "step = '2nd': .* start with a letter"),
        ("step", "s" * 21, "at most 20"),
        ("command", (), r"command = \(\): must be a program"),
        (
            "command",
            ("python", "-m", "components.prepare"),
            r"command\[0\] = 'python': must be an absolute path",
        ),
    ],
)
def test_an_impossible_value_is_named(spec: RayJobSpec, key: str, value: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        replace(spec, **{key: value})


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: PodSize(cpu=0), "cpu = 0: must be a number of cores"),
        (lambda: PodSize(gpu=-1), "gpu = -1"),
        (lambda: PodSize(memory_gib=4, shm_gib=4), "shm_gib = 4: .* below memory_gib = 4"),
        (
            lambda: Workers(minimum=3, maximum=2),
            r"workers.minimum = 3: must lie in \[0, workers.maximum = 2\]",
        ),
        (lambda: Workers(spot_label="spot"), "workers.spot_label = 'spot': must be key=value"),
        (lambda: Deadlines(queue=0), "deadlines.queue = 0: must be seconds"),
        (lambda: Deadlines(start=100, active=50), "deadlines.start = 100: .* deadlines.active = 50"),
        (lambda: Place(node_selector=("pool",)), "node_selector = 'pool': must be key=value"),
        (lambda: Place(tolerations=("gpu",)), "tolerations = 'gpu': must be key=value:effect or key:effect"),
        (lambda: Place(tolerations=("gpu:Never",)), "tolerations = 'gpu:Never': .* NoSchedule"),
        (lambda: Place(tolerations=("a b=c:NoSchedule",)), "tolerations = 'a b=c:NoSchedule'"),
        (
            lambda: RayClusterSettings(queue="My Queue"),
            "queue = 'My Queue': must be the name of a Kubernetes",
        ),
        (lambda: RayClusterSettings(env_secret="key=value"), "env_secret = 'key=value'"),
        (lambda: RayClusterSettings(service_account=""), "service_account = ''"),
    ],
)
def test_an_impossible_part_is_named(make: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        make()


def test_kueue_and_autoscaling_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match=r"queue = 'research': .* fixed size: set workers.minimum = 4"):
        RayClusterSettings(queue="research", workers=Workers(minimum=1, maximum=4))
