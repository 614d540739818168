"""Draws from a pool much larger than the memory it may take; test_pools.py runs it as a process.

python large_pool.py VERSION_URL

The kernel refuses this process memory beyond the limit. MALLOC_ARENA_MAX=2 and
ARROW_DEFAULT_MEMORY_POOL=system keep allocators from reserving more than is used.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import sys
from pathlib import Path

from infra.datasets import DatasetVersion, SlicePool, windows
from infra.datasets.row_groups import row_groups_of

COPIES = 60
LIMIT_MIB = 200
"""Address space that the process may take besides what it has when the pool is opened: two windows of 24 MiB,
what four readers hold, and the stacks of threads."""


def memory_mib(key: str) -> float:
    """`RssAnon`, memory of this process that is no copy of a file, or `VmSize`, what is limited."""
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[key].split()[0]) / 1024


def fits(version: DatasetVersion, patients: list[str]) -> bool:
    """Whether the limit lets the whole pool into memory."""
    try:
        SlicePool(version, patients, labels=True, batch=8, cache=True).close()
    except MemoryError:
        return False
    return True


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
    before, drawn, peak = memory_mib("RssAnon"), 0, 0.0
    limit = int((memory_mib("VmSize") + LIMIT_MIB) * 2**20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with SlicePool(version, patients, labels=True, batch=8, cache=False) as pool:
        while drawn < 1.05 * pool.size:
            images, labels = pool.next()
            assert labels is not None and labels.any() and images.any()
            drawn += len(images)
            peak = max(peak, memory_mib("RssAnon") - before)
    result = {"drawn": drawn, "decoded_mib": decoded / 2**20, "peak_mib": peak}
    print(json.dumps(result | {"limit_mib": LIMIT_MIB, "fits": fits(version, patients)}))


if __name__ == "__main__":
    main()
