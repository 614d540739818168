"""The log of releases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from arco_core.errors import DataError
from infra.registry import Registry, Release, ReleaseConflict
from infra.storage import Store


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(Store(str(tmp_path)), "heart")


def put(registry: Registry, model: str, expected: int, **more: Any) -> Release:
    given: dict[str, Any] = {
        "action": "promote", "checkpoint": f"{model}.pt", "dataset": "d", "split": "test", "frozen": ("p",),
        "parent": None, "reason": "why",
    }  # fmt: skip
    return registry.append(expected=expected, model=model, **given | more)


def test_the_last_one_counts_and_all_are_kept(registry: Registry) -> None:
    assert registry.current() is None
    one, two = put(registry, "a", 0), put(registry, "b", 1, parent=1)
    assert registry.releases() == [one, two] and registry.current() == two


def test_who_did_not_know_of_the_last_one_changes_nothing(registry: Registry) -> None:
    put(registry, "a", 0)
    two = put(registry, "b", 1)
    with pytest.raises(ReleaseConflict, match="another release of heart came first"):
        put(registry, "c", 1)
    assert registry.current() == two


def test_rollback_goes_back_step_by_step_or_to_a_number(registry: Registry) -> None:
    for number, model in enumerate("abc"):
        put(registry, model, number)
    assert registry.rollback(None, "bad").model == "b"
    assert registry.rollback(None, "bad too").model == "a"
    assert registry.rollback(3, "was good").model == "c"
    assert [r.number for r in registry.releases()] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(DataError, match="no other model to go back to"):
        registry.rollback(9, "typo")


def test_nothing_to_go_back_to(registry: Registry) -> None:
    with pytest.raises(DataError, match="has no release"):
        registry.rollback(None, "why")
    put(registry, "a", 0)
    with pytest.raises(DataError, match="no other model"):
        registry.rollback(None, "why")


def test_a_release_that_was_written_before_this_process_died_is_its_own(registry: Registry) -> None:
    put(registry, "a", 0)
    two = put(registry, "b", 1, parent=1)
    assert put(registry, "b", 1, parent=1, reason="told anew") == two
    assert registry.promoted(parent=1, checkpoint="b.pt") == two
    assert registry.promoted(parent=1, checkpoint="c.pt") is None
    for other in ({"parent": 2}, {"checkpoint": "c.pt"}, {"dataset": "e"}):
        with pytest.raises(ReleaseConflict):
            put(registry, "b", 1, **{"parent": 1} | other)


def test_a_models_ancestors_end_where_a_person_promoted(registry: Registry) -> None:
    put(registry, "a", 0)
    put(registry, "b", 1)  # by a person
    put(registry, "c", 2, parent=2)
    put(registry, "d", 3, parent=3)
    registry.rollback(3, "d was bad")
    put(registry, "e", 5, parent=5)
    assert [release.number for release in registry.lineage(6)] == [6, 5, 3, 2]


def test_scores_are_remembered(registry: Registry) -> None:
    assert registry.scores(1) is None
    registry.note_scores(1, {"dice": {"ring": {"p": 0.5}}})
    assert registry.scores(1) == {"dice": {"ring": {"p": 0.5}}}
