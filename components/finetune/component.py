"""Stage two for Kubeflow."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def finetune(
    dataset: Input[Dataset],
    init: Input[Model],
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
    """Anatomical contrastive fine-tuning; `code` keeps Kubeflow's cache from outliving the code."""
    from components.artifacts import read_url, write_model
    from components.command_line import exit_on_error
    from components.finetune.step import finetune, method_name
    from components.model_ref import ModelRef
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
        checkpoint = finetune(options, init=read_url(init))
        write_model(model, ModelRef(method=method_name(options), seed=seed, checkpoint=checkpoint))
