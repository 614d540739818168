"""Cron lines as KubeRay reads them: five fields, checked here because no schema and no API server does."""

from __future__ import annotations

import re
from zoneinfo import available_timezones

from arco_core.config.errors import require

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 6, _DAYS),
)
_PART = re.compile(r"(?P<first>[*?]|\w+)(-(?P<last>\w+))?(/(?P<step>[1-9]\d*))?")


def require_cron(key: str, line: str) -> None:
    """Raise `ConfigError` naming `key` unless `line` is a cron line of five fields."""
    fields = line.split()
    rule = "must be five fields: minute, hour, day of month, month, day of week"
    require(len(fields) == len(_FIELDS), key, line, rule)
    for text, (name, low, high, names) in zip(fields, _FIELDS, strict=True):
        ok = all(_valid(part, low, high, names) for part in text.split(","))
        require(ok, key, line, f"its field {text!r} must be of a {name}, in [{low}, {high}]")


def require_time_zone(key: str, name: str) -> None:
    """Raise `ConfigError` naming `key` unless `name` is a time zone's."""
    require(
        name in available_timezones(), key, name, "must be the name of a time zone, such as Europe/Berlin"
    )


def _valid(part: str, low: int, high: int, names: tuple[str, ...]) -> bool:
    found = _PART.fullmatch(part)
    if found is None:
        return False
    if found["first"] in ("*", "?"):
        return found["last"] is None
    first = _number(found["first"], low, names)
    last = first if found["last"] is None else _number(found["last"], low, names)
    return low <= first <= last <= high


def _number(text: str, low: int, names: tuple[str, ...]) -> int:
    """The value of a number or name, -1 for neither."""
    if text.lower() in names:
        return names.index(text.lower()) + low
    return int(text) if text.isascii() and text.isdecimal() else -1
