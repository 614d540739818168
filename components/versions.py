"""Which software a result was made with."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib import metadata

from arco_core import __version__


def software_versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of this project, of Python and of the installed ones of `packages`, by name."""
    versions = {"arco": __version__, "python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
