"""What each stage of training computes in one step."""

from arco_core.stages.base import ALONE, Peers, Stage
from arco_core.stages.build import STAGES, build_stage

__all__ = ["ALONE", "STAGES", "Peers", "Stage", "build_stage"]
