"""Publish: the best seed's ARCO model becomes a package that can be used anywhere."""

from components.publish.step import publish

__all__ = ["publish"]
