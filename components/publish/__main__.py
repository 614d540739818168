"""`python -m components.publish --dataset URL --run URL --summary URL --model arco-sg 0 CHECKPOINT`."""

from __future__ import annotations

import argparse

from components.checks.steps import check_publication
from components.command_line import add_check_option, exit_on_error
from components.model_ref import add_model_option, parse_models
from components.publish.step import publish


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, publish, and print where the model is."""
    parser = argparse.ArgumentParser(prog="python -m components.publish", description=publish.__doc__)
    parser.add_argument("--dataset", required=True, help="URL of the dataset version")
    parser.add_argument("--run", required=True, help="URL of the run folder")
    parser.add_argument("--summary", required=True, help="URL of the evaluation's summary.json")
    add_model_option(parser)
    add_check_option(parser)
    options = vars(parser.parse_args(arguments))
    with exit_on_error():
        models = parse_models(options.pop("models"))
        if options.pop("check"):
            check_publication(options, models).finish()
            return
        url = publish(models=models, **options)
    print(f"model    {url}")


if __name__ == "__main__":
    main()
