"""Methods by name: their settings, and the names of configurations."""

from __future__ import annotations

import pytest

from arco_core.config import load
from arco_core.config.frameworks import ARCO, FRAMEWORK_NAMES
from components.methods import METHODS, OWN_METHODS, finetuned_method, framework_of
from components.model_ref import BASELINE, FRAMEWORK_TITLES, method_rank, method_title


@pytest.mark.parametrize("method", [m for m in METHODS if m != BASELINE])
def test_a_configuration_is_named_as_the_method_that_it_trains(method: str) -> None:
    config = load(preset="hippocampus", overrides=METHODS[method])
    assert finetuned_method(config) == method
    assert config.pretrain.framework == framework_of(method)


def test_every_framework_of_the_paper_with_every_sampler_of_the_paper() -> None:
    """Table 8."""
    names = {f"arco-{sampler}" for sampler in ("ns", "sg", "sag")}
    others = {f"{name}+{framework}" for name in names for framework in FRAMEWORK_NAMES if framework != ARCO}
    assert names | others <= METHODS.keys() and names <= set(OWN_METHODS)
    assert {framework_of(m) for m in OWN_METHODS} == {ARCO}


def test_stage_two_does_not_depend_on_the_framework() -> None:
    one, other = (load(overrides=METHODS[m]) for m in ("arco-sag", "arco-sag+byol"))
    assert one.finetune == other.finetune and one != other


@pytest.mark.parametrize(
    ("method", "title"),
    [("arco-sg+simclr", "ARCO-SG + SimCLR"), ("mean-teacher+moco-v2 (a+b)", "Mean teacher + MoCo v2 (a+b)")],
)
def test_titles(method: str, title: str) -> None:
    assert method_title(method) == title


def test_every_framework_has_a_title() -> None:
    assert FRAMEWORK_TITLES.keys() == set(FRAMEWORK_NAMES) - {ARCO}


def test_arco_itself_comes_last() -> None:
    order = ["supervised", "mean-teacher", "arco-ns+byol", "arco-sg+simclr (a)", "arco-ns", "arco-sg (a+b)"]
    assert sorted(reversed(order), key=method_rank) == order
