"""What happens around the steps: metrics on disk, validation, a progress line, and an orderly stop."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState

from stepgrpo_lab.engines.distributed import all_gather, all_reduce_any
from stepgrpo_lab.engines.files import sync, write_atomically
from stepgrpo_lab.engines.signals import Handlers, give_back_signals, raise_stop, take_signals
from stepgrpo_lab.training.config import StepGRPOConfig
from stepgrpo_lab.training.metrics import never_thought, nothing_to_learn, read_metrics

if TYPE_CHECKING:
    from stepgrpo_lab.training.trainer import StepGRPOTrainer

Validate = Callable[["StepGRPOTrainer"], dict[str, float]]
"""Measures the policy: metric name (without "validation/") -> value."""


class MetricsFile(TrainerCallback):
    """Writes every logged step as one line of a JSON Lines file.

    Lines of steps that a resumed run does again are dropped when it starts, and so is a line cut off by a kill.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def on_train_begin(self, args: StepGRPOConfig, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = [row for row in read_metrics(self.path) if row["step"] <= state.global_step] if state.global_step else []
        write_atomically(self.path, "".join(json.dumps(row) + "\n" for row in kept))

    def on_log(
        self, args: StepGRPOConfig, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        if not state.is_world_process_zero or "train_runtime" in logs:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": state.global_step, **logs}) + "\n")
        if control.should_save:  # no checkpoint is on the disk before its line
            sync(self.path)


class Validation(TrainerCallback):
    """Plain decoding on held-out problems, before the first step and every ``every`` steps after it.

    The figures appear as ``validation/...`` on the same line of metrics as their step. Training goes on as if nothing
    had happened: train mode and the random number generators are put back.
    """

    def __init__(self, trainer: StepGRPOTrainer, validate: Validate, *, every: int) -> None:
        self.trainer = trainer
        self.validate = validate
        self.every = every

    def on_train_begin(self, args: StepGRPOConfig, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step == 0:
            self.trainer.log(self._measure())

    def on_step_end(self, args: StepGRPOConfig, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step % self.every and state.global_step != state.max_steps:
            return
        for name, value in self._measure().items():
            self.trainer._metrics["train"][name].append(value)
        control.should_log = True

    def _measure(self) -> dict[str, float]:
        model = self.trainer.model
        was_training = model.training
        started = time.perf_counter()
        try:
            with torch.random.fork_rng():
                model.eval()
                figures = self.validate(self.trainer)
        finally:
            model.train(was_training)
            self.trainer.clock("validation", time.perf_counter() - started)
        return {f"validation/{name}": value for name, value in figures.items()}


class NothingToLearnError(ValueError):
    """No group of a run ever had anything to learn from."""


class LearningSignal(TrainerCallback):
    """Says at once when no group of a step can be learned from, and ends a run in which none ever could.

    Args:
        progress: Receives one line for each new reason.
        patience: Steps without signal, from the first on, after which training ends; None never ends it.

    Raises:
        NothingToLearnError: From within the training, at the end of its patience.
    """

    def __init__(self, progress: Callable[[str], None], patience: int | None = 20) -> None:
        self.progress = progress
        self.patience = patience
        self.barren: int | None = 0  # steps without signal so far; None once there was one
        self._told: set[str] = set()

    def on_train_begin(self, args: StepGRPOConfig, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.barren = 0
        for row in state.log_history:
            self._count(row)

    def on_log(
        self, args: StepGRPOConfig, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        if "groups/informative" not in logs:
            return
        if state.global_step <= 1 and args.rollout is not None and never_thought(logs):
            self._tell(
                "no completion closed its thoughts and no marker occurred: is this a reasoning model? Set rollout."
                "markers to words that it uses, or rollout.dynamic: false"
            )
        why = nothing_to_learn(logs)
        if why is not None:
            self._tell(f"no group of step {state.global_step} can be learned from: {why}", why)
        self._count(logs)
        if why is not None and self.barren and self.barren == self.patience:
            raise NothingToLearnError(
                f"stopped after {self.barren} steps in which no group could be learned from: {why} "
                "(optimisation.stop_without_signal: null goes on all the same)"
            )

    def _count(self, row: Mapping[str, Any]) -> None:
        if "groups/informative" in row and self.barren is not None:
            self.barren = self.barren + 1 if row["groups/informative"] == 0 else None

    def _tell(self, line: str, reason: str | None = None) -> None:
        if (reason or line) not in self._told:
            self._told.add(reason or line)
            self.progress(line)


class TokenBudget(TrainerCallback):
    """Ends training once the rollouts have decoded ``budget`` tokens, probes included; a resumed run counts on."""

    def __init__(self, budget: int) -> None:
        self.budget = budget

    def on_train_begin(self, args: StepGRPOConfig, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if is_over(state, self.budget):  # resumed after the step that spent it
            control.should_training_stop = True

    def on_log(self, args: StepGRPOConfig, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if is_over(state, self.budget):
            control.should_training_stop = True


class ProgressLine(TrainerCallback):
    """Reports how training goes, one line at a time.

    Args:
        progress: Receives the line, without line break. The library itself never prints.
        every: Steps between two lines.
        token_budget: Decoded tokens that end training, if any: the time left is then judged by what comes first.
    """

    def __init__(self, progress: Callable[[str], None], *, every: int = 1, token_budget: int | None = None) -> None:
        self.progress = progress
        self.every = every
        self.token_budget = token_budget
        self.started = 0.0
        self.first_step = 0
        self.validation = ""

    def on_train_begin(self, args: StepGRPOConfig, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.started = time.perf_counter()
        self.first_step = state.global_step

    def on_log(
        self, args: StepGRPOConfig, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        if not state.is_world_process_zero or "train_runtime" in logs:
            return
        if "validation/accuracy" in logs:
            self.validation = f" | validation {logs['validation/accuracy']:.1%} {logs['validation/tokens']:.1f} tokens"
        due = state.global_step % self.every == 0 or state.global_step == state.max_steps
        if due and ("accuracy" in logs or "loss" in logs):
            self.progress(self._line(state, logs))

    def _line(self, state: TrainerState, logs: dict[str, Any]) -> str:
        done = state.global_step - self.first_step
        left = (time.perf_counter() - self.started) / max(1, done) * self._steps_left(state)
        if "accuracy" in logs:
            figures = (
                f"{logs['accuracy']:.1%} right, {logs['tokens']:.1f} tokens, {logs['steps/all']:.1f} steps, "
                f"{logs['exits/early']:.0%} early"
            ) + ("" if nothing_to_learn(logs) is None else ", nothing to learn")
        else:
            figures = f"loss {logs['loss']:.3f}"  # supervised fine-tuning samples nothing
        return f"step {state.global_step}/{state.max_steps} | {figures}{self.validation} | {duration(left)} left"

    def _steps_left(self, state: TrainerState) -> float:
        left: float = state.max_steps - state.global_step
        decoded = decoded_tokens(state)
        if self.token_budget and decoded:
            left = min(left, max(0.0, self.token_budget - decoded) / (decoded / state.global_step))
        return left


def decoded_tokens(state: TrainerState) -> float:
    """Tokens that the rollouts of a training have decoded so far, probes included."""
    return sum(row.get("cost/decoded_tokens", 0.0) for row in state.log_history)


def is_over(state: TrainerState, token_budget: int | None = None) -> bool:
    """Whether a training has reached its end: its last step, or the one that spent its token budget."""
    return state.global_step >= state.max_steps or (token_budget is not None and decoded_tokens(state) >= token_budget)


def duration(seconds: float) -> str:
    """A length of time in words that fit a progress line.

    Example:
        >>> duration(42), duration(250), duration(7300)
        ('42 s', '4 min 10 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Interrupt(TrainerCallback):
    """Ctrl-C, SIGTERM and SIGHUP stop training in order: the first signal finishes the current step (and the steps of
    its rollout) and saves, the second stops at once.

    Only the main thread receives signals; elsewhere the callback does nothing. A signal that was ignored stays so.

    Args:
        progress: Receives one line when a signal was heard.

    Attributes:
        interrupted: One was heard during the last training.
        signal: Its number; None without.
    """

    def __init__(self, progress: Callable[[str], None] | None = None) -> None:
        self.progress = progress
        self.interrupted = False
        self.signal: int | None = None
        self._before: Handlers = {}

    def on_train_begin(self, args: StepGRPOConfig, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.interrupted, self.signal = False, None
        self._before = take_signals(self._heard)

    def _heard(self, number: int, frame: Any) -> None:
        if self.interrupted:
            self.restore()
            raise_stop(number)
        self.interrupted, self.signal = True, number
        if self.progress:
            self.progress(
                "stopping after this step and saving; a second Ctrl-C or signal stops at once, without saving"
            )

    def on_step_end(self, args: StepGRPOConfig, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step % args.window_steps:
            return
        # A signal may reach the processes in different steps, or one of them alone.
        self.interrupted = all_reduce_any(self.interrupted)
        if self.interrupted:
            self.signal = max(all_gather(self.signal or 0)) or None
            control.should_save = control.should_training_stop = True

    def on_train_end(self, args: StepGRPOConfig, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.restore()

    def restore(self) -> None:
        """Give the signals back to whoever had them before training; also needed when training ended in an error."""
        give_back_signals(self._before)
        self._before = {}
