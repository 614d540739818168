"""Pipelines made of the steps in `components`."""
