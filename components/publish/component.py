"""The publishing step for Kubeflow."""

from typing import List  # noqa: UP035 - Kubeflow knows lists of artifacts by this name only

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Model, Output

from components.image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def publish(
    dataset: Input[Dataset],
    models: Input[List[Model]],  # noqa: UP006
    summary: Input[Artifact],
    model: Output[Model],
    run: str,
    code: str,
) -> None:
    """The best model as a package that needs no training code; `code` keeps Kubeflow's cache honest."""
    from components.artifacts import read_models, read_url, write_reference
    from components.command_line import exit_on_error
    from components.publish.step import publish

    with exit_on_error():
        url = publish(
            dataset=read_url(dataset), run=run, models=read_models(models), summary=read_url(summary)
        )
        write_reference(model, url)
