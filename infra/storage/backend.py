"""What a place for objects must offer. Keys are relative, with `/` between their parts."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, Protocol


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

    def download_file(self, key: str, local: Path) -> None:
        """Write the object into a local file; its folder exists."""
        ...

    def list(self, prefix: str) -> list[str]:
        """Sorted keys of all objects below the folder `prefix`; empty when there is none."""
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
