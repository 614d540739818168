"""Settings of Ray clusters by step, from a TOML file: what differs from installation to installation.

```
[default]
env_config_map = "arco-store"
[default.workers]
spot_label = "karpenter.sh/capacity-type=spot"
[prepare.workers]
maximum = 8
```

A step's table changes single values of the default's. Parameters of a run change them once more:
`workers.maximum=4` for all steps, `finetune:workers.maximum=8` for one.
"""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from arco_core.config import ConfigError, build, merge, parse_override
from infra.kuberay.spec import RayClusterSettings

DEFAULT = "default"


def load_cluster_settings(
    file: str | Path, step: str = DEFAULT, overrides: Iterable[str] = ()
) -> RayClusterSettings:
    """The settings of `step` in `file`, the default's for a step without a table.

    Args:
        file: TOML.
        step: name of a pipeline step.
        overrides: over the file's, each `key=value` or `step:key=value`.

    Raises:
        ConfigError: the file cannot be read, or a value of any step is unknown, mistyped or impossible.
    """
    try:
        tables = tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cluster settings {str(file)!r} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"cluster settings {str(file)!r} are not TOML: {error}") from error
    settings = _settings(tables, _override_tables(overrides), f"cluster settings {str(file)!r}")
    return settings.get(step, settings[DEFAULT])


def check_overrides(overrides: Iterable[str]) -> None:
    """Raise `ConfigError` for what no file of settings could be overridden with."""
    _settings({}, _override_tables(overrides), "cluster")


def _settings(tables: dict[str, Any], over: dict[str, Any], source: str) -> dict[str, RayClusterSettings]:
    """Settings by step, of all steps that `tables` or `over` name, and the default's."""
    settings = {}
    for name in (DEFAULT, *tables, *over):
        values: dict[str, Any] = {}
        for layer in (tables, over):
            for table in (DEFAULT, name):
                found = layer.get(table, {})
                if not isinstance(found, dict):
                    raise ConfigError(f"{source}: {table} = {found!r}: must be a table")
                merge(values, copy.deepcopy(found))
        try:
            settings[name] = build(RayClusterSettings, values)
        except ConfigError as error:
            raise ConfigError(f"{source}, [{name}]: {error}") from error
    return settings


def _override_tables(overrides: Iterable[str]) -> dict[str, Any]:
    """Tables of settings by step, from `key=value` and `step:key=value`."""
    tables: dict[str, Any] = {}
    for override in overrides:
        key, separator, value = override.partition("=")
        step, colon, rest = key.rpartition(":")
        setting = parse_override(f"{rest if colon else key}{separator}{value}")
        merge(tables.setdefault(step or DEFAULT, {}), setting)
    return tables
