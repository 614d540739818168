"""What each stage of training computes in one step."""

from arco_core.peers import ALONE, Peers
from arco_core.stages.base import STATISTICS, Stage
from arco_core.stages.build import STAGES, build_stage
from arco_core.stages.passes import Passes

__all__ = ["ALONE", "STAGES", "STATISTICS", "Passes", "Peers", "Stage", "build_stage"]
