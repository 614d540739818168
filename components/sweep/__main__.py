"""`python -m components.sweep --config sweep.toml --dataset URL --run URL`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from arco_core.config import ConfigError
from arco_core.metrics import check_tolerance
from components.checks.sweep import check_sweep
from components.command_line import add_check_option, add_result_option, exit_on_error
from components.compare import print_comparison
from components.evaluate.options import add_scoring_options, scoring_of
from components.launch import write_result
from components.methods import METHODS
from components.prepare.step import prepare
from components.sweep.report import evaluate_sweep, report_sweep
from components.sweep.settings import SweepConfig, load_sweep
from components.sweep.step import SweepOptions, sweep
from components.training_options import backend_names, labeled_amount

_FIELDS = ("preset", "labeled", "methods", "seeds", "concurrent", "retries", "early_stopping")
_FAILED = 1
"""Exit code where trials failed; the others are in the report."""


def main(arguments: Sequence[str] | None = None, *, prog: str = "python -m components.sweep") -> None:
    """Train the grid, evaluate it, print the tables and where the report is; or only check."""
    options = vars(_parser(prog).parse_args(arguments))
    with exit_on_error():
        values = {key: options[key] for key in _FIELDS if options[key] is not None}
        config, overrides = load_sweep(options["config"], values=values, overrides=options["overrides"])
        run = options["run"] or f"{options['store']}/runs/{config.name}"
        dataset = options["dataset"] or _prepared(config, overrides, options)
        asked = SweepOptions(
            sweep=config, dataset=dataset, run=run, trainings=options["trainings"],
            overrides=overrides, backend=options["backend"],
        )  # fmt: skip
        check_tolerance(options["tolerance_mm"])  # before hours of training, not behind them
        if options["check"]:
            check_sweep(asked).finish()
            return
        record = sweep(asked)
        evaluate_sweep(record, split=options["split"], scoring=scoring_of(options))
        print_comparison(report_sweep(record))
        write_result(options["result"], record.run)
    if record.failures and not options["report_failures"]:
        raise SystemExit(_FAILED)


def _prepared(config: SweepConfig, overrides: Sequence[str], options: dict[str, Any]) -> str:
    """URL of the dataset version of `--data`, which is made unless it is there."""
    if options["data"] is None:
        raise ConfigError("--dataset names a dataset version, or --data raw scans to prepare: give one.")
    if options["check"]:
        raise ConfigError("--check needs --dataset: prepare the scans first (python -m components.prepare).")
    return prepare(
        data=options["data"],
        store=options["store"],
        preset=config.preset,
        overrides=overrides,
        use_ray=options["backend"] == "ray",
    )


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description=sweep.__doc__)
    parser.add_argument(
        "--config", metavar="FILE",
        help="TOML file or URL: the grid in [sweep], and settings over the preset in all other tables",
    )  # fmt: skip
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--dataset", help="URL of the dataset version")
    source.add_argument("--data", help="raw scans to prepare first, as components.prepare does")
    parser.add_argument("--store", default="arco-store", help="where --data and, without --run, results go")
    parser.add_argument("--run", help="URL of the sweep's folder; default: runs/<sweep.name> in the store")
    parser.add_argument(
        "--trainings", help="URL of the folder of all trainings; default: trainings in the sweep's"
    )
    parser.add_argument("--preset", help="over the file's, as are all of the following")
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE",
        help="a setting over preset and file; repeat it for more",
    )  # fmt: skip
    parser.add_argument(
        "--labeled", type=labeled_amount, nargs="+", metavar="AMOUNT",
        help="labelled patients, ratios, or all",
    )  # fmt: skip
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), metavar="METHOD")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="SEED")
    parser.add_argument("--concurrent", type=int, help="trainings at a time; default: as many as fit")
    parser.add_argument("--retries", type=int, help="further attempts at a training that failed")
    parser.add_argument(
        "--early-stopping", action=argparse.BooleanOptionalAction,
        help="stop trainings that do worse than others of their amount of labels and seed (ASHA)",
    )  # fmt: skip
    parser.add_argument("--backend", choices=backend_names(), default="ray")
    parser.add_argument("--split", default="validation", choices=("validation", "test"))
    add_scoring_options(parser)
    parser.add_argument(
        "--report-failures", action="store_true",
        help="exit with 0 though trials failed: the report says so",
    )  # fmt: skip
    add_check_option(parser)
    add_result_option(parser)
    return parser


if __name__ == "__main__":
    main()
