"""The exit handler for Kubeflow."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def cleanup(backend: str, cluster: list, status: dsl.PipelineTaskFinalStatus) -> None:
    """Remove the Ray clusters that the run has left; `status` marks a step to run after a failure, too."""
    from components.cleanup.step import cleanup
    from components.command_line import exit_on_error

    with exit_on_error():
        cleanup(backend, cluster)
