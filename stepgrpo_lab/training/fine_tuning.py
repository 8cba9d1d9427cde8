"""DEER + SFT: sample with the truncated rollout, keep the shortest right completion of each problem, imitate it.

The reinforcement-free baseline of the Step-GRPO paper (its recipe is not published). Training is TRL's ``SFTTrainer``,
on token ids exactly as they were sampled, with the loss on the completions alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, ProgressCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from stepgrpo_lab.engines.completions import Decoding
from stepgrpo_lab.engines.lockstep import LockstepEngine
from stepgrpo_lab.engines.models import has_only_mps
from stepgrpo_lab.engines.tokenizers import encode_prompt
from stepgrpo_lab.evaluation.grading import Grader
from stepgrpo_lab.method.baselines import correctness_rewards, shortest_correct
from stepgrpo_lab.method.records import Problem, Trajectory, from_json
from stepgrpo_lab.method.sampling import SampleKey, Sampling
from stepgrpo_lab.method.settings import RolloutSettings, probed_members
from stepgrpo_lab.method.steps import Segmenter
from stepgrpo_lab.training._group_reward import judge
from stepgrpo_lab.training._guard import GuardedTrainer
from stepgrpo_lab.training._proof import Verify
from stepgrpo_lab.training.metrics import RolloutRow, rollout_metrics

if TYPE_CHECKING:
    from peft import PeftConfig

IGNORED = -100
"""The label of a token that does not train."""


@dataclass(frozen=True)
class Selection:
    """Completions to imitate, and what finding them took.

    Attributes:
        completions: The shortest right completion of each problem that was solved at all.
        figures: The metrics of the whole rollout, as in :func:`stepgrpo_lab.training.metrics.rollout_metrics`.
    """

    completions: list[Trajectory]
    figures: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dictionary, read back by :meth:`from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Selection:
        """Rebuild a selection from :meth:`to_json`'s dictionary.

        Raises:
            ValueError: A field cannot be; the message names it.
        """
        return from_json(cls, data)


def select_completions(
    model: Any,
    tokenizer: Any,
    problems: Sequence[Problem],
    grader: Grader,
    *,
    samples: int,
    limit: int,
    settings: RolloutSettings | None,
    sampling: Sampling,
    segmenter: Segmenter | None = None,
    seed: int = 0,
    rows: int = 64,
    suffix: str = "",
    token_budget: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Selection:
    """Sample every problem and keep the shortest right completion of each.

    Args:
        model, tokenizer: The policy to sample from.
        problems: In the order in which they are sampled.
        grader: Judges answers.
        samples: Completions of each problem, at least 2.
        limit: Longest completion, in tokens.
        settings: The truncated rollout (with it this is DEER); None samples plainly.
        sampling: How tokens are drawn.
        segmenter: What a semantic step is; by default the settings' markers.
        seed: Decides the samples.
        rows: Completions decoded at once.
        suffix: Appended to every question.
        token_budget: Stop with the batch whose tokens, probes included, reach this number.
        progress: Called with (problems sampled, problems).

    Raises:
        ValueError: No problem was solved, so there is nothing to imitate.
    """
    engine = LockstepEngine(model, tokenizer, max_rows=rows)
    probed = [settings is not None and flag for flag in probed_members(samples, settings.probe_rate if settings else 0)]
    batch = max(1, 4 * rows // samples)
    asked: list[Problem] = []
    sampled: list[Trajectory] = []
    judged: list[RolloutRow] = []
    for start in range(0, len(problems), batch):
        members = [problem for problem in problems[start : start + batch] for _ in range(samples)]
        trajectories, _ = engine.generate(
            [encode_prompt(tokenizer, problem.prompt, suffix) for problem in members],
            Decoding(limit, settings, sampling, segmenter),
            keys=[SampleKey(seed, "select", 0, len(asked) + index) for index in range(len(members))],
            probed=probed * (len(members) // samples),
        )
        asked += members
        sampled += trajectories
        judged += judge(trajectories, [problem.answer for problem in members], grader)
        if progress:
            progress(min(start + batch, len(problems)), len(problems))
        if token_budget and sum(row.decoded_tokens for row in judged) >= token_budget:
            break
    correct, tokens = [row.outcome.correct for row in judged], [row.outcome.tokens for row in judged]
    kept = shortest_correct([problem.id for problem in asked], correct, tokens)
    if not kept:
        raise ValueError(f"none of {len(sampled)} completions is right: there is nothing to imitate, use easier ones")
    figures = rollout_metrics(judged, correctness_rewards(correct, tokens), samples)
    return Selection([sampled[index] for index in kept], {**figures, "selected": float(len(kept))})


@dataclass
class FineTuneConfig(SFTConfig):
    """TRL's ``SFTConfig`` with the defaults of this package: nothing is printed, packed, cut or checkpointed."""

    max_length: int | None = None
    gradient_checkpointing: bool = False
    logging_steps: float = 1
    disable_tqdm: bool | None = True
    dataloader_pin_memory: bool = False
    lr_scheduler_type: str = "constant"
    checkpoint_verify: Verify = "full"

    def __post_init__(self) -> None:
        if has_only_mps():
            self.use_cpu = True
        self.dataset_kwargs = {"skip_prepare_dataset": True}  # the examples are token ids already
        super().__post_init__()

    @property
    def window_steps(self) -> int:
        """Optimiser steps between two points where a run can be resumed exactly, as in ``StepGRPOConfig``."""
        return 1


class FineTuneTrainer(GuardedTrainer, SFTTrainer):
    """TRL's supervised trainer on a :class:`Selection`.

    Args:
        model: The policy, loaded.
        args: The settings.
        selection: What to imitate.
        processing_class: The tokenizer.
        peft_config: Train a new LoRA adapter instead of the whole model.

    Attributes:
        seconds: Seconds spent so far by phase.
    """

    args: FineTuneConfig

    def __init__(
        self,
        model: PreTrainedModel,
        args: FineTuneConfig,
        selection: Selection,
        processing_class: PreTrainedTokenizerBase,
        *,
        peft_config: PeftConfig | None = None,
    ) -> None:
        self.selection = selection
        self.seconds: defaultdict[str, float] = defaultdict(float)
        super().__init__(
            model=model,
            args=args,
            train_dataset=imitation_dataset(selection.completions),
            processing_class=processing_class,
            peft_config=peft_config,
        )
        for callback in (PrinterCallback, ProgressCallback):  # a library does not print
            self.remove_callback(callback)
        self.add_callback(_TokensSoFar(self))

    def clock(self, phase: str, seconds: float) -> None:
        """Count seconds of a phase."""
        self.seconds[phase] += seconds

    def close(self) -> None:
        """Nothing to stop."""


def imitation_dataset(completions: Sequence[Trajectory]) -> Dataset:
    """Token ids and labels of each completion; the prompt's tokens do not train.

    Example:
        >>> imitation_dataset([Trajectory([1, 2], [3], [None], "x", 1, "early", "eos")])[0]["labels"]
        [-100, -100, 3]
    """
    return Dataset.from_dict(
        {
            "input_ids": [[*row.prompt_ids, *row.completion_ids] for row in completions],
            "labels": [[*[IGNORED] * len(row.prompt_ids), *row.completion_ids] for row in completions],
        }
    )


class _TokensSoFar(TrainerCallback):
    """A resumed training counts its tokens on, where TRL would begin at 0."""

    def __init__(self, trainer: FineTuneTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        counts = [row["num_tokens"] for row in state.log_history if "num_tokens" in row]
        self.trainer._total_train_tokens = int(counts[-1]) if counts else 0


class SelectionFigures(TrainerCallback):
    """Logs once, before the first step, what the selection took."""

    def __init__(self, trainer: FineTuneTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 0:
            self.trainer.log(dict(self.trainer.selection.figures))
