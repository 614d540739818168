"""Figures for papers."""

from __future__ import annotations

import io

import numpy as np
from matplotlib import image
from matplotlib.colors import to_hex

from components.evaluate.comparison import compare_results
from components.evaluate.report import figures
from components.evaluate.report.figures import draw_figures
from components.evaluate.report.palette import STRUCTURES, colors_of
from tests.components.evaluate.runs import make_run


def test_every_figure_as_png_and_pdf_with_something_on_it() -> None:
    runs = [make_run(("supervised", "arco-sg"), (0,), url=f"s/runs/{n}", labeled=n) for n in (1, 7)]
    files = draw_figures(compare_results(runs))
    names = ("cases", "confusion", "label_efficiency", "overlays", "training")
    assert sorted(files) == sorted(f"{name}.{kind}" for name in names for kind in ("png", "pdf"))
    for name, data in files.items():
        if name.endswith("pdf"):
            assert data.startswith(b"%PDF") and data.rstrip().endswith(b"%%EOF")
        else:
            pixels = image.imread(io.BytesIO(data))[..., :3]
            assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20


def test_the_same_run_gives_the_same_bytes() -> None:
    comparison = compare_results([make_run(("arco-sg",), (0,))])
    first = draw_figures(comparison)
    assert "label_efficiency.pdf" not in first
    assert first == draw_figures(comparison)


def test_colours_on_scans_are_explained() -> None:
    (legend,) = figures._overlays(compare_results([make_run()])).legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "ring, predicted", "core, predicted", "reference"
    ]  # fmt: skip
    assert [to_hex(patch.get_edgecolor()) for patch in legend.get_patches()] == list(STRUCTURES[:2])


def test_whiskers_have_their_methods_colour_and_labels_one_size() -> None:
    comparison = compare_results([make_run()])
    figure = figures._cases(comparison)
    colors = [to_hex(line.get_color()) for line in figure.axes[0].lines]
    for color in colors_of(comparison.methods).values():
        assert colors.count(color) == 5  # two whiskers, two caps, the median
    assert {axes.yaxis.label.get_size() for axes in figure.axes} == {8.0}
