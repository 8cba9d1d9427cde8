"""TRL's GRPO trainer with the dynamic truncated rollout and the step-aware relative reward."""

from __future__ import annotations

import os
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

# Read by huggingface_hub and TRL when they are imported or used: a course run sends no telemetry.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
from datasets import Dataset
from torch.utils.data import Sampler
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, ProgressCallback
from trl import GRPOTrainer
from trl.trainer.utils import RepeatSampler

from stepgrpo_lab.engines.completions import Decoding, RolloutEngine
from stepgrpo_lab.engines.distributed import all_gather, is_main_process
from stepgrpo_lab.engines.lockstep import LockstepEngine
from stepgrpo_lab.engines.self_test import check_padding
from stepgrpo_lab.engines.serial import complete_serially
from stepgrpo_lab.engines.tokenizers import check_markers, encode_messages, pad_with
from stepgrpo_lab.evaluation.grading import Grader
from stepgrpo_lab.method.names import listed
from stepgrpo_lab.method.records import Cost, Problem, Trajectory
from stepgrpo_lab.method.rewards import BatchReward, GroupReward, StepAwareReward
from stepgrpo_lab.method.sampling import SampleKey, Sampling
from stepgrpo_lab.method.settings import probed_members, rollout_settings
from stepgrpo_lab.method.steps import MarkerSegmenter, Segmenter
from stepgrpo_lab.method.token_text import TokenText
from stepgrpo_lab.training._engine_weights import SyncedEngine, gathered_policy
from stepgrpo_lab.training._group_reward import GroupRewardFunction, describe
from stepgrpo_lab.training._guard import GuardedTrainer
from stepgrpo_lab.training._passes import dealt
from stepgrpo_lab.training.config import StepGRPOConfig

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import TrainerCallback


def problems_dataset(problems: Sequence[Problem], suffix: str = "") -> Dataset:
    """The trainer's data set: a conversation and its gold answer for each problem.

    Raises:
        ValueError: There are no problems.

    Example:
        >>> problems_dataset([Problem("p1", "1+1?", "2")])[0]["answer"]
        '2'
    """
    if not problems:
        raise ValueError("no problems to train on: give at least one")
    return Dataset.from_dict(
        {
            "prompt": [[{"role": "user", "content": problem.prompt + suffix}] for problem in problems],
            "answer": [problem.answer for problem in problems],
            "problem_id": [problem.id for problem in problems],
        }
    )


class StepGRPOTrainer(GuardedTrainer, GRPOTrainer):
    """Train a causal language model with Step-GRPO (arXiv 2604.16890).

    Args:
        model: The policy, loaded; 4-bit and LoRA models included.
        args: The settings.
        train_dataset: Columns "prompt" (a conversation) and "answer"; see :func:`problems_dataset`.
        processing_class: The tokenizer.
        group_reward: From one group's correctness, steps, format and tokens to its rewards (or a ``BatchReward``, which
            sees all groups first); by default the step-aware relative reward.
        segmenter: What a semantic step is, and so where probes start; by default the rollout's markers (without a
            rollout, the official one).
        grader: Judges answers; by default one is started, and closed by :meth:`close`.
        peft_config: Train a new LoRA adapter instead of the whole model.
        engine: A vLLM engine that samples in place of the model; the trainer brings it the new weights after every
            step. Its log-probabilities differ a little from the trainer's, so that TRL's truncated importance sampling
            corrects the loss (``vllm_importance_sampling_correction``); forced tokens keep a ratio of 1.
        callbacks, eval_dataset, optimizers: As in TRL.

    Attributes:
        seconds: Seconds spent so far by phase: "rollout", "grading", "update", and "weights" on their way to an engine.

    Raises:
        ValueError: The data set lacks a column, the settings cannot work together, or the tokenizer cannot write the
            markers.
    """

    args: StepGRPOConfig
    notice: Callable[[str], None] = staticmethod(warnings.warn)
    """Told what a person should know at once, one line at a time; by default a warning."""
    _buffered_inputs: list[dict[str, Any]] | None

    def __init__(
        self,
        model: PreTrainedModel,
        args: StepGRPOConfig,
        train_dataset: Dataset,
        processing_class: PreTrainedTokenizerBase,
        *,
        group_reward: GroupReward | BatchReward | None = None,
        segmenter: Segmenter | None = None,
        grader: Grader | None = None,
        peft_config: PeftConfig | None = None,
        engine: SyncedEngine | None = None,
        callbacks: list[TrainerCallback] | None = None,
        eval_dataset: Dataset | None = None,
        optimizers: tuple[Any, Any] = (None, None),
    ) -> None:
        _check_columns(train_dataset)
        if engine is not None:
            _check_unfiltered(args)
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._seconds_logged: defaultdict[str, float] = defaultdict(float)
        self._rollouts: Counter[tuple[str, int]] = Counter()
        self.group_reward = StepAwareReward() if group_reward is None else group_reward
        args.reward = describe(self.group_reward)
        self._grader = grader or Grader(timeout=args.grading_timeout)
        self._owns_grader = grader is None
        pad_with(processing_class, None)
        self.gives_advantages = getattr(self.group_reward, "gives_advantages", False)
        self._rewarding = GroupRewardFunction(
            self.group_reward,
            self._grader,
            scale="given" if self.gives_advantages else args.scale_rewards,
            clock=self.clock,
            unmarked=self._note_unmarked,
        )
        super().__init__(
            model=model,
            reward_funcs=self._rewarding,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            callbacks=callbacks,
            optimizers=optimizers,
            peft_config=peft_config,
            rollout_func=lambda prompts, _: self.complete(prompts),
        )
        for callback in (PrinterCallback, ProgressCallback):  # a library does not print
            self.remove_callback(callback)
        self.segmenter = segmenter or MarkerSegmenter((args.rollout or rollout_settings()).markers)
        self.token_text = TokenText.from_tokenizer(processing_class, eos_ids=self.eos_token_ids)
        if isinstance(self.segmenter, MarkerSegmenter):
            check_markers(self.token_text, self.segmenter.name or self.segmenter.markers)
        _lora_to_float32(self.model)
        self.engine = engine
        self._synced_step: int | None = None
        if engine is not None:
            # TRL corrects the loss under this flag, and asks for the weights before each rollout of a new step. Its
            # own engine is not made: the arguments leave ``use_vllm`` False.
            self.use_vllm, self.vllm_generation, self._last_loaded_step = True, self, -1

    def _note_unmarked(self, completions: int) -> None:
        if is_main_process():
            self.notice(unmarked_line(self.segmenter, completions))

    def close(self) -> None:
        """Stop the grader's processes, if the trainer started them."""
        if self._owns_grader:
            self._grader.close()

    def sync_weights(self) -> None:
        """Bring the engine the policy's present weights, if a step has changed them; every process must call it."""
        if self.engine is None or self._synced_step == self.state.global_step:
            return
        started = time.perf_counter()
        with gathered_policy(self) as model:
            self.engine.push(model)
        self._synced_step = self.state.global_step
        self.clock("weights", time.perf_counter() - started)

    def next_rollout(self, mode: str) -> int:
        """Index of the rollout that begins now: a function of the step alone, so that a resumed run repeats it."""
        step = self.state.global_step
        index = step * self.args.rollouts_per_step + self._rollouts[mode, step]
        self._rollouts[mode, step] += 1
        return index

    @property
    def completion_limit(self) -> int:
        """Longest completion of the rollout that begins now, in tokens."""
        training = self.model.training
        return self.args.completion_limit(self.state.global_step) if training else self.max_completion_length

    def encode(self, prompt: Any) -> list[int]:
        """Token ids of one prompt of the data set: a conversation, or plain text as it is."""
        if isinstance(prompt, str):
            return list(self.processing_class(prompt)["input_ids"])
        return encode_messages(self.processing_class, prompt, self.chat_template_kwargs)

    def complete(self, prompts: list[Any]) -> dict[str, Any]:
        """Complete each prompt once: TRL's rollout hook.

        Args:
            prompts: This process's prompts, each repeated once per member of its group; a group may be cut between
                processes.

        Returns:
            Token ids, log-probabilities (None where a token was forced, so that its importance ratio is 1) and what
            the reward needs. ``env_mask`` only where forced tokens shall not train.
        """
        started = time.perf_counter()
        training = self.model.training
        group_size = self.num_generations if training else self.num_generations_eval
        trajectories, cost = self._sample(prompts, group_size)
        if not all(trajectory.completion_ids for trajectory in trajectories):
            raise RuntimeError("the rollout returned an empty completion, which the trainer cannot use")
        self.clock("rollout", time.perf_counter() - started)
        passes = max(all_gather(cost.forward_passes))  # the others wait for the slowest
        self._metrics["train" if training else "eval"]["cost/forward_passes"].append(float(passes))
        return {
            "prompt_ids": [trajectory.prompt_ids for trajectory in trajectories],
            "completion_ids": [trajectory.completion_ids for trajectory in trajectories],
            **loss_inputs(trajectories, train_forced_close=self.args.train_forced_close),
            "step_trajectory": trajectories,
            "step_group_size": group_size,
        }

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        """TRL's, whose advantages give way to those that the reward states itself."""
        scored = super()._generate_and_score_completions(inputs)
        if self.gives_advantages:
            scored["advantages"] = torch.tensor(self._rewarding.last).to(scored["advantages"])
        return scored

    def _sample(self, prompts: list[Any], group_size: int) -> tuple[list[Trajectory], Cost]:
        """Truncated, serial or plain completions in training; plain ones in evaluation."""
        split = "train" if self.model.training else "eval"
        settings = self.args.rollout if split == "train" else None
        index = self.next_rollout(split)
        first = self.accelerator.process_index * len(prompts)
        samples = range(first, first + len(prompts))
        prompt_ids = [self.encode(prompt) for prompt in prompts]
        keys = [SampleKey(self.args.seed, split, index, sample) for sample in samples]
        sampling = Sampling(self.args.temperature, self.args.top_p, self.args.top_k)
        decoding = Decoding(self.completion_limit, settings, sampling, self.segmenter)
        with self._sampling_engine() as engine:
            if self.args.serial_rollout and settings is not None:
                _check_whole_groups(len(prompts), group_size)
                return complete_serially(engine, prompt_ids[::group_size], decoding, group_size=group_size, keys=keys)
            members = probed_members(group_size, settings.probe_rate if settings else 0)
            probed = [members[sample % group_size] for sample in samples]
            return engine.generate(prompt_ids, decoding, keys=keys, probed=probed)

    @contextmanager
    def _sampling_engine(self) -> Iterator[RolloutEngine]:
        """An engine that samples from the present weights; every process must enter and leave."""
        if self.engine is not None:
            with self.engine.awake() as engine:
                self.sync_weights()
                yield engine
            return
        with (
            gathered_policy(self) as model,
            self.accelerator.autocast(),  # around the whole rollout, else every step casts all weights again
        ):
            check_padding(model)
            yield LockstepEngine(model, self.token_text, max_rows=self.args.rollout_rows)

    def _get_train_sampler(self, dataset: Dataset | None = None) -> Sampler:
        return _EpochSampler(
            self,
            data_source=self.train_dataset if dataset is None else dataset,
            mini_repeat_count=self.num_generations,
            batch_size=self.args.generation_batch_size // self.num_generations,
            repeat_count=self.num_iterations * self.args.steps_per_generation,
            shuffle=self.shuffle_dataset,
            seed=self.args.seed,
        )

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        """TRL's passes of a new rollout, dealt anew without most of their padding."""
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if not self.model.training or self._buffered_inputs is None:
            return inputs
        if self._buffered_inputs is not before:
            # Which rows share a pass matters to bnpo (a mean over their tokens) and to a quantile of their entropies.
            alone = self.loss_type in ("grpo", "dr_grpo", "dapo") and self.top_entropy_quantile == 1
            self._buffered_inputs = dealt(
                self._buffered_inputs,
                self.args.gradient_accumulation_steps,
                sort=alone,
                leave_out=not (self.beta or self._entropy_bonus_enabled or self.aux_loss_enabled),
                mean_over_rows=self.loss_type != "dapo",
            )
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        started = time.perf_counter()
        elsewhere = self._seconds_elsewhere()
        loss = super().training_step(*args, **kwargs)
        elsewhere = self._seconds_elsewhere() - elsewhere
        self.clock("update", time.perf_counter() - started - elsewhere)
        return loss

    def _seconds_elsewhere(self) -> float:
        return sum(seconds for phase, seconds in self.seconds.items() if phase != "update")

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if self.model.training:
            for phase, total in self.seconds.items():
                logs[f"seconds/{phase}"] = total - self._seconds_logged[phase]
            self._seconds_logged.update(self.seconds)
        super().log(logs, start_time)

    def clock(self, phase: str, seconds: float) -> None:
        """Count seconds of a phase."""
        self.seconds[phase] += seconds


def loss_inputs(trajectories: Sequence[Trajectory], *, train_forced_close: bool) -> dict[str, Any]:
    """What the loss gets of each completion token.

    A forced token trains as published: mask 1 and no log-probability of the sampler, which makes its importance ratio
    exactly 1 (a 0.0 would claim that the sampler was certain of it, and mute the token). In the ablation its mask is 0.

    Example:
        >>> row = Trajectory([1], [2, 3], [-0.5, None], "ab", 1, "early", "eos")
        >>> loss_inputs([row], train_forced_close=True)
        {'logprobs': [[-0.5, None]]}
        >>> loss_inputs([row], train_forced_close=False)
        {'logprobs': [[-0.5, 0.0]], 'env_mask': [[1, 0]]}
    """
    if train_forced_close:
        return {"logprobs": [trajectory.logprobs for trajectory in trajectories]}
    return {
        "logprobs": [[0.0 if value is None else value for value in row.logprobs] for row in trajectories],
        # Exactly as long as the completion: TRL pads a shorter mask with ones.
        "env_mask": [[int(not forced) for forced in row.forced] for row in trajectories],
    }


class _EpochSampler(RepeatSampler):
    """TRL's sampler with an order for each epoch that depends on seed and epoch alone.

    TRL's own draws the epochs' orders one after the other from one generator, so a run resumed in its second epoch
    would see the first epoch's order again.
    """

    def __init__(self, trainer: StepGRPOTrainer, **options: Any) -> None:
        super().__init__(**options)
        self.trainer = trainer

    def __iter__(self) -> Any:
        if self.shuffle:
            epoch = int(self.trainer.state.epoch or 0)
            self.generator.manual_seed(self.seed + epoch)
        return super().__iter__()


def _check_columns(dataset: Dataset) -> None:
    missing = {"prompt", "answer"} - set(dataset.column_names)
    if missing:
        raise ValueError(f"the data set has no column {min(missing)!r}: build it with problems_dataset(problems)")


def unmarked_line(segmenter: Segmenter, completions: int) -> str:
    """What to say when the first rollout holds no step but the first.

    Example:
        >>> unmarked_line(MarkerSegmenter(["Wait"]), 8)[:57]
        'none of the first 8 completions holds a marker (Wait), so'
    """
    markers = getattr(segmenter, "markers", (type(segmenter).__name__,))
    names = listed(repr(marker)[1:-1] for marker in markers)
    return (
        f"none of the first {completions} completions holds a marker ({names}), so every completion is one step: the "
        "step reward compares nothing and no probe starts. Look at what it writes, and choose rollout.markers to "
        "fit: words of its own, multilingual, reader, or blank_lines"
    )


def _check_whole_groups(completions: int, group_size: int) -> None:
    if completions % group_size:
        raise ValueError(
            f"serial_rollout: this process has {completions} completions, which are no whole groups of {group_size}; "
            "make per_device_train_batch_size x steps_per_generation a multiple of num_generations"
        )


def _check_unfiltered(args: StepGRPOConfig) -> None:
    """vLLM keeps the log-probabilities after top-p and top-k, the trainer those before: their ratio would be wrong."""
    if args.top_p != 1 or args.top_k > 0:
        raise ValueError(
            f"top_p is {args.top_p:g} and top_k is {args.top_k}: vLLM's log-probabilities are those after these "
            "filters, so train with top_p=1 and top_k=0"
        )


def _lora_to_float32(model: Any) -> None:
    """Adapters in float32: TRL makes those of a 4-bit model bf16, where a small learning rate moves almost nothing."""
    from accelerate.utils import is_peft_model

    if is_peft_model(model):
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
