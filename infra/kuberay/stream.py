"""An answer of the API server that comes line by line, and that another thread can end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType

import urllib3

from infra.kuberay.errors import KubernetesUnavailable


class Stream:
    """The complete lines of a response, as they come."""

    def __init__(self, response: urllib3.HTTPResponse) -> None:
        self._response = response

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._response.close()

    def __iter__(self) -> Iterator[str]:
        """Yields lines without their ends.

        Raises:
            KubernetesUnavailable: the connection broke, or was silent for too long.
        """
        rest = b""
        try:
            for data in self._response.stream(2**16):
                *complete, rest = (rest + data).split(b"\n")
                for line in complete:
                    yield line.decode("utf-8", "replace")
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise KubernetesUnavailable(f"the connection broke: {error}") from error
        if rest:
            yield rest.decode("utf-8", "replace")

    def end(self) -> None:
        """End the stream from another thread than the one that reads it."""
        with suppress(ValueError, RuntimeError, OSError):  # what urllib3 raises for one that has ended
            self._response.shutdown()
