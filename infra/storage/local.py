"""A folder as an object store."""

from __future__ import annotations

import errno
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from arco_core.errors import StoreError
from infra.storage.backend import ObjectInfo
from infra.storage.errors import AlreadyExists, NotFound

TEMPORARY = ".arco-tmp-"
"""Start of the names of files being written; never listed, never read."""
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""How file systems without hard links, such as FAT and some network shares, refuse one."""
FRESH_SECONDS = 2.0
"""A file may change again within the resolution of its times; FAT has the coarsest, two seconds."""


class LocalBackend:
    """Objects are files below `root`, which is created by the first write."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def exists(self, key: str) -> bool:
        """See `Backend`."""
        return self._path(key).is_file()

    def read_bytes(self, key: str) -> bytes:
        """See `Backend`."""
        with self._errors("read", key):
            return self._path(key).read_bytes()

    def write_bytes(self, key: str, data: bytes) -> None:
        """See `Backend`: a complete temporary file takes the place of the old one."""
        with self._errors("write", key), self._written(key, data) as temporary:
            os.replace(temporary, self._path(key))

    def put_if_absent(self, key: str, data: bytes) -> None:
        """See `Backend`: linking a complete temporary file fails when the name is taken."""
        with self._errors("write", key), self._written(key, data) as temporary:
            try:
                os.link(temporary, self._path(key))
            except FileExistsError as error:
                raise AlreadyExists(f"{self._path(key)} exists already and was left as it is") from error
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                raise StoreError(
                    f"cannot create {self._path(key)} only if it is not there yet: its file system makes no "
                    f"hard links ({error.strerror}); choose a folder on another file system, or an S3"
                ) from error

    def upload_file(self, local: Path, key: str) -> None:
        """See `Backend`."""
        with self._errors("write", key), self._temporary(key) as temporary:
            shutil.copyfile(local, temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())  # or a manifest outlives, in a power cut, the shards that it lists
            os.replace(temporary, self._path(key))

    def entries(self, prefix: str) -> list[ObjectInfo]:
        """See `Backend`."""
        return self._list(prefix, temporary=False)

    def partial_uploads(self, prefix: str) -> list[ObjectInfo]:
        """See `Backend`: the temporary files."""
        return self._list(prefix, temporary=True)

    def discard(self, upload: ObjectInfo) -> None:
        """See `Backend`."""
        self.delete(upload.path)

    def clock(self) -> float:
        """See `Backend`."""
        return time.time()

    def delete(self, key: str) -> None:
        """See `Backend`."""
        with self._errors("delete", key):
            self._path(key).unlink(missing_ok=True)

    def open_input(self, key: str) -> BinaryIO:
        """See `Backend`."""
        with self._errors("read", key):
            return self._path(key).open("rb")

    def local_path(self, key: str) -> Path | None:
        """See `Backend`."""
        return self._path(key)

    def _list(self, prefix: str, *, temporary: bool) -> list[ObjectInfo]:
        with self._errors("list", prefix):
            files = (path for path in _files_below(self._path(prefix)) if path.is_file())
            wanted = (path for path in files if path.name.startswith(TEMPORARY) == temporary)
            found = (self._entry(path) for path in wanted)
            return sorted((entry for entry in found if entry is not None), key=lambda entry: entry.path)

    def _entry(self, path: Path) -> ObjectInfo | None:
        try:
            status = path.stat()
        except FileNotFoundError:  # removed since the folder was listed
            return None
        # ctime cannot be set back: a file replaced by a copy that keeps its times is another one
        tag = f"{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}"
        settled = time.time() - max(status.st_mtime, status.st_ctime) > FRESH_SECONDS
        return ObjectInfo(
            path=path.relative_to(self.root).as_posix(),
            bytes=status.st_size,
            modified=status.st_mtime,
            tag=tag if settled else "",
        )

    def _path(self, key: str) -> Path:
        return self.root / key if key else self.root

    @contextmanager
    def _temporary(self, key: str) -> Iterator[Path]:
        """A name beside the object's, removed again whatever happens."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
        try:
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    @contextmanager
    def _written(self, key: str, data: bytes) -> Iterator[Path]:
        with self._temporary(key) as temporary:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary

    @contextmanager
    def _errors(self, action: str, key: str) -> Iterator[None]:
        path = self._path(key)
        try:
            yield
        except FileNotFoundError as error:
            raise NotFound(f"{path} does not exist") from error
        except OSError as error:
            path = Path(error.filename) if action == "list" and error.filename else path
            raise StoreError(
                f"cannot {action} {path}: {error.strerror or error}; choose a store that this user may "
                "read and write, with space left"
            ) from error


def _files_below(folder: Path) -> Iterator[Path]:
    """Files in `folder` and its subfolders; links to folders are not followed. Raises `OSError` for one that
    cannot be listed, not for one that is not there (any more)."""

    def refuse(error: OSError) -> None:
        if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise error

    for parent, _, names in os.walk(folder, onerror=refuse):
        yield from (Path(parent, name) for name in names)
