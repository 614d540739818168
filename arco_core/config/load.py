"""Read and write configuration: preset, TOML file, then `--set a.b=c`, each over the one before."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import tomli_w

from arco_core.config.errors import ConfigError
from arco_core.config.schema import ArcoConfig

T = typing.TypeVar("T")


def preset_names() -> tuple[str, ...]:
    """Names of the presets that `load` accepts, sorted."""
    files = resources.files("arco_core.config.presets").iterdir()
    return tuple(sorted(Path(f.name).stem for f in files if f.name.endswith(".toml")))


def load(
    *, preset: str | None = "paper", file: str | Path | None = None, overrides: Iterable[str] = ()
) -> ArcoConfig:
    """Build a configuration from `preset`, then `file` (TOML), then `overrides` (`"a.b=c"`).

    Without a preset, the defaults of `ArcoConfig` take its place.

    Raises `ConfigError`, naming key, value, rule and nearest valid key, for anything unknown,
    of a wrong type or impossible.
    """
    values = {} if preset is None else _preset(preset)
    if file is not None:
        try:
            merge(values, tomllib.loads(Path(file).read_text()))
        except OSError as error:
            raise ConfigError(f"config file {str(file)!r} cannot be read: {error}") from error
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"config file {str(file)!r} is not TOML: {error}") from error
    for override in overrides:
        merge(values, parse_override(override))
    return build(ArcoConfig, values)


def _preset(name: str) -> dict[str, Any]:
    if name not in preset_names():
        raise ConfigError(f"preset {name!r} does not exist{_nearest(name, preset_names())}")
    return tomllib.loads(resources.files("arco_core.config.presets").joinpath(f"{name}.toml").read_text())


def loads(text: str) -> ArcoConfig:
    """The configuration that `dumps` wrote."""
    return build(ArcoConfig, tomllib.loads(text))


def dumps(config: ArcoConfig) -> str:
    """The whole configuration as TOML, with every default spelt out."""
    return tomli_w.dumps(_without_none(dataclasses.asdict(config)))


def build(cls: type[T], values: Mapping[str, Any]) -> T:
    """An instance of the dataclass `cls` from tables of values.

    Raises `ConfigError`, as `load` does.
    """
    return typing.cast(T, _build(cls, values, ""))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    return list(value) if isinstance(value, tuple) else value


def parse_override(override: str) -> dict[str, Any]:
    """`"a.b=c"` as tables of values, `{"a": {"b": "c"}}`. Raises `ConfigError` where there is no key."""
    key, separator, raw = override.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"override {override!r} is not of the form section.key=value")
    try:
        value = tomllib.loads(f"v = {raw}")["v"]
    except tomllib.TOMLDecodeError:
        value = raw.strip()  # a bare word is a string: run.device=cpu
    for part in reversed(key.strip().split(".")):
        value = {part: value}
    return typing.cast(dict[str, Any], value)


def merge(into: dict[str, Any], new: Mapping[str, Any]) -> None:
    """Put the values of `new` over those of `into`, table by table."""
    for key, value in new.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value


def _nearest(word: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"


def _build(cls: Any, values: Any, path: str) -> Any:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path.rstrip('.')} = {values!r}: must be a table of settings.")
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in hints:
            raise ConfigError(f"unknown key {path + key!r} = {values[key]!r}{_nearest(key, hints)}")
    return cls(**{k: _convert(hints[k], v, path + k) for k, v in values.items()})


def _convert(hint: Any, value: Any, key: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, key + ".")
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        return _convert(next(a for a in args if a is not types.NoneType), value, key)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{key} = {value!r}: must be a list.")
        inner = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
        if len(inner) != len(value):
            raise ConfigError(f"{key} = {value!r}: must have {len(inner)} entries.")
        return tuple(_convert(h, v, key) for h, v in zip(inner, value, strict=True))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ConfigError(f"{key} = {value!r}: must be of type {hint.__name__}.")
    return value
