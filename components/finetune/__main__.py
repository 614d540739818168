"""`python -m components.finetune --dataset URL --run URL --init URL --preset hippocampus --labeled 2`."""

from __future__ import annotations

from collections.abc import Sequence

from components.checks.training import check_training
from components.command_line import exit_on_error
from components.finetune.step import finetune
from components.launch import write_result
from components.training_options import parse_training_options


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, train, and print the URL of the final checkpoint; or only check."""
    options, extra = parse_training_options("finetune", finetune.__doc__, arguments)
    with exit_on_error():
        if extra["check"]:
            check_training("finetune", options, init=extra["init"], continued=extra["continued"]).finish()
        else:
            url = finetune(options, init=extra["init"], continued=extra["continued"])
            write_result(extra["result"], url)
            print(url)


if __name__ == "__main__":
    main()
