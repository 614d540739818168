"""`python -m components.evaluate --dataset URL --run URL --model arco-sg 0 CHECKPOINT --model …`."""

from __future__ import annotations

import argparse

from components.checks.steps import check_evaluation
from components.command_line import add_check_option, add_result_option, exit_on_error
from components.console import print_table
from components.evaluate.options import add_scoring_options
from components.evaluate.step import evaluate
from components.evaluate.table import results_table
from components.launch import write_result
from components.model_ref import add_model_option, parse_models


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, evaluate, and print the table and where the results are."""
    parser = argparse.ArgumentParser(prog="python -m components.evaluate", description=evaluate.__doc__)
    parser.add_argument("--dataset", required=True, help="URL of the dataset version")
    parser.add_argument("--run", required=True, help="URL of the run folder")
    parser.add_argument("--split", default="validation", choices=("validation", "test"))
    add_scoring_options(parser)
    add_model_option(parser)
    add_check_option(parser)
    add_result_option(parser)
    options = vars(parser.parse_args(arguments))
    made = options.pop("result")
    with exit_on_error():
        models = parse_models(options.pop("models"))
        if options.pop("check"):
            check_evaluation(options, models).finish()
            return
        result = evaluate(models=models, **options)
        write_result(made, result.summary_url)
    print_table(results_table(result.summary))
    print(f"report   {result.report_url}\nsummary  {result.summary_url}")


if __name__ == "__main__":
    main()
