"""Figures for papers."""

from __future__ import annotations

import io

import numpy as np
from matplotlib import image

from components.evaluate.comparison import compare_results
from components.evaluate.report.figures import draw_figures
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
