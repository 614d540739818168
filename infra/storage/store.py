"""One root URL and the objects below it."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from arco_core.errors import StoreError
from infra.storage.backend import Backend, ObjectInfo
from infra.storage.errors import AlreadyExists
from infra.storage.local import LocalBackend
from infra.storage.s3 import S3Backend

_PROBE = ".arco-probe"
"""Always the same at first: what a killed process leaves, the next one removes."""
_SHARED_PROBES = 4
"""Attempts to create it. Others may remove it each time between two; then a name of its own decides."""


class Store:
    """Objects below `url`: a plain path, `file://…` or `s3://bucket/prefix`.

    Objects are named by a path relative to the root (`"runs/a/metrics.jsonl"`). A store can be
    pickled. Credentials and endpoint of an S3 come from the AWS environment or the pod's identity.
    Every failure is a `StoreError`.
    """

    def __init__(self, url: str) -> None:
        self._backend: Backend
        if not url:
            raise StoreError("store URL '' is empty; use a path, file:// or s3://")
        scheme, separator, rest = str(url).partition("://")
        if scheme == "s3" and separator:
            bucket, _, prefix = rest.partition("/")
            if not bucket:
                raise StoreError(f"store URL {url!r} names no bucket; write s3://bucket/prefix")
            prefix = prefix.strip("/")
            self.url = f"s3://{bucket}/{prefix}".rstrip("/")
            self._backend = S3Backend(bucket, prefix)
        elif not separator or scheme == "file":
            path = Path(unquote(urlsplit(url).path)) if separator else Path(url).expanduser()
            self.url = str(path.absolute())
            self._backend = LocalBackend(path.absolute())
        else:
            raise StoreError(f"store URL {url!r}: {scheme}:// is not supported; use a path, file:// or s3://")

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def join(self, *parts: str) -> str:
        """The URL of an object or folder below the root, for another `Store` or step."""
        return "/".join([self.url, *(_checked(part) for part in parts)])

    def parent(self) -> Store:
        """The store of the folder that this one lies in. Raises `StoreError` at the top."""
        scheme, separator, rest = self.url.rpartition("://")
        above = rest.rpartition("/")[0]
        if not above:
            raise StoreError(f"{self.url} lies in no folder of a store")
        return Store(f"{scheme}{separator}{above}")

    def exists(self, path: str) -> bool:
        """Whether the object exists."""
        return self._backend.exists(_checked(path))

    def read_bytes(self, path: str) -> bytes:
        """The object's content. Raises `NotFound`."""
        return self._backend.read_bytes(_checked(path))

    def write_bytes(self, path: str, data: bytes) -> None:
        """Create or replace an object; readers see the old content or the new, never a part."""
        self._backend.write_bytes(_checked(path), data)

    def put_if_absent(self, path: str, data: bytes) -> None:
        """Create an object. Raises `AlreadyExists` when there is one: of several writers one wins."""
        self._backend.put_if_absent(_checked(path), data)

    def entries(self, prefix: str = "") -> list[ObjectInfo]:
        """Size, time and tag of all objects below the folder `prefix`, sorted by path."""
        return self._backend.entries(_checked(prefix) if prefix else "")

    def partial_uploads(self, prefix: str = "") -> list[ObjectInfo]:
        """Uploads below the folder `prefix` that were begun and not finished, such as a killed writer's."""
        return self._backend.partial_uploads(_checked(prefix) if prefix else "")

    def discard(self, upload: ObjectInfo) -> None:
        """Remove what there is of an unfinished upload; no error when there is none."""
        self._backend.discard(upload)

    def clock(self) -> float:
        """Seconds since 1970, by the clock of the objects' times."""
        return self._backend.clock()

    def list(self, prefix: str = "") -> list[str]:
        """Sorted paths of all objects below the folder `prefix`."""
        return [entry.path for entry in self.entries(prefix)]

    def delete(self, path: str) -> None:
        """Remove an object; no error when there is none."""
        self._backend.delete(_checked(path))

    def open_input(self, path: str) -> BinaryIO:
        """A seekable binary reader, usable by `pyarrow.parquet`. Raises `NotFound`."""
        return self._backend.open_input(_checked(path))

    def local_path(self, path: str) -> Path | None:
        """The file behind an object, or none when the store is not a local folder."""
        return self._backend.local_path(_checked(path))

    def upload_file(self, local: Path, path: str) -> None:
        """Create or replace an object from a local file of any size."""
        self._backend.upload_file(local, _checked(path))

    def upload_folder(self, local: Path, prefix: str) -> None:
        """Upload every file below `local` to the same relative path below `prefix`.

        Files of subfolders go first: a description at the top, such as a `dataset.json`, is there only when
        what it describes is.
        """
        files = [path for path in local.rglob("*") if path.is_file()]
        for file in sorted(files, key=lambda path: (-len(path.parts), path)):
            self.upload_file(file, f"{prefix}/{file.relative_to(local).as_posix()}")

    def check_writable(self) -> None:
        """Write and remove a small object, which the store must not replace where it is to be created.

        Raises `StoreError` naming URL, cause and way out.
        """
        try:
            refuses = self._refuses_to_replace()
        except StoreError as error:
            raise StoreError(f"the store {self.url} is not writable: {error}") from error
        if not refuses:
            raise StoreError(
                f"the store {self.url} replaces an object that it was told to create only if there is none "
                "(a PUT with If-None-Match: *): writers would destroy each other's versions; use a server "
                "that knows conditional writes, as AWS, MinIO and Ceph do"
            )

    def _refuses_to_replace(self) -> bool:
        """Whether `put_if_absent` fails where there is an object, once it has created one."""
        own = f"{_PROBE}-{uuid.uuid4().hex}"
        created = refused = False
        tried = set()
        for probe in [_PROBE] * _SHARED_PROBES + [own] * 2:
            tried.add(probe)
            try:
                self.put_if_absent(probe, b"")
                created = True
            except AlreadyExists:
                refused = True
                if created:
                    break
                self.delete(probe)  # a killed process left it
        for probe in tried:  # no other: a bucket with versions would note the removal of what never was
            self.delete(probe)
        return refused


def _checked(path: str) -> str:
    """`path` without slashes at its ends; refuses what would leave the store."""
    cleaned = path.strip("/")
    if not cleaned or path.startswith("/") or any(part in ("", ".", "..") for part in cleaned.split("/")):
        raise StoreError(
            f"object path {path!r}: must be relative to the store, without empty or dotted parts"
        )
    return cleaned
