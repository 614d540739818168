"""The best model becomes a package that can be used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from arco_core.errors import DataError, StoreError
from arco_core.model_package import load_package
from components.evaluate.step import evaluate
from components.model_ref import ModelRef
from components.publish.__main__ import main
from components.publish.step import publish
from infra.datasets import DatasetVersion
from infra.training.load import load_network, load_stage
from tests.components.conftest import TrainedRun

WEIGHT = "head.weight"


@pytest.fixture(scope="module")
def summary_url(trained_run: TrainedRun) -> str:
    result = evaluate(dataset=trained_run.dataset, run=str(trained_run.run), models=trained_run.models)
    return result.summary_url


def best(summary_url: str) -> int:
    per_seed = json.loads(Path(summary_url).read_text())["methods"]["arco-sg"]["dice"]["per_seed"]
    return max((0, 1), key=lambda seed: (per_seed[str(seed)], -seed))


def model_of(run: TrainedRun, method: str, seed: int) -> ModelRef:
    return next(m for m in run.models if (m.method, m.seed) == (method, seed))


def test_publishes_the_best_arco_model(trained_run: TrainedRun, summary_url: str) -> None:
    url = publish(
        dataset=trained_run.dataset, run=str(trained_run.run), models=trained_run.models, summary=summary_url
    )
    assert Path(url) == trained_run.run / "model"
    assert {f.name for f in Path(url).iterdir()} == {
        "model.safetensors",
        "teacher.safetensors",
        "model.json",
        "model.pt2",
        "model.onnx",
        "README.md",
    }
    package = load_package(Path(url))
    seed, summary = best(summary_url), json.loads(Path(summary_url).read_text())
    ref = model_of(trained_run, "arco-sg", seed)
    network, job = load_network(ref.checkpoint)
    images = torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(package.network(images), network(images))
        program = torch.export.load(Path(url) / "model.pt2").module()
        assert np.array_equal(program(images).argmax(1).numpy(), network(images).argmax(1).numpy())
    teacher = load_package(Path(url), teacher=True).teacher
    assert teacher is not None
    assert torch.equal(
        teacher.state_dict()[WEIGHT], load_stage(ref.checkpoint)[0].teacher.state_dict()[WEIGHT]
    )
    version = DatasetVersion.open(trained_run.dataset)
    assert package.data_config == version.data_config
    assert package.classes == version.classes
    metrics, provenance = package.metadata["metrics"], package.metadata["provenance"]
    dice = summary["methods"]["arco-sg"]["dice"]
    assert metrics["dice"] == {
        "mean": dice["per_seed"][str(seed)],
        "per_class": dice["per_seed_and_class"][str(seed)],
        "interval": dice["per_seed_interval"][str(seed)],
        "per_class_interval": dice["per_seed_and_class_interval"][str(seed)],
    }
    assert metrics["all_seeds"]["dice"] == {"mean": dice["mean"], "sd": dice["sd"]}
    assert metrics["patients"] == len(summary["patients"])
    assert (metrics["split"], metrics["cases"]) == ("validation", summary["cases"])
    assert (provenance["method"], provenance["seed"]) == ("arco-sg", seed)
    assert provenance["checkpoint"] == ref.checkpoint
    assert provenance["labeled_patients"] == sorted(job.labeled_patients)
    assert provenance["dataset_version"] == version.version
    card = (Path(url) / "README.md").read_text()
    assert card.startswith(f"# {version.name}: ARCO-SG\n")
    assert f"2 labelled patients (of {len(version.patients('train'))} in training" in card


def test_publishing_again_replaces_the_package(trained_run: TrainedRun, summary_url: str) -> None:
    options = {"dataset": trained_run.dataset, "run": str(trained_run.run), "summary": summary_url}
    url = publish(models=trained_run.models, **options)
    (Path(url) / "model.safetensors").write_bytes(b"damaged")
    assert publish(models=trained_run.models, **options) == url
    load_package(Path(url))


def test_the_command_prints_where_the_model_is(
    trained_run: TrainedRun, summary_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*trained_run.options(), "--summary", summary_url])
    assert capsys.readouterr().out == f"model    {trained_run.run}/model\n"


def test_models_that_were_not_evaluated(trained_run: TrainedRun, summary_url: str) -> None:
    others = [m for m in trained_run.models if m.seed != best(summary_url)]
    with pytest.raises(DataError, match="which is not among the models to publish"):
        publish(dataset=trained_run.dataset, run=str(trained_run.run), models=others, summary=summary_url)


def test_a_summary_that_is_none(trained_run: TrainedRun, tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    options = {"dataset": trained_run.dataset, "run": str(trained_run.run), "summary": str(path)}
    with pytest.raises(StoreError, match=r"summary\.json"):
        publish(models=trained_run.models, **options)
    path.write_text("{")
    with pytest.raises(StoreError, match="evaluate the run again"):
        publish(models=trained_run.models, **options)
