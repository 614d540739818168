"""Errors that a user can act on: the message states the value, the rule and the way out."""

from __future__ import annotations


class ArcoError(Exception):
    """Anything wrong that the user can mend; command lines print it without a traceback."""


class DataError(ArcoError):
    """A scan, an annotation or a dataset that breaks a rule."""


class StoreError(ArcoError):
    """The object store refused or failed."""


class TrainingError(ArcoError):
    """Training cannot start, or went wrong in a way that a retry does not mend."""
