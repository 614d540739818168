"""Configuration: frozen dataclasses, one TOML file, `a.b=c` overrides, named presets."""

from arco_core.config.data import DataConfig
from arco_core.config.errors import ConfigError
from arco_core.config.inference import InferenceConfig
from arco_core.config.load import build, dumps, load, loads, merge, parse_override, preset_names
from arco_core.config.network import NetworkConfig
from arco_core.config.released import ReleasedConfig
from arco_core.config.run import RunConfig
from arco_core.config.schema import (
    ArcoConfig,
    AugmentConfig,
    ContrastConfig,
    FinetuneConfig,
    LossWeights,
    OptimizerConfig,
    PretrainConfig,
    SupervisedConfig,
)

__all__ = [
    "ArcoConfig",
    "AugmentConfig",
    "ConfigError",
    "ContrastConfig",
    "DataConfig",
    "FinetuneConfig",
    "InferenceConfig",
    "LossWeights",
    "NetworkConfig",
    "OptimizerConfig",
    "PretrainConfig",
    "ReleasedConfig",
    "RunConfig",
    "SupervisedConfig",
    "build",
    "dumps",
    "load",
    "loads",
    "merge",
    "parse_override",
    "preset_names",
]
