"""`python -m components.prepare --data scans --store arco-store`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from components.checks.steps import check_preparation
from components.command_line import add_check_option, add_result_option, exit_on_error
from components.launch import write_result
from components.prepare.step import prepare
from components.settings import add_config_options


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, prepare, and print the URL of the dataset version."""
    parser = argparse.ArgumentParser(prog="python -m components.prepare", description=prepare.__doc__)
    parser.add_argument("--data", required=True, help="URL of the raw scans")
    parser.add_argument("--store", default="arco-store", help="URL of the object store")
    add_config_options(parser)
    parser.add_argument(
        "--append-to", metavar="VERSION",
        help="make a version of this one's scans and those of --data: URL, NAME/VERSION or NAME",
    )  # fmt: skip
    parser.add_argument(
        "--only", metavar="URL", help="list of the scans to take, as a retraining writes it; default: all"
    )
    parser.add_argument("--no-ray", dest="use_ray", action="store_false", help="convert in this process")
    add_check_option(parser)
    add_result_option(parser)
    options = vars(parser.parse_args(arguments))
    result = options.pop("result")
    with exit_on_error():
        if options.pop("check"):
            check_preparation(options).finish()
        else:
            url = prepare(**options)
            write_result(result, url)
            print(url)


if __name__ == "__main__":
    main()
