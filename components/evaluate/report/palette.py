"""Colours, for light and dark pages; figures for papers take the light ones."""

from __future__ import annotations

from collections.abc import Sequence

from components.model_ref import BASELINE

LIGHT = ("#0b6a9c", "#b05a00", "#8a3f9e", "#12735a", "#c2323b", "#5a6b00", "#7a5230", "#3f51b5")
DARK = ("#62b8ea", "#f0a04b", "#d795e4", "#4fc3a1", "#f5868a", "#c3cf5a", "#cfa882", "#9fabf5")
"""Of methods, from a table's last to its first, without the baseline: ARCO is blue."""
BASELINE_LIGHT, BASELINE_DARK = "#7c838d", "#98a0ab"

STRUCTURES = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#cc79a7", "#d55e00", "#0072b2")
"""Of structures, on scans (Okabe and Ito's colours, which colour-blind readers tell apart)."""


def styles_of(methods: Sequence[str]) -> dict[str, str]:
    """The style sheet's class that gives each method its colour: grey for the baseline."""
    others = [m for m in reversed(methods) if m != BASELINE]
    return {m: "mb" if m == BASELINE else f"m{others.index(m) % len(LIGHT)}" for m in methods}


def colors_of(methods: Sequence[str]) -> dict[str, str]:
    """Each method's colour on paper."""
    by_style = {"mb": BASELINE_LIGHT} | {f"m{number}": color for number, color in enumerate(LIGHT)}
    return {method: by_style[style] for method, style in styles_of(methods).items()}
