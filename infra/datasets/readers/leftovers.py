"""Files that lie among scans and are none by their names, as a label map with a mistyped ending is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from infra.datasets.readers.base import RawDataset, RawFolder


def note_leftovers(dataset: RawDataset, raw: RawFolder, folders: Sequence[str]) -> tuple[str, ...]:
    """A sentence for each of `folders` with files that no case of `dataset` takes: how many, by ending."""
    used = {path for case in dataset.cases for path in (*case.image_paths, *case.label_paths)}
    notes = []
    for folder in folders:
        left = [path for path in raw.below(folder) if path not in used]
        if left:
            endings = Counter(map(_ending, left)).most_common(5)
            counts = ", ".join(f"{count} {ending}" for ending, count in endings)
            notes.append(f"{folder}/ has files that no case takes ({counts}), such as {left[0]}")
    return tuple(notes)


def _ending(path: str) -> str:
    name = path.rpartition("/")[2]
    stem, dot, ending = name.rpartition(".")
    if ending.lower() == "gz" and "." in stem:
        ending = f"{stem.rpartition('.')[2]}.{ending}"
    return f".{ending}" if dot else "without ending"
