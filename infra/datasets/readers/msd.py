"""Medical Segmentation Decathlon and nnU-Net raw folders.

`imagesTr/`, `labelsTr/` (for the annotated ones), `imagesUn/` (scans without annotations) and
`dataset.json`. `imagesTs/` holds a challenge's test scans and is left alone. nnU-Net writes one
file a channel, `case_0000.nii.gz`, `case_0001.nii.gz`; the Decathlon one file a case. Either may be
`.nii.gz`, `.nii` or `.nrrd`. A case is its own patient unless `dataset.json` has
`"patients": {"case": "patient"}`.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from arco_core.errors import DataError
from infra.datasets.nifti import NiftiFile
from infra.datasets.nrrd import NrrdFile
from infra.datasets.readers.base import RawCase, RawDataset, RawFolder
from infra.datasets.volume import VolumeSource
from infra.storage import NotFound

_SUFFIXES = (".nii.gz", ".nii", ".nrrd")
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")


class MsdReader:
    """Reads folders in the layout above."""

    name = "Medical Segmentation Decathlon or nnU-Net"
    layout = "imagesTr/*.nii.gz, labelsTr/*.nii.gz, imagesUn/*.nii.gz (unlabelled) and dataset.json"
    generic = False

    def detect(self, raw: RawFolder) -> bool:
        """See `Reader`."""
        return any(
            path == "dataset.json" or path.startswith(("imagesTr/", "labelsTr/")) for path in raw.paths
        )

    def read(self, raw: RawFolder) -> RawDataset:
        """See `Reader`."""
        images = _scans(raw, "imagesTr") + _scans(raw, "imagesUn")
        labels = {_stem(path): path for path in _scans(raw, "labelsTr")}
        if not images:
            kind = "has labels but no images" if labels else "holds no scans"
            raise DataError(f"{raw.url} {kind}; it must hold {self.layout}")
        description = _Description(raw)
        grouped = _group_channels(images, labels, description.is_nnunet)
        orphans = sorted(labels.keys() - grouped.keys())
        if orphans:
            raise DataError(
                f"{raw.url}: {len(orphans)} label maps have no image: {_some(orphans)}; each "
                "labelsTr/<case>.nii.gz needs its imagesTr/<case>.nii.gz (or _0000 for channels)"
            )
        cases = [
            RawCase(
                case_id=case,
                patient_id=description.patients.get(case, case),
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
        )


class _Description:
    """`dataset.json`, checked."""

    def __init__(self, raw: RawFolder) -> None:
        self.url = raw.store.join("dataset.json")
        try:
            values = json.loads(raw.store.read_bytes("dataset.json"))
            json.dumps(values, ensure_ascii=False).encode()  # JSON can spell letters that no file can hold
        except NotFound as error:
            raise DataError(
                f'{self.url} does not exist; write one such as {{"name": "heart", "modality": '
                '{"0": "MRI"}, "labels": {"0": "background", "1": "ventricle"}}'
            ) from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"{self.url} is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise DataError(f"{self.url} must hold an object with the keys name, labels and modality")
        self.is_nnunet = "channel_names" in values
        self.name = str(values.get("name", "dataset"))
        self.classes = self._classes(self._table(values, "labels"))
        self.channels = len(self._table(values, "channel_names" if self.is_nnunet else "modality"))
        self.patients = self._table(values, "patients") if "patients" in values else {}
        wrong = [
            case for case, patient in self.patients.items() if not isinstance(patient, str) or not patient
        ]
        if wrong:
            raise DataError(
                f"{self.url}: 'patients' gives {_some(wrong)} no name: write a text for each case"
            )

    def _table(self, values: dict[str, Any], key: str) -> dict[str, Any]:
        if key not in values:
            raise DataError(f"{self.url} lacks the key {key!r}; it has {_some(sorted(values))}")
        if not isinstance(values[key], dict) or not values[key]:
            raise DataError(f"{self.url}: {key!r} = {values[key]!r} must be a table with entries")
        return dict(values[key])

    def _classes(self, labels: dict[str, Any]) -> tuple[str, ...]:
        """Accepts the Decathlon's `{"1": "name"}` and nnU-Net's `{"name": 1}`."""
        try:
            if all(str(key).isdecimal() for key in labels):
                by_value = {int(key): str(name) for key, name in labels.items()}
            else:
                by_value = {int(value): str(name) for name, value in labels.items()}
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{self.url}: 'labels' = {labels!r} must pair one number with one name"
            ) from error
        if sorted(by_value) != list(range(len(labels))) or len(by_value) < 2:
            raise DataError(
                f"{self.url}: 'labels' has the values {sorted(by_value)}; they must be 0 (background), "
                "1, 2, … without gaps"
            )
        return tuple(by_value[value] for value in range(len(by_value)))


def _scans(raw: RawFolder, folder: str) -> list[str]:
    """Scans directly in `folder`."""
    return [path for path in raw.below(folder) if path.count("/") == 1 and path.endswith(_SUFFIXES)]


def _source(path: str) -> VolumeSource:
    return NrrdFile(path) if path.endswith(".nrrd") else NiftiFile(path)


def _stem(path: str) -> str:
    """The file's name without its ending; composed letters, since some systems write é as e and an accent."""
    name = unicodedata.normalize("NFC", path.rpartition("/")[2])
    return next(name.removesuffix(suffix) for suffix in _SUFFIXES if name.endswith(suffix))


def _group_channels(images: list[str], labels: Iterable[str], is_nnunet: bool) -> dict[str, list[str]]:
    """Files by case. Without a hint, `_0000` is a channel where the labels' names lack it."""
    stems = {_stem(path) for path in images}
    if not is_nnunet:
        bare = {match["case"] for stem in stems if (match := _CHANNEL.fullmatch(stem))}
        is_nnunet = bool(bare.intersection(labels)) and not stems.intersection(labels)
    grouped: dict[str, list[str]] = defaultdict(list)
    for path in sorted(images):
        match = _CHANNEL.fullmatch(_stem(path)) if is_nnunet else None
        grouped[match["case"] if match else _stem(path)].append(path)
    for case, paths in grouped.items():
        folders = {path.partition("/")[0] for path in paths}
        if len(folders) > 1 or (len(paths) > 1 and not is_nnunet):
            raise DataError(f"case {case!r} exists more than once: {', '.join(paths)}; rename or remove one")
    return dict(grouped)


def _some(names: list[str], limit: int = 5) -> str:
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


READER = MsdReader()
