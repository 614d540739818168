from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from google.protobuf import json_format
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec

from components.cli import main
from pipelines.arco_full import arco_full
from pipelines.command_line import compile_pipeline
from tests.conftest import TINY_SETTINGS, write_msd_folder
from tests.pipelines.compiled import broken_rules, load, reviewed

SCRIPT = Path(__file__).parents[2] / "pipelines" / "arco_full.py"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compiled") / "arco_full.yaml"
    compile_pipeline(arco_full, str(path))
    return path


@pytest.fixture(scope="module")
def spec(compiled: Path) -> dict[str, Any]:
    return load(compiled)[0]


def dags(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Root, body of the exit handler, body of the loop."""
    order = ("comp-exit-handler-1", "comp-for-loop-2")
    return [spec["root"]["dag"], *(spec["components"][name]["dag"] for name in order)]


def test_it_is_what_kubeflow_takes(spec: dict[str, Any]) -> None:
    json_format.ParseDict(spec, PipelineSpec())


def test_the_compiled_file_is_the_reviewed_one(compiled: Path, tmp_path: Path) -> None:
    """What Kubeflow gets changes on purpose only, and is the same bytes from another process."""
    again = tmp_path / "again.yaml"
    subprocess.run([sys.executable, SCRIPT, "compile", "-o", again], check=True, capture_output=True)
    assert again.read_bytes() == compiled.read_bytes()
    hint = "python pipelines/arco_full.py compile -o tests/pipelines/arco_full.yaml"
    assert compiled.read_text() == reviewed("arco_full"), hint


def test_the_convention_reaches_every_evaluation(spec: dict[str, Any]) -> None:
    body = dags(spec)[1]["tasks"]
    for name in ("sweep", "evaluate"):
        given = body[name]["inputs"]["parameters"]["convention"]
        assert given == {"componentInputParameter": "pipelinechannel--convention"}


def test_every_task_has_its_component_and_its_predecessors(spec: dict[str, Any]) -> None:
    for dag in dags(spec):
        for task in dag["tasks"].values():
            component = spec["components"][task["componentRef"]["name"]]
            if "executorLabel" in component:
                assert component["executorLabel"] in spec["deploymentSpec"]["executors"]
            assert set(task.get("dependentTasks", [])) <= set(dag["tasks"])


def test_the_order_of_the_steps(spec: dict[str, Any]) -> None:
    root, body, loop = dags(spec)
    assert set(root["tasks"]) == {"exit-handler-1", "cleanup"}
    assert set(body["tasks"]) == {"prepare", "for-loop-2", "sweep", "evaluate", "report", "publish"}
    assert set(body["tasks"]["sweep"]["dependentTasks"]) == {"prepare", "for-loop-2"}
    assert set(body["tasks"]["evaluate"]["dependentTasks"]) == {"prepare", "for-loop-2", "sweep"}
    assert set(body["tasks"]["report"]["dependentTasks"]) == {"sweep", "evaluate"}
    assert "evaluate" in body["tasks"]["publish"]["dependentTasks"]
    assert set(loop["tasks"]) == {"pretrain", "finetune", "supervised"}
    assert loop["tasks"]["finetune"]["dependentTasks"] == ["pretrain"]
    assert "dependentTasks" not in loop["tasks"]["supervised"]
    assert body["tasks"]["for-loop-2"]["iteratorPolicy"]["parallelismLimit"] == 1


def test_prepare_looks_at_the_folder_every_time(spec: dict[str, Any]) -> None:
    _, body, loop = dags(spec)
    assert "enableCache" not in body["tasks"]["prepare"].get("cachingOptions", {})
    assert loop["tasks"]["pretrain"]["cachingOptions"]["enableCache"]


def test_the_pods_of_steps_keep_the_rules(compiled: Path) -> None:
    assert list(broken_rules(*load(compiled))) == []


@pytest.mark.parametrize(
    ("harm", "text"),
    [
        (lambda spec, pod: pod.pop("securityContext"), "user and group 1000"),
        (lambda spec, pod: pod["securityContext"].update(runAsUser="0"), "user and group 1000"),
        (lambda spec, pod: pod["podMetadata"]["labels"].clear(), "network policies"),
        (lambda spec, pod: pod["secretAsEnv"][0].pop("optional"), "must be optional"),
        (
            lambda spec, pod: spec["root"]["dag"]["tasks"]["cleanup"].update(
                cachingOptions={"enableCache": True}
            ),
            "cleanup: an exit handler must run every time",
        ),
    ],
)
def test_a_broken_pod_is_found(compiled: Path, harm: Callable[..., Any], text: str) -> None:
    spec, pods = load(compiled)
    harm(spec, pods["exec-pretrain"])
    assert text in "\n".join(broken_rules(spec, pods))


def test_clusters_are_removed_whatever_happens(spec: dict[str, Any]) -> None:
    cleanup = dags(spec)[0]["tasks"]["cleanup"]
    assert cleanup["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    assert cleanup["dependentTasks"] == ["exit-handler-1"]
    assert cleanup["inputs"]["parameters"]["status"]["taskFinalStatus"]["producerTask"] == "exit-handler-1"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), "run", *arguments], capture_output=True, text=True, timeout=900
    )


def options(data: Path, store: Path, *settings: str) -> list[str]:
    arguments = ["--data", str(data), "--labeled", "2", "--store", str(store)]
    return arguments + [a for setting in (*TINY_SETTINGS, *settings) for a in ("--set", setting)]


def test_wrong_input_is_told_before_anything_starts(tmp_path: Path) -> None:
    finished = run("--data", str(tmp_path / "nothing"), "--store", str(tmp_path / "store"))
    assert finished.returncode == 2
    assert finished.stderr.startswith("error: ")
    assert "nothing does not exist" in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.parametrize(("backend", "seeds"), [("ray", [0]), ("in-process", [0, 1])])
def test_from_scans_to_a_published_model(
    tiny_raw: Path, tmp_path: Path, ray_address: str, backend: str, seeds: list[int]
) -> None:
    sweep = ["--sweep", "2", "--methods", "supervised", "mean-teacher"] if backend == "in-process" else []
    given = [*options(tiny_raw, tmp_path), "--backend", backend, "--seeds", *map(str, seeds), *sweep]
    finished = run(*given)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    lines = finished.stdout.splitlines()
    summary = Path(lines[-1])
    assert summary.name == "summary.json"
    values = json.loads(summary.read_text())
    assert set(values["methods"]) == {"arco-sg", "supervised"}
    assert values["seeds"] == seeds
    assert (summary.parent / "report.html").exists()
    assert (summary.parent / "model" / "model.safetensors").exists()
    assert any(line.startswith("pretrain, seed 0  4/4 steps  loss ") for line in lines)
    assert not any("KFP Executor" in line or "Traceback" in line for line in lines)
    assert (summary.parent / "sweep/report.html").exists() == bool(sweep)
    if sweep:  # it has found the run's trainings, and the report holds both
        comparison = json.loads((summary.parent / "sweep/comparison.json").read_text())
        assert set(comparison["amounts"][0]["methods"]) == {"arco-sg", "supervised", "mean-teacher"}
        stages = [path.name.partition("-")[0] for path in summary.parent.glob("*-seed*")]
        assert [stages.count(stage) for stage in ("pretrain", "supervised", "finetune")] == [2, 2, 4]


@pytest.mark.slow
def test_from_scans_to_a_published_3d_model(tmp_path: Path) -> None:
    """All stages with a V-Net on patches, evaluation by overlapping windows, and the model on a scan."""
    raw = write_msd_folder(tmp_path / "raw", shape=(40, 36, 12))
    settings = ("data.image_size=[16,16,32]", "network.kind=vnet", "finetune.weights.equivariance=0")
    settings += ("pretrain.bank_size=6", "pretrain.fresh_keys=2", "finetune.neighbors=2")
    finished = run(*options(raw, tmp_path / "store", *settings), "--backend", "in-process", "--seeds", "0")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    summary = Path(finished.stdout.splitlines()[-1])
    values = json.loads(summary.read_text())
    assert set(values["methods"]) == {"arco-sg", "supervised"}
    assert "data:image/png" in (summary.parent / "report.html").read_text()
    scan, mask = raw / "imagesUn" / "case_005.nii.gz", tmp_path / "mask.nii.gz"
    main(["predict", "--model", str(summary.parent / "model"), str(scan), "-o", str(mask)])
    image, predicted = nib.load(scan), nib.load(mask)
    assert predicted.shape == image.shape
    np.testing.assert_array_equal(predicted.affine, image.affine)


@pytest.mark.slow
def test_a_failed_step_says_why_and_how_to_resume(tiny_raw: Path, tmp_path: Path) -> None:
    finished = run(*options(tiny_raw, tmp_path, "optimizer.lr=1e30"), "--backend", "in-process")
    assert finished.returncode == 1
    assert "error: " in finished.stdout
    assert "training diverged" in finished.stdout
    assert "run the same command again" in finished.stderr
    assert "Traceback" not in finished.stdout + finished.stderr
    assert not list(tmp_path.glob("runs/*/summary.json"))
