"""`dataset.json`, which describes a folder in the Decathlon's or nnU-Net's layout."""

from __future__ import annotations

import difflib
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from arco_core.config.data import MOST_CLASSES
from arco_core.errors import DataError
from infra.datasets.readers.base import RawFolder
from infra.storage import NotFound


class Description:
    """The file's entries, checked. Raises `DataError` where they break a rule."""

    def __init__(self, raw: RawFolder) -> None:
        self.url = raw.store.join("dataset.json")
        values = self._values(raw)
        self.is_nnunet = "channel_names" in values
        self.name = str(values.get("name", "dataset"))
        self.classes = self._classes(self._table(values, "labels"))
        self.channels = len(self._table(values, "channel_names" if self.is_nnunet else "modality"))
        self._patients = self._named_patients(values)

    def patients(self, cases: Iterable[str]) -> dict[str, str]:
        """The patient of each of `cases`: the one that the file names, or one of its own.

        Raises `DataError` where the file names a case that is not there: a patient whose scans it was to keep
        together would be in two splits.
        """
        known = list(cases)
        unknown = sorted(self._patients.keys() - set(known))
        if unknown:
            close = difflib.get_close_matches(unknown[0], known, n=1, cutoff=0.0)
            nearest = f" (nearest to the first: {close[0]!r})" if close else ""
            raise DataError(
                f"{self.url}: 'patients' names {some(unknown)}, no case of the folder{nearest}: write the "
                "scans' names without endings and channel numbers, and remove entries of scans that are gone"
            )
        return {case: self._patients.get(case, case) for case in known}

    def _values(self, raw: RawFolder) -> dict[str, Any]:
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
        return values

    def _table(self, values: dict[str, Any], key: str) -> dict[str, Any]:
        if key not in values:
            raise DataError(f"{self.url} lacks the key {key!r}; it has {some(sorted(values))}")
        if not isinstance(values[key], dict) or not values[key]:
            raise DataError(f"{self.url}: {key!r} = {values[key]!r} must be a table with entries")
        return dict(values[key])

    def _classes(self, labels: dict[str, Any]) -> tuple[str, ...]:
        """Accepts the Decathlon's `{"1": "name"}` and nnU-Net's `{"name": 1}`."""
        is_numbered = all(str(key).isdecimal() for key in labels)
        if not is_numbered:
            self._refuse_special(labels)
        try:
            if is_numbered:
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
        names = tuple(by_value[value] for value in range(len(by_value)))
        unclear = sorted(repr(name) for name, count in Counter(names).items() if not name or count > 1)
        if unclear or len(names) > MOST_CLASSES:
            found = f"the name {unclear[0]} more than once, or none" if unclear else f"{len(names)} classes"
            raise DataError(
                f"{self.url}: 'labels' has {found}; each of at most {MOST_CLASSES} values needs a name of "
                "its own"
            )
        return names

    def _refuse_special(self, labels: dict[str, Any]) -> None:
        """nnU-Net's regions and its label `ignore`, neither of which is a class of voxels."""
        regions = sorted(name for name, value in labels.items() if isinstance(value, list))
        if regions:
            raise DataError(
                f"{self.url}: 'labels' has nnU-Net's regions ({some(regions)}), which overlap; ARCO gives "
                "each voxel one class: write the values that the label maps hold, a name each, such as "
                '{"background": 0, "edema": 1, "core": 2}'
            )
        if "ignore" in labels:
            raise DataError(
                f"{self.url}: 'labels' has nnU-Net's 'ignore' = {labels['ignore']!r}; ARCO takes every "
                "voxel of a label map to be annotated: give these voxels a class, or remove the label maps "
                "that are not complete (their scans then count as unlabelled); then remove 'ignore'"
            )

    def _named_patients(self, values: dict[str, Any]) -> dict[str, str]:
        """Patient by case, in composed letters as the cases' names are."""
        table = self._table(values, "patients") if "patients" in values else {}
        wrong = [case for case, patient in table.items() if not isinstance(patient, str) or not patient]
        if wrong:
            raise DataError(f"{self.url}: 'patients' gives {some(wrong)} no name: write a text for each case")
        named: dict[str, str] = {}
        for case, patient in table.items():
            name = unicodedata.normalize("NFC", case)
            composed = unicodedata.normalize("NFC", patient)
            if named.setdefault(name, composed) != composed:
                raise DataError(f"{self.url}: 'patients' gives {name!r} two patients: keep one")
        return named


def some(names: Sequence[str], limit: int = 5) -> str:
    """The first of `names`, and how many more there are."""
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest
