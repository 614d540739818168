"""Raw scans to immutable dataset versions, and from there to training batches."""

from infra.datasets.pools import SlicePool
from infra.datasets.prepare import prepare_dataset
from infra.datasets.version import CaseEntry, DatasetVersion

__all__ = ["CaseEntry", "DatasetVersion", "SlicePool", "prepare_dataset"]
