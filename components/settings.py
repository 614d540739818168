"""The configuration that a step's command line asks for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from arco_core.config import ArcoConfig, load, preset_names

_DEFAULT_PRESET = "generic"


def load_settings(
    *, preset: str | None, config_file: str | None = None, overrides: Sequence[str] = ()
) -> ArcoConfig:
    """The preset, then the file (TOML), then `overrides`, each over the one before.

    A file alone stands on the defaults, so that one written by `arco_core.config.dumps` gives just what was
    written; without file and preset, the preset is `generic`. Raises `ConfigError`.
    """
    if preset is None and config_file is None:
        preset = _DEFAULT_PRESET
    return load(preset=preset, file=config_file, overrides=overrides)


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """The options `--preset`, `--config` and `--set`, which give what `load_settings` takes."""
    parser.add_argument(
        "--preset", help=f"one of {', '.join(preset_names())}; without it and --config, {_DEFAULT_PRESET}"
    )
    parser.add_argument(
        "--config", dest="config_file", metavar="FILE",
        help="TOML file with all settings, or with some over the preset's",
    )  # fmt: skip
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE",
        help="a setting over preset and file; repeat it for more",
    )  # fmt: skip
