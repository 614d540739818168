"""The pools of slices that a training worker draws from."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from arco_core.bricks import brick_places
from infra.datasets import DatasetVersion, SlicePool, TrainingFeed
from infra.training.seeds import derived_seed
from infra.training.stage_job import StageJob

CACHE_BYTES = 512 * 2**20
"""Pools up to this size (decoded, a worker) are kept in memory."""


def open_feed(job: StageJob, *, rank: int, world: int) -> TrainingFeed:
    """What worker `rank` of `world` trains on: batches of labelled and, unless supervised, unlabelled slices.

    Labelled slices come from the job's labelled patients, unlabelled ones from all other training patients;
    where every training patient is labelled, their slices also serve as unlabelled.
    """
    version = DatasetVersion.open(job.dataset_url)

    def pool(patients: Sequence[str], batch: int, *, labels: bool) -> SlicePool:
        return SlicePool(
            version,
            patients,
            labels=labels,
            batch=batch // world,
            rank=rank,
            world=world,
            seed=derived_seed(job.seed, job.stage, "labeled" if labels else "unlabeled"),
            cache=_decoded_bytes(version, patients) <= CACHE_BYTES,
        )

    labeled = pool(job.labeled_patients, job.labeled_batch, labels=True)
    if not job.unlabeled_batch:
        return TrainingFeed(labeled, None)
    everyone = version.patients("train")
    others = [patient for patient in everyone if patient not in set(job.labeled_patients)]
    return TrainingFeed(labeled, pool(others or everyone, job.unlabeled_batch, labels=False))


def _decoded_bytes(version: DatasetVersion, patients: Sequence[str]) -> int:
    """Memory of the patients' slices or bricks, float16 images and uint8 labels."""
    size = version.data_config.image_size
    voxels = 0
    for case in version.cases_of(patients):
        if version.is_volumetric:
            voxels += sum(math.prod(place.shape) for place in brick_places(case.geometry.size, size))
        else:
            voxels += case.rows * math.prod(size)
    return voxels * (version.channels * np.dtype(np.float16).itemsize + 1)
