"""The trainer around TRL: what trains, who forms a group, what a resumed run repeats."""

from __future__ import annotations

import json
import signal
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from tiny import tiny_model, tiny_tokenizer
from transformers import TrainerCallback

from stepgrpo_lab.evaluation.grading import Grader
from stepgrpo_lab.method.baselines import GivenAdvantages, GRPOLambdaReward, OutcomeReward, length_penalty_rewards
from stepgrpo_lab.method.records import Cost, Outcome, Trajectory
from stepgrpo_lab.method.rewards import StepAwareReward, step_aware_rewards
from stepgrpo_lab.method.rollout import probed_members, rollout_settings
from stepgrpo_lab.method.sampling import SampleKey
from stepgrpo_lab.method.steps import MarkerSegmenter
from stepgrpo_lab.overthinker.tasks import overthinker_problems
from stepgrpo_lab.recipes import load_recipe
from stepgrpo_lab.recipes._building import recipe_reward
from stepgrpo_lab.training import StepGRPOConfig, StepGRPOTrainer, problems_dataset
from stepgrpo_lab.training import _group_reward as group_reward
from stepgrpo_lab.training._group_reward import GroupRewardFunction
from stepgrpo_lab.training.callbacks import Interrupt
from stepgrpo_lab.training.trainer import loss_inputs


def by_position(correct: Any, steps: Any, formatted: Any, tokens: Any) -> list[float]:
    """A random model is never right, so the tests' reward tells a group's members apart by their position."""
    return [float(position) for position in range(len(correct))]


ROLLOUT = {
    "exit_threshold": 0.0,
    "think_budget": 12,
    "near_budget_margin": 0,
    "markers": list("abcdefghijklmnopqrstuvwxyz0123456789"),
    "probe_rate": 0.5,
}


def make_config(folder: Path, **changes: Any) -> StepGRPOConfig:
    """A training of seconds; ``changes`` may be of the configuration or of its rollout settings."""
    rollout = {name: changes.pop(name) for name in list(changes) if name in ROLLOUT}
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "use_cpu": True,
        "max_steps": 1,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "num_generations": 4,
        "max_completion_length": 24,
        "rollout": rollout_settings(**{**ROLLOUT, **rollout}),
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "save_strategy": "no",
        "report_to": "none",
    }
    return StepGRPOConfig(**{**settings, **changes})


@pytest.fixture
def make_trainer(tmp_path: Path) -> Any:
    made: list[StepGRPOTrainer] = []

    def make(*, problems: int = 4, model: Any = None, peft_config: Any = None, **changes: Any) -> StepGRPOTrainer:
        of_trainer = {name: changes.pop(name) for name in ("callbacks", "group_reward", "segmenter") if name in changes}
        trainer = StepGRPOTrainer(
            tiny_model() if model is None else model,
            make_config(tmp_path / "run", **changes),
            problems_dataset(overthinker_problems("train", problems)),
            tiny_tokenizer(),
            peft_config=peft_config,
            **{"group_reward": by_position, **of_trainer},
        )
        made.append(trainer)
        return trainer

    yield make
    for trainer in made:
        trainer.close()


def weights(trainer: StepGRPOTrainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def same_weights(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# ---- advantages ------------------------------------------------------------------------------------------------------


def test_a_reward_that_states_advantages_has_them_taken_as_they_are(make_trainer: Any) -> None:
    stated = GivenAdvantages(lambda correct, tokens: [float(length % 3) for length in tokens])
    trainer = make_trainer(group_reward=stated, max_steps=1)
    scored, compute_loss = [], trainer.compute_loss

    def watched(model: Any, inputs: Any, *rest: Any, **options: Any) -> Any:
        scored.append(inputs)
        return compute_loss(model, inputs, *rest, **options)

    trainer.compute_loss = watched
    trainer.train()
    for inputs in scored:
        lengths = inputs["completion_mask"].sum(dim=1)
        assert torch.equal(inputs["advantages"], (lengths % 3).to(inputs["advantages"]))
    assert scored


# ---- resuming --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stopped_at", [2, 3])
def test_a_resumed_run_ends_with_the_same_weights(make_trainer: Any, tmp_path: Path, stopped_at: int) -> None:
    # Two prompts a step of four problems: step 3 begins a second epoch, so the order of prompts is at stake too.
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 1, "shuffle_dataset": True}
    straight = make_trainer(**options)
    start = weights(straight)
    straight.train()
    resumed = make_trainer(model=tiny_model(seed=99), **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / f"checkpoint-{stopped_at}"))
    assert not same_weights(start, weights(straight))
    assert same_weights(weights(straight), weights(resumed))


def test_epochs_have_orders_of_their_own(make_trainer: Any) -> None:
    trainer = make_trainer(problems=8)
    sampler = trainer._get_train_sampler()
    orders = []
    for epoch in (0.0, 1.0, 0.0):
        trainer.state.epoch = epoch
        orders.append(list(sampler))
    assert orders[0] == orders[2] != orders[1]


def test_rollout_index_depends_on_the_step_alone(make_trainer: Any) -> None:
    trainer = make_trainer(gradient_accumulation_steps=4, steps_per_generation=2)
    assert trainer.args.rollouts_per_step == 2
    drawn = []
    for step in (0, 1):
        trainer.state.global_step = step
        drawn += [trainer.next_rollout("train"), trainer.next_rollout("eval"), trainer.next_rollout("train")]
    assert drawn == [0, 0, 1, 2, 2, 3]
    later = make_trainer(gradient_accumulation_steps=4, steps_per_generation=2)
    later.state.global_step = 1
    assert [later.next_rollout("train"), later.next_rollout("train")] == [2, 3]


# ---- what the rollout hands over -------------------------------------------------------------------------------------


def prompts_of(trainer: StepGRPOTrainer, count: int) -> list[Any]:
    return [trainer.train_dataset[0]["prompt"]] * count


def test_members_are_probed_by_their_place_in_the_group(make_trainer: Any) -> None:
    trainer = make_trainer()
    trainer.model.train()
    rows = trainer.complete(prompts_of(trainer, 8))["step_trajectory"]
    assert [row.probed for row in rows] == probed_members(4, 0.5) * 2
    assert any(row.probes for row in rows)


def test_samples_are_counted_over_all_processes(make_trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Two processes of two rows each, a group of four: the second process holds members 2 and 3.
    trainer = make_trainer()
    trainer.model.train()
    whole = trainer.complete(prompts_of(trainer, 4))["step_trajectory"]
    trainer._rollouts.clear()
    monkeypatch.setattr(type(trainer.accelerator), "process_index", property(lambda accelerator: 1))
    second = trainer.complete(prompts_of(trainer, 2))["step_trajectory"]
    assert [row.completion_ids for row in second] == [row.completion_ids for row in whole[2:]]
    assert [row.probed for row in second] == [row.probed for row in whole[2:]]


def test_every_rollout_has_noise_of_its_own(make_trainer: Any) -> None:
    trainer = make_trainer()
    trainer.model.train()
    first, second = (trainer.complete(prompts_of(trainer, 4))["completion_ids"] for _ in range(2))
    assert first != second


def test_evaluation_is_plain_decoding(make_trainer: Any) -> None:
    trainer = make_trainer()
    trainer.model.eval()
    rows = trainer.complete(prompts_of(trainer, 4))["step_trajectory"]
    assert not any(row.probes or any(row.forced) or row.probed for row in rows)


def test_without_dynamic_rollout_nothing_is_forced(make_trainer: Any) -> None:
    trainer = make_trainer(rollout=None, segmenter=MarkerSegmenter(ROLLOUT["markers"]))
    trainer.model.train()
    rows = trainer.complete(prompts_of(trainer, 4))["step_trajectory"]
    assert not any(any(row.forced) or row.probes for row in rows)
    # Steps are still counted.
    assert any(row.steps > 1 for row in rows)


def test_an_empty_completion_is_refused(make_trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer()
    empty = Trajectory([1], [], [], "", 1, None, "length")
    monkeypatch.setattr(trainer, "_sample", lambda *_: ([empty], Cost()))
    with pytest.raises(RuntimeError, match="empty completion"):
        trainer.complete(prompts_of(trainer, 1))


def test_masks_are_exactly_as_long_as_their_completions() -> None:
    rows = [
        Trajectory([1], [2, 3, 4], [-0.5, None, -1.0], "", 1, "early", "eos"),
        Trajectory([1], [2], [-0.1], "", 1, None, "eos"),
    ]
    masked = loss_inputs(rows, train_forced_close=False)
    assert masked == {"logprobs": [[-0.5, 0.0, -1.0], [-0.1]], "env_mask": [[1, 0, 1], [1]]}
    assert loss_inputs(rows, train_forced_close=True) == {"logprobs": [[-0.5, None, -1.0], [-0.1]]}


# ---- what trains -----------------------------------------------------------------------------------------------------


def scored_batch(trainer: StepGRPOTrainer) -> dict[str, Any]:
    """One generation batch as the loss sees it, forced tokens included."""
    trainer.model.train()
    rows = [trainer.train_dataset[index] for index in (0, 0, 0, 0, 1, 1, 1, 1)]
    return trainer._generate_and_score_completions(rows)


def gradient(trainer: StepGRPOTrainer, batch: dict[str, Any]) -> torch.Tensor:
    trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
    trainer.model.zero_grad()
    trainer.compute_loss(trainer.model, batch).backward()
    return torch.cat(
        [parameter.grad.flatten() for parameter in trainer.model.parameters() if parameter.grad is not None]
    )


def test_forced_closes_carry_exactly_the_gradient_that_masking_takes_away(make_trainer: Any) -> None:
    published, masked = make_trainer(), make_trainer(train_forced_close=False)
    with_forced, without = scored_batch(published), scored_batch(masked)
    assert torch.equal(with_forced["completion_ids"], without["completion_ids"])
    assert "tool_mask" not in with_forced
    forced = (1 - without["tool_mask"]) * without["completion_mask"]
    assert forced.sum() > 0
    only_forced = gradient(published, {**with_forced, "tool_mask": forced})
    assert only_forced.norm() > 1e-3
    everything, sampled = gradient(published, with_forced), gradient(masked, without)
    # Both losses are sums over tokens divided by the number of tokens that train.
    all_tokens, sampled_tokens = with_forced["num_items_in_batch"], without["num_items_in_batch"]
    assert all_tokens - sampled_tokens == forced.sum()
    torch.testing.assert_close(
        everything * all_tokens, sampled * sampled_tokens + only_forced * all_tokens, atol=1e-3, rtol=1e-3
    )
    assert (everything - sampled).norm() > 1e-3


def test_recorded_logprobs_are_the_policys_and_unknown_where_forced(make_trainer: Any) -> None:
    trainer = make_trainer()
    batch = scored_batch(trainer)
    recorded, mask = batch["sampling_per_token_logps"], batch["completion_mask"].bool()
    forced = recorded.isnan()
    assert (forced & mask).any() and not (forced & ~mask).any()
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    attention = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    with torch.no_grad():
        policy, _, _ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, attention, recorded.size(1))
    torch.testing.assert_close(recorded[mask & ~forced], policy[mask & ~forced], atol=1e-4, rtol=0)


def test_forced_tokens_have_importance_ratio_one_off_policy(make_trainer: Any) -> None:
    # Two steps share a rollout, so the loss compares with old log-probabilities: TRL's own, computed for every token.
    trainer = make_trainer(steps_per_generation=4)
    assert trainer.args.window_steps == 2
    batch = scored_batch(trainer)
    forced = batch["sampling_per_token_logps"].isnan()
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    attention = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    with torch.no_grad():
        policy, _, _ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, attention, forced.size(1))
    ratio = (policy - batch["old_per_token_logps"])[forced].exp()
    torch.testing.assert_close(ratio, torch.ones_like(ratio))


@pytest.mark.parametrize(
    ("changes", "rows"),
    [
        ({"loss_type": "dapo"}, 4),
        ({"loss_type": "grpo"}, 4),
        ({"loss_type": "dr_grpo"}, 4),
        ({"loss_type": "dapo", "beta": 0.1, "peft_config": LoraConfig(r=4, target_modules=["q_proj"])}, 8),
        ({"loss_type": "bnpo"}, 8),
        ({"loss_type": "dapo", "steps_per_generation": 4, "max_steps": 2}, 4),
    ],
)
def test_passes_with_less_padding_move_the_weights_as_trl_s_do(
    make_trainer: Any, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], rows: int
) -> None:
    def first_group_alone(*group: Any) -> list[float]:
        groups.append(group)
        return [0.0 if len(groups) % 2 == 0 else float(member) for member in range(len(group[0]))]

    def watched(trainer: StepGRPOTrainer) -> dict[str, torch.Tensor]:
        compute = trainer._compute_loss

        def seen(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
            shapes.append(tuple(inputs["completion_mask"].shape))
            assert inputs["completion_mask"].any(0).all() and inputs["prompt_mask"].any(0).all()
            return compute(model, inputs)

        monkeypatch.setattr(trainer, "_compute_loss", seen)
        trainer.train()
        return weights(trainer)

    groups: list[Any] = []
    shapes: list[tuple[int, int]] = []
    options = {"group_reward": first_group_alone, "max_completion_length": 32, "think_budget": 28, "probe_rate": 0.5}
    start = weights(make_trainer(**options, **changes))
    ours = watched(make_trainer(**options, **changes))
    passes = 2 * changes.get("max_steps", 1)
    assert len(shapes) == passes and sum(rows for rows, _ in shapes) == rows * changes.get("max_steps", 1)
    monkeypatch.setattr("stepgrpo_lab.training.trainer.dealt", lambda passes, *_, **__: list(passes))
    groups.clear()
    theirs = make_trainer(**options, **changes)
    theirs.train()
    for name, value in weights(theirs).items():
        gap, moved = (ours[name] - value).norm(), (value - start[name]).norm()
        assert gap <= 1e-2 * moved + 1e-6, name


def test_one_step_changes_the_weights_and_metrics_are_logged(make_trainer: Any) -> None:
    trainer = make_trainer(probe_rate=1.0, max_completion_length=48, think_budget=40)
    before = weights(trainer)
    trainer.train()
    assert not same_weights(before, weights(trainer))
    logged = trainer.state.log_history[0]
    assert logged["reward"] == pytest.approx(1.5)  # positions 0..3
    assert sum(
        logged[f"exits/{name}"] for name in ("natural", "early", "near_budget", "budget", "none")
    ) == pytest.approx(1)
    assert logged["cost/net_ratio"] > 1
    assert 0 < logged["forced_close/signal"] <= 1
    assert logged["groups/informative"] == 1
    assert logged["cost/forward_passes"] >= logged["tokens"]
    for phase in ("rollout", "grading", "update"):
        assert logged[f"seconds/{phase}"] >= 0
    assert trainer.seconds["rollout"] > 0


def test_lora_on_a_4_bit_model_trains_in_float32(make_trainer: Any, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    from peft import LoraConfig
    from tiny import save_tiny

    from stepgrpo_lab.engines.models import load_model

    model, _ = load_model(save_tiny(tmp_path / "tiny", hidden=64), quantization="nf4", device="cpu")
    trainer = make_trainer(model=model, peft_config=LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    trained = {name: value.clone() for name, value in trainer.model.named_parameters() if value.requires_grad}
    assert trained and all("lora_" in name and value.dtype == torch.float32 for name, value in trained.items())
    trainer.train()
    assert any(
        not torch.equal(value, trained[name]) for name, value in trainer.model.named_parameters() if name in trained
    )


# ---- groups ----------------------------------------------------------------------------------------------------------


def trajectory(steps: int, answer: str, tokens: int = 5) -> Trajectory:
    text = f"<think>x</think>\\boxed{{{answer}}}"
    return Trajectory(
        [1], list(range(tokens)), [-0.1] * tokens, text, steps, "natural", "eos", cost=Cost(kept_tokens=tokens)
    )


GROUPS = [
    trajectory(steps, answer)
    for steps, answer in ((2, "7"), (4, "7"), (6, "7"), (9, "1"), (1, "7"), (3, "7"), (8, "0"), (2, "2"))
]


def reward_of(rows: list[Trajectory], reward: Any = None) -> list[float]:
    with Grader() as grader:
        function = GroupRewardFunction(
            reward or StepAwareReward(), grader, scale="group", clock=lambda phase, seconds: None
        )
        return function(
            answer=["7"] * len(rows),
            step_trajectory=rows,
            step_group_size=[4] * len(rows),
            log_metric=lambda name, value: None,
        )


def test_a_group_is_its_place_not_its_problem() -> None:
    # Both groups ask the same problem; each is compared with its own mean.
    rewards = reward_of(GROUPS)
    first = step_aware_rewards([True, True, True, False], [2, 4, 6, 9], [True] * 4)
    second = step_aware_rewards([True, True, False, False], [1, 3, 8, 2], [True] * 4)
    assert rewards == pytest.approx(first + second)


def test_a_first_rollout_without_any_marker_says_so_once() -> None:
    seen: list[int] = []
    with Grader() as grader:
        reward = StepAwareReward()
        function = GroupRewardFunction(
            reward, grader, scale="group", clock=lambda phase, seconds: None, unmarked=seen.append
        )

        def rollout(steps: int) -> None:
            rows = [trajectory(1, "7")] * 3 + [trajectory(steps, "7")]
            function(answer=["7"] * 4, step_trajectory=rows, step_group_size=[4] * 4, log_metric=lambda *_: None)

        rollout(1)
        rollout(1)
        assert seen == [4]


def test_timeouts_of_the_grader_are_a_metric() -> None:
    logged: dict[str, float] = {}
    with Grader() as grader:
        function = GroupRewardFunction(StepAwareReward(), grader, scale="group", clock=lambda phase, seconds: None)

        def verdicts(*_: Any) -> list[bool]:
            grader.timeouts += 1
            return [False] * 4

        grader.grade = verdicts  # type: ignore[method-assign]
        group = [trajectory(1, "7")] * 4
        function(answer=["7"] * 4, step_trajectory=group, step_group_size=[4] * 4, log_metric=logged.__setitem__)
    assert logged["grading/timeouts"] >= 1


@pytest.mark.parametrize("processes", [2, 4])
def test_split_groups_are_rewarded_like_whole_ones(processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = reward_of(GROUPS)
    share = len(GROUPS) // processes
    parts = [GROUPS[rank * share : (rank + 1) * share] for rank in range(processes)]
    with Grader() as grader:
        everyone = [row for part in parts for row in group_reward.judge(part, ["7"] * share, grader)]
    monkeypatch.setattr(group_reward, "gather_object", lambda rows: everyone)
    split: list[float] = []
    for rank, part in enumerate(parts):
        state = type("State", (), {"process_index": rank})
        monkeypatch.setattr(group_reward, "PartialState", state)
        split += reward_of(part)
    assert split == pytest.approx(whole)


def test_a_group_reward_must_answer_for_each_member() -> None:
    with pytest.raises(ValueError, match="returned 1 rewards for a group of 4"):
        reward_of(GROUPS, lambda correct, steps, formatted, tokens: [1.0])


def test_a_batch_reward_sees_every_group_first() -> None:
    # The first group has three right answers of four, the second two: only the first is penalized for length.
    penalized = reward_of(GROUPS, GRPOLambdaReward(share=0.5, strength=0.4))
    shaped = OutcomeReward(partial(length_penalty_rewards, strength=0.4))
    tokens = [row.tokens for row in GROUPS]
    first = shaped([True, True, True, False], [1] * 4, [True] * 4, tokens[:4])
    assert penalized == pytest.approx([*first, 1.0, 1.0, 0.1, 0.1])


def test_a_tracker_gets_the_settings_that_ran(make_trainer: Any) -> None:
    reward = recipe_reward(
        load_recipe("overthinker", ["reward.step_beta=0.1", "reward.mean_over=all", "reward.step_alpha=0.7"]).reward
    )
    trainer = make_trainer(group_reward=reward, exit_threshold=0.75)
    logged = json.loads(trainer.args.to_json_string())
    assert logged["reward"]["function"].endswith(":StepAwareReward")
    assert {name: logged["reward"][name] for name in ("step_alpha", "step_beta", "mean_over")} == {
        "step_alpha": 0.7,
        "step_beta": 0.1,
        "mean_over": "all",
    }
    assert (logged["rollout"]["exit_threshold"], logged["rollout"]["probe_rate"]) == (0.75, 0.5)
    assert not {"step_alpha", "step_beta", "mean_over", "exit_threshold"} & logged.keys()
    own = make_trainer(group_reward=partial(length_penalty_rewards, strength=0.3), rollout=None).args.to_dict()
    assert own["reward"]["strength"] == 0.3 and own["reward"]["function"].endswith(":length_penalty_rewards")
    assert own["rollout"] is None


def test_dataset_without_answers_is_refused(tmp_path: Path) -> None:
    dataset = problems_dataset(overthinker_problems("train", 2)).remove_columns("answer")
    with pytest.raises(ValueError, match="no column 'answer'"):
        StepGRPOTrainer(tiny_model(), make_config(tmp_path), dataset, tiny_tokenizer())
    with pytest.raises(ValueError, match="no problems to train on"):
        problems_dataset([])


def test_serial_groups_must_be_whole_on_each_process(make_trainer: Any) -> None:
    trainer = make_trainer(serial_rollout=True)
    prompts = [[{"role": "user", "content": "1+1?"}]] * 6
    trainer.model.train()
    with pytest.raises(ValueError, match="6 completions, which are no whole groups of 4"):
        trainer.complete(prompts)


# ---- Ctrl-C ----------------------------------------------------------------------------------------------------------


class Press(TrainerCallback):
    """Presses Ctrl-C at the beginning of a step."""

    def __init__(self, step: int, times: int = 1) -> None:
        self.step, self.times = step, times

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            for _press in range(self.times):
                signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(("steps_per_generation", "stops_at"), [(2, 1), (4, 2)])
def test_ctrl_c_finishes_the_rollouts_steps_and_saves(
    make_trainer: Any, tmp_path: Path, steps_per_generation: int, stops_at: int
) -> None:
    heard: list[str] = []
    interrupt, handler = Interrupt(heard.append), signal.getsignal(signal.SIGINT)
    trainer = make_trainer(
        max_steps=4,
        steps_per_generation=steps_per_generation,
        save_strategy="steps",
        save_steps=4,
        callbacks=[Press(0), interrupt],
    )
    trainer.train()
    assert interrupt.interrupted and len(heard) == 1
    assert trainer.state.global_step == stops_at
    assert (tmp_path / "run" / f"checkpoint-{stops_at}" / "trainer_state.json").exists()
    assert signal.getsignal(signal.SIGINT) is handler
    # The next training starts with a clean slate.
    resumed = make_trainer(
        max_steps=4, steps_per_generation=steps_per_generation, save_strategy="no", callbacks=[interrupt]
    )
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / f"checkpoint-{stops_at}"))
    assert resumed.state.global_step == 4 and not interrupt.interrupted


def test_a_second_ctrl_c_stops_at_once(make_trainer: Any) -> None:
    interrupt, handler = Interrupt(), signal.getsignal(signal.SIGINT)
    trainer = make_trainer(max_steps=4, callbacks=[Press(1, times=2), interrupt])
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert trainer.state.global_step == 1
    assert signal.getsignal(signal.SIGINT) is handler


def test_other_threads_leave_signals_alone(make_trainer: Any) -> None:
    handler = signal.getsignal(signal.SIGINT)
    interrupt, seen = Interrupt(), []

    def begin() -> None:
        interrupt.on_train_begin(None, None, None)  # type: ignore[arg-type]
        seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=begin)
    thread.start()
    thread.join()
    assert seen == [handler]


def test_sample_keys_name_the_run(make_trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(seed=11)
    trainer.model.train()
    trainer.state.global_step = 5
    seen: list[SampleKey] = []
    from stepgrpo_lab.engines.lockstep import LockstepEngine

    generate = LockstepEngine.generate

    def spy(self: Any, prompts: Any, decoding: Any, **options: Any) -> Any:
        seen.extend(options["keys"])
        return generate(self, prompts, decoding, **options)

    monkeypatch.setattr(LockstepEngine, "generate", spy)
    trainer.complete(prompts_of(trainer, 2))
    assert seen == [SampleKey(11, "train", 5, 0), SampleKey(11, "train", 5, 1)]


def test_outcomes_count_the_trajectorys_steps() -> None:
    with Grader() as grader:
        [row] = group_reward.judge([GROUPS[1]], ["7"], grader)
    assert row.outcome == Outcome(True, True, 4, 5, "7", False, "natural")


def test_a_first_rollout_without_a_marker_is_said_at_once(make_trainer: Any) -> None:
    """Before the first update, in one line that names the markers; not again, and not where a step was seen."""
    trainer = make_trainer(segmenter=MarkerSegmenter(["Zugzwang", "等等"]), max_steps=2)
    said: list[tuple[int, str]] = []
    trainer.notice = lambda line: said.append((trainer.state.global_step, line))
    trainer.train()
    [(step, line)] = said
    assert step == 0 and "Zugzwang, 等等" in line and "\n" not in line

    trainer = make_trainer(segmenter=MarkerSegmenter(ROLLOUT["markers"]), max_steps=1)
    trainer.notice = said.append
    trainer.train()
    assert len(said) == 1

    with pytest.warns(UserWarning, match=r"none of the first \d+ completions holds a marker"):
        make_trainer(segmenter=MarkerSegmenter(["Zugzwang"]), max_steps=1).train()
