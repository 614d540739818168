"""The files of a raw folder, which somebody else may have filled."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from arco_core.errors import DataError
from infra.datasets.readers.base import RawFolder
from infra.storage import Store

_MAC_ICON = "Icon\r"
"""What a Mac calls a folder's own icon."""
_UNPRINTABLE = ("Cc", "Zl", "Zp")
"""Unicode's control characters and line ends: in a name, they would forge lines of logs and of reports."""


def list_folder(source: Store, files: Iterable[str] | None = None) -> RawFolder:
    """The files below `source` (or those of `files`), without hidden ones: archives from a Mac hold `._name`.

    Raises `DataError` where there is no such folder, for links that lead out of it, or to folders in it, and
    for names that are not valid UTF-8 or have control characters.
    """
    listed = list(source.list() if files is None else files)
    if not source.url.startswith("s3://"):
        root = Path(source.url)
        if not listed and not root.is_dir():
            found = "is a file, not a folder" if root.exists() else "does not exist"
            raise DataError(f"{source.url} {found}: give the folder of the scans")
        _check_links(root)
    paths = [path for path in listed if not _is_hidden(path)]
    for path in paths:
        _check_name(path, source)
    return RawFolder(source, tuple(paths))


def _is_hidden(path: str) -> bool:
    return path.endswith(_MAC_ICON) or any(part.startswith(".") for part in path.split("/"))


def _check_name(path: str, source: Store) -> None:
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{source.url}: the file name {os.fsencode(path)!r} is not valid UTF-8: rename the file"
        ) from error
    if any(unicodedata.category(letter) in _UNPRINTABLE for letter in path):
        raise DataError(f"{source.url}: the file name {path!r} has control characters: rename the file")


def _check_links(root: Path) -> None:
    """A link out of the folder would publish other files; one to a folder hides or doubles scans."""
    inside = root.resolve()
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]  # nothing in them is read
        for name in (*folders, *files):
            link = Path(folder, name)
            if name.startswith(".") or not link.is_symlink():
                continue
            try:
                target = link.resolve()
            except RuntimeError as error:  # Python's name for a loop
                raise DataError(f"{link} is a link to itself: put the file itself there") from error
            if not target.is_relative_to(inside):
                raise DataError(f"{link} is a link that leaves the folder: put the file itself there")
            if target.is_dir():
                raise DataError(f"{link} is a link to a folder: put the scans themselves there")
            if not target.exists():
                raise DataError(f"{link} is a link to a file that does not exist: put the file itself there")
