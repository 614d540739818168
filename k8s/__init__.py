"""Kubernetes manifests. A package only so that `rayjob.yaml` is found where the project is installed."""
