"""Which trained model a step is asked to look at."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from arco_core.config.errors import require

BASELINE = "supervised"
"""The method that the others are compared with."""


@dataclass(frozen=True, kw_only=True)
class ModelRef:
    """The outcome of training one method with one seed."""

    method: str
    """`arco-sg`, …, or `supervised`."""
    seed: int
    checkpoint: str
    """URL of the last stage's final checkpoint."""


def method_title(method: str) -> str:
    """A method's name as tables and figures print it: `ARCO-SG`, `Mean teacher`, `Supervised`.

    A run's name in brackets, as comparisons add it, stays as it is.
    """
    name, bracket, run = method.partition(" (")
    title = name.upper() if name.startswith("arco") else name.replace("-", " ").capitalize()
    return title + bracket + run


def method_rank(method: str) -> tuple[int, str]:
    """For sorting as the paper's tables do: the baseline first, ARCO last, by name between."""
    return 0 if method.startswith(BASELINE) else 2 if method.startswith("arco") else 1, method


def add_model_option(parser: argparse.ArgumentParser) -> None:
    """The option `--model METHOD SEED CHECKPOINT`, once for each model."""
    parser.add_argument(
        "--model",
        dest="models",
        action="append",
        required=True,
        nargs=3,
        metavar=("METHOD", "SEED", "CHECKPOINT"),
        help="a trained model; repeat it for each method and seed",
    )


def parse_models(values: list[list[str]]) -> list[ModelRef]:
    """What `--model` gave. Raises `ConfigError` for a seed that is no whole number."""
    for method, seed, _ in values:
        require(seed.isdecimal(), f"--model {method}", seed, "the seed must be a whole number from 0")
    return [ModelRef(method=method, seed=int(seed), checkpoint=url) for method, seed, url in values]
