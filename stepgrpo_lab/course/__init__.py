"""What the notebooks of the course are made with: setup, predictions, drawings, source on show, and the checks."""

from stepgrpo_lab.course._drawings import Drawing, drawing
from stepgrpo_lab.course._environment import FAST_VARIABLE, Lab, fast_mode, full_run_recipe, new_run_folder, setup
from stepgrpo_lab.course._predictions import (
    Comparison,
    Prediction,
    Score,
    predict,
    predictions,
    score,
    seal,
    sealed,
)
from stepgrpo_lab.course._showing import RecipeTable, Source, explain_recipe, source_of

__all__ = [
    "FAST_VARIABLE",
    "Comparison",
    "Drawing",
    "Lab",
    "Prediction",
    "RecipeTable",
    "Score",
    "Source",
    "drawing",
    "explain_recipe",
    "fast_mode",
    "full_run_recipe",
    "new_run_folder",
    "predict",
    "predictions",
    "score",
    "seal",
    "sealed",
    "setup",
    "source_of",
]
