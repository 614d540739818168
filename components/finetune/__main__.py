"""`python -m components.finetune --dataset URL --run URL --init URL --preset hippocampus --labeled 2`."""

from __future__ import annotations

from collections.abc import Sequence

from components.command_line import exit_on_error
from components.finetune.step import finetune
from components.training_options import parse_training_options


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, train, and print the URL of the final checkpoint."""
    options, extra = parse_training_options("finetune", finetune.__doc__, arguments)
    with exit_on_error():
        print(finetune(options, **extra))


if __name__ == "__main__":
    main()
