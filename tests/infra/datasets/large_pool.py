"""Draws from a pool much larger than the memory it should hold; test_pools.py runs it as a process.

python large_pool.py VERSION_URL
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from infra.datasets import DatasetVersion, SlicePool, windows
from infra.datasets.row_groups import row_groups_of

COPIES = 50


def held_mib() -> float:
    """Memory of this process that is no copy of a file."""
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) / 1024


def main() -> None:
    """Print what was drawn, and the most memory held meanwhile, as one JSON object."""
    small = DatasetVersion.open(sys.argv[1])
    cases = [
        dataclasses.replace(case, case_id=f"{case.case_id}-{copy}", patient_id=f"{case.patient_id}-{copy}")
        for copy in range(COPIES)
        for case in small.cases
    ]
    version = DatasetVersion(small.store, small.manifest, cases)
    patients = [case.patient_id for case in cases]
    decoded = sum(group.bytes for group in row_groups_of(version, patients, annotated_only=True))
    windows.WINDOW_BYTES = 24 * 2**20
    before, drawn, peak = held_mib(), 0, 0.0
    with SlicePool(version, patients, labels=True, batch=8, cache=False) as pool:
        while drawn < 1.2 * pool.size:
            images, labels = pool.next()
            assert labels is not None and labels.any() and images.any()
            drawn += len(images)
            peak = max(peak, held_mib() - before)
    print(json.dumps({"drawn": drawn, "decoded_mib": decoded / 2**20, "peak_mib": peak}))


if __name__ == "__main__":
    main()
