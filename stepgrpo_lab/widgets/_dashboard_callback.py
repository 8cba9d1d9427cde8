"""Feeds a live dashboard from the trainer, and stops training when its button was pressed.

A module of its own because it needs transformers, which the dashboard itself must not import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import TrainerControl, TrainerState

from stepgrpo_lab.training.callbacks import Interrupt
from stepgrpo_lab.training.config import StepGRPOConfig

if TYPE_CHECKING:
    from stepgrpo_lab.widgets.dashboard import LiveDashboard


class DashboardCallback(Interrupt):
    """Every logged step goes to the dashboard; its stop button works like the first Ctrl-C.

    Args:
        dashboard: The dashboard.
        stop_after: Step at whose end training stops as well; None: never.
    """

    def __init__(self, dashboard: LiveDashboard, stop_after: int | None = None) -> None:
        super().__init__()
        self.dashboard = dashboard
        self.stop_after = stop_after

    def on_train_begin(self, args: StepGRPOConfig, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        super().on_train_begin(args, state, control)
        # What a resumed run does again goes; what validation has just logged before the first step stays.
        kept = {row["step"]: row for row in self.dashboard.rows if row["step"] <= state.global_step}
        with self.dashboard.hold_trait_notifications():
            self.dashboard.max_steps = state.max_steps
            self.dashboard.finished = self.dashboard.stop_requested = False
            self.dashboard.stoppable = True
            self.dashboard.rows = list(kept.values())

    def on_log(
        self, args: StepGRPOConfig, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        if state.is_world_process_zero and "train_runtime" not in logs:
            self.dashboard.add({"step": state.global_step, **logs})

    def on_step_end(self, args: StepGRPOConfig, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        asked = self.dashboard.stop_requested or state.global_step == self.stop_after
        self.interrupted = self.interrupted or asked
        super().on_step_end(args, state, control)

    def on_train_end(self, args: StepGRPOConfig, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        super().on_train_end(args, state, control)
        self.dashboard.finished = True
