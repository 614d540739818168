"""The files of a raw folder, which somebody else may have filled."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from arco_core.errors import DataError
from infra.datasets.readers.base import RawFolder
from infra.storage import Store


def list_folder(source: Store, files: Iterable[str] | None = None) -> RawFolder:
    """The files below `source` (or those of `files`), without hidden ones: archives from a Mac hold `._name`.

    Raises `DataError` for links that lead out of the folder, or to folders in it, and for names that are not
    valid UTF-8.
    """
    if not source.url.startswith("s3://"):
        _check_links(Path(source.url))
    paths = []
    for path in source.list() if files is None else files:
        if any(part.startswith(".") for part in path.split("/")):
            continue
        try:
            path.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{source.url}: the file name {os.fsencode(path)!r} is not valid UTF-8: rename the file"
            ) from error
        paths.append(path)
    return RawFolder(source, tuple(paths))


def _check_links(root: Path) -> None:
    """A link out of the folder would publish other files; one to a folder hides or doubles scans."""
    inside = root.resolve()
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            link = Path(folder, name)
            if name.startswith(".") or not link.is_symlink():
                continue
            target = link.resolve()
            if not target.is_relative_to(inside):
                raise DataError(f"{link} is a link that leaves the folder: put the file itself there")
            if target.is_dir():
                raise DataError(f"{link} is a link to a folder: put the scans themselves there")
            if not target.exists():
                raise DataError(f"{link} is a link to a file that does not exist: put the file itself there")
