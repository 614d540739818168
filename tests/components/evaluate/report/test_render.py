"""The report stands on its own, and says what was found."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from scipy import stats

from components.evaluate.comparison import compare_results
from components.evaluate.report import render_report
from components.evaluate.report.provenance import patients_needed
from components.evaluate.results import RunResults
from tests.components.evaluate.runs import make_run

METHODS = ("supervised", "mean-teacher", "arco-ns", "arco-sg")


def report(*runs: RunResults) -> str:
    return render_report(compare_results(runs or [make_run()]))


class Page(HTMLParser):
    """Text, tags and attributes; fails on tags that do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        assert self.open == []

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":  # void
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "title"} & set(self.open):
            self.words.append(data)


def test_needs_nothing_but_itself() -> None:
    html = report(make_run(METHODS), make_run(METHODS, url="store/runs/b", labeled=7))
    page = Page(html)
    assert "script" not in {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith("data:")
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"https?:|@import|url\(", html)
    assert "prefers-color-scheme: dark" in html


def test_says_what_was_found_and_where_it_comes_from() -> None:
    text = Page(report()).text
    for expected in (
        "2 labelled of 40 training patients (5.0%), scored on 3 volumes of 3 validation patients. 2 seeds.",
        "ARCO-SG, mean DSC 78.5% ± 1.4 over 2 seeds; 95% interval 75.5–81.5",
        "ARCO-SG − Supervised +15.0 points seed 0: +15.0, seed 1: +15.0",
        "2 labelled patients (5.0%) Supervised 63.5 ± 1.4 2.37 ± 0.01 64.0 ± 1.4",
        "ARCO-SG − Supervised +15.0 15.0–15.0 0.25 0.25 3",
        "With 3 patients the signed-rank test cannot reach a corrected p < 0.05 for 1 pair of methods: "
        "it takes 6.",
        "The dataset version has 5 test patients",
        "It was chosen on these same patients, so this table is optimistic.",
        "DSC is the primary metric",
        "within one metric and one amount of labels, and for nothing beyond",
        "Training code code of one",
        "Evaluated by code 0a1b2c3d4e5f, commit cafe01234567, on CPU",
        "12 of 12",
        "ARCO-SG background ring core background 97.8 1.1 1.1 ring 20.0 70.0 10.0 core 0.0 25.0 75.0",
        "Best r, slice 3 of 9",
        "Worst p, slice 3 of 9",
        "validation DSC",
        "Stage two: fine-tuning total loss",
        "store/datasets/toy/0123456789ab",
        "Labelled, seed 1 patient_0, patient_1",
        "finetune 300",
        "finetune 13 s, evaluate 1 s, over all seeds",
        'Configuration, ARCO-SG [data] name = "arco-sg"',
        "arco 0.1.0, python 3.11",
    ):
        assert expected in text


def test_several_amounts_of_labels_are_the_papers_table_and_a_curve() -> None:
    runs = [make_run(METHODS, url=f"store/runs/a-{n}", labeled=n) for n in (7, 1)]
    html = report(*runs)
    text = Page(html).text
    assert "1 and 7 labelled of 40 training patients (2.5% to 17.5%)" in text
    first, second = (
        text.index("1 labelled patient (2.5%) Supervised"),
        text.index("7 labelled patients (17.5%) Sup"),
    )
    assert first < second
    rows = re.findall(r'<tr class="row"><td>([^<]+)</td>', html)[:8]
    assert rows == ["Supervised", "Mean teacher", "ARCO-NS", "ARCO-SG"] * 2
    assert "Label efficiency" in text and html.count('class="mark"') == 4
    assert "1 labelled patient (2.5%) Supervised" in text
    assert "a-7" in text and "a-1" in text  # provenance of both


def test_one_amount_has_no_efficiency_curve() -> None:
    assert "Label efficiency" not in report()


def test_the_better_value_is_marked_and_equals_are_not() -> None:
    html = report()
    assert '<span class="best">78.5</span>' in html
    assert '<span class="best">63.5</span>' not in html
    assert '<span class="best">0</span>' not in html


@pytest.mark.parametrize("methods", [("arco-sg",), ("supervised",), ("arco-sg", "arco-ns", "supervised")])
def test_any_set_of_methods_and_a_single_seed(methods: tuple[str, ...]) -> None:
    text = Page(report(make_run(methods, (3,)))).text
    assert "1 seed." in text and "±" not in text.replace("the ± over seeds", "")
    assert ("p, corrected" in text) == (len(methods) > 1)


def test_names_cannot_become_markup() -> None:
    evil = '<img src="https://x"> & "co"'
    changes = {"patients": [evil], "software": {evil: evil}, "configs": {"arco-sg": evil}}
    run = make_run(cases=("p",), changes=changes)
    scores = [dataclasses.replace(s, case_id=evil) for s in run.scores]
    html = report(dataclasses.replace(run, scores=scores))
    assert "<img" not in html and html.count("&lt;img") > 5
    Page(html)


def test_a_method_without_distances_has_a_dash() -> None:
    run = make_run()
    scores = [
        dataclasses.replace(s, score=dataclasses.replace(s.score, asd_mm=None, asd_voxel=None))
        if s.method == "supervised"
        else s
        for s in run.scores
    ]
    html = report(dataclasses.replace(run, scores=scores))
    assert "<span>–</span>" in html
    assert "0 of 12" in Page(html).text


def test_released_convention_is_in_voxels_and_says_so() -> None:
    html = report(make_run(changes={"convention": "released"}))
    assert html.count("ASD [voxel]") == 5  # three columns of the first table, one of each other
    assert "ASD, voxels" in html and "ASD, mm" not in html  # what is tested
    assert "which flatters" in html


def test_scans_without_a_voxel_size_have_distances_in_voxels_only() -> None:
    run, words = make_run(changes={"spacing_known": False}), "The scans do not say how large a voxel is"
    unknown = {"surface_dice": None, "asd_mm": None, "hd95_mm": None, "voxel_mm3": None}
    scores = [dataclasses.replace(s, score=dataclasses.replace(s.score, **unknown)) for s in run.scores]
    html = report(dataclasses.replace(run, scores=scores))
    assert words in html and words not in report()
    assert html.count("ASD [voxel]") == 5  # three columns of the first table, one of each other
    assert "2.37" in html and "12 of 12" in Page(html).text
    assert "[mm]" not in html and "Volume error [voxel]" in html
    (test,) = re.findall(r"<summary>ASD, voxels</summary>.*?</details>", html, re.DOTALL)
    assert "−0.15" in test and "0.25" in test


def test_variance_is_shown_where_it_was_measured() -> None:
    row = {"class": "ring", "sampler": "sg", "to_ns": "0.21", "to_ns_low": "0.18", "to_ns_high": "0.23"}
    row |= {"to_sg": "1", "to_sg_low": "1", "to_sg_high": "1"}
    rows = [row | {"quantity": quantity} for quantity in ("loss", "gradient")]
    text = Page(report(make_run(variance=rows))).text
    assert "ring sg 0.21 (0.18–0.23) 1.00 0.21 (0.18–0.23) 1.00" in text
    assert "Variance of the samplers" not in Page(report()).text


def test_the_same_runs_give_the_same_report() -> None:
    assert report() == report()


def without_best(run: RunResults, method: str) -> RunResults:
    kept = [s for s in run.scores if s.method != method or s.checkpoint == "last"]
    return dataclasses.replace(run, scores=kept)


def test_best_checkpoints_have_all_metrics_and_who_lacks_them_is_named() -> None:
    html = report(without_best(make_run(("arco-ns", "arco-sg", "supervised")), "arco-ns"))
    text = Page(html).text
    table = text[
        text.index("All metrics, at the best checkpoint") : text.index("Differences between methods")
    ]
    assert "so not in this table: 2 labelled patients (5.0%): ARCO-NS, seeds 0, 1." in table
    assert "Supervised 64.0 ± 1.4" in table and "ARCO-SG 79.0 ± 1.4" in table
    assert "ARCO-NS 7" not in table
    assert "at the best checkpoint" not in report(without_best(make_run(("supervised",)), "supervised"))


def test_runs_with_and_without_validation_keep_the_table_of_best_checkpoints() -> None:
    runs = [make_run(url="s/a"), without_best(make_run(("arco-ns",), url="s/b"), "arco-ns")]
    assert "at the best checkpoint" in report(*runs)


def test_different_seeds_are_told_at_the_numbers_and_compared_over_common_ones() -> None:
    runs = [make_run(("supervised",), (0,), url="s/a"), make_run(("arco-sg",), (0, 1), url="s/b")]
    text = Page(report(*runs)).text
    assert text.count("Supervised, seed 0 62.5") == 2  # both tables of all seeds
    assert "ARCO-SG, seeds 0, 1 78.5 ± 1.4" in text
    common = text[text.index("All metrics, over common seeds") :]
    assert "2 labelled patients (5.0%), seeds 0 Supervised 62.5" in common and "ARCO-SG 77.5" in common
    assert "2 labelled patients (5.0%), all seeds of each method ARCO-SG − Supervised +16.0" in common
    assert "2 labelled patients (5.0%), common seeds 0 ARCO-SG − Supervised +15.0" in common
    assert "over common seeds" not in report()


def test_the_training_code_of_each_model_is_told_where_they_differ() -> None:
    run = make_run(("arco-sg", "supervised"), (0,))
    trainings = run.summary["trainings"]
    other = {"0": trainings["supervised"]["0"] | {"code": "fedcba"}}
    changed = run.summary | {"trainings": trainings | {"supervised": other}, "commit": None}
    text = Page(report(dataclasses.replace(run, summary=changed))).text
    assert "code of one (ARCO-SG 0); fedcba (Supervised 0)" in text
    assert "commit unknown" in text


@pytest.mark.parametrize(("pairs", "expected"), [(0, 0), (1, 6), (3, 7), (10, 9)])
def test_patients_that_a_corrected_test_needs(pairs: int, expected: int) -> None:
    """Against scipy: the p-value of as many differences of one sign, times the pairs."""
    assert patients_needed(pairs) == expected
    for patients, reached in ((expected, True), (expected - 1, False)):
        if pairs:
            p = float(stats.wilcoxon(np.arange(1.0, patients + 1)).pvalue)
            assert (pairs * p < 0.05) == reached
