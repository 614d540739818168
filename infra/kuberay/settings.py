"""Settings of Ray clusters by step, from a TOML file: what differs from installation to installation.

```
[default]
env_config_map = "arco-store"
[default.workers]
spot_label = "karpenter.sh/capacity-type=spot"
[prepare.workers]
maximum = 8
```

A step's table changes single values of the default's.
"""

from __future__ import annotations

import copy
import tomllib
from pathlib import Path
from typing import Any

from arco_core.config import ConfigError, build, merge
from infra.kuberay.spec import RayClusterSettings

DEFAULT = "default"


def load_cluster_settings(file: str | Path, step: str = DEFAULT) -> RayClusterSettings:
    """The settings of `step` in `file`, the default's for a step without a table.

    Raises:
        ConfigError: the file cannot be read, or a value of any step is unknown, mistyped or impossible.
    """
    try:
        tables = tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cluster settings {str(file)!r} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"cluster settings {str(file)!r} are not TOML: {error}") from error
    settings = {}
    for name in (DEFAULT, *tables):
        values: dict[str, Any] = {}
        for table in (DEFAULT, name):
            found = tables.get(table, {})
            if not isinstance(found, dict):
                raise ConfigError(f"cluster settings {str(file)!r}: {table} = {found!r}: must be a table")
            merge(values, copy.deepcopy(found))
        try:
            settings[name] = build(RayClusterSettings, values)
        except ConfigError as error:
            raise ConfigError(f"cluster settings {str(file)!r}, [{name}]: {error}") from error
    return settings.get(step, settings[DEFAULT])
