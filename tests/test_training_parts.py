"""Settings, metrics and callbacks of training, each alone."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainerControl, TrainerState

from stepgrpo_lab.method.records import Cost, Outcome, Probe, Trajectory
from stepgrpo_lab.method.rollout import PRESETS, rollout_settings
from stepgrpo_lab.training import StepGRPOConfig
from stepgrpo_lab.training._passes import dealt
from stepgrpo_lab.training.callbacks import (
    LearningSignal,
    MetricsFile,
    NothingToLearnError,
    ProgressLine,
    Validation,
    duration,
)
from stepgrpo_lab.training.metrics import (
    RolloutRow,
    nothing_to_learn,
    read_metrics,
    rollout_metrics,
    rollout_row,
    run_decoded_tokens,
)


def make_config(tmp_path: Path, **changes: Any) -> StepGRPOConfig:
    return StepGRPOConfig(**{"output_dir": str(tmp_path), "save_strategy": "no", "use_cpu": True, **changes})


# ---- settings --------------------------------------------------------------------------------------------------------


def test_defaults_are_stated(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    assert (config.loss_type, config.scale_rewards, config.beta, config.delta) == ("dapo", "group", 0.0, None)
    assert (config.bf16, config.fp16, config.gradient_checkpointing) == (False, False, False)
    assert config.vllm_importance_sampling_mode == "token_truncate"
    assert (config.train_forced_close, config.rollout) == (True, PRESETS["official"])


def test_the_rollout_names_of_0_1_still_work(tmp_path: Path) -> None:
    old = {"preset": "paper", "exit_threshold": 0.8, "markers": "official", "think_budget": 100, "probe_rate": 0.5}
    with pytest.warns(DeprecationWarning, match="exit_threshold"):
        config = make_config(tmp_path, **old, max_probes=None)
    assert config.rollout == rollout_settings(**old)
    with pytest.warns(DeprecationWarning, match="dynamic_rollout"):
        assert make_config(tmp_path, dynamic_rollout=False).rollout is None
    with pytest.warns(DeprecationWarning, match="dynamic_rollout"):
        serial = make_config(tmp_path, dynamic_rollout=False, serial_rollout=True, exit_threshold=0.7)
    assert serial.serial_rollout and serial.rollout == rollout_settings(exit_threshold=0.7)


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"step_beta": 0.1, "mean_over": "all"}, r"mean_over, step_beta: .*group_reward=StepAwareReward"),
        ({"exit_threshold": 0.8, "rollout": None}, "exit_threshold: .*rollout=rollout_settings"),
    ],
)
def test_names_of_0_1_without_a_place_say_where_it_is(tmp_path: Path, changes: dict[str, Any], remedy: str) -> None:
    with pytest.raises(TypeError, match=remedy):
        make_config(tmp_path, **changes)


def test_markers_of_0_1_are_not_lost_without_a_rollout(tmp_path: Path) -> None:
    with (
        pytest.warns(DeprecationWarning, match="dynamic_rollout"),
        pytest.raises(TypeError, match=r"markers: .*segmenter=MarkerSegmenter"),
    ):
        make_config(tmp_path, dynamic_rollout=False, markers="paper")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rollout": "paper"}, "rollout is 'paper': give rollout_settings"),
        ({"serial_rollout": True, "rollout": None}, "serial_rollout needs"),
        ({"round_limits": [9999]}, "round_limits holds 9999: it must lie between 1 and max_completion_length"),
        ({"grading_timeout": float("nan")}, "grading_timeout is nan"),
        ({"rollout_rows": 0}, "rollout_rows is 0"),
        ({"use_vllm": True}, "use_vllm is True"),
        ({"min_p": 0.1}, "min_p is 0.1"),
        ({"repetition_penalty": 1.2}, "repetition_penalty is 1.2"),
        ({"use_transformers_continuous_batching": True}, "continuous_batching"),
    ],
)
def test_bad_settings_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_config(tmp_path, **changes)


@pytest.mark.parametrize(
    ("accumulation", "per_generation", "iterations", "window"),
    [(4, 4, 1, 1), (4, 8, 1, 2), (4, 2, 1, 1), (4, 4, 2, 2), (2, 3, 1, 3)],
)
def test_checkpoints_only_between_rollouts(
    tmp_path: Path, accumulation: int, per_generation: int, iterations: int, window: int
) -> None:
    options = {
        "gradient_accumulation_steps": accumulation,
        "steps_per_generation": per_generation,
        "num_iterations": iterations,
        "save_strategy": "steps",
    }
    assert make_config(tmp_path, save_steps=window, **options).window_steps == window
    if window > 1:
        with pytest.raises(ValueError, match=f"set save_steps={2 * window}"):
            make_config(tmp_path, save_steps=window + 1, **options)


def test_a_t4_gets_fp16_although_it_claims_bf16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stepgrpo_lab.training import config

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    assert config.native_precision() == "fp16"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    assert config.native_precision() == "bf16"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert config.native_precision() == "no"


def test_bf16_on_a_t4_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepgrpo_lab.training.config.native_precision", lambda: "fp16")
    with pytest.raises(ValueError, match="bf16: this GPU only emulates bfloat16"):
        StepGRPOConfig(output_dir=str(tmp_path), bf16=True)


# ---- metrics ---------------------------------------------------------------------------------------------------------


def row(
    correct: bool, steps: int, tokens: int, close: Any = "natural", probes: Any = (), decoded: int = 0
) -> RolloutRow:
    return RolloutRow(
        Outcome(correct, True, steps, tokens, "1", False, close),
        probes,
        close in ("early", "near_budget", "budget"),
        decoded or tokens,
    )


def test_metrics_of_two_groups() -> None:
    rows = [
        row(True, 2, 10, "early", decoded=30),
        row(True, 4, 20),
        row(False, 9, 30, "budget"),
        row(False, 5, 40, None),
    ]
    measured = rollout_metrics(rows, [1.0, 1.0, 0.1, 0.4], 2)
    assert measured["accuracy"] == 0.5
    assert measured["tokens"] == 25
    assert (measured["steps/all"], measured["steps/correct"]) == (5, 3)
    exits = {name: measured[f"exits/{name}"] for name in ("natural", "early", "near_budget", "budget", "none")}
    assert exits == {"natural": 0.25, "early": 0.25, "near_budget": 0.0, "budget": 0.25, "none": 0.25}
    assert measured["cost/net_ratio"] == 1.2
    # The first group has equal rewards: its forced close has no advantage, the second group's has one.
    assert measured["groups/informative"] == 0.5
    assert measured["forced_close/signal"] == 0.5
    assert "probe/ece" not in measured


def test_undefined_metrics_are_left_out() -> None:
    measured = rollout_metrics([row(False, 1, 10), row(False, 2, 10)], [0.0, 0.0], 2)
    assert not {"steps/correct", "forced_close/signal", "probe/confidence"} & set(measured)


def test_probes_are_compared_with_the_truth() -> None:
    def probe(answer: str | None, joint: float) -> Probe:
        return Probe(3, 1, "Wait", [1], [joint], "", answer, True, 0.9, joint, False)

    def with_probes(*probes: Probe) -> Trajectory:
        return Trajectory(
            [1], [2, 3], [-1.0, None], "", 2, "early", "eos", True, list(probes), Cost(kept_tokens=2, probe_tokens=4)
        )

    outcome = Outcome(True, True, 2, 2, "1", False, "early")
    rows = [
        rollout_row(with_probes(probe("7", 0.85), probe("8", 0.85)), outcome, [True, False]),
        rollout_row(with_probes(probe(None, 0.05)), outcome, [False]),
    ]
    measured = rollout_metrics(rows, [1.0, 0.0], 2)
    assert measured["probe/per_completion"] == 1.5
    assert measured["probe/boxed"] == pytest.approx(2 / 3)
    # Both boxed answers state 0.85, one is right: |0.85 - 0.5|. The probe without a box states nothing.
    assert measured["probe/ece"] == pytest.approx(0.35)
    assert measured["probe/joint"] == pytest.approx(0.85)
    assert measured["cost/net_ratio"] == 3
    assert rows[0].forced_close


# ---- callbacks -------------------------------------------------------------------------------------------------------


def state_at(step: int, last: int = 4) -> TrainerState:
    return TrainerState(global_step=step, max_steps=last, is_world_process_zero=True)


def test_a_resumed_metrics_file_has_each_step_once(tmp_path: Path) -> None:
    path, arguments, control = tmp_path / "metrics.jsonl", SimpleNamespace(), TrainerControl()
    metrics = MetricsFile(path)
    metrics.on_train_begin(arguments, state_at(0), control)  # type: ignore[arg-type]
    for step in (1, 2, 3):
        metrics.on_log(arguments, state_at(step), control, {"loss": 0.5})  # type: ignore[arg-type]
    metrics.on_log(arguments, state_at(3), control, {"train_runtime": 1.0})  # type: ignore[arg-type]
    with path.open("a") as file:
        file.write('{"step": 4, "lo')  # killed while writing
    metrics.on_train_begin(arguments, state_at(2), control)  # type: ignore[arg-type]
    metrics.on_log(arguments, state_at(3), control, {"loss": 0.25})  # type: ignore[arg-type]
    assert [json.loads(line) for line in path.read_text().splitlines()] == read_metrics(path)
    assert [(entry["step"], entry["loss"]) for entry in read_metrics(path)] == [(1, 0.5), (2, 0.5), (3, 0.25)]
    metrics.on_train_begin(arguments, state_at(0), control)  # type: ignore[arg-type]
    assert read_metrics(path) == []


def test_a_broken_row_of_metrics_is_named_and_a_cut_off_one_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert read_metrics(path) == [{"step": 1}, {"step": 2}]
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    for read in (read_metrics, lambda path: run_decoded_tokens(path.parent)):
        with pytest.raises(ValueError, match=r"metrics\.jsonl, row 2"):
            read(path)


class FakeTrainer:
    def __init__(self) -> None:
        self.model = torch.nn.Dropout()
        self._metrics: dict[str, Any] = {"train": {"validation/accuracy": []}}
        self.logged: list[dict[str, float]] = []
        self.seconds: dict[str, float] = {}

    def log(self, logs: dict[str, float]) -> None:
        self.logged.append(logs)

    def clock(self, phase: str, seconds: float) -> None:
        self.seconds[phase] = seconds


def test_validation_leaves_no_trace() -> None:
    trainer, steps = FakeTrainer(), []

    def validate(seen: Any) -> dict[str, float]:
        assert not seen.model.training
        steps.append(torch.rand(1).item())
        return {"accuracy": 0.5}

    validation = Validation(trainer, validate, every=2)  # type: ignore[arg-type]
    torch.manual_seed(1)
    expected = torch.rand(1).item()
    torch.manual_seed(1)
    validation.on_train_begin(None, state_at(0), TrainerControl())  # type: ignore[arg-type]
    for step in (1, 2, 3, 4):
        validation.on_step_end(None, state_at(step), TrainerControl())  # type: ignore[arg-type]
    assert len(steps) == 3  # at steps 0, 2 and 4
    assert torch.rand(1).item() == expected
    assert trainer.model.training
    assert trainer.logged == [{"validation/accuracy": 0.5}]
    assert trainer._metrics["train"]["validation/accuracy"] == [0.5, 0.5]
    validation.on_train_begin(None, state_at(2), TrainerControl())  # type: ignore[arg-type]
    assert len(steps) == 3  # a resumed run has measured its start already


def test_train_mode_returns_even_if_validation_fails() -> None:
    trainer = FakeTrainer()

    def validate(seen: Any) -> dict[str, float]:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        Validation(trainer, validate, every=1).on_step_end(None, state_at(1), TrainerControl())  # type: ignore[arg-type]
    assert trainer.model.training


def test_progress_tells_what_matters() -> None:
    lines: list[str] = []
    progress, control = ProgressLine(lines.append, every=2), TrainerControl()
    figures = {"accuracy": 0.5, "tokens": 40.0, "steps/all": 2.5, "exits/early": 0.25}
    progress.on_train_begin(None, state_at(0), control)  # type: ignore[arg-type]
    progress.on_log(None, state_at(0), control, {"validation/accuracy": 0.75, "validation/tokens": 44.4})  # type: ignore[arg-type]
    for step in (1, 2, 3):
        progress.on_log(None, state_at(step, 3), control, figures)  # type: ignore[arg-type]
    assert len(lines) == 2
    assert lines[0].startswith(
        "step 2/3 | 50.0% right, 40.0 tokens, 2.5 steps, 25% early | validation 75.0% 44.4 tokens | "
    )
    assert lines[1].endswith("| 0 s left")


def test_the_time_left_is_that_of_the_token_budget_where_it_ends_first(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.0, 20.0, 20.0])
    clock = SimpleNamespace(perf_counter=lambda: next(seconds))
    monkeypatch.setattr("stepgrpo_lab.training.callbacks.time", clock)
    lines: list[str] = []
    figures = {"accuracy": 0.5, "tokens": 40.0, "steps/all": 2.5, "exits/early": 0.25}
    progress, control = ProgressLine(lines.append, token_budget=600), TrainerControl()
    progress.on_train_begin(None, state_at(0), control)  # type: ignore[arg-type]
    state = state_at(2, 1000)
    state.log_history = [{"cost/decoded_tokens": 100.0}, {"cost/decoded_tokens": 100.0}]
    progress.on_log(None, state, control, figures)  # type: ignore[arg-type]
    assert lines[0].endswith("| 40 s left")  # 400 tokens are four more steps of ten seconds
    progress.token_budget = None
    progress.on_log(None, state, control, figures)  # type: ignore[arg-type]
    assert lines[1].endswith("| 2 h 46 min left")


@pytest.mark.parametrize(
    ("accuracy", "truncated", "named"),
    [
        (0.0, 1.0, "rollout.max_tokens"),
        (0.0, 0.25, "25% were cut off"),
        (1.0, 0.0, "harder problems"),
        (0.5, 0.0, "optimisation.group_size"),
    ],
)
def test_a_step_without_signal_says_why(accuracy: float, truncated: float, named: str) -> None:
    row = {"groups/informative": 0.0, "accuracy": accuracy, "truncated": truncated}
    assert named in str(nothing_to_learn(row))
    assert nothing_to_learn({**row, "groups/informative": 0.5}) is None and nothing_to_learn({"loss": 0.1}) is None


def signals(patience: int | None, informative: list[float], history: list[dict[str, float]] | None = None) -> list[str]:
    """What the callback tells, until it stops or there is nothing more to log."""
    lines: list[str] = []
    signal, state = LearningSignal(lines.append, patience), state_at(0)
    arguments: Any = SimpleNamespace(rollout=None)
    state.log_history = history or []
    signal.on_train_begin(arguments, state, TrainerControl())
    for step, share in enumerate(informative, 1):
        logs = {"groups/informative": share, "accuracy": 0.0, "truncated": 0.0}
        signal.on_log(arguments, state_at(step), TrainerControl(), logs)
    return lines


def test_a_run_that_never_learns_stops_and_says_so_once() -> None:
    assert len(signals(None, [0.0] * 30)) == 1  # the same reason is told once
    assert len(signals(3, [0.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0])) == 1  # it could learn once
    assert len(signals(3, [0.0, 0.0])) == 1
    with pytest.raises(NothingToLearnError, match=r"3 steps.*no answer was right.*stop_without_signal"):
        signals(3, [0.0] * 3)
    earlier = [{"groups/informative": 0.0}, {"loss": 0.1}, {"groups/informative": 0.0}]
    with pytest.raises(NothingToLearnError):
        signals(3, [0.0], earlier)  # resumed after two steps
    signals(3, [0.0] * 3, [{"groups/informative": 0.1}])


def test_a_rollout_without_thoughts_asks_for_a_reasoning_model() -> None:
    lines: list[str] = []
    signal = LearningSignal(lines.append, None)
    figures = {
        "groups/informative": 1.0,
        "exits/natural": 0.0,
        "exits/budget": 1.0,
        "exits/none": 0.0,
        "steps/all": 1.0,
    }
    signal.on_log(SimpleNamespace(rollout=rollout_settings()), state_at(1), TrainerControl(), figures)  # type: ignore[arg-type]
    assert len(lines) == 1 and "reasoning model" in lines[0]
    signal.on_log(SimpleNamespace(rollout=rollout_settings()), state_at(2), TrainerControl(), figures)  # type: ignore[arg-type]
    assert len(lines) == 1


def test_a_pass_of_rows_that_are_all_masked_keeps_one_column() -> None:
    masked = {"prompt_mask": torch.ones(2, 3), "completion_mask": torch.zeros(2, 4), "completion_ids": torch.ones(2, 4)}
    for sort in (False, True):
        [one] = dealt([masked], 1, sort=sort, leave_out=False, mean_over_rows=False)
        assert one["completion_ids"].shape == (2, 1) and not one["completion_mask"].any()


def test_durations_read_well() -> None:
    assert [duration(seconds) for seconds in (0, 59.4, 61, 3599, 3600)] == [
        "0 s",
        "59 s",
        "1 min 1 s",
        "59 min 59 s",
        "1 h 0 min",
    ]
