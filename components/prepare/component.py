"""The preparation step for Kubeflow."""

from kfp import dsl
from kfp.dsl import Dataset, Output

from components.image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def prepare(
    dataset: Output[Dataset], data: str, store: str, preset: str, overrides: list, backend: str, code: str
) -> None:
    """Raw scans to a dataset version; `code` keeps Kubeflow's cache from outliving the code."""
    from components.artifacts import write_reference
    from components.command_line import exit_on_error
    from components.prepare.step import prepare

    with exit_on_error():
        url = prepare(data=data, store=store, preset=preset, overrides=overrides, use_ray=backend == "ray")
    write_reference(dataset, url)
