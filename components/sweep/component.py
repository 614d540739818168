"""The sweep for Kubeflow."""

from typing import List  # noqa: UP035 - Kubeflow knows lists of artifacts by this name only

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Model, Output

from components.image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def sweep(
    dataset: Input[Dataset],
    models: Input[List[Model]],  # noqa: UP006
    trials: Output[Artifact],
    run: str,
    preset: str,
    overrides: list,
    labeled: list,
    methods: list,
    seeds: list,
    convention: str,
    backend: str,
    cluster: list,
    code: str,
) -> None:
    """Methods × amounts of labels × seeds, without `labeled` none; after `models`, which are found trained.

    `code` keeps Kubeflow's cache from outliving the code.
    """
    from components.artifacts import read_url, write_reference
    from components.command_line import exit_on_error

    if not labeled:
        write_reference(trials, "")
        return
    from components.evaluate.options import scoring_by
    from components.sweep.launch import sweep_on
    from components.sweep.settings import pipeline_sweep

    with exit_on_error():
        config = pipeline_sweep(preset=preset, labeled=labeled, methods=methods, seeds=seeds)
        print(f"sweep: {len(models)} models are trained already")
        url = sweep_on(
            backend,
            config=config,
            dataset=read_url(dataset),
            run=run,
            overrides=overrides,
            scoring=scoring_by(convention),
            cluster=cluster,
        )
        write_reference(trials, url)
