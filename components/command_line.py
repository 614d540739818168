"""What the command lines have in common."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from arco_core.config import ConfigError
from arco_core.errors import ArcoError

USER_ERROR = 2
"""Exit code for what the user can mend, as argparse's own."""


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Print an error that the user can mend without its traceback, and exit."""
    try:
        yield
    except (ArcoError, ConfigError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(USER_ERROR) from error
