"""What the notebooks of the course are made with: setup, predictions, source on show, and the exercises' checks."""

from stepgrpo_lab.course.environment import FAST_VARIABLE, Lab, fast_mode, setup
from stepgrpo_lab.course.predictions import Comparison, Prediction, predict, predictions
from stepgrpo_lab.course.source_code import Source, source_of

__all__ = [
    "FAST_VARIABLE",
    "Comparison",
    "Lab",
    "Prediction",
    "Source",
    "fast_mode",
    "predict",
    "predictions",
    "setup",
    "source_of",
]
