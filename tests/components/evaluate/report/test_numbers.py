"""Numbers as people read them."""

from __future__ import annotations

from components.evaluate.report.numbers import count, number, p_value, signed, span


def test_numbers() -> None:
    assert number(0.7654, 100) == "76.5" and number(None) == "–" and number(None, none="") == ""
    assert span((0.5, 0.751), 100) == "50.0–75.1"
    assert span((-0.5, 0.751), 100) == "−50.0 to 75.1"
    assert span(None) == ""
    assert (signed(-0.012, 100), signed(0.012, 100), signed(None)) == ("−1.2", "+1.2", "–")
    assert [p_value(p) for p in (0.00002, 0.0123, 0.456, None)] == ["< 0.001", "0.012", "0.46", "–"]
    assert (count(1, "seed"), count(2, "seed")) == ("1 seed", "2 seeds")
