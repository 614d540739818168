"""The evaluation step for Kubeflow."""

from typing import List  # noqa: UP035 - Kubeflow knows lists of artifacts by this name only

from kfp import dsl
from kfp.dsl import HTML, Artifact, ClassificationMetrics, Dataset, Input, Metrics, Model, Output

from components.image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def evaluate(
    dataset: Input[Dataset],
    arco: Input[List[Model]],  # noqa: UP006
    supervised: Input[List[Model]],  # noqa: UP006
    summary: Output[Artifact],
    metrics: Output[Metrics],
    confusion: Output[ClassificationMetrics],
    report: Output[HTML],
    run: str,
    convention: str,
    backend: str,
    cluster: list,
    code: str,
) -> None:
    """Scores on the validation volumes; `code` keeps Kubeflow's cache from outliving the code."""
    from components.artifacts import read_models, read_url, write_evaluation
    from components.command_line import exit_on_error
    from components.evaluate.launch import evaluate_on
    from components.evaluate.options import scoring_by

    with exit_on_error():
        models = read_models([*arco, *supervised])
        result = evaluate_on(
            backend,
            dataset=read_url(dataset),
            run=run,
            models=models,
            scoring=scoring_by(convention),
            cluster=cluster,
        )
        write_evaluation(result, summary=summary, metrics=metrics, confusion=confusion, report=report)
