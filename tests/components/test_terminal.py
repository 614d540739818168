from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from components.terminal import print_result, step_output
from infra.progress import Event

RULE = "-" * 80
DUMP = (
    '[KFP Executor 2026-11-23 04:00:00,000 INFO]: Got executor_input:\n    {\n        "inputs": {}\n    }\n'
)


def shown(text: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    with step_output():
        sys.stdout.write(text)
    return capsys.readouterr().out.splitlines()


def test_what_steps_print_is_shown_without_kubeflows_commentary(capsys: pytest.CaptureFixture[str]) -> None:
    text = f"{RULE}\n    {DUMP}    prepare: 6 patients\n\n    error: no labels\n{RULE}\n"
    assert shown(text, capsys) == ["prepare: 6 patients", "error: no labels"]


def test_progress_is_drawn_from_events(capsys: pytest.CaptureFixture[str]) -> None:
    event = Event(
        title="pretrain, seed 0", done=5, total=10, unit="steps", text="loss 0.5", seconds_left=None
    )
    assert shown(f"    {event.encode()}\n", capsys) == ["pretrain, seed 0  5/10 steps  loss 0.5"]


def test_text_that_looks_like_markup_stays_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown("    overrides [bold] [0]\n", capsys) == ["overrides [bold] [0]"]


def test_standard_output_is_given_back(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout
    with pytest.raises(RuntimeError), step_output():
        raise RuntimeError
    assert sys.stdout is before


def test_after_an_interrupt_whoever_prints_stops() -> None:
    with step_output() as output:
        output.stop()
        with pytest.raises(KeyboardInterrupt):
            print("the next step")


def test_the_last_line_of_a_result_is_the_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "summary.json").write_text(json.dumps({"methods": {}}))
    monkeypatch.setattr("components.terminal.results_table", lambda summary: "the table")
    print_result(str(tmp_path))
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"{tmp_path}/summary.json"
    assert "the table" in lines
