"""Jobs over the tiny dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from arco_core.config import dumps, load
from infra.datasets import DatasetVersion
from infra.training import StageJob, StageName
from tests.conftest import TINY_SETTINGS


def make_job(
    dataset: str,
    run: Path | str,
    stage: StageName = "pretrain",
    *,
    settings: Sequence[str] = (),
    seed: int = 0,
    init: str | None = None,
) -> StageJob:
    """A job that takes a second or two."""
    version = DatasetVersion.open(dataset)
    return StageJob(
        stage=stage,
        config=dumps(load(preset="generic", overrides=[*TINY_SETTINGS, *settings])),
        dataset_url=dataset,
        labeled_patients=version.labeled_patients(2, seed),
        channels=version.channels,
        classes=version.classes,
        run_url=str(run),
        seed=seed,
        init_checkpoint=init,
    )
