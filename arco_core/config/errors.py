"""The one error of configuration, and the rules that raise it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any


class ConfigError(ValueError):
    """A configuration value that breaks a rule; the message names key, value, rule and way out."""


def require(ok: bool, key: str, value: Any, rule: str) -> None:
    """Raise `ConfigError` naming `key`, `value` and `rule` unless `ok`."""
    if not ok:
        raise ConfigError(f"{key} = {value!r}: {rule}.")


def require_in(key: str, value: str, choices: Collection[str]) -> None:
    """Raise `ConfigError` unless `value` is one of `choices`."""
    require(value in choices, key, value, f"must be one of {', '.join(sorted(choices))}")


def require_range(key: str, value: float, low: float, high: float) -> None:
    """Raise `ConfigError` unless `low <= value <= high`."""
    require(low <= value <= high, key, value, f"must lie in [{low:g}, {high:g}]")
