from __future__ import annotations

import io

import pytest
from rich.console import Console

from infra.progress import Bars, Event, Events, Lines, Progress, default_sink


class Recorded:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def show(self, event: Event) -> None:
        self.events.append(event)

    def warn(self, text: str) -> None:
        pass

    def close(self) -> None:
        pass


def event(done: int, title: str = "pretrain") -> Event:
    return Event(title=title, done=done, total=100, unit="steps", text="loss 0.500", seconds_left=65.0)


def test_an_event_survives_the_way_to_another_process() -> None:
    assert Event.decode("    " + event(7).encode() + "\n") == event(7)


def test_a_line_that_holds_no_event_decodes_to_none() -> None:
    assert Event.decode("loading scans") is None


def test_lines_are_printed_at_every_twentieth_of_each_title() -> None:
    out = io.StringIO()
    sink = Lines(out)
    for done in range(101):
        sink.show(event(done))
    sink.show(event(3, title="finetune"))
    lines = out.getvalue().splitlines()
    assert len(lines) == 22
    assert lines[0] == "pretrain  0/100 steps  loss 0.500  1:05 left"
    assert lines[20] == "pretrain  100/100 steps  loss 0.500"
    assert lines[21].startswith("finetune  3/100")


def test_a_line_is_printed_after_a_minute_without(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 159.0, 161.0, 170.0])
    monkeypatch.setattr("infra.progress.time.monotonic", lambda: next(clock))
    out = io.StringIO()
    sink = Lines(out)
    for done in range(4):
        sink.show(event(done))
    assert [line.split()[1] for line in out.getvalue().splitlines()] == ["0/100", "2/100"]


def test_events_are_few_but_the_last_is_always_there() -> None:
    out = io.StringIO()
    sink = Events(out)
    for done in range(101):
        sink.show(event(done))
    lines = out.getvalue().splitlines()
    assert len(lines) < 20
    assert Event.decode(lines[-1]) == event(100)


def test_throughput_and_time_left_follow_from_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 100.001, 102.0])
    monkeypatch.setattr("infra.progress.time.monotonic", lambda: next(clock))
    sink = Recorded()
    with Progress("train", 100, "steps", images_per_unit=8, sink=sink) as progress:
        progress.update(20)
        progress.update(30)
        progress.update(40, loss=0.25)
    assert sink.events[0].text == ""  # nothing was done here yet: a resumed stage starts at 20
    assert sink.events[1].text == ""  # units of one block, all at once: no rate
    assert sink.events[2].text == "loss 0.250  80 images/s"
    assert sink.events[2].seconds_left == pytest.approx(6.0)


def test_bars_show_every_title_until_closed() -> None:
    from rich.console import Console

    out = io.StringIO()
    sink = Bars(Console(file=out, force_terminal=True, width=120))
    sink.show(event(50))
    sink.show(event(100, title="finetune"))
    sink.close()
    assert "pretrain" in out.getvalue()
    assert "100/100 steps" in out.getvalue()


def test_what_is_shown_depends_on_who_is_watching(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(default_sink(), Lines)
    monkeypatch.setenv("ARCO_PROGRESS", "events")
    assert isinstance(default_sink(), Events)


def test_a_warning_stays_wherever_progress_is_shown() -> None:
    out = io.StringIO()
    for sink in (Lines(out), Events(out), Bars(Console(file=out))):
        Progress("finetune, seed 0", 10, "steps", sink=sink).warn("lost the class 'ring' [0.1]")
    assert out.getvalue().splitlines() == ["warning: finetune, seed 0: lost the class 'ring' [0.1]"] * 3
