"""The preparation step for Kubeflow."""

from kfp import dsl
from kfp.dsl import Dataset, Output

from components.image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def prepare(
    dataset: Output[Dataset],
    data: str,
    store: str,
    run: str,
    preset: str,
    overrides: list,
    labeled: float,
    seeds: list,
    sweep_labeled: list,
    sweep_methods: list,
    convention: str,
    backend: str,
    cluster: list,
    code: str,
) -> None:
    """Check the run's parameters, then raw scans to a dataset version with the labels that are asked for.

    `code` keeps Kubeflow's cache from outliving the code.
    """
    from components.artifacts import write_reference
    from components.checks.pipeline import check_labels, check_parameters
    from components.command_line import exit_on_error
    from components.prepare.step import prepare_on

    with exit_on_error():
        check_parameters(
            backend=backend, data=data, store=store, run=run, preset=preset, overrides=overrides,
            labeled=labeled, seeds=seeds, sweep_labeled=sweep_labeled, sweep_methods=sweep_methods,
            convention=convention, cluster=cluster,
        )  # fmt: skip
        url = prepare_on(backend, data=data, store=store, preset=preset, overrides=overrides, cluster=cluster)
        check_labels(
            url, run=run, preset=preset, overrides=overrides, labeled=labeled, seeds=seeds,
            sweep_labeled=sweep_labeled, sweep_methods=sweep_methods,
        )  # fmt: skip
    write_reference(dataset, url)
