"""`arco variance`: from a checkpoint and a dataset to a table and a picture, and clear errors on the way."""

from __future__ import annotations

import csv
import struct
from pathlib import Path

import pytest
import torch

from arco_core.config import load
from arco_core.config.schema import SAMPLER_NAMES
from arco_core.errors import DataError
from arco_core.variance import Ratio, VarianceRow
from components import variance as module
from components.cli import main
from components.variance import measure_variance, variance_csv
from components.variance_chart import variance_chart
from infra.datasets import prepare_dataset
from infra.storage import Store
from infra.training.in_process import run_in_process
from tests.conftest import TINY_SETTINGS, write_msd_folder
from tests.infra.training.jobs import make_job

CONTRAST = (
    "finetune.weak_threshold=0.0",
    "finetune.contrast.query_threshold=0.0",
    "finetune.contrast.queries=64",
    "finetune.contrast.negatives=16",
)


@pytest.fixture(scope="module")
def checkpoint(tiny_dataset: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    run = tmp_path_factory.mktemp("runs") / "tiny"
    return run_in_process(make_job(tiny_dataset, run, "finetune", settings=CONTRAST)).checkpoint_url


def fails(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The message with which `arco variance` fails, without traceback."""
    with pytest.raises(SystemExit) as stop:
        main(["variance", *(str(argument) for argument in arguments)])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and "Traceback" not in message
    return message


def test_table_and_picture(
    tiny_dataset: str, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["variance", "--dataset", tiny_dataset, "--checkpoint", checkpoint]
    main([*arguments, "-o", str(tmp_path / "first")])
    out = capsys.readouterr().out
    assert all(f" {sampler} " in out for sampler in SAMPLER_NAMES)  # 80 columns are enough
    assert out.splitlines()[-1] == f"table    {tmp_path}/first/variance.csv"
    rows = list(csv.DictReader((tmp_path / "first/variance.csv").open()))
    assert [row["class"] for row in rows[::12]] == ["background", "ring", "core", "overall"]
    assert {row["quantity"] for row in rows} == {"loss", "gradient"}
    assert [row["sampler"] for row in rows[:6]] == list(SAMPLER_NAMES)
    assert {(row["queries"], row["batches"]) for row in rows} == {("64", "3")}  # 12 slices, 4 a batch
    for row in rows:
        assert float(row["variance"]) >= 0
        assert float(row["to_ns_low"]) <= float(row["to_ns"]) <= float(row["to_ns_high"])
        assert (row["to_ns"] == "1") == (row["sampler"] == "ns")
    picture = (tmp_path / "first/variance.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and struct.unpack(">I", picture[16:20])[0] > 800
    main([*arguments, "-o", str(tmp_path / "second")])
    for name in ("variance.csv", "variance.png"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_more_queries_lower_the_variance(tiny_dataset: str, checkpoint: str, tmp_path: Path) -> None:
    few, many = (
        measure_variance(
            dataset=tiny_dataset, checkpoint=checkpoint, output=str(tmp_path), batches=2, queries=queries
        ).rows
        for queries in (16, 32)
    )
    assert few[0].sampler == "ns" and few[0].batches == 2
    assert many[0].variance == pytest.approx(few[0].variance / 2)


@pytest.mark.s3
@pytest.mark.usefixtures("aws")
def test_results_in_an_object_store(tiny_dataset: str, checkpoint: str, tmp_path: Path) -> None:
    url = f"s3://arco/{tmp_path.name}/variance"
    measure_variance(dataset=tiny_dataset, checkpoint=checkpoint, output=url, batches=2)
    assert Store(url).list() == ["variance.csv", "variance.png"]


def test_what_the_user_can_mend(
    tiny_dataset: str, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = ["--dataset", tiny_dataset, "--checkpoint", checkpoint, "-o", tmp_path]
    assert "no dataset version" in fails(capsys, *good, "--dataset", tmp_path / "none")
    assert "is not committed" in fails(capsys, *good, "--checkpoint", f"{tmp_path}/none.pt")
    assert "batches = 0: must be at least 1" in fails(capsys, *good, "--batches", "0")
    assert "queries = -1: must be at least 1" in fails(capsys, *good, "--queries", "-1")
    message = fails(capsys, *good, "--batches", "50")
    assert "50 batches of 4 slices need 200 annotated training slices" in message and "has 12" in message
    if not torch.cuda.is_available():
        assert "device = 'cuda': torch finds no GPU" in fails(capsys, *good, "--device", "cuda")
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_without_a_contrastive_loss(
    tiny_dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    baseline = run_in_process(make_job(tiny_dataset, tmp_path / "run", "supervised")).checkpoint_url
    arguments = ["--dataset", tiny_dataset, "-o", tmp_path / "out", "--checkpoint"]
    assert f"{baseline}: a SupervisedStage has no contrastive loss" in fails(capsys, *arguments, baseline)
    settings = (*CONTRAST, "finetune.weights.contrast=0")
    other = run_in_process(make_job(tiny_dataset, tmp_path / "run", "finetune", settings=settings))
    assert "finetune.weights.contrast = 0" in fails(capsys, *arguments, other.checkpoint_url)


def test_a_dataset_of_other_classes(checkpoint: str, tmp_path: Path) -> None:
    raw = write_msd_folder(tmp_path / "raw")
    description = raw / "dataset.json"
    description.write_text(description.read_text().replace("core", "spleen"))
    data = load(preset="generic", overrides=TINY_SETTINGS).data
    other = prepare_dataset(str(raw), Store(str(tmp_path / "store")), data, use_ray=False)
    with pytest.raises(DataError, match=r"ring, core; .* ring, spleen"):
        measure_variance(dataset=other.url, checkpoint=checkpoint, output=str(tmp_path / "out"))


def test_batches_without_queries(
    tiny_dataset: str, checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = torch.full((4, 2, 8), torch.nan).double()
    monkeypatch.setattr(module, "batch_variances", lambda *_, **__: nothing)
    with pytest.raises(DataError, match="none of 2 batches of 4 slices"):
        measure_variance(dataset=tiny_dataset, checkpoint=checkpoint, output=str(tmp_path), batches=2)


def row(sampler: str, ratio: Ratio) -> VarianceRow:
    return VarianceRow(
        class_name="organ", quantity="loss", sampler=sampler, batches=1, pixels=99.6,
        variance=0.5, relative_error=0.1, to_ns=ratio, to_sg=ratio,
    )  # fmt: skip


def test_a_single_batch_leaves_intervals_empty() -> None:
    alone = Ratio(value=0.5, low=None, high=None)
    text = variance_csv([row("sg", alone)], 256).splitlines()[1]
    assert text == "organ,loss,sg,256,1,100,0.5,0.1,0.5,,,0.5,,"
    assert variance_chart([row(name, alone) for name in SAMPLER_NAMES]).startswith(b"\x89PNG")
