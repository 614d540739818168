"""The report: one HTML file that needs nothing else, no network and no JavaScript."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jinja2

from components.evaluate.comparison import Comparison
from components.evaluate.report import pictures, provenance, scores
from components.evaluate.report.numbers import number, span
from components.evaluate.report.palette import (
    BASELINE_DARK,
    BASELINE_LIGHT,
    DARK,
    LIGHT,
    STRUCTURES,
    styles_of,
)
from components.model_ref import method_title


def render_report(comparison: Comparison) -> str:
    """The report as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("components.evaluate.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    styles = styles_of(comparison.methods)
    return environment.get_template("report.html.j2").render(
        name=comparison.dataset,
        light={"base": BASELINE_LIGHT, "methods": LIGHT},
        dark={"base": BASELINE_DARK, "methods": DARK},
        structure_colors=STRUCTURES,
        common=comparison.common,
        many_seeds=any(len(run.summary["seeds"]) > 1 for run in comparison.runs),
        subtitle=provenance.subtitle(comparison),
        tiles=provenance.tiles(comparison),
        cautions=provenance.cautions(comparison),
        structures=comparison.common["classes"][1:],
        legend=[(method_title(m), styles[m]) for m in comparison.methods],
        title_of=method_title,
        table=scores.paper_table(comparison),
        details=scores.details_table(comparison),
        best=scores.best_table(comparison),
        common_seeds=scores.common_seeds_table(comparison),
        tests=scores.pair_tables(comparison),
        optimistic=any((run.summary["best_checkpoints"] or {}).get("optimistic") for run in comparison.runs),
        efficiency=pictures.efficiency(comparison, styles),
        strips=pictures.strips(comparison, styles),
        confusions=pictures.confusions(comparison),
        predictions=pictures.predictions(comparison),
        training=pictures.training(comparison, styles),
        variance=_variance(comparison),
        runs=provenance.run_details(comparison),
    )


def _variance(comparison: Comparison) -> list[dict[str, Any]]:
    """For each run that measured it: classes, and for each sampler the ratios of `arco variance`."""
    return [
        {"name": name, "groups": _variance_groups(run.variance)}
        for name, run in zip(comparison.names, comparison.runs, strict=True)
        if run.variance
    ]


def _variance_groups(rows: Any) -> list[dict[str, Any]]:
    groups: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        cells = groups.setdefault(row["class"], {}).setdefault(row["sampler"], [])
        cells += [_ratio(row, other) for other in ("to_ns", "to_sg")]
    return [{"title": name, "rows": list(samplers.items())} for name, samplers in groups.items()]


def _ratio(row: Mapping[str, str], key: str) -> str:
    value, low, high = (row[name] for name in (key, f"{key}_low", f"{key}_high"))
    text = number(float(value), digits=2)
    return f"{text} ({span((float(low), float(high)), digits=2)})" if low and low != high else text
