"""Best, median and worst, and what is drawn on them."""

from __future__ import annotations

from components.evaluate.comparison import Shown
from components.evaluate.report.overlays import make_overlays
from tests.components.evaluate.runs import make_slice

DICE = {"p": 0.5, "q": 0.9, "r": 0.1, "s": 0.4, "t": 0.6}


def test_ranked_by_the_primary_method() -> None:
    shown = [
        Shown(method=m, seed=0, dice=d)
        for m, d in (("arco-sg", DICE), ("supervised", {c: 1.0 for c in DICE}))
    ]
    overlays = make_overlays(
        lambda case: make_slice(case, [("arco-sg", 0), ("supervised", 0)]), shown, shown[0], 3
    )
    assert [(o.rank, o.case_id, o.panels[0].dice) for o in overlays] == [
        ("Best", "q", 0.9), ("Median", "p", 0.5), ("Worst", "r", 0.1)
    ]  # fmt: skip
    assert [panel.method for panel in overlays[0].panels] == ["arco-sg", "supervised"]
    assert overlays[0].pixel_mm == (1.0, 2.0)


def test_one_case_is_shown_once() -> None:
    shown = [Shown(method="arco-sg", seed=0, dice={"p": 0.5})]
    overlays = make_overlays(lambda case: make_slice(case, [("arco-sg", 0)]), shown, shown[0], 3)
    assert [o.rank for o in overlays] == ["Best"]


def test_outlines_are_those_of_the_masks_within_what_is_shown() -> None:
    shown = [Shown(method="arco-sg", seed=0, dice={"p": 0.5})]
    (overlay,) = make_overlays(lambda case: make_slice(case, [("arco-sg", 0)]), shown, shown[0], 3)
    ring, core = overlay.panels[0].outlines
    assert (ring.class_index, core.class_index) == (1, 2)
    assert core.prediction == "" and core.reference.endswith("h3v2h-3v-2z")
    assert ring.prediction.endswith("h7v6h-7v-6z")
    assert overlay.width < 24 and overlay.height < 24  # padding is left out
