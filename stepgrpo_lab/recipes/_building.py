"""From a recipe to what a run is made of: problems, settings, model, adapter, reward, segmenter and engine."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from stepgrpo_lab.engines.distributed import process_count
from stepgrpo_lab.engines.hub import model_location
from stepgrpo_lab.engines.models import adapter_base, adapter_folder, load_model, native_dtype, nf4_config
from stepgrpo_lab.engines.tokenizers import long_prompts, pad_with, prompt_room
from stepgrpo_lab.engines.vllm_engine import check_vllm, lora_room
from stepgrpo_lab.evaluation.grading import Grader
from stepgrpo_lab.evaluation.problems import check_problems, find_benchmark, load_problems
from stepgrpo_lab.method.baselines import (
    GivenAdvantages,
    GRPOLambdaReward,
    OutcomeReward,
    Outcomes,
    gfpo_advantages,
    imitation_advantages,
    kimi_rewards,
    l1_exact_rewards,
    l1_max_rewards,
    length_penalty_rewards,
    scaled_tokens,
    serial_exit_rewards,
    shorter_better_rewards,
    soft_overlong_rewards,
)
from stepgrpo_lab.method.records import Problem
from stepgrpo_lab.method.rewards import BatchReward, GroupReward, StepAwareReward
from stepgrpo_lab.method.sampling import Sampling
from stepgrpo_lab.method.steps import Segmenter
from stepgrpo_lab.overthinker.tasks import LABORATORIES
from stepgrpo_lab.recipes.schema import EvaluationSection, Lora, Recipe, Reward

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from stepgrpo_lab.training import StepGRPOConfig
    from stepgrpo_lab.training._engine_weights import SyncedEngine
    from stepgrpo_lab.training.fine_tuning import FineTuneConfig


def recipe_problems(source: str, count: int | None) -> list[Problem]:
    """The problems of a source: "overthinker:<split>", the path of a .jsonl file, or a known Hugging Face id.

    "overthinker-2:<split>" are those of the second laboratory. An id or its short name may carry a split, as in
    "gsm8k:train".

    Raises:
        ValueError: No such split or file, or a generated source without a count.

    Example:
        >>> len(recipe_problems("overthinker:test", 2))
        2
    """
    name, colon, split = source.partition(":")
    if colon and find_benchmark(name):
        return load_problems(name, split=split, limit=count)
    if name not in LABORATORIES or not colon:
        return load_problems(source, limit=count)
    if count is None:
        raise ValueError(f"{source} is generated without end: give its count, for example data.counts.train=2000")
    from stepgrpo_lab.overthinker import overthinker_problems

    return overthinker_problems(split, count, laboratory=name)  # type: ignore[arg-type]  # it names the splits itself


def training_problems(recipe: Recipe) -> list[Problem]:
    """The problems to train on: those of ``data.train`` that ``data.pass_rates`` keeps.

    Raises:
        FileNotFoundError: The pass rates have not been measured; the message names the command.
        ValueError: No such source, problems without a rate, or none that is kept.
    """
    problems = recipe_problems(recipe.data.train, recipe.data.counts.train)
    chosen = recipe.data.pass_rates
    if chosen is None:
        return problems
    from stepgrpo_lab.evaluation.selection import read_pass_rates, select_by_pass_rate

    return select_by_pass_rate(problems, read_pass_rates(chosen.file), least=chosen.least, most=chosen.most)


def recipe_model(recipe: Recipe) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The untrained policy and its tokenizer.

    A path of an adapter goes on with that adapter, or merged where the recipe trains every weight.

    Raises:
        ValueError: As :func:`~stepgrpo_lab.engines.models.load_model`, or the recipe wants an adapter of another kind.
    """
    section, lora = recipe.model, recipe.model.lora
    model, tokenizer = load_model(
        section.path, dtype=section.dtype, quantization=section.quantization, merge=lora is None
    )
    if lora is not None and hasattr(model, "peft_config"):
        found = model.peft_config["default"]
        if (found.r, found.lora_alpha) != (lora.r, lora.alpha):
            raise ValueError(
                f"model.path {section.path!r} is an adapter with r={found.r} and alpha={found.lora_alpha}, which goes "
                f"on training: give model.lora the same, or export it first (stepgrpo export {section.path} FOLDER)"
            )
        model.set_adapter("default")  # loaded for inference, it would not train
    pad_with(tokenizer, section.pad_token)
    if section.self_test == "warn":
        from stepgrpo_lab.engines.self_test import warn_only

        warn_only(model)
    return model, tokenizer


def recipe_lora(lora: Lora | None) -> LoraConfig | None:
    """The adapter's configuration; None trains every weight."""
    if lora is None:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=lora.targets, task_type="CAUSAL_LM"
    )


def recipe_sampling(section: EvaluationSection) -> Sampling:
    """Decoding for evaluation."""
    return Sampling(section.temperature, section.top_p, section.top_k)


def recipe_round_limits(recipe: Recipe) -> list[int] | None:
    """The completion limit of each round on this recipe's scale, in tokens; None for one limit throughout."""
    limits = recipe.rollout.round_limits
    return limits and [scaled_tokens(limit, recipe.reward.length_scale) for limit in limits]


def recipe_config(recipe: Recipe, output: str | Path) -> StepGRPOConfig:
    """The trainer's settings, all but the reward's (:func:`recipe_reward`).

    Args:
        recipe: A checked recipe.
        output: The run folder; checkpoints go into its ``checkpoints``.

    Raises:
        ValueError: The settings cannot work together on this machine.
    """
    from stepgrpo_lab.training import StepGRPOConfig

    optimisation, rollout = recipe.optimisation, recipe.rollout
    processes = process_count()
    passes, rest = divmod(
        optimisation.prompts_per_step * optimisation.group_size, optimisation.rows_per_pass * processes
    )
    if rest or not passes:
        raise ValueError(
            f"{optimisation.prompts_per_step} prompts x {optimisation.group_size} completions cannot be shared by "
            f"{processes} processes in passes of optimisation.rows_per_pass={optimisation.rows_per_pass}: lower it"
        )
    return StepGRPOConfig(
        **_common_settings(recipe, output),
        per_device_train_batch_size=optimisation.rows_per_pass,
        gradient_accumulation_steps=passes,
        steps_per_generation=passes * optimisation.steps_per_rollout,
        num_generations=optimisation.group_size,
        loss_type=optimisation.loss_type,
        mask_truncated_completions=optimisation.mask_truncated_completions,
        scale_rewards=optimisation.scale_rewards,
        beta=optimisation.kl_beta,
        epsilon=optimisation.epsilon,
        epsilon_high=optimisation.epsilon_high,
        **_precision(optimisation.mixed_precision),
        rollout=rollout.settings if rollout.dynamic or rollout.serial else None,
        serial_rollout=rollout.serial,
        round_limits=recipe_round_limits(recipe),
        max_completion_length=rollout.max_tokens,
        temperature=rollout.temperature,
        train_forced_close=rollout.train_forced_close,
        rollout_rows=rollout.rows,
        grading_timeout=recipe.reward.grading_timeout,
    )


def recipe_fine_tune_config(recipe: Recipe, output: str | Path) -> FineTuneConfig:
    """The settings of supervised fine-tuning.

    Raises:
        ValueError: Several processes were started.
    """
    from stepgrpo_lab.training.config import native_precision
    from stepgrpo_lab.training.fine_tuning import FineTuneConfig

    if process_count() > 1:
        raise ValueError("method sft samples its examples in one process: start it without torchrun")
    optimisation = recipe.optimisation
    rows = math.gcd(optimisation.prompts_per_step, optimisation.rows_per_pass)
    precision = native_precision() if optimisation.mixed_precision == "auto" else optimisation.mixed_precision
    return FineTuneConfig(
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=optimisation.prompts_per_step // rows,
        **_precision(precision),
        **_common_settings(recipe, output),
    )


def _common_settings(recipe: Recipe, output: str | Path) -> dict[str, Any]:
    """The settings that reinforcement learning and supervised fine-tuning share."""
    optimisation = recipe.optimisation
    return {
        "output_dir": str(Path(output) / "checkpoints"),
        "seed": recipe.seed,
        "max_steps": optimisation.max_steps,
        "learning_rate": optimisation.learning_rate,
        "optim": optimisation.optimizer,
        "weight_decay": optimisation.weight_decay,
        "max_grad_norm": optimisation.max_grad_norm,
        "lr_scheduler_type": optimisation.schedule,
        "warmup_steps": optimisation.warmup_steps,
        "gradient_checkpointing": optimisation.gradient_checkpointing,
        "save_strategy": "steps",
        "save_steps": _save_steps(recipe),
        "save_total_limit": 2,
        "checkpoint_verify": recipe.checkpoint.verify,
        "report_to": recipe.report_to,
        "use_cpu": _launched_on_cpu(),
    }


def check_recipe_problems(
    recipe: Recipe, problems: Sequence[Problem], source: str, tokenizer: Any, model: Any, grader: Grader
) -> None:
    """Refuse what would stop a run in its middle, or make a problem look unsolvable for ever.

    Args:
        recipe: The recipe that uses them.
        problems: Problems of one of its sources.
        source: That source, for the message.
        tokenizer, model: Its model.
        grader: Grades each gold answer against itself.

    Raises:
        ValueError: A gold answer cannot be graded, or a prompt leaves no room for a completion.
    """
    for line in check_problems(problems, grader):
        raise ValueError(f"{source}, {line}")
    settings = recipe.rollout.settings if recipe.rollout.dynamic else None
    room = prompt_room(model, tokenizer, recipe.rollout.max_tokens, settings)
    if room is not None and room < 1:
        raise ValueError(
            f"rollout.max_tokens is {recipe.rollout.max_tokens}: completion and probes leave no room for a prompt in "
            f"the model's context; lower it by more than {-room}"
        )
    for line in long_prompts(problems, tokenizer, room, recipe.data.suffix):
        raise ValueError(f"{source}, {line}")


def trainer_config(recipe: Recipe, output: str | Path) -> StepGRPOConfig | FineTuneConfig:
    """The trainer's settings for the recipe's method, made once a run, before anything is loaded or measured.

    Raises:
        ImportError: The recipe's engine, or what its optimiser or its 4 bits need, is not installed.
        ValueError: The recipe cannot run on this machine.
    """
    check_engine(recipe)
    if recipe.model.quantization:
        nf4_config("float32")
    config = recipe_config(recipe, output) if recipe.method == "grpo" else recipe_fine_tune_config(recipe, output)
    _check_optimizer(config)
    return config


def _check_optimizer(config: StepGRPOConfig | FineTuneConfig) -> None:
    """transformers itself asks for an optimiser's package when the first step begins."""
    from transformers import Trainer
    from transformers.training_args import OptimizerNames

    try:
        with suppress(ValueError):  # some want to see the model first
            Trainer.get_optimizer_cls_and_kwargs(config)
    except ImportError as error:
        raise ImportError(
            f"optimisation.optimizer is {OptimizerNames(config.optim).value!r}: {str(error).splitlines()[0]}"
        ) from error


def _launched_on_cpu() -> bool:
    """Whether a launcher started this process on a machine without GPU: accelerate would let each train alone."""
    import torch

    return "LOCAL_RANK" in os.environ and not torch.cuda.is_available()


def _precision(choice: str) -> dict[str, Any]:
    return {} if choice == "auto" else {"bf16": choice == "bf16", "fp16": choice == "fp16"}


def _save_steps(recipe: Recipe) -> int:
    optimisation = recipe.optimisation
    if optimisation.save_every:
        return optimisation.save_every
    window = optimisation.steps_per_rollout
    return math.ceil(optimisation.max_steps / 4 / window) * window


PUBLISHED_STRENGTH = {
    "length_penalty": 0.2,
    "grpo_lambda": 0.2,
    "kimi": 0.4,
    "l1_exact": 3e-4,
    "l1_max": 3e-4,
    "shorter_better": 1e-3,
}
"""What ``reward.strength: null`` means for each function."""


def recipe_reward(reward: Reward) -> GroupReward | BatchReward:
    """The reward of a recipe, with its token constants scaled; one of your own is imported.

    Raises:
        ValueError: A constant is out of range for this function, or your own cannot be imported.

    Example:
        >>> recipe_reward(Reward(function="correctness"))([True], [3], [False], [90])
        [0.9]
    """
    if ":" in reward.function:
        return cast("GroupReward | BatchReward", _own("reward.function", reward.function))
    if reward.function == "step_aware":
        return StepAwareReward(
            step_alpha=reward.step_alpha,
            step_beta=reward.step_beta,
            mean_over=reward.mean_over,
            penalize_wrong=reward.penalize_wrong,
        )
    if reward.function == "correctness":
        return OutcomeReward(step_alpha=reward.step_alpha)
    if reward.function in _ADVANTAGES:
        return GivenAdvantages(_ADVANTAGES[reward.function])
    if reward.function == "grpo_lambda":
        return GRPOLambdaReward(reward.penalized_share, reward_strength(reward), reward.step_alpha)
    outcomes = _outcomes(reward)
    outcomes([True], [1])  # a constant that the function refuses shows here, not minutes later
    return OutcomeReward(outcomes, reward.step_alpha)


_ADVANTAGES: dict[str, Outcomes] = {"imitation": imitation_advantages, "gfpo": gfpo_advantages}


def reward_strength(reward: Reward) -> float:
    """``reward.strength``, or the function's published value."""
    return PUBLISHED_STRENGTH[reward.function] if reward.strength is None else reward.strength


def _outcomes(reward: Reward) -> Outcomes:
    scale = reward.length_scale
    if reward.function == "serial_group":
        return serial_exit_rewards
    if reward.function == "soft_overlong":
        limit, cache = scaled_tokens(reward.overlong_limit, scale), scaled_tokens(reward.overlong_cache, scale)
        return partial(soft_overlong_rewards, limit=limit, cache=cache)
    strength = reward_strength(reward)
    if reward.function == "length_penalty":
        return partial(length_penalty_rewards, strength=strength)
    if reward.function == "kimi":
        return partial(kimi_rewards, weight=strength)
    if reward.function == "shorter_better":
        return partial(shorter_better_rewards, per_token=strength / scale)
    function: Any = {"l1_exact": l1_exact_rewards, "l1_max": l1_max_rewards}[reward.function]
    return partial(function, target=scaled_tokens(reward.target_tokens, scale), per_token=strength / scale)


@dataclass(frozen=True)
class Parts:
    """The parts of a run that may be code of your own.

    Attributes:
        reward: The reward that trains; None where the method uses none.
        segmenter: What a semantic step is; None for the recipe's markers.
    """

    reward: GroupReward | BatchReward | None
    segmenter: Segmenter | None


def note_passed(recipe: Recipe, reward: Any = None, segmenter: Any = None) -> Recipe:
    """The recipe, with a note of the parts that were passed in Python: ":" and their name.

    Example:
        >>> note_passed(Recipe(), reward=max).reward.function
        ':max'
    """
    if reward is not None:
        recipe = replace(recipe, reward=replace(recipe.reward, function=_passed_name(reward)))
    if segmenter is not None:
        recipe = replace(recipe, rollout=replace(recipe.rollout, segmenter=_passed_name(segmenter)))
    return recipe


def recipe_parts(recipe: Recipe, reward: Any = None, segmenter: Any = None) -> Parts:
    """The reward and the segmenter of a recipe, before anything is loaded.

    This alone imports code that a recipe names. Reading, planning and comparing recipes does not, so a recipe from
    elsewhere can be looked at safely.

    Args:
        recipe: A checked recipe.
        reward, segmenter: What was passed in Python, if the recipe notes that.

    Raises:
        ValueError: The code cannot be imported or does not fit, or what was passed is not what the recipe notes.
    """
    if recipe.method == "sft" and reward is not None:
        raise ValueError("reward: method sft imitates completions and uses no reward; leave it out")
    _check_passed("reward.function", recipe.reward.function, "reward", reward)
    _check_passed("rollout.segmenter", recipe.rollout.segmenter, "segmenter", segmenter)
    if reward is None and recipe.method == "grpo":
        reward = recipe_reward(recipe.reward)
    if segmenter is None and recipe.rollout.segmenter is not None:
        segmenter = _own("rollout.segmenter", recipe.rollout.segmenter)
    if reward is not None:
        _check_is_reward(recipe.reward.function, reward)
    if segmenter is not None:
        _check_is_segmenter(recipe.rollout.segmenter, segmenter)
    return Parts(reward, segmenter)


def _passed_name(part: Any) -> str:
    named = part.func if isinstance(part, partial) else part
    return ":" + (named if hasattr(named, "__qualname__") else type(named)).__qualname__


def _check_passed(key: str, name: str | None, word: str, part: Any) -> None:
    noted = (name or "").startswith(":")
    if part is None and noted:
        raise ValueError(
            f"{key} is {name!r}: this run was trained with a {word} passed in Python, so pass it again "
            f"(train(None, folder, resume=True, {word}=...)); one that a recipe names as 'module:name' is found again"
        )
    if part is not None and name != _passed_name(part):
        raise ValueError(
            f"{key} is {name!r}, but the {word} passed is {_passed_name(part)!r}: pass the one that the run was "
            "trained with, or nothing if it was trained with nothing passed"
        )


def _own(key: str, name: str) -> Any:
    """Import what a recipe names as "module:name"; a class, or a function without parameters, is called."""
    module, _, attributes = name.partition(":")
    try:
        found = attrgetter(attributes)(import_module(module))
        if inspect.isclass(found) or (inspect.isfunction(found) and not inspect.signature(found).parameters):
            found = found()
    except Exception as error:  # code of one's own may fail in any way
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f"{key} is {name!r}, which cannot be had from module {module!r} ({reason}): name an object, or a class "
            "that needs no arguments, in a module that is installed or lies in a folder of PYTHONPATH"
        ) from error
    return found


def _check_is_reward(name: str, reward: Any) -> None:
    if isinstance(reward, BatchReward):
        return
    try:
        inspect.signature(reward).bind([], [], [], [])
    except TypeError as error:
        raise ValueError(
            f"reward.function is {name!r}, which is no reward ({error}): it takes (correct, steps, formatted, tokens) "
            "of one group and returns a number for each member"
        ) from error


def _check_is_segmenter(name: str | None, segmenter: Any) -> None:
    methods = ("split", "scanner", "count")
    if inspect.isclass(segmenter) or not all(callable(getattr(segmenter, method, None)) for method in methods):
        raise ValueError(
            f"rollout.segmenter is {name!r}, which is no segmenter: give an object of a subclass of "
            "stepgrpo_lab.Segmenter with split and scanner"
        )


def check_engine(recipe: Recipe) -> None:
    """Check that the recipe's engine can be had here, before anything is loaded.

    Raises:
        ImportError: vLLM is not installed.
        ValueError: Several processes would each start an engine, or the adapter's rank is too high.
    """
    if recipe.rollout.engine != "vllm":
        return
    check_vllm("rollout.engine")
    if process_count() > 1:
        raise ValueError(
            f"rollout.engine is vllm in {process_count()} processes: this version starts one engine in one process; "
            "run a vLLM server on a GPU of its own and set rollout.engine=vllm-server"
        )
    if recipe.model.lora is not None:
        lora_room(recipe.model.lora.r)


def recipe_engine(recipe: Recipe, model: Any, tokenizer: Any) -> SyncedEngine | None:
    """Start the recipe's engine, or reach its server; None for the lockstep engine, which needs no start.

    Args:
        recipe: A checked recipe.
        model, tokenizer: Its policy.

    Raises:
        ImportError: vLLM is not installed.
        ValueError: As :func:`check_engine`.
        ConnectionError: No server answers.
    """
    rollout = recipe.rollout
    if rollout.engine == "lockstep":
        return None
    check_engine(recipe)
    import torch

    from stepgrpo_lab.training._engine_weights import SyncedEngine

    dtype = engine_dtype(recipe)
    engine: Any
    if rollout.engine == "vllm":
        from stepgrpo_lab.engines.vllm_engine import VLLMEngine

        # In this process, so that it takes new weights without a folder; vLLM asks when it is started.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        adapter = adapter_folder(model_location(recipe.model.path))
        path = adapter_base(adapter) if adapter else recipe.model.path
        engine = VLLMEngine.load(path, dtype=dtype, **vllm_options(recipe))
    else:
        from stepgrpo_lab.engines.completions import text_of
        from stepgrpo_lab.engines.vllm_server import VLLMServerEngine

        text = text_of(tokenizer, model.generation_config.eos_token_id)
        vllm = rollout.vllm
        engine = VLLMServerEngine(text, url=vllm.url, max_rows=rollout.rows, timeout=vllm.timeout)
    return SyncedEngine(engine, folder=rollout.vllm.folder, dtype=getattr(torch, dtype))


@contextmanager
def sampling_engine(recipe: Recipe, model: Any, tokenizer: Any) -> Iterator[Any]:
    """The recipe's engine with the weights of a model, for a measurement outside of a training; closed afterwards.

    Yields:
        A rollout engine; None where the model samples for itself (lockstep).

    Raises:
        ImportError, ValueError, ConnectionError: As :func:`recipe_engine`.
    """
    engine = recipe_engine(recipe, model, tokenizer)
    if engine is None:
        yield None
        return
    with closing(engine):
        if recipe.model.lora is None or hasattr(model, "peft_config"):
            engine.push(model)
        with engine.awake() as awake:
            yield awake


def engine_dtype(recipe: Recipe) -> str:
    """The type that the trainer computes in, for the engine to be as near as it can.

    Example:
        >>> from stepgrpo_lab import load_recipe
        >>> engine_dtype(load_recipe("overthinker"))
        'float32'
    """
    precision, stored = recipe.optimisation.mixed_precision, recipe.model.dtype
    if precision == "no":
        return native_dtype() if stored == "auto" else stored
    return native_dtype() if precision == "auto" else {"bf16": "bfloat16", "fp16": "float16"}[precision]


def vllm_options(recipe: Recipe) -> dict[str, Any]:
    """The arguments of ``vllm.EngineArgs`` that a recipe decides.

    Example:
        >>> from stepgrpo_lab import load_recipe
        >>> options = vllm_options(load_recipe("qwen3-8b-lora-a100"))
        >>> options["max_num_seqs"], options["max_lora_rank"], options["gpu_memory_utilization"]
        (32, 64, 0.45)
    """
    import torch

    rollout, lora, on_gpu = recipe.rollout, recipe.model.lora, torch.cuda.is_available()
    options: dict[str, Any] = {
        "max_num_seqs": rollout.rows,
        "gpu_memory_utilization": rollout.vllm.memory,
        "max_model_len": rollout.vllm.context,
        "enable_sleep_mode": on_gpu,
        "enforce_eager": not on_gpu,  # on a CPU, compiling takes longer than it saves
        "seed": recipe.seed,
    }
    if lora is not None:
        options |= {"enable_lora": True, "max_lora_rank": lora_room(lora.r)}
    return options
