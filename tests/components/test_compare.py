"""`arco compare` on runs that were trained and evaluated."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from components.cli import main
from components.evaluate.case_table import read_cases
from components.evaluate.results import read_results
from components.evaluate.step import evaluate
from tests.components.conftest import TrainedRun


@pytest.fixture(scope="module")
def two_runs(trained_run: TrainedRun, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Each method in a run of its own."""
    folder = tmp_path_factory.mktemp("two")
    for method in ("arco-sg", "supervised"):
        models = [model for model in trained_run.models if model.method == method]
        evaluate(dataset=trained_run.dataset, run=str(folder / method), models=models)
    return [folder / "arco-sg", folder / "supervised"]


def test_two_runs_give_the_numbers_of_one(
    trained_run: TrainedRun, two_runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = evaluate(dataset=trained_run.dataset, run=str(tmp_path / "whole"), models=trained_run.models)
    main(["compare", str(two_runs[0]), str(two_runs[1] / "summary.json"), "-o", str(tmp_path / "out")])
    out = capsys.readouterr().out
    assert "2 labelled patients (40.0%). Validation, 1 volumes" in out
    assert out.splitlines()[-1] == f"numbers  {tmp_path}/out/comparison.json"
    result = json.loads((tmp_path / "out" / "comparison.json").read_text())
    (amount,) = result["amounts"]
    summary = json.loads(Path(whole.summary_url).read_text())
    for key in ("methods", "paired", "tests", "confusion"):
        assert amount[key] == summary[key]
    assert result["runs"] == {"arco-sg": str(two_runs[0]), "supervised": str(two_runs[1])}
    own, together = (
        sorted(read_cases((folder / "cases.parquet").read_bytes(), ""), key=repr)
        for folder in (tmp_path / "whole", tmp_path / "out")
    )
    assert own == together
    report = (tmp_path / "out" / "report.html").read_text()
    assert report.count("data:image/png") == whole_pictures(tmp_path / "whole" / "report.html")


def whole_pictures(report: Path) -> int:
    return report.read_text().count("data:image/png")


def test_what_is_read_back_is_what_was_written(two_runs: list[Path]) -> None:
    results = read_results(str(two_runs[0]))
    assert results.url == str(two_runs[0])
    assert {log.stage for log in results.logs} == {"pretrain", "finetune"}
    assert {log.method for log in results.logs} == {"arco-sg", None}
    assert all("validation/dice" in log.curves for log in results.logs)
    cut = results.slice_of(results.scores[0].case_id)
    assert set(cut.predictions) == {("arco-sg", 0), ("arco-sg", 1)}
    assert results.variance == []


def test_a_variance_in_the_run_is_shown(two_runs: list[Path], tmp_path: Path) -> None:
    run = shutil.copytree(two_runs[0], tmp_path / "run")
    columns = "class,quantity,sampler,to_ns,to_ns_low,to_ns_high,to_sg,to_sg_low,to_sg_high"
    (run / "variance.csv").write_text(f"{columns}\nring,loss,hilbert,0.05,0.04,0.06,0.4,0.3,0.5\n")
    main(["compare", str(run), "-o", str(tmp_path / "out")])
    assert "0.05 (0.04–0.06)" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("summary", "message"),
    [
        (None, "is no evaluated run: it has no summary.json"),
        ("{", "is not JSON"),
        ("{}", "has format 1, not 3: another version of ARCO wrote it"),
    ],
)
def test_what_is_no_evaluated_run(
    summary: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    if summary is not None:
        (tmp_path / "run" / "summary.json").write_text(summary)
    with pytest.raises(SystemExit) as stop:
        main(["compare", str(tmp_path / "run"), "-o", str(tmp_path / "out")])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "report.html").exists()
