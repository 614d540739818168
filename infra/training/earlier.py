"""Trainings that a run holds, and that a job does not continue because it computes something else."""

from __future__ import annotations

from arco_core.config import ConfigError
from infra.storage import Store
from infra.training.recorder import JOB, checkpoints_of
from infra.training.stage_job import StageJob


def not_continued(job: StageJob) -> str | None:
    """In words, the last training of the same stage, data and seed that `job` does not continue.

    It is one with other settings of `[run]`, such as the number of workers, or by other code. None where
    there is none such, or the job goes on from checkpoints of its own.
    """
    if checkpoints_of(job).steps():
        return None
    store, start = Store(job.run_url), f"{job.stage}-seed{job.seed}-"
    entries = [entry for entry in store.entries() if entry.path.startswith(start)]
    for entry in sorted(entries, key=lambda entry: entry.modified, reverse=True):
        folder, _, name = entry.path.partition("/")
        if name == JOB and folder != job.folder:
            differences = _differences(job, store.read_bytes(entry.path).decode())
            if differences:
                return f"not continued: {folder}, of {', '.join(differences)}"
    return None


def _differences(job: StageJob, other: str) -> list[str]:
    """What else than `job` the training `other` computes, if nothing but settings of `[run]` and code."""
    try:
        theirs = StageJob.from_json(other).determinants()
    except (ConfigError, KeyError, TypeError, ValueError):  # settings of another version
        return ["another version"]
    ours = job.determinants()
    different = {key for key in ours | theirs if ours.get(key) != theirs.get(key)}
    if not different <= {"run", "code"}:
        return []
    run = [f"run.{key} = {value!r}" for key, value in theirs["run"].items() if ours["run"].get(key) != value]
    return [*run, *(["other code"] if "code" in different else [])]
