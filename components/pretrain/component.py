"""Stage one for Kubeflow."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def pretrain(
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
    """Relational semi-supervised pre-training; `code` keeps Kubeflow's cache from outliving the code."""
    from components.artifacts import read_url, write_reference
    from components.command_line import exit_on_error
    from components.pretrain.step import pretrain
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
        write_reference(model, pretrain(options), seed=seed)
