"""The report's pictures as figures for papers, in PNG and PDF."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import Normal, Stroke

from components.evaluate.comparison import Comparison, Shown
from components.evaluate.report.overlays import Box, chosen_cases, shown_box
from components.evaluate.report.palette import STRUCTURES, colors_of
from components.evaluate.report.pictures import confusion_rates, dice_by_case
from components.evaluate.report.scores import amount_title
from components.evaluate.slices import CaseSlice
from components.evaluate.training_log import VALIDATION_DICE
from components.model_ref import method_title

_DPI = 200
_LABEL = 8
"""Points of axis labels, titles and legends; those of ticks have one less."""
_SOFT, _RULE = "#5b6470", "#e1e5ea"


def draw_figures(comparison: Comparison) -> dict[str, bytes]:
    """File name -> content: `cases`, `training`, `confusion`, `overlays` and, of several amounts of labels,
    `label_efficiency`, each as PNG and as PDF. The same comparison gives the same bytes."""
    figures = {
        "cases": _cases(comparison),
        "training": _training(comparison),
        "confusion": _confusion(comparison),
        "overlays": _overlays(comparison),
    }
    if len(comparison.amounts) > 1:
        figures["label_efficiency"] = _efficiency(comparison)
    files = {}
    for name, figure in figures.items():
        for kind, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):
            out = io.BytesIO()
            figure.savefig(out, format=kind, metadata=metadata, dpi=_DPI)
            files[f"{name}.{kind}"] = out.getvalue()
            figure.set_layout_engine("none")  # keeps what the first drawing laid out
    return files


def _efficiency(comparison: Comparison) -> Figure:
    """Mean DSC with intervals over the amount of labels, a line a method."""
    figure = Figure(figsize=(4.6, 3.2), layout="constrained")
    axes = figure.subplots()
    methods, colors = comparison.methods, colors_of(comparison.methods)
    for number, method in enumerate(methods):
        found = [
            (place, amount.summary["methods"][method]["dice"])
            for place, amount in enumerate(comparison.amounts)
            if method in amount.summary["methods"]
        ]
        shift = 0.05 * (number - (len(methods) - 1) / 2)
        means = [100 * dice["mean"] for _, dice in found]
        ends = [dice["interval"] or (dice["mean"], dice["mean"]) for _, dice in found]
        lengths = [[m - 100 * low for m, (low, _) in zip(means, ends, strict=True)],
                   [100 * high - m for m, (_, high) in zip(means, ends, strict=True)]]  # fmt: skip
        axes.errorbar(
            [place + shift for place, _ in found], means, lengths,
            marker="o", markersize=4, linewidth=1.2, color=colors[method], label=method_title(method),
        )  # fmt: skip
    patients = comparison.common["train_patients"]
    labels = [f"{a.labeled}\n({a.labeled / patients:.1%})" for a in comparison.amounts]
    axes.set_xticks(range(len(labels)), labels)
    axes.set_xlabel("labelled patients", size=_LABEL)
    axes.set_ylabel("DSC [%]", size=_LABEL)
    _tidy(axes)
    figure.legend(loc="outside right upper", frameon=False, fontsize=_LABEL)
    return figure


def _cases(comparison: Comparison) -> Figure:
    """Box plots of the cases' mean DSC, a panel an amount of labels."""
    amounts, colors = comparison.amounts, colors_of(comparison.methods)
    width = sum(0.6 + 0.55 * len(amount.methods) for amount in amounts)
    figure = Figure(figsize=(max(width, 3.0), 3.4), layout="constrained")
    panels = figure.subplots(
        1, len(amounts), sharey=True, squeeze=False, width_ratios=[len(a.methods) for a in amounts]
    )[0]
    for axes, amount in zip(panels, amounts, strict=True):
        values = [list(cases.values()) for cases in dice_by_case(amount, None).values()]
        boxes = axes.boxplot(values, widths=0.55, patch_artist=True, flierprops={"markersize": 3})
        for number, method in enumerate(amount.methods):
            boxes["boxes"][number].set(facecolor=colors[method], alpha=0.3, edgecolor=colors[method])
            boxes["medians"][number].set(color=colors[method], linewidth=1.8)
            for line in (*boxes["whiskers"][2 * number :][:2], *boxes["caps"][2 * number :][:2]):
                line.set(color=colors[method])
            boxes["fliers"][number].set(markeredgecolor=colors[method])
        titles = [method_title(method) for method in amount.methods]
        axes.set_xticks(range(1, len(titles) + 1), titles, rotation=40, ha="right")
        axes.set_title(amount_title(comparison, amount.labeled), size=_LABEL)
        _tidy(axes)
    panels[0].set_ylabel("DSC of a volume [%]", size=_LABEL)
    return figure


def _training(comparison: Comparison) -> Figure:
    """Total loss and validation DSC of the last stages over their steps, a row an amount of labels."""
    amounts, colors = comparison.amounts, colors_of(comparison.methods)
    figure = Figure(figsize=(7.0, 2.4 * len(amounts)), layout="constrained")
    rows = figure.subplots(len(amounts), 2, squeeze=False)
    for (loss, dice), amount in zip(rows, amounts, strict=True):
        for log in amount.logs:
            if log.method is None:
                continue
            for axes, term, factor in ((loss, "loss", 1.0), (dice, VALIDATION_DICE, 100.0)):
                points = np.array(log.curves.get(term, ()), float).reshape(-1, 2)
                axes.plot(
                    points[:, 0], factor * points[:, 1], linewidth=1, alpha=0.8, color=colors[log.method],
                    label=method_title(log.method),
                )  # fmt: skip
        for axes, title in ((loss, "total loss"), (dice, "validation DSC [%]")):
            axes.set_ylabel(title, size=_LABEL)
            axes.set_title(amount_title(comparison, amount.labeled), size=_LABEL)
            _tidy(axes)
    for axes in rows[-1]:
        axes.set_xlabel("optimiser step", size=_LABEL)
    handles = dict(zip(*reversed([list(x) for x in rows[0][0].get_legend_handles_labels()]), strict=True))
    figure.legend(
        handles.values(), handles.keys(), loc="outside upper center", ncols=6, frameon=False, fontsize=_LABEL
    )
    return figure


def _confusion(comparison: Comparison) -> Figure:
    """Shares of each reference class's voxels, a matrix a method and amount of labels."""
    classes, amounts = comparison.common["classes"], comparison.amounts
    columns, size = max(len(amount.methods) for amount in amounts), 0.8 + 0.42 * len(classes)
    figure = Figure(figsize=(columns * size + 0.4, len(amounts) * (size + 0.3)), layout="constrained")
    for row, panels in enumerate(figure.subplots(len(amounts), columns, squeeze=False)):
        amount = amounts[row]
        for axes in panels[len(amount.methods) :]:
            axes.set_axis_off()
        for column, (axes, method) in enumerate(zip(panels, amount.methods, strict=False)):
            rates = confusion_rates(amount, method)
            axes.imshow(rates, cmap="Blues", vmin=0, vmax=1)
            for (y, x), rate in np.ndenumerate(rates):
                color = "white" if rate > 0.6 else "black"
                axes.text(x, y, f"{100 * rate:.0f}", ha="center", va="center", size=6, color=color)
            axes.set_xticks(range(len(classes)), classes, rotation=40, ha="right", fontsize=6)
            axes.set_yticks(range(len(classes)), classes if column == 0 else [], fontsize=6)
            axes.set_title(f"{method_title(method)}\n{amount_title(comparison, amount.labeled)}", size=6)
    return figure


def _overlays(comparison: Comparison) -> Figure:
    """Best, median and worst case of the best method: the scan, and what each method drew."""
    amount = comparison.amounts[0]
    primary = amount.shown(amount.best_method, amount.best_seed(amount.best_method))
    shown, chosen = amount.shown_beside(primary), chosen_cases(primary)
    figure = Figure(figsize=(1.6 * (len(shown) + 1), 1.75 * len(chosen) + 0.45), layout="constrained")
    figure.suptitle(f"{amount_title(comparison, amount.labeled)}, seed {primary.seed}", size=8)
    rows = figure.subplots(len(chosen), len(shown) + 1, squeeze=False)
    for panels, (rank, case_id) in zip(rows, chosen, strict=True):
        cut = amount.slice_of(case_id, shown)
        box = shown_box(cut.image, [cut.reference, *cut.predictions.values()])
        for axes in panels:
            axes.imshow(
                cut.image[box], cmap="gray", vmin=0, vmax=255, aspect=cut.pixel_mm[1] / cut.pixel_mm[0]
            )
            axes.set_axis_off()
        panels[0].set_title(f"{rank}: {case_id}", size=7)
        for axes, model in zip(panels[1:], shown, strict=True):
            _draw(axes, cut, model, box)
            seed = "" if model.seed == primary.seed else f", seed {model.seed}"
            dice = f"DSC {100 * model.dice[case_id]:.1f}%"
            axes.set_title(f"{method_title(model.method)}{seed}, {dice}", size=7)
    legend = figure.legend(
        handles=_drawn_handles(comparison.common["classes"][1:]), loc="outside lower center", ncols=6,
        frameon=False, fontsize=7,
    )  # fmt: skip
    for line in legend.get_lines():  # white, as on the scans
        line.set_path_effects([Stroke(linewidth=2.6, foreground=_SOFT), Normal()])
    return figure


def _drawn_handles(structures: Sequence[str]) -> list[Artist]:
    """What `_draw` draws, for a legend."""
    patches: list[Artist] = []
    for index, name in enumerate(structures):
        color = STRUCTURES[index % len(STRUCTURES)]
        face = to_rgba(color, 0.35)
        patches.append(Patch(facecolor=face, edgecolor=color, linewidth=0.9, label=f"{name}, predicted"))
    return [*patches, Line2D([], [], color="white", linewidth=1.2, label="reference")]


def _draw(axes: Axes, cut: CaseSlice, model: Shown, box: Box) -> None:
    """Prediction in colours, reference in white."""
    drawn, reference = cut.predictions[model.method, model.seed][box], cut.reference[box]
    for index in range(1, int(max(drawn.max(), reference.max())) + 1):
        color = STRUCTURES[(index - 1) % len(STRUCTURES)]
        if (drawn == index).any():
            axes.contourf(drawn == index, levels=(0.5, 1.5), colors=[color], alpha=0.35)
            axes.contour(drawn == index, levels=(0.5,), colors=[color], linewidths=0.9)
        if (reference == index).any():
            axes.contour(reference == index, levels=(0.5,), colors=["white"], linewidths=0.7)


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=7, colors=_SOFT)
    axes.grid(axis="y", color=_RULE, linewidth=0.8)
    axes.set_axisbelow(True)
