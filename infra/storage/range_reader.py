"""A file-like view of an object that is read in ranges."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from arco_core.errors import StoreError


class RangeReader(io.RawIOBase):
    """A seekable reader of `size` bytes; `read(start, stop)` gets some of them."""

    def __init__(self, read: Callable[[int, int], bytes], size: int, url: str) -> None:
        super().__init__()
        self._read, self._size, self._url, self._position = read, size, url, 0

    def readable(self) -> bool:
        """See `io.RawIOBase`."""
        return True

    def seekable(self) -> bool:
        """See `io.RawIOBase`."""
        return True

    def tell(self) -> int:
        """See `io.RawIOBase`."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """See `io.RawIOBase`."""
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """See `io.RawIOBase`. Raises `StoreError` for an object that is not as long as it was."""
        view = memoryview(buffer).cast("B")
        data = self._next(len(view))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        """See `io.RawIOBase`: the rest, by one `read`."""
        return self._next(self._size)

    def _next(self, count: int) -> bytes:
        stop = min(self._position + count, self._size)
        if stop <= self._position:
            return b""
        data = self._read(self._position, stop)
        if len(data) != stop - self._position:
            raise StoreError(
                f"{self._url} changed while it was read: {len(data)} bytes came where "
                f"{stop - self._position} were asked for; run again when it is whole"
            )
        self._position = stop
        return data
