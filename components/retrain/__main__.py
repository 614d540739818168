"""`python -m components.retrain`: the judgement of a retraining, as a job of its own; see `release`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from components.command_line import add_result_option, exit_on_error
from components.launch import write_result
from components.retrain.release import release


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, judge, and print the decision."""
    parser = argparse.ArgumentParser(prog="python -m components.retrain", description=release.__doc__)
    parser.add_argument("--plan", required=True, help="URL of the retraining's plan")
    parser.add_argument("--dataset", required=True, help="URL of the dataset version with the new scans")
    parser.add_argument("--checkpoint", required=True, help="URL of the new model's checkpoint")
    add_result_option(parser)
    options = parser.parse_args(arguments)
    with exit_on_error():
        decision = release(options.plan, options.dataset, options.checkpoint).decision
        write_result(options.result, decision)
        print(decision)


if __name__ == "__main__":
    main()
