"""The main job: raw scans, a few of them labelled, to a segmentation model that is evaluated and published.

`python pipelines/arco_full.py run --data scans --labeled 2` runs it on this machine,
`python pipelines/arco_full.py compile -o arco_full.yaml` writes what Kubeflow Pipelines runs.
"""

from kfp import dsl

from components.cleanup.component import cleanup
from components.evaluate.component import evaluate
from components.finetune.component import finetune
from components.prepare.component import prepare
from components.pretrain.component import pretrain
from components.publish.component import publish
from components.report.component import report
from components.supervised.component import supervised
from components.sweep.component import sweep
from pipelines.placement import waiting, working


@dsl.pipeline(
    name="arco-full",
    description="Scans with few labels to a published model, and the supervised baseline beside it",
)
def arco_full(
    data: str,
    store: str,
    run: str,
    preset: str = "generic",
    overrides: list = [],  # noqa: B006 - Kubeflow takes the default as JSON
    labeled: float = 0.0,
    seeds: list = [0],  # noqa: B006
    sweep_labeled: list = [],  # noqa: B006
    sweep_methods: list = ["supervised", "mean-teacher", "arco-sg"],  # noqa: B006
    convention: str = "arco",
    backend: str = "rayjob",
    cluster: list = [],  # noqa: B006
    code: str = "",
) -> None:
    """The DAG.

    Args:
        data: URL of the raw scans, in one of the layouts of docs/data.md.
        store: URL of the object store.
        run: URL of the run folder.
        preset: configuration to start from.
        overrides: settings over the preset's, each `section.key=value`.
        labeled: number of labelled patients from 1, ratio of the training patients below 1, 0 for all.
        seeds: one training of every stage each; they also choose the labelled patients.
        sweep_labeled: amounts of labels, as `labeled`, that `sweep_methods` are trained with, too, for every
            seed; none leaves the sweep out (docs/sweep.md).
        sweep_methods: names of `components/methods.py`.
        convention: of the metrics, `arco` or `released` (docs/evaluation.md).
        backend: `rayjob` gives each heavy step a Ray cluster of its own on Kubernetes; `ray` takes the Ray of
            the step's own process, and `in-process` none, with one worker.
        cluster: with `rayjob`, settings over those of `clusters.toml` (docs/kubernetes.md), each `key=value`
            or `step:key=value`: queue, priority, spot workers, autoscaling, sizes, places, deadlines.
        code: fingerprint of the project's code, so that a cached step never outlives the code it ran.
    """
    end = working(cleanup(backend=backend, cluster=cluster))
    end.set_caching_options(False)
    with dsl.ExitHandler(end, name="remove-ray-clusters"):
        prepared = waiting(
            prepare(
                data=data,
                store=store,
                run=run,
                preset=preset,
                overrides=overrides,
                labeled=labeled,
                seeds=seeds,
                sweep_labeled=sweep_labeled,
                sweep_methods=sweep_methods,
                convention=convention,
                backend=backend,
                cluster=cluster,
                code=code,
            )
        )
        prepared.set_caching_options(False)  # the folder may hold new scans under the same name
        dataset = prepared.outputs["dataset"]
        # One seed after the other: two would share a laptop's cores, and print at the same time.
        with dsl.ParallelFor(seeds, name="seeds", parallelism=1) as seed:
            common = {
                "dataset": dataset,
                "run": run,
                "preset": preset,
                "overrides": overrides,
                "labeled": labeled,
                "seed": seed,
                "backend": backend,
                "cluster": cluster,
                "code": code,
            }
            stage_one = waiting(pretrain(**common))
            stage_two = waiting(finetune(init=stage_one.outputs["model"], **common))
            baseline = waiting(supervised(**common))
        swept = waiting(
            sweep(
                dataset=dataset,
                models=dsl.Collected(stage_two.outputs["model"]),
                run=run,
                preset=preset,
                overrides=overrides,
                labeled=sweep_labeled,
                methods=sweep_methods,
                seeds=seeds,
                convention=convention,
                backend=backend,
                cluster=cluster,
                code=code,
            )
        )
        evaluated = waiting(
            evaluate(
                dataset=dataset,
                arco=dsl.Collected(stage_two.outputs["model"]),
                supervised=dsl.Collected(baseline.outputs["model"]),
                run=run,
                convention=convention,
                backend=backend,
                cluster=cluster,
                code=code,
            )
        ).after(swept)
        working(
            report(
                summary=evaluated.outputs["summary"],
                trials=swept.outputs["trials"],
                code=code,
            )
        )
        working(
            publish(
                dataset=dataset,
                models=dsl.Collected(stage_two.outputs["model"]),
                summary=evaluated.outputs["summary"],
                run=run,
                code=code,
            )
        )


if __name__ == "__main__":
    from pipelines.command_line import main

    main(arco_full)
