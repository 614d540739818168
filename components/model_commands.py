"""`arco model`: which model is in service, and going back to an earlier one."""

from __future__ import annotations

import argparse
from typing import Any


def add_model_commands(commands: Any) -> None:
    """Add `model` and its own commands to those of `arco`."""
    model = commands.add_parser("model", help="list, promote and roll back the model in service")
    parsers = model.add_subparsers(required=True, metavar="COMMAND")

    ls = parsers.add_parser("ls", help="all releases, the one in service last")
    ls.set_defaults(command=_ls)

    promote = parsers.add_parser("promote", help="put the published model of a run into service")
    promote.add_argument("--run", required=True, help="URL of the run folder")
    promote.add_argument("--reason", default="promoted by hand", help="kept with the release")
    promote.set_defaults(command=_promote)

    rollback = parsers.add_parser("rollback", help="put an earlier model into service again")
    rollback.add_argument("--to", type=int, help="number of its release; default: the model before")
    rollback.add_argument("--reason", default="rolled back by hand", help="kept with the release")
    rollback.set_defaults(command=_rollback)

    for parser in (ls, promote, rollback):
        parser.add_argument("--store", default="arco-store", help="URL of the object store")
        parser.add_argument("--name", required=True, help="of the model in service")


def _registry(options: argparse.Namespace) -> Any:
    from infra.registry import Registry
    from infra.storage import Store

    return Registry(Store(options.store), options.name)


def _ls(options: argparse.Namespace) -> None:
    for release in _registry(options).releases():
        _show(release)


def _promote(options: argparse.Namespace) -> None:
    from components.retrain.release import promote_run  # imports torch, which takes seconds

    _show(promote_run(_registry(options), options.run, options.reason))


def _rollback(options: argparse.Namespace) -> None:
    _show(_registry(options).rollback(options.to, options.reason))


def _show(release: Any) -> None:
    back = f" to {release.parent}" if release.action == "rollback" else ""
    print(
        f"{release.number:4d}  {release.created}  {release.action}{back}  {release.model}  {release.reason}"
    )
