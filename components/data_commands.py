"""`arco data`: the dataset versions of a store."""

from __future__ import annotations

import argparse
import re
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from rich.console import Console

from arco_core.errors import DataError

if TYPE_CHECKING:
    from infra.datasets.version import DatasetVersion

DAMAGED = 1
"""Exit code of `verify` for a version that is not as it was written."""


def add_data_commands(commands: Any) -> None:
    """Add `data` and its own commands to those of `arco`."""
    data = commands.add_parser("data", help="list, inspect, check and remove dataset versions")
    parsers = data.add_subparsers(required=True, metavar="COMMAND")

    ls = parsers.add_parser("ls", help="the dataset versions of a store")
    ls.add_argument("name", nargs="?", help="only the versions of this dataset")
    ls.set_defaults(command=_ls)

    show = parsers.add_parser("show", help="what a version holds, and where it came from")
    show.add_argument("version", help=_VERSION)
    show.set_defaults(command=_show)

    verify = parsers.add_parser(
        "verify", help=f"check every shard's size and sha256; exits with {DAMAGED} when one is wrong"
    )
    verify.add_argument("version", help=_VERSION)
    verify.add_argument("--quick", action="store_true", help="sizes only: reads no shard")
    verify.set_defaults(command=_verify)

    diff = parsers.add_parser("diff", help="what one version holds and another does not")
    diff.add_argument("version", help=_VERSION)
    diff.add_argument("other", help="another one")
    diff.set_defaults(command=_diff)

    rm = parsers.add_parser("rm", help="remove a version, or what no version refers to; shows it first")
    rm.add_argument("version", nargs="?", help=_VERSION)
    rm.add_argument(
        "--unreferenced", action="store_true", help="remove what preparations left that did not end well"
    )
    rm.add_argument(
        "--older-than", type=_seconds, metavar="TIME",
        help="leave alone what is younger: 90m, 24h (default), 7d; must be longer than a preparation pauses",
    )  # fmt: skip
    rm.add_argument("--yes", action="store_true", help="remove; without it, only show")
    rm.set_defaults(command=_rm, parser=rm)

    for parser in (ls, show, verify, diff, rm):
        parser.add_argument("--store", default="arco-store", help="URL of the object store")


_VERSION = "URL of a version, or NAME/VERSION (or NAME: its newest) in --store"


def _ls(options: argparse.Namespace) -> None:
    from components.data_tables import versions_table
    from infra.datasets.catalog import list_versions
    from infra.storage import Store

    store = Store(options.store)
    catalog = list_versions(store, options.name)
    if catalog.versions:
        _console().print(versions_table(catalog.versions))
    for problem in catalog.unreadable.values():
        print(f"left out: {problem}")
    if not catalog.versions:
        print(f"no dataset versions below {store.join('datasets', *filter(None, [options.name]))}")


def _show(options: argparse.Namespace) -> None:
    from components.data_tables import version_tables

    for table in version_tables(_open(options)):
        _console().print(table)


def _verify(options: argparse.Namespace) -> None:
    from infra.datasets.catalog import resolve
    from infra.datasets.verify import verify
    from infra.datasets.version import DatasetVersion
    from infra.progress import Progress
    from infra.storage import Store

    url = resolve(options.version, Store(options.store))
    try:
        version = DatasetVersion.open(url)
    except DataError as error:
        _damaged([str(error)])
    with ExitStack() as stack:
        on_shard = None
        if not options.quick:
            total = len(version.manifest.shards)
            on_shard = stack.enter_context(Progress("verify", total, "shards")).update
        problems = verify(version, quick=options.quick, on_shard=on_shard)
    if problems:
        _damaged(problems)
    checked = "sizes" if options.quick else "sizes and sha256"
    print(f"{version.url}: {checked} of {len(version.manifest.shards)} shards are right")


def _diff(options: argparse.Namespace) -> None:
    from components.data_tables import comparison_tables, size
    from infra.datasets.catalog import resolve
    from infra.datasets.compare import compare
    from infra.datasets.version import DatasetVersion
    from infra.storage import Store

    store = Store(options.store)
    first, other = (DatasetVersion.open(resolve(text, store)) for text in (options.version, options.other))
    comparison = compare(first, other)
    for table in comparison_tables(comparison):
        _console().print(table)
    if comparison.is_empty:
        print("the same scans, patients and settings")
    print(f"{size(comparison.shared_bytes)} of shards are shared")


def _rm(options: argparse.Namespace) -> None:
    from components.data_tables import removal_table, size
    from infra.datasets import remove
    from infra.datasets.catalog import resolve
    from infra.storage import Store

    if (options.version is not None) == options.unreferenced:
        options.parser.error("give a version, or --unreferenced")
    if options.older_than is not None and not options.unreferenced:
        options.parser.error("--older-than goes with --unreferenced")
    store = Store(options.store)
    if options.unreferenced:
        older_than_s = remove.GRACE_S if options.older_than is None else options.older_than
        removal = remove.unreferenced(store, older_than_s=older_than_s)
        if options.yes:
            remove.remove_unreferenced(store, removal)
    else:
        url = resolve(options.version, store)
        store = Store(url).parent().parent().parent()
        removal = (remove.remove_version if options.yes else remove.version_removal)(store, url)
    for problem in removal.left_out:
        print(f"left alone: {problem}")
    count = len(removal.objects) + len(removal.partial)
    if not count:
        print("nothing to remove")
        return
    _console().print(removal_table(removal))
    done = "removed" if options.yes else "to remove; add --yes to do it:"
    print(f"{done} {count} objects, {size(removal.bytes)}")


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+)([smhd])", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a number and s, m, h or d, such as 24h")
    return int(match[1]) * {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}[match[2]]


def _damaged(problems: list[str]) -> None:
    for problem in problems:
        print(problem)
    raise SystemExit(DAMAGED)


def _open(options: argparse.Namespace) -> DatasetVersion:
    from infra.datasets.catalog import resolve
    from infra.datasets.version import DatasetVersion
    from infra.storage import Store

    return DatasetVersion.open(resolve(options.version, Store(options.store)))


def _console() -> Console:
    """As wide as the terminal; where there is none, as wide as the widest table."""
    console = Console()
    return console if console.is_terminal else Console(width=200)
