"""A fingerprint of source code, so that results of other code are never taken for this code's."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_SUFFIXES = (".py", ".toml", ".j2")


@cache
def code_digest(*packages: str) -> str:
    """First 12 hex digits of the sha256 over all source files of the installed `packages`."""
    digest = hashlib.sha256()
    for package in packages:
        spec = find_spec(package)
        if spec is None or spec.submodule_search_locations is None:
            raise ModuleNotFoundError(f"package {package!r} is not installed", name=package)
        for folder in map(Path, spec.submodule_search_locations):
            for file in sorted(f for f in folder.rglob("*") if f.suffix in _SUFFIXES):
                digest.update(f"{package}/{file.relative_to(folder).as_posix()}\n".encode())
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:12]
