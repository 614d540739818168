"""How well methods learn from few labels: the tables of docs/results.md.

    python benchmarks/methods.py --data Task04_Hippocampus --preset hippocampus --labeled 2 9 --seeds 0 1 2

Every method sees the same labelled patients and takes the same number of optimiser steps; those with two
stages share one stage one a seed and framework (`arco-sg+simclr` is ARCO-SG after a stage one by SimCLR).
Trainings run in processes of one thread, `--jobs` at a time; one that is done is not repeated. Scores are
those of the validation patients, on the scans' own grids.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from components.evaluate.step import evaluate
from components.evaluate.summary import unit_of
from components.methods import MEAN_TEACHER, METHODS, OWN_METHODS, framework_of
from components.model_ref import BASELINE, ModelRef, method_title
from components.prepare.step import prepare
from components.settings import add_config_options
from components.training_options import TrainingOptions, labeled_amount, train
from infra.training import StageName


@dataclass(frozen=True, kw_only=True)
class Task:
    """One training."""

    stage: StageName
    method: str
    """Of a stage one: its framework."""
    options: TrainingOptions
    init: str | None = None


def run_task(task: Task) -> tuple[Task, str, float]:
    """Train, silently; returns the checkpoint and the seconds it took."""
    start = time.monotonic()
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        checkpoint = train(task.stage, task.options, init=task.init)
    return task, checkpoint, time.monotonic() - start


def run_all(pool: ProcessPoolExecutor, tasks: Sequence[Task]) -> list[tuple[Task, str]]:
    """Run tasks side by side and say when each is done."""
    done = []
    for future in as_completed([pool.submit(run_task, task) for task in tasks]):
        task, checkpoint, seconds = future.result()
        labels = f"{task.options.labeled:g} labelled, seed {task.options.seed}"
        print(f"{task.stage} {task.method}, {labels}: {seconds:.0f} s", flush=True)
        done.append((task, checkpoint))
    return done


def train_seed(
    pool: ProcessPoolExecutor, methods: Sequence[str], each: Sequence[TrainingOptions]
) -> dict[float, list[ModelRef]]:
    """Train all methods with one seed, for each amount of labels."""
    two_stages = [m for m in methods if m != BASELINE]
    first = [Task(stage="supervised", method=BASELINE, options=o) for o in each if BASELINE in methods]
    first += [
        Task(stage="pretrain", method=framework, options=_over(o, f"pretrain.framework={framework}"))
        for framework in dict.fromkeys(map(framework_of, two_stages))
        for o in each
    ]
    done = run_all(pool, first)
    init = {(task.method, task.options.labeled): url for task, url in done if task.stage == "pretrain"}
    finetunes = [
        Task(
            stage="finetune",
            method=m,
            options=_over(o, *METHODS[m]),
            init=init[framework_of(m), o.labeled],
        )
        for m in two_stages
        for o in each
    ]
    done = [pair for pair in done if pair[0].stage == "supervised"] + run_all(pool, finetunes)
    refs: dict[float, list[ModelRef]] = {}
    for task, url in sorted(done, key=lambda pair: methods.index(pair[0].method)):
        ref = ModelRef(method=task.method, seed=task.options.seed, checkpoint=url)
        refs.setdefault(task.options.labeled, []).append(ref)
    return refs


def _over(options: TrainingOptions, *settings: str) -> TrainingOptions:
    return replace(options, overrides=[*options.overrides, *settings])


def markdown(summary: dict[str, Any]) -> str:
    """Mean Dice (%) of each method, seed by seed, and its difference to the mean teacher's."""
    unit = unit_of(summary)
    methods, seeds = summary["methods"], [str(seed) for seed in summary["seeds"]]
    reference = methods.get(MEAN_TEACHER, {}).get("dice", {}).get("per_seed", {})
    head = [
        "",
        *(f"seed {s}" for s in seeds),
        "mean ± sd",
        f"ASD, {unit}",
        f"HD95, {unit}",
        "missing",
        "over mean teacher",
    ]
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    for method, values in methods.items():
        own = values["dice"]["per_seed"]
        cells = [f"{100 * own[s]:.1f}" for s in seeds]
        cells.append(_spread([100 * own[s] for s in seeds]))
        cells += [_distance(values[f"{name}_{unit}"]["mean"]) for name in ("asd", "hd95")]
        cells.append(str(values["missing"]))
        differences = [100 * (own[s] - reference[s]) for s in seeds if s in reference]
        cells.append(_spread(differences, sign="+") if differences and method != MEAN_TEACHER else "")
        lines.append(f"| {method_title(method)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _distance(mean: float | None) -> str:
    """A dash where no volume has a distance."""
    return "–" if mean is None else f"{mean:.2f}"


def _spread(values: Sequence[float], sign: str = "") -> str:
    sd = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):{sign}.1f}{sd}"


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="raw scans, in the Decathlon or nnU-Net layout")
    parser.add_argument("--store", default="arco-store", help="where dataset version and trainings go")
    parser.add_argument("--name", default="methods", help="name of the run folder")
    add_config_options(parser)
    parser.add_argument(
        "--labeled", type=labeled_amount, nargs="+", default=[2.0], help="patients, or ratios"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--methods", nargs="+", choices=list(METHODS), default=list(OWN_METHODS), metavar="METHOD"
    )
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    return parser.parse_args()


def main() -> None:
    """Train everything, and print a table for each amount of labels."""
    options = parse()
    overrides = [*options.overrides, "run.workers=1"]
    store = str(Path(options.store).resolve()) if "://" not in options.store else options.store
    dataset = prepare(
        data=options.data, store=store, use_ray=False,
        preset=options.preset, config_file=options.config_file, overrides=overrides,
    )  # fmt: skip
    refs: dict[float, list[ModelRef]] = {labels: [] for labels in options.labeled}
    start = time.monotonic()
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        for seed in options.seeds:
            each = [
                TrainingOptions(
                    dataset=dataset, run=f"{store}/runs/{options.name}",
                    preset=options.preset, config_file=options.config_file, overrides=overrides,
                    labeled=labels, seed=seed, backend="in-process",
                )
                for labels in options.labeled
            ]  # fmt: skip
            for labels, new in train_seed(pool, options.methods, each).items():
                refs[labels] += new
    for labels, models in refs.items():
        run = f"{store}/runs/{options.name}-{labels:g}"
        result = evaluate(dataset=dataset, run=run, models=models)
        print(f"\n{labels:g} labelled patients, {result.summary['cases']} validation volumes\n")
        print(markdown(result.summary))
        print(f"\n{result.summary_url}", flush=True)
    print(f"{time.monotonic() - start:.0f} s, {options.jobs} trainings at a time")


if __name__ == "__main__":
    main()
