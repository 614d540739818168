"""What the command lines have in common."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from arco_core.config import ConfigError
from arco_core.errors import ArcoError
from infra.signals import Interrupted

USER_ERROR = 2
"""Exit code for what the user can mend, as argparse's own."""


def add_check_option(parser: argparse.ArgumentParser) -> None:
    """The option `--check`, see `components.checks`."""
    parser.add_argument(
        "--check",
        action="store_true",
        help="only check settings, data, storage and resources, and print the plan",
    )


def add_result_option(parser: argparse.ArgumentParser) -> None:
    """The option `--result`, see `components.launch`."""
    parser.add_argument("--result", metavar="URL", help="object to write the URL of what is made into")


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Print without a traceback what the user can mend, or that a signal ended the work, and exit.

    The exit code is 2 for what the user can mend and, as in shells, 128 + the signal's number. All else is
    Python's: a traceback and 1.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        print("interrupted", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from error
    except Interrupted as error:
        print(error, file=sys.stderr)
        raise SystemExit(128 + error.number) from error
    except (ArcoError, ConfigError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(USER_ERROR) from error
