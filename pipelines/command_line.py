"""The command line of `arco_full`: `run` on this machine; `compile`, `submit` and `schedule` for Kubeflow."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kfp import compiler
from kfp.dsl.base_component import BaseComponent

from components.checks.pipeline import check_remote
from components.checks.run import check_run
from components.command_line import add_check_option, exit_on_error
from components.evaluate.options import add_convention_option
from components.launch import RAYJOB
from components.local_session import local_session
from components.plan import AUTO, SWEEP_METHODS, RunPlan, plan_run
from components.terminal import print_plan, print_result
from components.training_options import add_labeled_patients_option, backend_names, labeled_amount
from pipelines.local_run import StepFailed, run_locally
from pipelines.remote import REMOTE_OPTIONS, add_remote_options, send


def main(pipeline: BaseComponent, arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and do what it says; exits with 1 when a step fails, 2 for wrong input."""
    options = vars(_parser().parse_args(arguments))
    command = options.pop("command")
    if command == "compile":
        compile_pipeline(pipeline, options["output"])
    elif command == "run":
        run(pipeline, options)
    else:
        with exit_on_error():
            send_run(pipeline, options)


def compile_pipeline(pipeline: BaseComponent, output: str) -> None:
    """Write the pipeline as Kubeflow's IR YAML."""
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(pipeline, output)
    print(output)


def run(pipeline: BaseComponent, options: dict[str, Any]) -> None:
    """Plan, run on this machine, and print the result; or only check."""
    failed = None
    with exit_on_error():
        if options.pop("check"):
            check_run(options).finish()
            return
        plan = plan_run(**options)
        print_plan(plan)
        with local_session(plan) as root:
            try:
                run_locally(pipeline, _parameters(plan, []), root=root)
            except StepFailed as error:
                failed = f"The step {str(error)!r} failed; its error is above."
            except KeyboardInterrupt:
                failed = "Interrupted."
    if failed is not None:
        print(
            f"{failed} Earlier results are as they were.\n"
            "To resume, run the same command again: finished steps are kept.",
            file=sys.stderr,
        )
        raise SystemExit(1)
    print_result(plan.run)


def send_run(pipeline: BaseComponent, options: dict[str, Any]) -> None:
    """Plan from here, with the scans and the store that the cluster has, and have Kubeflow run it."""
    remote = {key: options.pop(key) for key in REMOTE_OPTIONS if key in options}
    cluster = options.pop("cluster")
    check_remote([options["data"], options["store"]], cluster)
    plan = plan_run(**options, backend=RAYJOB)
    print_plan(plan)
    send(pipeline, _parameters(plan, cluster), remote, title=plan.run.rpartition("/")[2])


def _parameters(plan: RunPlan, cluster: Sequence[str]) -> dict[str, Any]:
    """The arguments of the pipeline."""
    return {
        "data": plan.data,
        "store": plan.store,
        "run": plan.run,
        "preset": plan.preset,
        "overrides": list(plan.overrides),
        "labeled": plan.labeled,
        "seeds": list(plan.seeds),
        "sweep_labeled": list(plan.sweep_labeled),
        "sweep_methods": list(plan.sweep_methods),
        "convention": plan.convention,
        "backend": plan.backend,
        "cluster": list(cluster),
        "code": plan.code,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Scans with few labels to a published segmentation model.")
    commands = parser.add_subparsers(dest="command", required=True)
    local = commands.add_parser("run", help="run on this machine")
    local.add_argument("--data", help="folder or URL of the scans; without it, a synthetic demo cohort")
    local.add_argument("--store", default="arco-store", help="folder or s3:// URL for all results")
    local.add_argument(
        "--backend",
        choices=backend_names(),
        default="ray",
        help="in-process trains with one worker and no Ray",
    )
    _add_run_options(local)
    add_check_option(local)
    written = commands.add_parser("compile", help="write the pipeline for Kubeflow Pipelines")
    written.add_argument("-o", "--output", default="arco_full.yaml")
    for name, text in (
        ("submit", "start a run on Kubeflow Pipelines; the pipeline is uploaded where it is not there"),
        ("schedule", "have Kubeflow Pipelines run it again and again"),
    ):
        remote = commands.add_parser(name, help=text)
        remote.add_argument("--data", required=True, help="s3:// URL of the scans")
        remote.add_argument("--store", required=True, help="s3:// URL for all results")
        _add_run_options(remote)
        add_remote_options(remote, scheduled=name == "schedule")
    return parser


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    """What a run is, wherever it runs."""
    parser.add_argument(
        "--labeled", type=labeled_amount, default="all",
        help="labelled patients to use: a number, a ratio of the training patients, or all (default)",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one training each (default: 0)")
    parser.add_argument(
        "--sweep", dest="sweep_labeled", type=labeled_amount, nargs="+", default=[], metavar="AMOUNT",
        help="amounts of labels of a sweep beside it (docs/sweep.md); default: none",
    )  # fmt: skip
    parser.add_argument(
        "--methods", dest="sweep_methods", nargs="+", metavar="METHOD", default=SWEEP_METHODS,
        help=f"of the sweep; default: {' '.join(SWEEP_METHODS)}",
    )  # fmt: skip
    add_convention_option(parser)
    parser.add_argument("--run", help="name of the run; by default it follows from the other options")
    parser.add_argument("--preset", default=AUTO, help="default: the one named like the dataset, or generic")
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE",
        help="a setting over the preset's; repeat it for more",
    )  # fmt: skip
    add_labeled_patients_option(parser)
