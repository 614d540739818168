"""Frameworks of self-supervision for stage one: ARCO's own, and those of the paper's Table 8."""

from arco_core.frameworks.base import Features, Framework, Views
from arco_core.frameworks.registry import FRAMEWORKS, make_framework

__all__ = ["FRAMEWORKS", "Features", "Framework", "Views", "make_framework"]
