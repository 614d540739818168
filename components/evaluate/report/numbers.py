"""Numbers as the report prints them."""

from __future__ import annotations

from collections.abc import Sequence

NONE = "–"


def number(value: float | None, factor: float = 1.0, digits: int = 1, *, none: str = NONE) -> str:
    """`value` × `factor`; `none` where there is no value."""
    return none if value is None else f"{value * factor:.{digits}f}"


def span(interval: Sequence[float] | None, factor: float = 1.0, digits: int = 1) -> str:
    """An interval, `78.9–83.0`; with negative ends `−1.2 to 3.0`; empty where there is none."""
    if interval is None:
        return ""
    low, high = (minus(f"{end * factor:.{digits}f}") for end in interval)
    return f"{low} to {high}" if "−" in low + high else f"{low}–{high}"


def signed(value: float | None, factor: float = 1.0, digits: int = 1) -> str:
    """A difference with its sign."""
    return NONE if value is None else minus(f"{value * factor:+.{digits}f}")


def p_value(p: float | None) -> str:
    """Two significant digits, and no smaller than 0.001."""
    if p is None:
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def minus(text: str) -> str:
    """With a true minus sign."""
    return text.replace("-", "−")


def count(amount: int, what: str) -> str:
    """`1 seed`, `2 seeds`."""
    return f"{amount} {what}{'' if amount == 1 else 's'}"
