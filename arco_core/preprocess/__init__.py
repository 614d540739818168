"""Scans to what a network takes, and label maps back to the scan's own grid.

`prepare` and `predict` both go through here, so a published model sees what it was trained on.
A scan is turned to canonical axes, cropped, scaled in intensity, resampled, and padded or cropped to size
(docs/preprocessing.md). Slices and volumes differ only in which axes the last two touch.
"""

from arco_core.preprocess.geometry import CANONICAL_AXES, Box, Geometry
from arco_core.preprocess.scan import place, prepare_image, prepare_label, restore_label

__all__ = [
    "CANONICAL_AXES",
    "Box",
    "Geometry",
    "place",
    "prepare_image",
    "prepare_label",
    "restore_label",
]
