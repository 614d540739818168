"""What a place for objects must offer. Keys are relative, with `/` between their parts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectInfo:
    """What a listing says of an object."""

    path: str
    bytes: int
    modified: float
    """When it was written, in seconds since 1970 by the store's clock."""
    tag: str
    """Changes whenever the content does: S3's ETag; size and times of a file. Empty where nothing tells a
    change: of a file that was written a moment ago."""


class Backend(Protocol):
    """One folder or one bucket prefix. Every failure is a `StoreError` that names the URL."""

    def exists(self, key: str) -> bool:
        """Whether the object exists."""
        ...

    def read_bytes(self, key: str) -> bytes:
        """The object's content; `NotFound` when there is none."""
        ...

    def write_bytes(self, key: str, data: bytes) -> None:
        """Create or replace the object; readers see the old content or the new, never a part."""
        ...

    def put_if_absent(self, key: str, data: bytes) -> None:
        """Create the object; `AlreadyExists` when it exists. Of several writers one wins."""
        ...

    def upload_file(self, local: Path, key: str) -> None:
        """Create or replace the object from a file of any size."""
        ...

    def entries(self, prefix: str) -> list[ObjectInfo]:
        """All objects below the folder `prefix`, sorted by key; empty when there is none.

        Folders are no objects, whatever a store keeps for them.
        """
        ...

    def partial_uploads(self, prefix: str) -> list[ObjectInfo]:
        """Uploads below the folder `prefix` that have not been finished; their tag tells them apart."""
        ...

    def discard(self, upload: ObjectInfo) -> None:
        """Remove what there is of an unfinished upload; no error when there is none."""
        ...

    def clock(self) -> float:
        """Seconds since 1970 by the clock that `ObjectInfo.modified` is taken from."""
        ...

    def delete(self, key: str) -> None:
        """Remove the object; no error when there is none."""
        ...

    def open_input(self, key: str) -> BinaryIO:
        """A seekable reader of the object that pyarrow can use; `NotFound` when there is none."""
        ...

    def local_path(self, key: str) -> Path | None:
        """The file behind the object, or none when the store is not a local folder."""
        ...
