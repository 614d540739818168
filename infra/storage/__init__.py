"""Object storage behind one small class: a local folder or any S3."""

from infra.storage.backend import ObjectInfo
from infra.storage.errors import AlreadyExists, NotFound, Unavailable
from infra.storage.store import Store

__all__ = ["AlreadyExists", "NotFound", "ObjectInfo", "Store", "Unavailable"]
