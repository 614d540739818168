"""Measure what the samplers do to the variance of the contrastive loss: `arco variance`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from rich.table import Table
from rich.text import Text

from arco_core.config.errors import require
from arco_core.config.schema import SAMPLER_NAMES
from arco_core.errors import DataError
from arco_core.stages.finetune import FinetuneStage
from arco_core.variance import (
    QUANTITIES,
    Ratio,
    VarianceRow,
    batch_variances,
    check_stage,
    compare_samplers,
)
from components.variance_chart import variance_chart
from infra.datasets import DatasetVersion, SlicePool
from infra.progress import Progress
from infra.storage import Store
from infra.training import StageJob, load_stage
from infra.training.seeds import derived_seed

TABLE, PICTURE = "variance.csv", "variance.png"
BATCHES = 16
"""Batches measured by default, where there are slices for so many."""

_HEADER = (
    "class", "quantity", "sampler", "queries", "batches", "pixels", "variance", "relative_error",
    "to_ns", "to_ns_low", "to_ns_high", "to_sg", "to_sg_low", "to_sg_high",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class VarianceResult:
    """Where the results are, and the results themselves."""

    table_url: str
    picture_url: str
    rows: tuple[VarianceRow, ...]


def measure_variance(
    *,
    dataset: str,
    checkpoint: str,
    output: str,
    batches: int | None = None,
    queries: int | None = None,
    device: str = "auto",
) -> VarianceResult:
    """Write `variance.csv` and `variance.png`: every sampler beside NS and SG, for each class and overall.

    Batches are as large as in the run's training, of slices of annotated training patients, each slice at
    most once. The same arguments give the same numbers.

    Args:
        dataset: URL of the dataset version that the run was trained on, or of another one of its kind.
        checkpoint: URL of a checkpoint of the run's fine-tuning.
        output: URL of the folder to write into.
        batches: how many; by default 16, or as many as there are slices for.
        queries: sample size of a class; by default the run's.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        ConfigError: an impossible number or device.
        DataError: no contrastive loss to measure, classes that differ, or too few annotated slices.
        StoreError: dataset, checkpoint or output cannot be read or written.
    """
    for key, value in (("batches", batches), ("queries", queries)):
        require(value is None or value >= 1, key, value, "must be at least 1")
    store = Store(output)
    store.check_writable()
    version = DatasetVersion.open(dataset)
    stage, job = _open_stage(checkpoint, version)
    stage.to(_device(device))
    if queries is None:
        queries = job.settings.finetune.contrast.queries
    pool, count = _pool(version, job, batches)
    measured = list(_measure(stage, pool, count, queries, job.seed))
    rows = compare_samplers(measured, version.classes, torch.Generator().manual_seed(job.seed))
    if not rows:
        raise DataError(
            f"none of {count} batches of {job.images_per_step} slices of {version.url} has queries of two "
            "classes: measure more batches, or take a checkpoint of later in training."
        )
    store.write_bytes(TABLE, variance_csv(rows, queries).encode())
    store.write_bytes(PICTURE, variance_chart(rows))
    return VarianceResult(table_url=store.join(TABLE), picture_url=store.join(PICTURE), rows=tuple(rows))


def variance_csv(rows: Sequence[VarianceRow], queries: int) -> str:
    """One line a class, quantity and sampler; an empty cell is an interval that one batch cannot give."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_HEADER)
    for row in rows:
        numbers: list[float | None] = [row.variance, row.relative_error]
        numbers += [x for ratio in (row.to_ns, row.to_sg) for x in (ratio.value, ratio.low, ratio.high)]
        cells = ["" if x is None else f"{x:.6g}" for x in numbers]
        name = [row.class_name, row.quantity, row.sampler]
        writer.writerow([*name, queries, row.batches, f"{row.pixels:.0f}", *cells])
    return out.getvalue()


def variance_table(rows: Sequence[VarianceRow]) -> Table:
    """Class × sampler: variance relative to NS and to SG, of the loss and of its gradient."""
    table = Table(title="Variance of the estimate, 95 % intervals over batches", title_justify="left")
    table.add_column("", no_wrap=True)
    for quantity in QUANTITIES:
        for other in ("NS", "SG"):
            table.add_column(f"{quantity} / {other}", justify="right")
    for name in dict.fromkeys(row.class_name for row in rows):
        table.add_section()
        own = [row for row in rows if row.class_name == name]
        table.add_row(Text(name, style="bold"), Text(f"{own[0].pixels:.0f} px", style="dim"))
        for sampler in SAMPLER_NAMES:
            ratios = [ratio for row in own if row.sampler == sampler for ratio in (row.to_ns, row.to_sg)]
            table.add_row(sampler, *map(_cell, ratios))
    return table


def _cell(ratio: Ratio) -> str:
    value = _short(ratio.value)
    if ratio.low is None or ratio.high is None or ratio.low == ratio.high:
        return value
    return f"{value} ({_short(ratio.low)}–{_short(ratio.high)})"


def _short(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _open_stage(checkpoint: str, version: DatasetVersion) -> tuple[FinetuneStage, StageJob]:
    stage, job = load_stage(checkpoint)
    try:
        finetune = check_stage(stage)
    except DataError as error:
        raise DataError(f"{checkpoint}: {error}") from error
    if job.classes != version.classes or job.channels != version.channels:
        raise DataError(
            f"{checkpoint} was trained for {job.channels} channel(s) and the classes "
            f"{', '.join(job.classes)}; {version.url} has {version.channels} and "
            f"{', '.join(version.classes)}: measure on the dataset that it was trained on."
        )
    return finetune, job


def _device(name: str) -> torch.device:
    gpu = torch.cuda.is_available()
    require(name != "cuda" or gpu, "device", name, "torch finds no GPU here; take cpu or auto")
    return torch.device("cuda" if gpu and name != "cpu" else "cpu")


def _pool(version: DatasetVersion, job: StageJob, batches: int | None) -> tuple[SlicePool, int]:
    """Annotated training slices, a batch at a time, and how many batches to take."""
    size = job.images_per_step
    pool = SlicePool(
        version, version.patients("train"), labels=True, batch=size, seed=derived_seed(job.seed, "variance")
    )
    possible, wanted = pool.size // size, batches or BATCHES
    if possible < (batches or 1):
        raise DataError(
            f"{wanted} batches of {size} slices need {wanted * size} annotated training slices, and "
            f"{version.url} has {pool.size}: measure fewer batches, or annotate more scans."
        )
    return pool, min(wanted, possible)


def _measure(
    stage: FinetuneStage, pool: SlicePool, count: int, queries: int, seed: int
) -> Iterator[torch.Tensor]:
    device = next(stage.parameters()).device
    with Progress("variance", total=count, unit="batches") as progress:
        for number in range(count):
            images, labels = pool.next()
            if labels is None:
                raise DataError("the pool of annotated slices gave none with labels")
            own = derived_seed(seed, "variance", number)
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                torch.manual_seed(own)  # dropout has no generator argument
                generator = torch.Generator(device).manual_seed(own)
                yield batch_variances(
                    stage,
                    images.to(device).float(),
                    labels.to(device).long(),
                    queries=queries,
                    generator=generator,
                )
            progress.update(number + 1)
