"""Keep a model in service up to date: new scans are found, prepared and trained on.

`python pipelines/arco_retrain.py run --raw scans --store arco-store --name heart` is one night on this
machine, `schedule --host … --cron "0 2 * * *" …` has Kubeflow do it every night.
"""

from kfp import dsl

from components.retrain.component import (
    continue_training,
    discover_scans,
    end_night,
    extend_dataset,
    release_or_keep,
)
from pipelines.placement import waiting, working


def _anew(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Never from Kubeflow's cache: every step looks at what there is now."""
    return task.set_caching_options(False)


@dsl.pipeline(
    name="arco-retrain",
    description="New scans to a new model, which takes the old one's place unless it is worse",
)
def arco_retrain(
    raw: str,
    store: str,
    name: str,
    overrides: list = [],  # noqa: B006 - Kubeflow takes the default as JSON
    labeled: float = 0.0,
    settle_minutes: float = 10.0,
    margin: float = 0.02,
    min_patients: int = 5,
    backend: str = "rayjob",
    cluster: list = [],  # noqa: B006
    holder: str = "",
) -> None:
    """The DAG.

    Args:
        raw: URL below which scans appear, in one of the layouts of docs/data.md.
        store: URL of the object store.
        name: of the model in service, see `arco model`.
        overrides: settings over those that the model was trained with, each `section.key=value`.
        labeled: number of labelled patients from 1, ratio of the training patients below 1, 0 for all.
        settle_minutes: a file that was written more recently waits for the next night.
        margin: Dice that a new model may lose in a class, see `components.retrain.judge`.
        min_patients: test patients that it takes to judge a class.
        backend: as of `arco_full`.
        cluster: as of `arco_full`.
        holder: who this run is to others that retrain the same model; by default, Kubeflow's run.
    """
    end = end_night(raw=raw, store=store, name=name, backend=backend, cluster=cluster, holder=holder)
    with dsl.ExitHandler(_anew(working(end)), name="end-night"):
        found = _anew(
            working(
                discover_scans(
                    raw=raw,
                    store=store,
                    name=name,
                    overrides=overrides,
                    labeled=labeled,
                    settle_minutes=settle_minutes,
                    margin=margin,
                    min_patients=min_patients,
                    backend=backend,
                    cluster=cluster,
                    holder=holder,
                )
            )
        )
        plan = found.output
        with dsl.If(plan != "", name="new-scans"):
            data = _anew(waiting(extend_dataset(plan=plan, backend=backend, cluster=cluster)))
            with dsl.If(data.output != "", name="usable-scans"):
                dataset = data.output
                trained = _anew(
                    waiting(continue_training(plan=plan, dataset=dataset, backend=backend, cluster=cluster))
                )
                judged = release_or_keep(
                    plan=plan,
                    dataset=dataset,
                    checkpoint=trained.output,
                    backend=backend,
                    cluster=cluster,
                )
                _anew(waiting(judged))


if __name__ == "__main__":
    from pipelines.retrain_line import main

    main(arco_retrain)
