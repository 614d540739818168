"""Medical Segmentation Decathlon and nnU-Net raw folders.

`imagesTr/`, `labelsTr/` (for the annotated ones), `imagesUn/` (scans without annotations) and
`dataset.json`. The scans of `imagesTs/` are the test split where `labelsTs/` annotates them, and left
alone where it does not. nnU-Net writes one file a channel, `case_0000.nii.gz`, `case_0001.nii.gz`; the
Decathlon one file a case. Either may be `.nii.gz`, `.nii` or `.nrrd`. A case is its own patient unless
`dataset.json` has `"patients": {"case": "patient"}`.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from arco_core.errors import DataError
from infra.datasets.nifti import NiftiFile
from infra.datasets.nrrd import NrrdFile
from infra.datasets.readers.base import RawCase, RawDataset, RawFolder
from infra.datasets.readers.description import Description, some
from infra.datasets.volume import VolumeSource

_SUFFIXES = (".nii.gz", ".nii", ".nrrd")
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")


class MsdReader:
    """Reads folders in the layout above."""

    name = "Medical Segmentation Decathlon or nnU-Net"
    layout = (
        "imagesTr/*.nii.gz, labelsTr/*.nii.gz, imagesUn/*.nii.gz (unlabelled), imagesTs/*.nii.gz with "
        "labelsTs/*.nii.gz (test) and dataset.json"
    )
    generic = False

    def detect(self, raw: RawFolder) -> bool:
        """See `Reader`."""
        return any(
            path == "dataset.json" or path.startswith(("imagesTr/", "labelsTr/")) for path in raw.paths
        )

    def read(self, raw: RawFolder) -> RawDataset:
        """See `Reader`."""
        images, test_images = _scans(raw, "imagesTr") + _scans(raw, "imagesUn"), _scans(raw, "imagesTs")
        labels, test_labels = (_label_maps(raw, folder) for folder in ("labelsTr", "labelsTs"))
        if not images:
            kind = "has labels but no images" if labels else "holds no scans"
            raise DataError(f"{raw.url} {kind}; it must hold {self.layout}")
        description = Description(raw)
        by_channel = (
            description.is_nnunet or _has_channels(images, labels) or _has_channels(test_images, test_labels)
        )
        grouped, tested = (_group(paths, by_channel=by_channel) for paths in (images, test_images))
        _check_labels(raw, labels, grouped, "Tr")
        _check_labels(raw, test_labels, tested, "Ts")
        patients = description.patients({**grouped, **tested})
        for case in test_labels:
            grouped.setdefault(case, []).extend(tested[case])
        for case, paths in grouped.items():
            _check_files(case, paths, by_channel=by_channel)
        labels |= test_labels
        cases = [
            RawCase(
                case_id=case,
                patient_id=patients[case],
                channels=tuple(_source(path) for path in grouped[case]),
                annotation=_source(labels[case]) if case in labels else None,
            )
            for case in sorted(grouped)
        ]
        return RawDataset(
            name=description.name,
            classes=description.classes,
            channels=description.channels,
            cases=tuple(cases),
            held_out={"test": tuple(sorted({patients[case] for case in test_labels}))} if test_labels else {},
        )


def _scans(raw: RawFolder, folder: str) -> list[str]:
    """Scans directly in `folder`."""
    return [path for path in raw.below(folder) if path.count("/") == 1 and path.endswith(_SUFFIXES)]


def _label_maps(raw: RawFolder, folder: str) -> dict[str, str]:
    """Label maps directly in `folder`, by case."""
    labels: dict[str, str] = {}
    for path in _scans(raw, folder):
        known = labels.setdefault(_stem(path), path)
        if known != path:
            raise DataError(f"case {_stem(path)!r} has several label maps: {known}, {path}; remove one")
    return labels


def _source(path: str) -> VolumeSource:
    return NrrdFile(path) if path.endswith(".nrrd") else NiftiFile(path)


def _stem(path: str) -> str:
    """The file's name without its ending; composed letters, since some systems write é as e and an accent."""
    name = unicodedata.normalize("NFC", path.rpartition("/")[2])
    return next(name.removesuffix(suffix) for suffix in _SUFFIXES if name.endswith(suffix))


def _has_channels(images: Iterable[str], labels: Iterable[str]) -> bool:
    """Whether `_0000` is a channel, where nothing says so: the labels' names lack it."""
    stems = {_stem(path) for path in images}
    bare = {match["case"] for stem in stems if (match := _CHANNEL.fullmatch(stem))}
    return bool(bare.intersection(labels)) and not stems.intersection(labels)


def _group(images: Iterable[str], *, by_channel: bool) -> dict[str, list[str]]:
    """Files by case, in the order of their channels."""
    grouped: dict[str, list[str]] = defaultdict(list)
    for path in sorted(images, key=_stem):
        grouped[_case(path, by_channel=by_channel)[0]].append(path)
    return dict(grouped)


def _case(path: str, *, by_channel: bool) -> tuple[str, int]:
    """Case and channel of a file."""
    match = _CHANNEL.fullmatch(_stem(path)) if by_channel else None
    return (match["case"], int(match["channel"])) if match else (_stem(path), 0)


def _check_files(case: str, paths: Sequence[str], *, by_channel: bool) -> None:
    """Refuse a case in two places or of two files a channel, and one with a gap in its channels."""
    channels = [_case(path, by_channel=by_channel)[1] for path in paths]
    if len({path.partition("/")[0] for path in paths}) > 1 or len(set(channels)) < len(channels):
        raise DataError(f"case {case!r} exists more than once: {', '.join(paths)}; rename or remove one")
    if channels != list(range(len(channels))):
        raise DataError(
            f"case {case!r} lacks channels: it has {', '.join(paths)}, and channels count from _0000 without "
            "a gap; copy the missing files, or remove the case"
        )


def _check_labels(
    raw: RawFolder, labels: Mapping[str, str], grouped: Mapping[str, Sequence[str]], part: str
) -> None:
    """Refuse label maps whose images are not there."""
    orphans = sorted(labels.keys() - grouped.keys())
    if orphans:
        raise DataError(
            f"{raw.url}: {len(orphans)} label maps have no image: {some(orphans)}; each "
            f"labels{part}/<case>.nii.gz needs its images{part}/<case>.nii.gz (or _0000 for channels)"
        )


READER = MsdReader()
