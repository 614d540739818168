"""Which software a result was made with."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from importlib import metadata
from pathlib import Path

import arco_core
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


@cache
def source_commit() -> str | None:
    """The commit of the Git checkout that this code runs from; None where it runs from no checkout.

    `, with changes` follows where files that Git knows have been changed since.
    """
    folder, git = Path(arco_core.__file__).resolve().parents[1], shutil.which("git")
    if git is None or not (folder / ".git").exists():  # a checkout around an environment is not ours
        return None

    def ask(*arguments: str) -> str | None:
        command = [git, "-C", str(folder), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        return done.stdout.strip() if done.returncode == 0 else None

    commit = ask("rev-parse", "--short=12", "HEAD")
    changes = ask("status", "--porcelain", "--untracked-files=no") if commit else None
    return f"{commit}, with changes" if changes else commit
