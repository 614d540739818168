"""What checks find, and how it is told."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.text import Text

from arco_core.config import ConfigError
from arco_core.errors import ArcoError, DataError
from components.command_line import USER_ERROR
from infra.datasets import DatasetVersion
from infra.storage import Store

T = TypeVar("T")


class Checks:
    """What checks found: lines of the plan, and errors. One that fails does not keep others from running."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.errors: list[str] = []

    def value(self, get: Callable[[], T]) -> T | None:
        """What `get` returns, or None when it finds an error, which is kept."""
        try:
            return get()
        except (ArcoError, ConfigError) as error:
            self.errors.append(str(error))
            return None

    def line(self, topic: str, get: Callable[[], str]) -> None:
        """Add what `get` says to the plan."""
        text = self.value(get)
        if text is not None:
            self.lines.append((topic, text))

    def finish(self) -> None:
        """Print the plan, then what is wrong. Exits with 2 when anything is."""
        console = Console()
        for topic, text in self.lines:
            console.print(Text.assemble((f"{topic:<11}", "dim"), text), soft_wrap=True)
        for error in self.errors:
            print(f"error: {error}", file=sys.stderr)
        if self.errors:
            raise SystemExit(USER_ERROR)
        console.print("checked: this can start", style="green")


def writable(url: str) -> str:
    """`url`. Raises `StoreError` when nothing can be written there."""
    Store(url).check_writable()
    return url


def dataset_line(version: DatasetVersion) -> str:
    """What the version holds. Raises `DataError` when a shard of it is missing."""
    missing = [shard.path for shard in version.manifest.shards if not version.store.exists(shard.path)]
    if missing:
        raise DataError(
            f"{version.url}: {len(missing)} of {len(version.manifest.shards)} shards are missing, "
            f"{some(missing)}: copy the dataset as a whole, or prepare it again."
        )
    size = " × ".join(map(str, version.data_config.image_size))
    counts = ", ".join(f"{len(version.patients(split))} {split}" for split in ("train", "validation", "test"))
    return (
        f"{version.name} {version.version}: {counts} patients; {version.channels} channel(s), {size}; "
        f"classes {', '.join(version.classes)}"
    )


def some(names: Sequence[str], shown: int = 5) -> str:
    """The first `shown` names, and how many more there are."""
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest} more" if rest > 0 else "")
