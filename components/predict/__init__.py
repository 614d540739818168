"""Segment scans with a published model: one, or thousands on a cluster."""

from components.predict.step import Prediction, predict

__all__ = ["Prediction", "predict"]
