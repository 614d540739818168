"""The supervised baseline for Kubeflow."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def supervised(
    dataset: Input[Dataset],
    model: Output[Model],
    run: str,
    preset: str,
    overrides: list,
    labeled: float,
    seed: int,
    backend: str,
    cluster: list,
    code: str,
) -> None:
    """Training on the labelled scans alone; `code` keeps Kubeflow's cache from outliving the code."""
    from components.artifacts import read_url, write_model
    from components.command_line import exit_on_error
    from components.model_ref import BASELINE, ModelRef
    from components.supervised.step import supervised
    from components.training_options import TrainingOptions

    with exit_on_error():
        options = TrainingOptions(
            dataset=read_url(dataset),
            run=run,
            preset=preset,
            overrides=overrides,
            labeled=labeled,
            seed=seed,
            backend=backend,
            cluster=cluster,
        )
        write_model(model, ModelRef(method=BASELINE, seed=seed, checkpoint=supervised(options)))
