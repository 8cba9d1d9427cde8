"""Widgets that move the objects of Step-GRPO under one's fingers, on recorded trajectories or on your own.

Each widget is a class whose state is plain traits: it works, and can be tested, without a browser. What it shows is
made of ipywidgets and plotly when a notebook displays it; where they cannot run, the notebook shows a static page.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_MODULE_OF_NAME = {
    "StepInspector": "step_inspector",
    "RolloutPlayer": "rollout_player",
    "GroupExplorer": "group_explorer",
    "LossExplorer": "loss_explorer",
    "LiveDashboard": "dashboard",
    "TradeoffExplorer": "tradeoff",
    "StudyExplorer": "study_explorer",
}

__all__ = sorted(_MODULE_OF_NAME)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF_NAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_MODULE_OF_NAME[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "traitlets":
            raise
        raise ImportError("the widgets need traitlets: pip install 'stepgrpo-lab[notebooks]'") from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
