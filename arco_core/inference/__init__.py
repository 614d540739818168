"""From a scan to a mask: through the network as slices or windows, and back to the scan's own grid."""

from arco_core.inference.maps import MAPS, MapName, Segmentation
from arco_core.inference.masks import segment_prepared, segment_scan, segment_volume
from arco_core.inference.probabilities import (
    PATCHES_PER_BATCH,
    predict_slices,
    predict_windows,
    slices_per_batch,
)

__all__ = [
    "MAPS",
    "PATCHES_PER_BATCH",
    "MapName",
    "Segmentation",
    "predict_slices",
    "predict_windows",
    "segment_prepared",
    "segment_scan",
    "segment_volume",
    "slices_per_batch",
]
