"""The command `arco`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from arco_core import __version__
from components.command_line import exit_on_error
from components.data_commands import add_data_commands
from components.model_commands import add_model_commands
from components.predict_command import add_predict_command


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and do what it says; exits with 2 for what the user can mend."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if options.command is _sweep:  # its own parser knows them
        options.rest = rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    with exit_on_error():
        options.command(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="arco", description="Segmentation from few labels. The whole pipeline: make demo."
    )
    parser.add_argument("--version", action="version", version=f"arco {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    add_predict_command(commands)
    variance = commands.add_parser(
        "variance", help="measure the samplers' variance on real features: variance.csv and variance.png"
    )
    variance.add_argument("--dataset", required=True, help="URL of the dataset version")
    variance.add_argument("--checkpoint", required=True, help="URL of a fine-tuning's checkpoint")
    variance.add_argument("-o", "--output", required=True, help="folder or URL to write into")
    variance.add_argument(
        "--batches", type=int, help="how many; default 16, or as many as there are slices for"
    )
    variance.add_argument("--queries", type=int, help="pixels sampled of a class; default: the run's")
    variance.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    variance.set_defaults(command=_variance)

    compare = commands.add_parser(
        "compare", help="set evaluated runs side by side: one report, with figures for papers"
    )
    compare.add_argument("runs", nargs="+", metavar="RUN", help="URL of a run's or a sweep's folder")
    compare.add_argument("-o", "--output", required=True, help="folder or URL to write into")
    compare.set_defaults(command=_compare)

    sweep = commands.add_parser(
        "sweep", help="train methods × amounts of labels × seeds, and report on them", add_help=False
    )
    sweep.set_defaults(command=_sweep)

    demo = commands.add_parser("demo-data", help="write a synthetic cohort of cardiac scans")
    demo.add_argument("out", type=Path, help="folder to write")
    demo.add_argument("--patients", type=int, help="number of patients")
    demo.add_argument("--labeled", type=int, help="how many of them are annotated")
    demo.add_argument("--seed", type=int, help="another seed gives another cohort")
    demo.set_defaults(command=_demo_data)

    submit = commands.add_parser(
        "submit",
        help="run a command as a job on a Ray cluster; Ctrl-C stops it, its exit code is this one's",
    )
    submit.add_argument("--address", help="of the cluster's dashboard; default: RAY_ADDRESS")
    submit.add_argument("--working-dir", default=".", help="folder whose copy the job runs in")
    submit.add_argument(
        "program", nargs="+", metavar="COMMAND", help="after --: python -m components.pretrain …"
    )
    submit.set_defaults(command=_submit)

    add_data_commands(commands)
    add_model_commands(commands)
    return parser


def _variance(options: argparse.Namespace) -> None:
    from components.console import print_table
    from components.variance import measure_variance, variance_table

    given = ("dataset", "checkpoint", "output", "batches", "queries", "device")
    result = measure_variance(**{key: getattr(options, key) for key in given})
    print_table(variance_table(result.rows))
    print(f"picture  {result.picture_url}\ntable    {result.table_url}")


def _submit(options: argparse.Namespace) -> None:
    from infra.ray_job import run_job  # imports Ray, which takes seconds

    code = run_job(options.program, address=options.address, working_dir=options.working_dir)
    raise SystemExit(code)


def _compare(options: argparse.Namespace) -> None:
    from components.compare import compare, print_comparison

    print_comparison(compare(runs=options.runs, output=options.output))


def _sweep(options: argparse.Namespace) -> None:
    from components.sweep.__main__ import main as sweep  # imports torch, which takes seconds

    sweep(options.rest, prog="arco sweep")


def _demo_data(options: argparse.Namespace) -> None:
    from infra.datasets.synthetic import write_cohort

    given = {key: getattr(options, key) for key in ("patients", "labeled", "seed")}
    folder = write_cohort(options.out, **{key: value for key, value in given.items() if value is not None})
    print(f"{folder}  (make demo DATA={folder})")


if __name__ == "__main__":
    main()
