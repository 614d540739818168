"""Confusion of classes, and Dice as `arco_core.metrics` scores it but without surfaces: cheap."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def confusion_matrix(
    prediction: npt.NDArray[np.uint8], reference: npt.NDArray[np.uint8], classes: int
) -> npt.NDArray[np.int64]:
    """Voxels by reference class (row) and predicted class (column), (K, K), of volumes of one shape."""
    both = np.bincount(reference.ravel().astype(np.intp) * classes + prediction.ravel(), minlength=classes**2)
    return both.reshape(classes, classes)


def volume_dice(
    prediction: npt.NDArray[np.uint8], reference: npt.NDArray[np.uint8], classes: int
) -> tuple[float, ...]:
    """Dice of each foreground class, as `metrics.score_case` of convention `arco`.

    A class that neither volume has scores 1, one that only one of them has scores 0.

    Args:
        prediction, reference: class indices below `classes`, of one shape.
        classes: number of classes K, background included.
    """
    confusion = confusion_matrix(prediction, reference, classes)
    sizes = confusion.sum(0) + confusion.sum(1)
    return tuple(
        2.0 * float(confusion[k, k]) / float(sizes[k]) if sizes[k] else 1.0 for k in range(1, classes)
    )
