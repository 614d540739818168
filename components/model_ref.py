"""Which trained model a step is asked to look at."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from arco_core.config.errors import require

BASELINE = "supervised"
"""The method that the others are compared with."""

FRAMEWORK_SEPARATOR = "+"
"""Between a method's name and that of the framework of its stage one, where this is not ARCO's own."""
FRAMEWORK_TITLES = {
    "moco-v2": "MoCo v2",
    "knn-moco": "kNN-MoCo",
    "simclr": "SimCLR",
    "byol": "BYOL",
    "isd": "ISD",
    "vicreg": "VICReg",
}


@dataclass(frozen=True, kw_only=True)
class ModelRef:
    """The outcome of training one method with one seed."""

    method: str
    """One of `components.methods.METHODS`, or the name that its user gave it."""
    seed: int
    checkpoint: str
    """URL of the last stage's final checkpoint."""


def method_title(method: str) -> str:
    """A method's name as tables and figures print it: `ARCO-SG`, `ARCO-SG + SimCLR`, `Supervised`, ….

    A run's name in brackets, as comparisons add it, stays as it is.
    """
    name, bracket, run = method.partition(" (")
    name, plus, framework = name.partition(FRAMEWORK_SEPARATOR)
    title = name.upper() if name.startswith("arco") else name.replace("-", " ").capitalize()
    title = title.replace("HILBERT", "Hilbert")  # a name, the others are abbreviations
    if plus:
        title += f" + {FRAMEWORK_TITLES.get(framework, framework)}"
    return title + bracket + run


def method_rank(method: str) -> tuple[int, str]:
    """For sorting as the paper's tables do: the baseline first, ARCO last, by name between.

    ARCO after a stage one by another framework comes before ARCO itself.
    """
    if method.startswith(BASELINE):
        return 0, method
    if not method.startswith("arco"):
        return 1, method
    return 2 if FRAMEWORK_SEPARATOR in method.partition(" (")[0] else 3, method


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
