"""What a scan and its annotation must satisfy before they become samples."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from nibabel.orientations import aff2axcodes

from arco_core.config import DataConfig
from arco_core.errors import DataError
from infra.datasets.readers.base import RawCase
from infra.datasets.volume import MAX_BYTES, Volume

_GRID_TOLERANCE = 0.5
"""Voxels that two grids may be apart, anywhere: headers rounded by other tools differ in the third digit."""


def stack_channels(channels: Sequence[Volume], expected: int) -> npt.NDArray[np.generic]:
    """Voxels (X, Y, Z) or (X, Y, Z, C) of a case's files, which must share one grid.

    Raises `DataError` when they do not (another orientation is refused, too: nothing says which header is
    wrong), or when there are not `expected` channels.
    """
    first = channels[0]
    for other in channels[1:]:
        if other.voxels.shape != first.voxels.shape:
            raise DataError(
                f"{other.path} has shape {other.voxels.shape}, {first.path} {first.voxels.shape}: "
                "channels of one case must lie on one grid"
            )
        if not _same_grid(other, first):
            raise DataError(
                f"{_affines(other, first)}: channels of one case must lie on one grid; resample "
                "them onto one, or, where only a header is wrong, save it with the other's"
            )
    voxels = first.voxels if len(channels) == 1 else np.stack([c.voxels for c in channels], axis=-1)
    found = voxels.shape[3] if voxels.ndim == 4 else 1
    if found != expected:
        raise DataError(
            f"{first.path} holds {found} volumes (shape {voxels.shape}), the data have {expected} channels: "
            "split a time series into one file a volume, or correct the channels in dataset.json"
        )
    return voxels


def check_label(
    label: Volume, image: Volume, classes: Sequence[str], *, own_affine: bool = True
) -> npt.NDArray[np.uint8]:
    """The annotation (X, Y, Z) as class numbers.

    Raises `DataError` unless it lies on the image's grid (by its shape only, where it has no affine of its
    own that counts) and holds values of `classes` only.
    """
    shape = image.voxels.shape[:3]
    if label.voxels.shape != shape:
        raise DataError(
            f"{label.path} has shape {label.voxels.shape}, its image {image.path} {shape}: "
            "a label map must lie on its image's grid"
        )
    if own_affine and not _same_grid(label, image):
        raise DataError(
            f"{_affines(label, image)}: resample the label map onto its image's grid, or, where only its "
            "header is wrong, save it with its image's"
        )
    return _class_numbers(label, classes)


def _same_grid(one: Volume, other: Volume) -> bool:
    """Whether the affines put every voxel of one shape in the same place; the corners are furthest apart."""
    corners = np.array([*np.ndindex(2, 2, 2)]) * (np.array(one.voxels.shape[:3]) - 1)
    to_other = np.linalg.inv(other.affine) @ one.affine
    apart = corners @ to_other[:3, :3].T + to_other[:3, 3] - corners
    return bool(np.abs(apart).max() <= _GRID_TOLERANCE)


def _affines(one: Volume, other: Volume) -> str:
    """What a message says of two volumes that lie on different grids."""
    axes = ["".join(map(str, aff2axcodes(volume.affine))) for volume in (one, other)]
    return (
        f"{one.path} ({axes[0]}) and {other.path} ({axes[1]}) have different affines "
        f"({one.affine.round(3).tolist()} and {other.affine.round(3).tolist()})"
    )


def _class_numbers(label: Volume, classes: Sequence[str]) -> npt.NDArray[np.uint8]:
    voxels = label.voxels
    if voxels.dtype.kind == "f":
        odd = voxels[voxels != np.rint(voxels)]  # NaN differs from itself
        odd = odd if odd.size else voxels[np.isinf(voxels)]
        if odd.size:
            raise DataError(
                f"{label.path} holds {_listed(np.unique(odd))}, which are no class numbers: "
                "save it unresampled"
            )
    if voxels.min() < 0 or voxels.max() >= len(classes):
        outside = voxels[(voxels < 0) | (voxels >= len(classes))]
        known = ", ".join(f"{number} {name}" for number, name in enumerate(classes))
        raise DataError(
            f"{label.path} has the label values {_listed(np.unique(outside))} in {outside.size} "
            f"voxels; the classes are {known}: correct the annotation or the classes"
        )
    return voxels.astype(np.uint8)


def check_no_copies(image_digests: Mapping[str, str], patients: Mapping[str, str]) -> None:
    """Refuse one image under two patients: it would be trained on and scored on.

    `image_digests` and `patients` map case ids to the sha256 of the images and to patient ids.
    """
    cases: dict[str, list[str]] = defaultdict(list)
    for case, digest in image_digests.items():
        cases[digest].append(case)
    copies = [sorted(c) for c in cases.values() if len({patients[case] for case in c}) > 1]
    if copies:
        groups = "; ".join(", ".join(group) for group in copies[:5]) + ("; …" if len(copies) > 5 else "")
        spare = json.dumps(sorted(case for group in copies for case in group[1:]))
        raise DataError(
            f"cases of different patients hold the same image: {groups}. Leave copies out with "
            f"--set 'data.exclude={spare}', or, in a folder with a dataset.json, give them one patient there "
            'under "patients"'
        )


def check_sizes(cases: Iterable[RawCase], sizes: Mapping[str, int]) -> None:
    """Refuse a file of `cases` that is larger than any volume may be; `sizes` are the files' bytes."""
    for case in cases:
        for path in (*case.image_paths, *case.label_paths):
            if sizes[path] > MAX_BYTES:
                raise DataError(
                    f"{path} has {sizes[path] / 2**30:.1f} GiB, more than the {MAX_BYTES / 2**30:g} GiB that "
                    f"a volume may take: cut or resample the scan, or leave it out with --set "
                    f"'data.exclude={json.dumps([case.case_id])}'"
                )


def resolve_classes(configured: Sequence[str], described: Sequence[str]) -> tuple[str, ...]:
    """Class names: the configuration's, which must agree with the scans' own, or the latter.

    They may be other words, but as many, and a name that both have must have one value. Raises `DataError`.
    """
    if configured and described and len(configured) != len(described):
        raise DataError(
            f"data.classes = {list(configured)} has {len(configured)} names, the dataset has "
            f"{len(described)}: {list(described)}; make them agree, or leave data.classes empty"
        )
    for value, name in enumerate(configured):
        values = [number for number, own in enumerate(described) if own.casefold() == name.casefold()]
        if values and value not in values:
            raise DataError(
                f"data.classes = {list(configured)} has {name!r} at the label value {value}, the dataset at "
                f"{values[0]}: {list(described)}; give the names that order, or leave data.classes empty"
            )
    return tuple(configured or described)


def check_spacing(config: DataConfig, spacing_known: bool) -> None:
    """Refuse settings in mm for scans that do not say how large a voxel is."""
    lengths = {key: getattr(config, key) for key in ("spacing_mm", "crop_extent_mm", "crop_margin_mm")}
    for key, value in lengths.items():
        if not spacing_known and np.any(value):
            raise DataError(
                f"data.{key} = {value}: the scans do not say how large a voxel is, and nothing can be "
                "measured in mm; leave the setting out, or prepare files that have a voxel size"
            )


def _listed(values: npt.NDArray[np.generic], limit: int = 5) -> str:
    shown = ", ".join(f"{float(v):g}" for v in values[:limit])
    return shown + (f", … ({len(values)} values)" if len(values) > limit else "")
