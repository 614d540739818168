"""How models are scored, from and to command lines."""

from __future__ import annotations

import argparse

import pytest

from arco_core.config import ConfigError
from components.evaluate.options import (
    DEFAULT_SCORING,
    Scoring,
    add_scoring_options,
    scoring_arguments,
    scoring_by,
    scoring_of,
)


@pytest.mark.parametrize("scoring", [DEFAULT_SCORING, Scoring(convention="released", tolerance_mm=0.5)])
def test_arguments_are_what_the_options_read(scoring: Scoring) -> None:
    parser = argparse.ArgumentParser()
    add_scoring_options(parser)
    assert scoring_of(vars(parser.parse_args(scoring_arguments(scoring)))) == scoring
    assert scoring_of(vars(parser.parse_args([]))) == DEFAULT_SCORING


def test_a_convention_by_name() -> None:
    assert scoring_by("released")["convention"] == "released"
    with pytest.raises(ConfigError, match="'medpy': must be one of arco, released"):
        scoring_by("medpy")
