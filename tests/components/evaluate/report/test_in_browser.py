"""The report in a real browser: light and dark, on a screen and on a phone."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib import image

from components.evaluate.comparison import compare_results
from components.evaluate.report import render_report
from tests.components.evaluate.runs import make_run

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=2000")
DARK = "--blink-settings=preferredColorScheme=0"
METHODS = ("supervised", "mean-teacher", "arco-ns", "arco-sg")

MEASURE = """
const seen = document.getElementById("page").contentDocument, root = seen.documentElement;
const rgb = (text) => text.match(/[0-9.]+/g).map(Number);
const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
  .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const paper = light(rgb(seen.defaultView.getComputedStyle(seen.body).backgroundColor));
const contrast = (element, property) => {
  const ink = light(rgb(seen.defaultView.getComputedStyle(element)[property]));
  return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
};
const least = (selector, property) =>
  Math.min(...[...seen.querySelectorAll(selector)].map((e) => contrast(e, property)));
document.body.innerHTML = "<pre>" + JSON.stringify({
  width: root.clientWidth,
  needed: root.scrollWidth,
  charts: [...seen.querySelectorAll("svg")].filter((e) => e.checkVisibility())
    .map((e) => [e.getBoundingClientRect().width, e.getBoundingClientRect().height]),
  text: least("p, td, th, dd, dt, li, h2, .interval, .spread, .axis span, .under", "color"),
  ticks: least(".tick", "fill"),
  lines: least(".curve, .dot, .mark, .key", "color"),
}) + "</pre>";
"""


@pytest.fixture(scope="module")
def browser() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser here: none of {', '.join(BROWSERS)} is installed")
    return found


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    row = {"class": "ring", "to_ns": "0.21", "to_ns_low": "0.18", "to_ns_high": "0.23", "to_sg": "1"}
    row |= {"to_sg_low": "1", "to_sg_high": "1", "sampler": "hilbert-antithetic"}
    variance = [row | {"quantity": quantity} for quantity in ("loss", "gradient")]
    runs = [
        make_run(METHODS, url=f"store/runs/{'a-long-name-' * 6}{n}", labeled=n, variance=variance)
        for n in (1, 7)
    ]
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render_report(compare_results(runs)))
    return path


def run_browser(browser: str, folder: Path, *flags: str) -> str:
    command = [browser, *FLAGS, f"--user-data-dir={folder}/profile", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def measure(browser: str, report: Path, folder: Path, width: int, *flags: str) -> dict[str, Any]:
    """What a frame of `width` pixels shows: a window cannot be as narrow as a phone in every browser."""
    page = folder / "measure.html"
    page.write_text(
        '<!doctype html><meta charset="utf-8"><meta name="color-scheme" content="light dark"><body>'
        f'<iframe id="page" width="{width}" height="3000" style="border:0" '
        f'srcdoc="{html.escape(report.read_text())}"></iframe>'
        f"<script>window.onload = () => {{ {MEASURE} }};</script>"
    )
    found = re.search(
        r"<pre>(\{.*\})</pre>", run_browser(browser, folder, "--dump-dom", *flags, page.as_uri())
    )
    assert found is not None
    return dict(json.loads(found[1]))


@pytest.mark.slow
@pytest.mark.parametrize(("width", "flags"), [(1200, ()), (390, ()), (390, (DARK,))])
def test_nothing_is_cut_off_and_all_can_be_read(
    browser: str, report: Path, tmp_path: Path, width: int, flags: tuple[str, ...]
) -> None:
    """Contrasts as WCAG 2.1 asks for: 4.5 for text, 3 for graphics."""
    seen = measure(browser, report, tmp_path, width, *flags)
    assert seen["needed"] <= seen["width"] == width
    assert len(seen["charts"]) > 20
    assert [c for c in seen["charts"] if not (0 < c[0] <= width and c[1] > 0)] == []
    assert seen["text"] >= 4.5
    assert seen["ticks"] >= 4.5
    assert seen["lines"] >= 3


def screenshot(browser: str, report: Path, folder: Path, *flags: str) -> npt.NDArray[np.float32]:
    path = folder / "shot.png"
    run_browser(browser, folder, f"--screenshot={path}", "--window-size=1200,2400", *flags, report.as_uri())
    pixels: npt.NDArray[np.float32] = image.imread(path)[..., :3]
    return pixels


@pytest.mark.slow
@pytest.mark.parametrize(("flags", "dark"), [((), False), ((DARK,), True)])
def test_a_screenshot_has_the_colours_of_its_mode(
    browser: str, report: Path, tmp_path: Path, flags: tuple[str, ...], dark: bool
) -> None:
    pixels = screenshot(browser, report, tmp_path, *flags)
    assert pixels.shape[:2] == (2400, 1200)
    paper = pixels[3, 3]
    assert (paper.max() < 0.15) if dark else (paper.min() > 0.95)
    ink = np.abs(pixels - paper).max(axis=2) > 0.3
    assert 0.01 < ink.mean() < 0.4  # text and charts, and not a page of one colour
    assert ink[:, :60].sum() == 0 and ink[:, -60:].sum() == 0  # margins
    assert all(ink[top : top + 300].any() for top in range(0, 2400, 300))
