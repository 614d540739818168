"""What is remembered of scans that the model in service was not trained on: bad ones, and judged ones.

One JSON object a model, written by whoever holds its lease.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from components.retrain.plan import RetrainSettings, registry_of
from infra.datasets.convert import Digests
from infra.storage import NotFound, Store

Key = tuple[str, str, str | None]
"""Case id, and sha256 of image and annotation."""


class Memory:
    """The scans of earlier nights, by name and content."""

    def __init__(self, settings: RetrainSettings, lease: int) -> None:
        """`lease` tells this night from earlier ones."""
        self._store, self._path = Store(settings.store), f"{registry_of(settings).folder}/scans.json"
        try:
            values = json.loads(self._store.read_bytes(self._path))
        except NotFound:
            values = {"scans": [], "series": {}, "batches": {}}
        self._scans: dict[Key, str | None] = {
            (c, image, label): bad for c, image, label, bad in values["scans"]
        }
        self._series: dict[str, list[Any]] = values["series"]
        self._batches: dict[str, str] = values["batches"]
        self._lease, self._changed = lease, False

    def bad(self, digests: Digests) -> str | None:
        """Why the scan cannot be used, None where nothing is known against it."""
        return self._scans.get(_key(digests))

    def judged(self, digests: Digests) -> bool:
        """Whether a model that was trained on this content has been judged, under whichever name."""
        contents = {(image, label) for (_, image, label), bad in self._scans.items() if bad is None}
        return (digests.image, digests.label) in contents

    def note(self, scans: Iterable[Digests], bad: Mapping[str, str] | None = None) -> None:
        """Remember `scans`: those that `bad` names by case id for its reasons, the others as judged."""
        for digests in scans:
            reason = (bad or {}).get(digests.case_id)
            self._changed |= self._scans.get(_key(digests), "") != reason
            self._scans[_key(digests)] = reason

    def note_batch(self, batch: str, run: str) -> None:
        """Remember in which run folder the scans that `batch` stands for were judged."""
        self._changed |= self._batches.get(batch) != run
        self._batches[batch] = run

    def run_of(self, batch: str) -> str | None:
        """What `note_batch` remembered."""
        return self._batches.get(batch)

    def seen_before(self, case_id: str, tags: Sequence[str]) -> bool:
        """Whether an earlier night saw the scan `case_id` with these very files; it is noted for the next."""
        now = hashlib.sha256("\n".join(tags).encode()).hexdigest()
        before, lease = self._series.get(case_id, ["", 0])
        if before == now:
            return bool(lease < self._lease)
        self._series[case_id] = [now, self._lease]
        self._changed = True
        return False

    def forget_series_but(self, case_ids: Iterable[str]) -> None:
        """Forget the files of scans that are not in `case_ids`: they are gone, or in the dataset."""
        kept = set(case_ids)
        self._changed |= not kept >= self._series.keys()
        self._series = {name: tags for name, tags in self._series.items() if name in kept}

    def save(self) -> None:
        """Write what was noted, if anything was."""
        if not self._changed:
            return
        scans = [[*key, bad] for key, bad in sorted(self._scans.items(), key=str)]
        values = {"scans": scans, "series": self._series, "batches": self._batches}
        self._store.write_bytes(self._path, json.dumps(values, indent=1).encode())
        self._changed = False


def _key(digests: Digests) -> Key:
    return digests.case_id, digests.image, digests.label
