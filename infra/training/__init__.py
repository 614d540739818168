"""Training stages, in this process or on Ray Train, from the last checkpoint to the result."""

from infra.training.load import load_network, load_stage
from infra.training.run import BACKENDS, run_stage
from infra.training.stage_job import StageJob, StageName, StageResult

__all__ = ["BACKENDS", "StageJob", "StageName", "StageResult", "load_network", "load_stage", "run_stage"]
