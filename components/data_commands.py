"""`arco data`: the dataset versions of a store."""

from __future__ import annotations

import argparse
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
    data = commands.add_parser("data", help="list, inspect and check dataset versions")
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

    for parser in (ls, show, verify):
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
    for problem in catalog.unreadable:
        print(f"left out: {problem}")
    if not catalog.versions:
        print(f"no dataset versions below {store.join('datasets', *filter(None, [options.name]))}")


def _show(options: argparse.Namespace) -> None:
    from components.data_tables import version_tables

    for table in version_tables(_open(options)):
        _console().print(table)


def _verify(options: argparse.Namespace) -> None:
    from infra.datasets.verify import verify
    from infra.progress import Progress

    try:
        version = _open(options)
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
