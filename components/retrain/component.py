"""The steps of a retraining for Kubeflow.

Each has one output: conditions on one of several are false on Kubeflow's local runner (kfp 2.17).
"""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def discover_scans(
    raw: str,
    store: str,
    name: str,
    overrides: list,
    labeled: float,
    settle_minutes: float,
    margin: float,
    min_patients: int,
    backend: str,
    cluster: list,
    holder: str,
) -> str:
    """What is to be done with new scans; nothing, where there are none."""
    from components.command_line import exit_on_error
    from components.retrain.steps import discover_step

    with exit_on_error():
        _, plan = discover_step(
            backend, cluster, holder,
            raw=raw, store=store, name=name, overrides=tuple(overrides), labeled=labeled,
            settle_minutes=settle_minutes, margin=margin, min_patients=min_patients,
        )  # fmt: skip
    return plan


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def extend_dataset(plan: str, backend: str, cluster: list) -> str:
    """A dataset version with the new scans; none, where none of them can be used."""
    from components.command_line import exit_on_error
    from components.retrain.update import extend

    with exit_on_error():
        return extend(plan, backend=backend, cluster=cluster) or ""


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def continue_training(plan: str, dataset: str, backend: str, cluster: list) -> str:
    """The model in service, trained on with the new scans."""
    from components.command_line import exit_on_error
    from components.retrain.update import continue_training

    with exit_on_error():
        return continue_training(plan, dataset, backend=backend, cluster=cluster)


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def release_or_keep(plan: str, dataset: str, checkpoint: str, backend: str, cluster: list) -> str:
    """The decision between the new model and the one in service."""
    from components.command_line import exit_on_error
    from components.retrain.release import release_on

    with exit_on_error():
        return release_on(backend, plan, dataset, checkpoint, cluster=cluster).decision


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def end_night(
    raw: str,
    store: str,
    name: str,
    backend: str,
    cluster: list,
    holder: str,
    status: dsl.PipelineTaskFinalStatus,
) -> None:
    """Tell of a night that failed, give its lease back, and remove the Ray clusters that are left."""
    from components.cleanup.step import cleanup
    from components.command_line import exit_on_error
    from components.retrain.steps import end_step

    with exit_on_error():
        end_step(holder, status.state, status.error_message or "", raw=raw, store=store, name=name)
        cleanup(backend, cluster)
