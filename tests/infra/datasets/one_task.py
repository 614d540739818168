"""Packs all scans of a raw folder as one task; test_prepare_engines.py runs it as a process.

python one_task.py RAW STORE
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

from infra.datasets.packing import CaseGroup, Packer
from infra.datasets.readers.detect import read_raw
from infra.storage import Store
from tests.infra.datasets.conftest import TINY


def memory_mib(key: str) -> float:
    """`VmRSS`, memory now, or `VmHWM`, the most there was."""
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[key].split()[0]) / 1024


def main() -> None:
    """Print the number of cases, and the most memory that they took, as one JSON object."""
    source, home = Store(sys.argv[1]), Store(sys.argv[2])
    raw = read_raw(source, {entry.path: entry for entry in source.entries()})
    config = replace(TINY, classes=raw.classes)
    packer = Packer(source=source, home=home, folder="x", config=config, channels=1)
    before = memory_mib("VmRSS")
    packed = packer.pack(CaseGroup(number=0, cases=tuple(raw.cases)))
    print(json.dumps({"cases": len(packed.cases), "peak_mib": memory_mib("VmHWM") - before}))


if __name__ == "__main__":
    main()
