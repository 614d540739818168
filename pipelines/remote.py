"""The commands `submit` and `schedule` of a pipeline's command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from kfp.dsl.base_component import BaseComponent

from components.checks.pipeline import six_fields
from pipelines.kubeflow import SUCCEEDED, TOKEN_ENVIRONMENT, Kubeflow, KubeflowError

REMOTE_OPTIONS = ("host", "namespace", "service_account", "title", "wait", "cron")


def add_remote_options(parser: argparse.ArgumentParser, *, scheduled: bool) -> None:
    """The options of `submit`, or of `schedule`."""
    parser.add_argument(
        "--host", required=True,
        help=f"URL of Kubeflow Pipelines, as http://localhost:8080; a token, if any, in {TOKEN_ENVIRONMENT}",
    )  # fmt: skip
    parser.add_argument("--namespace", help="where Kubeflow has several users: the one to run in")
    parser.add_argument("--service-account", help="of the steps' pods; default: Kubeflow's")
    parser.add_argument(
        "--cluster", action="append", default=[], metavar="[STEP:]KEY=VALUE",
        help="a setting of Ray clusters over clusters.toml, as queue=arco or finetune:workers.maximum=4",
    )  # fmt: skip
    if scheduled:
        parser.add_argument(
            "--cron", required=True, help='five fields, in the time zone of Kubeflow, as "0 2 * * *"'
        )
        parser.add_argument("--title", help="of the schedule, which takes the place of one of that title")
    else:
        parser.add_argument("--title", help="of the run")
        parser.add_argument("--wait", action="store_true", help="follow the run, and fail if it does")


def send(
    pipeline: BaseComponent, parameters: Mapping[str, Any], options: Mapping[str, Any], *, title: str
) -> None:
    """Upload the pipeline where it is not there yet, then start a run of it, or schedule it.

    Args:
        pipeline: what to run.
        parameters: of the pipeline, checked.
        options: REMOTE_OPTIONS; with `cron`, it is a schedule.
        title: of run or schedule, where the options give none.

    Raises:
        ConfigError: no cron line.
        SystemExit: with 1 where Kubeflow refuses, or the run that is waited for does not succeed.
    """
    cron = six_fields(options["cron"]) if options.get("cron") else None
    title, account = options["title"] or title, options["service_account"]
    try:
        kubeflow = Kubeflow(options["host"], options["namespace"])
        uploaded = kubeflow.upload(pipeline)
        print(f"pipeline  {uploaded.name} ({'new' if uploaded.new else 'there already'})")
        if cron is not None:
            made, replaced = kubeflow.schedule(uploaded, title, cron, parameters, service_account=account)
            print(f"schedule  {title} ({made}): {cron}" + (f", in place of {replaced}" if replaced else ""))
            return
        run = kubeflow.start(uploaded, title, parameters, service_account=account)
        print(f"run       {kubeflow.link(run)}", flush=True)
        if options["wait"] and kubeflow.wait(run, lambda line: print(line, flush=True)) != SUCCEEDED:
            raise SystemExit(1)
    except KubeflowError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    except KeyboardInterrupt as error:
        print("interrupted; a run that has been started goes on in Kubeflow", file=sys.stderr)
        raise SystemExit(130) from error
