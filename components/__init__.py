"""One folder a pipeline step: `step.py` is the step, `component.py` its Kubeflow declaration."""
