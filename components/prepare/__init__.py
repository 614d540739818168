"""Raw scans to a dataset version."""

from components.prepare.step import prepare

__all__ = ["prepare"]
