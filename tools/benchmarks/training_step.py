"""What a training step costs beside the rollout: against TRL's plain GRPO, and its parts in bulk."""

from __future__ import annotations

import random
import tempfile
import time
from typing import Any
from unittest import mock

from transformers import TrainerCallback

from stepgrpo_lab.engines.completions import Decoding
from stepgrpo_lab.engines.lockstep import LockstepEngine
from stepgrpo_lab.engines.models import load_model
from stepgrpo_lab.method.boxes import extract_boxed
from stepgrpo_lab.method.records import Trajectory
from stepgrpo_lab.method.rewards import StepAwareReward
from stepgrpo_lab.method.settings import probed_members
from stepgrpo_lab.method.steps import MarkerSegmenter
from stepgrpo_lab.overthinker.tasks import overthinker_problems
from stepgrpo_lab.recipes import Recipe, load_recipe
from stepgrpo_lab.training._passes import dealt

from .measuring import Result, alternate, figure, ratios
from .rollouts import AT_DEFAULT, LIMIT, lockstep, overthinker, overthinker_job

GROUP = 8


def training_step(quick: bool) -> Result:
    """Seconds of an optimiser step with our trainer and with TRL's, both handed the same finished completions."""
    problems, steps = (4, 2) if quick else (4, 4)
    records = sampled(problems)
    seconds: dict[str, list[float]] = {"ours": [], "trl": []}
    for _ in range(1 if quick else 2):
        for name, make in (("ours", our_trainer), ("trl", trl_trainer)):
            with tempfile.TemporaryDirectory() as folder:
                clock = _Clock()
                trainer = make(problems, records, settings(folder, problems, steps))
                trainer.add_callback(clock)
                trainer.train()
                if name == "ours":
                    trainer.close()
                seconds[name] += clock.seconds[1:]  # the first step warms up
    return Result(
        [
            figure(
                "training_step",
                "training step beside the rollout, over TRL's plain GRPO on the same completions",
                ratios(seconds["ours"], seconds["trl"]),
                most=1.10,
                note=f"{problems * GROUP} completions of the Overthinker; ours grades answers and trial answers, TRL's "
                "reward only compares strings.",
            )
        ]
    )


def sampled(problems: int) -> list[Trajectory]:
    """Truncated rollouts: the members of a group follow each other."""
    model, tokenizer = overthinker()
    job = overthinker_job(problems)
    every = [prompt for prompt in job["prompts"] for _ in range(GROUP)]
    count = len(every)
    job = overthinker_job(count) | {"prompts": every, "limits": [LIMIT] * count}
    return lockstep(LockstepEngine(model, tokenizer), job, AT_DEFAULT)[0]


def settings(folder: str, problems: int, steps: int) -> dict[str, Any]:
    """Arguments of both trainers."""
    return {
        "output_dir": folder,
        "use_cpu": True,
        "bf16": False,
        "max_steps": steps,
        "per_device_train_batch_size": 32,
        "gradient_accumulation_steps": problems * GROUP // 32,
        "num_generations": GROUP,
        "max_completion_length": LIMIT,
        "learning_rate": 1e-4,
        "beta": 0.0,
        "loss_type": "dapo",
        "gradient_checkpointing": False,
        "shuffle_dataset": False,
        "dataloader_pin_memory": False,
        "logging_steps": 1,
        "disable_tqdm": True,
        "save_strategy": "no",
        "report_to": "none",
    }


def our_trainer(problems: int, records: list[Trajectory], options: dict[str, Any]) -> Any:
    """Our trainer, whose rollout hands out the recorded completions."""
    from stepgrpo_lab.method.settings import rollout_settings
    from stepgrpo_lab.training import StepGRPOConfig, StepGRPOTrainer, problems_dataset

    model, tokenizer = load_model("overthinker")
    data = problems_dataset(overthinker_problems("validation", problems))
    trainer = StepGRPOTrainer(
        model, StepGRPOConfig(**options, rollout=rollout_settings(markers="paper")), data, tokenizer
    )
    trainer.rollout_func = lambda prompts, _: (
        rolled_out(records)
        | {
            "step_trajectory": records,
            "step_group_size": GROUP,
        }
    )
    return trainer


def trl_trainer(problems: int, records: list[Trajectory], options: dict[str, Any]) -> Any:
    """TRL's trainer with the same."""
    from transformers import PrinterCallback
    from trl import GRPOConfig, GRPOTrainer

    from stepgrpo_lab.training import problems_dataset

    model, tokenizer = load_model("overthinker")
    trainer = GRPOTrainer(
        model,
        reward_funcs=right_string,
        args=GRPOConfig(**options),
        train_dataset=problems_dataset(overthinker_problems("validation", problems)),
        processing_class=tokenizer,
        rollout_func=lambda prompts, _: rolled_out(records),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def rolled_out(records: list[Trajectory]) -> dict[str, Any]:
    """What a rollout tells TRL."""
    from stepgrpo_lab.training.trainer import loss_inputs

    return {
        "prompt_ids": [row.prompt_ids for row in records],
        "completion_ids": [row.completion_ids for row in records],
        **loss_inputs(records, train_forced_close=True),
    }


def right_string(completions: list[Any], answer: list[str], **_: Any) -> list[float]:
    """The cheapest reward that looks at the answer."""
    texts = [row if isinstance(row, str) else row[0]["content"] for row in completions]
    return [float(extract_boxed(text) == gold) for text, gold in zip(texts, answer, strict=True)]


def padding(quick: bool) -> Result:
    """The update of the embedded model's recipe, its passes dealt anew in every other step, and else as TRL makes them.

    Seconds are those of this process's CPU, so that a busy machine does not count.
    """
    recipe = load_recipe("overthinker")
    problems = 4 if quick else recipe.optimisation.prompts_per_step
    records = recipe_rollout(recipe, problems)
    with tempfile.TemporaryDirectory() as folder:
        clock = _Turns()
        trainer = our_trainer(problems, records, settings(folder, problems, 4 if quick else 14))
        trainer.add_callback(clock)
        with mock.patch("stepgrpo_lab.training.trainer.dealt", clock.dealt):
            trainer.train()
        trainer.close()
    ours, theirs = clock.seconds[2::2], clock.seconds[3::2]  # the first two steps warm up
    lengths = [row.tokens for row in records]
    return Result(
        [
            figure(
                "padding",
                "update with TRL's padding, over the same with passes sorted by length and cut",
                ratios(theirs, ours),
                least=1.5,
                note=f"{len(records)} completions of the Overthinker as in its recipe's first step, mean "
                f"{sum(lengths) / len(lengths):.0f} and longest {max(lengths)} tokens, in passes of 32; CPU seconds of "
                "whole steps without a rollout.",
            )
        ]
    )


def recipe_rollout(recipe: Recipe, problems: int) -> list[Trajectory]:
    """The completions of a step of the recipe: half of each group is probed, the other half runs to its own end."""
    model, tokenizer = overthinker()
    job = overthinker_job(problems)
    members = probed_members(GROUP, recipe.rollout.settings.probe_rate)
    count = problems * GROUP
    return LockstepEngine(model, tokenizer, max_rows=recipe.rollout.rows).generate(
        [prompt for prompt in job["prompts"] for _ in range(GROUP)],
        Decoding(recipe.rollout.max_tokens, recipe.rollout.settings),
        keys=overthinker_job(count)["keys"],
        probed=members * problems,
    )[0]


class _Turns(TrainerCallback):
    """CPU seconds of each optimiser step; every second one keeps TRL's passes as they are."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def dealt(self, passes: list[Any], *arguments: Any, **options: Any) -> list[Any]:
        """Dealt anew in even steps."""
        return passes if len(self.seconds) % 2 else dealt(passes, *arguments, **options)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.started = time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds.append(time.process_time() - self.started)


class _Clock(TrainerCallback):
    """Seconds of each optimiser step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.started = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds.append(time.perf_counter() - self.started)


def reward(quick: bool) -> Result:
    """Steps, format and reward of 10,000 completions of 2,000 tokens (8,000 characters)."""
    count = 1_000 if quick else 10_000
    texts = [_long_completion(random.Random(number)) for number in range(count)]
    segmenter, rule = MarkerSegmenter("paper"), StepAwareReward()

    def judge() -> None:
        steps = [segmenter.count(text) for text in texts]
        formatted = [extract_boxed(text) is not None for text in texts]
        for start in range(0, count, GROUP):
            group = slice(start, start + GROUP)
            rule([True] * GROUP, steps[group], formatted[group], [2000] * GROUP)

    seconds = alternate({"judge": judge}, 1 if quick else 5)["judge"]
    return Result([figure("reward", f"steps, format and reward of {count:,} long completions", seconds, "s", most=1.0)])


def _long_completion(rng: random.Random) -> str:
    lines = []
    length = 0
    while length < 8_000:
        opening = rng.choices(["So", "We see that", "Waiting aside,", "Wait,", "Alternatively,"], [8, 8, 1, 2, 1])[0]
        lines.append(f"{opening} we take {rng.randrange(1000)} and add {rng.randrange(1000)}, which is not yet enough.")
        length += len(lines[-1]) + 1
    return "<think>\n" + "\n".join(lines) + f"\n</think>\n\n\\boxed{{{rng.randrange(1000)}}}"
