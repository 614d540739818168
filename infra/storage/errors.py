"""What can go wrong with an object besides the store failing."""

from __future__ import annotations

from arco_core.errors import StoreError


class NotFound(StoreError):
    """The object does not exist."""


class AlreadyExists(StoreError):
    """Somebody else wrote the object first; it was left as it is."""
