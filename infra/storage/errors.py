"""What can go wrong with an object besides the store failing."""

from __future__ import annotations

from arco_core.errors import StoreError


class Unavailable(StoreError):
    """The store did not answer, or not rightly, although it was asked again: later it may."""


class NotFound(StoreError):
    """The object does not exist."""


class AlreadyExists(StoreError):
    """Somebody else wrote the object first; it was left as it is."""
