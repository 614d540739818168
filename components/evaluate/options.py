"""Options of how models are scored, for every command that evaluates."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, TypedDict

from arco_core.config import ConfigError
from arco_core.metrics import CONVENTIONS, TOLERANCE_MM, Convention


class Scoring(TypedDict):
    """How models are scored; keyword arguments of `evaluate`."""

    convention: Convention
    tolerance_mm: float


DEFAULT_SCORING = Scoring(convention="arco", tolerance_mm=TOLERANCE_MM)


def add_convention_option(parser: argparse.ArgumentParser) -> None:
    """The option `--convention`."""
    parser.add_argument(
        "--convention", default="arco", choices=CONVENTIONS,
        help="of the metrics; released is what the authors' code computes; default: %(default)s",
    )  # fmt: skip


def add_scoring_options(parser: argparse.ArgumentParser) -> None:
    """The options `--convention` and `--tolerance-mm`."""
    add_convention_option(parser)
    parser.add_argument(
        "--tolerance-mm", type=float, default=TOLERANCE_MM, help="of the surface Dice; default: %(default)s"
    )


def scoring_of(options: Mapping[str, Any]) -> Scoring:
    """What `options`, parsed, say of these."""
    return Scoring(convention=options["convention"], tolerance_mm=options["tolerance_mm"])


def scoring_by(convention: str) -> Scoring:
    """By a convention's name, as Kubeflow knows it. Raises `ConfigError` for another name."""
    for known in CONVENTIONS:
        if known == convention:
            return Scoring(convention=known, tolerance_mm=TOLERANCE_MM)
    raise ConfigError(f"convention {convention!r}: must be one of {', '.join(CONVENTIONS)}.")


def scoring_arguments(scoring: Scoring) -> tuple[str, ...]:
    """`scoring` as these options."""
    return "--convention", scoring["convention"], "--tolerance-mm", f"{scoring['tolerance_mm']:g}"
