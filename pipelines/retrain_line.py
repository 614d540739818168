"""The command line of `arco_retrain`."""

from __future__ import annotations

import argparse
import sys
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kfp.dsl.base_component import BaseComponent

from components.checks.pipeline import check_remote
from components.command_line import exit_on_error
from components.launch import RAYJOB
from components.local_session import check_paths
from components.retrain.plan import RetrainSettings
from components.retrain.steps import check_settings
from components.terminal import step_output
from components.training_options import backend_names, labeled_amount
from pipelines.command_line import compile_pipeline
from pipelines.local_run import StepFailed, run_locally
from pipelines.remote import REMOTE_OPTIONS, add_remote_options, send


def main(pipeline: BaseComponent, arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and do what it says; exits with 1 when a step fails, 2 for wrong input."""
    options = vars(_parser().parse_args(arguments))
    command = options.pop("command")
    if command == "compile":
        compile_pipeline(pipeline, options["output"])
        return
    with exit_on_error():
        remote = {key: options.pop(key) for key in REMOTE_OPTIONS if key in options}
        if options["labeled"] == "all":
            options["labeled"] = 0.0
        if command == "run":
            run(pipeline, options)
            return
        options["backend"] = RAYJOB
        _check(options)
        check_remote([options["raw"], options["store"]], options["cluster"])
        send(pipeline, options, remote, title=f"{options['name']}-retrain")


def run(pipeline: BaseComponent, options: dict[str, Any]) -> None:
    """One night on this machine."""
    _check(options)
    check_paths([options["raw"], options["store"], *options["overrides"]])
    with tempfile.TemporaryDirectory(prefix="arco-kfp-") as root:
        try:
            with step_output():
                run_locally(pipeline, {**options, "holder": uuid.uuid4().hex}, root=Path(root))
        except StepFailed as error:
            print(f"The step {str(error)!r} failed; the model in service is as it was.", file=sys.stderr)
            raise SystemExit(1) from error


def _check(options: dict[str, Any]) -> None:
    given = {key: value for key, value in options.items() if key not in ("backend", "cluster")}
    check_settings(RetrainSettings(**given | {"overrides": tuple(options["overrides"])}), options["backend"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="New scans to a new model, if it is not worse.")
    commands = parser.add_subparsers(dest="command", required=True)
    local = commands.add_parser("run", help="one night on this machine")
    local.add_argument("--backend", choices=backend_names(), default="ray")
    local.set_defaults(cluster=[])
    written = commands.add_parser("compile", help="write the pipeline for Kubeflow Pipelines")
    written.add_argument("-o", "--output", default="arco_retrain.yaml")
    submit = commands.add_parser("submit", help="one night on Kubeflow Pipelines")
    schedule = commands.add_parser("schedule", help="have Kubeflow Pipelines do it again and again")
    for remote in (submit, schedule):
        add_remote_options(remote, scheduled=remote is schedule)
    for command in (local, submit, schedule):
        _add_options(command)
    return parser


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--raw", required=True, help="folder or URL below which scans appear")
    parser.add_argument("--store", required=True, help="folder or s3:// URL for all results")
    parser.add_argument("--name", required=True, help="of the model in service, see arco model")
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE",
        help="a setting over those that the model was trained with; repeat it for more",
    )  # fmt: skip
    parser.add_argument(
        "--labeled", type=labeled_amount, default="all", help="as of arco_full (default: all)"
    )
    parser.add_argument("--settle-minutes", type=float, default=10.0, help="younger files wait (default: 10)")
    parser.add_argument(
        "--margin", type=float, default=0.02, help="Dice that may be lost in a class (default: 0.02)"
    )
    parser.add_argument(
        "--min-patients", type=int, default=5, help="that it takes to judge a class (default: 5)"
    )
