"""Tasks as the rows of a dataset of Ray Data, a block each, on the Ray that is up."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any


def map_rows(call: Callable[..., Any], tasks: Sequence[Any], **options: Any) -> Iterator[tuple[int, bytes]]:
    """The number of each of `tasks` and its packed result, as they finish; those that are lost are left out.

    Args:
        call: what `Dataset.map` takes: a function, or a class, from rows with `number` and the pickled `task`
            to rows with `number` and the packed `result` (`infra.alone.packed`).
        tasks: pickled, and should be small: what is large belongs into the store.
        options: of `Dataset.map`.
    """
    import ray.data  # costs seconds; who works in this process does without
    from ray.util.annotations import RayDeprecationWarning

    rows = [{"number": number, "task": pickle.dumps(task)} for number, task in enumerate(tasks)]
    if not rows:
        return
    with warnings.catch_warnings():
        # Ray deprecates options of retries here from 2.64 on, and names no other way yet.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map(call, **options)
    dataset.context.enable_progress_bars = False
    dataset.context.max_errored_blocks = -1  # a block is one task
    for row in dataset.iter_rows():
        yield row["number"], row["result"]
