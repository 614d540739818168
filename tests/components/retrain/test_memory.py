"""What later nights know of scans."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.retrain.memory import Memory
from components.retrain.plan import RetrainSettings
from infra.datasets.convert import Digests

ONE = Digests(case_id="one", image="a", label="x")
TWO = Digests(case_id="two", image="b", label=None)


@pytest.fixture
def settings(tmp_path: Path) -> RetrainSettings:
    return RetrainSettings(raw="raw", store=str(tmp_path), name="heart")


def test_bad_and_judged_scans(settings: RetrainSettings) -> None:
    memory = Memory(settings, 1)
    memory.note([ONE, TWO], {"one": "bad: torn"})
    memory.save()
    memory = Memory(settings, 2)
    assert memory.bad(ONE) == "bad: torn" and memory.bad(TWO) is None
    assert memory.judged(TWO) and not memory.judged(ONE)
    assert memory.bad(Digests(case_id="renamed", image="a", label="x")) is None  # it gets another chance
    assert memory.judged(Digests(case_id="renamed", image="b", label=None))
    assert not memory.judged(Digests(case_id="two", image="b", label="annotated by now"))


def test_a_series_is_whole_when_two_nights_see_the_same(settings: RetrainSettings) -> None:
    for night, tags, whole in ((1, "ab", False), (2, "abc", False), (3, "abc", True), (3, "abc", True)):
        memory = Memory(settings, night)
        assert memory.seen_before("series", tags) is whole
        assert memory.seen_before("series", tags) is whole  # the same night, tried again
        memory.save()
    memory = Memory(settings, 4)
    memory.forget_series_but([])
    memory.save()
    assert not Memory(settings, 5).seen_before("series", "abc")


def test_nothing_is_written_where_nothing_was_noted(settings: RetrainSettings, tmp_path: Path) -> None:
    Memory(settings, 1).save()
    assert not list(tmp_path.rglob("scans.json"))
