"""The picture of `arco variance`."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from arco_core.config.schema import SAMPLER_NAMES
from arco_core.variance import QUANTITIES, VarianceRow

_COLORS = ("#9aa0a6", "#1f6fb4", "#6fb1e0", "#c1440e", "#e8925f", "#7a1fa2")
"""Naive grey, groups blue, Hilbert red; systematic, which has but one uniform, violet."""
_TITLES = {"loss": "contrastive loss", "gradient": "its gradient in the head"}
_TICKS = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)


def variance_chart(rows: Sequence[VarianceRow]) -> bytes:
    """PNG: variance relative to NS of every class and sampler, the loss beside its gradient."""
    classes = list(dict.fromkeys(row.class_name for row in rows))
    width = 3.0 + 1.1 * len(classes) * len(QUANTITIES)
    figure = Figure(figsize=(width, 3.6), dpi=144, layout="constrained")
    panels = figure.subplots(1, len(QUANTITIES), sharey=True)
    for axes, quantity in zip(panels, QUANTITIES, strict=True):
        _panel(axes, [row for row in rows if row.quantity == quantity], classes)
        axes.set_title(_TITLES[quantity], size=10)
    panels[0].set_ylabel("variance / variance of NS")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=9
    )
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _panel(axes: Axes, rows: Sequence[VarianceRow], classes: Sequence[str]) -> None:
    step = 0.8 / len(SAMPLER_NAMES)
    for number, (sampler, color) in enumerate(zip(SAMPLER_NAMES, _COLORS, strict=True)):
        own = [row for row in rows if row.sampler == sampler]
        ratios = [row.to_ns for row in own]
        places = [classes.index(row.class_name) - 0.4 + (number + 0.5) * step for row in own]
        lengths = (
            [r.value - (r.value if r.low is None else r.low) for r in ratios],
            [(r.value if r.high is None else r.high) - r.value for r in ratios],
        )
        axes.errorbar(
            places, [r.value for r in ratios], lengths,
            fmt="o", markersize=4, linewidth=1.2, color=color, label=sampler,
        )  # fmt: skip
    axes.axhline(1.0, color="#c8ccd0", linewidth=0.8, zorder=0)
    axes.set_yscale("log")
    axes.set_yticks(_TICKS, [f"{tick:g}" for tick in _TICKS])
    axes.minorticks_off()
    axes.set_xticks(range(len(classes)), classes)
    axes.set_xlim(-0.5, len(classes) - 0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#eceff1", linewidth=0.8)
    axes.set_axisbelow(True)
