"""The report for Kubeflow."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, Input, Output

from components.image import IMAGE


@dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)
def report(summary: Input[Artifact], trials: Input[Artifact], report: Output[HTML], code: str) -> None:
    """One page of the evaluation and the sweep; `code` keeps Kubeflow's cache from outliving the code."""
    from components.artifacts import read_url, write_report
    from components.command_line import exit_on_error
    from components.report.step import report as make_report

    with exit_on_error():
        url = make_report(summary=read_url(summary), sweep=read_url(trials))
        write_report(report, url)
