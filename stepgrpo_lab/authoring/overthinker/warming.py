"""The warm-up of a pretrained model: a LoRA adapter that teaches SmolLM2 to think on word problems.

The stages are those of Overthinker 2 without drills, for the model can count already: traces first, then the trial
answer is taught the truth on completions of its own. ``<think>`` and ``</think>`` are ordinary text, so the vocabulary
stays what it was. The base is what ``stepgrpo fetch`` wrote, and the adapter names it.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from stepgrpo_lab.authoring.overthinker._fitting import Batch, FitSettings, loss_of_endings
from stepgrpo_lab.authoring.overthinker.card import Gate
from stepgrpo_lab.authoring.overthinker.gates import (
    Bounds,
    Figures,
    Sample,
    leap_gates,
    probe_figures,
    runner,
    sampled,
    shuffled_truths,
    stopper,
    watching,
)
from stepgrpo_lab.authoring.overthinker.leap_card import gates_table
from stepgrpo_lab.authoring.overthinker.leaping import LeapSettings, TraceExamples, calibrate, train_on_traces
from stepgrpo_lab.authoring.overthinker.stages import Progress
from stepgrpo_lab.engines.files import write_atomically
from stepgrpo_lab.evaluation._tables import markdown_table
from stepgrpo_lab.method.records import Problem
from stepgrpo_lab.method.token_text import TokenText
from stepgrpo_lab.overthinker.stories import OPERATIONS, WORD_PROBLEMS, write_story_trace
from stepgrpo_lab.overthinker.tasks import overthinker_problems

COMPLETION_LIMIT = 224


@dataclass(frozen=True)
class WarmUpSettings(LeapSettings):
    """Length of a warm-up.

    Attributes:
        base: The pretrained model.
        r, alpha: The adapter's rank and scale.
    """

    base: str = "smollm2-135m"
    r: int = 8
    alpha: int = 16
    batch_size: int = 8
    traces: FitSettings = field(
        default_factory=lambda: FitSettings(updates=300, learning_rate=1e-3, warmup=20, weight_decay=0.0, save_every=25)
    )
    calibration: FitSettings = field(
        default_factory=lambda: FitSettings(updates=40, learning_rate=3e-4, warmup=5, weight_decay=0.0, save_every=20)
    )
    calibration_rounds: int = 1
    calibration_problems: int = 160
    drilled: int = 0
    calibration_batch: int = 6


class StoryExamples(TraceExamples):
    """Traces of word problems as examples."""

    LABORATORY = WORD_PROBLEMS
    LIMIT = COMPLETION_LIMIT
    ROWS = 48

    def write(self, problem: Problem, rng: Any) -> tuple[str, str]:
        """Thoughts and answer of one trace."""
        return write_story_trace(problem, rng)

    @staticmethod
    def loss(model: Any, batch: Batch) -> Tensor:
        """The loss of a batch of these examples."""
        return loss_of_endings(model, batch)


def fresh_adapter(settings: WarmUpSettings) -> tuple[Any, Any]:
    """The base with an adapter that changes nothing yet, and its tokenizer."""
    import torch
    from peft import LoraConfig, get_peft_model

    from stepgrpo_lab.engines.models import load_model

    model, tokenizer = load_model(settings.base, device="cpu")
    torch.manual_seed(settings.seed)
    lora = LoraConfig(r=settings.r, lora_alpha=settings.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(model, lora)
    adapted.peft_config["default"].base_model_name_or_path = settings.base
    return adapted, tokenizer


def warm_up(output: Path, work: Path, settings: WarmUpSettings, progress: Progress | None = None) -> tuple[Any, Any]:
    """Train both stages, taking up the checkpoints in ``work``, and write the adapter.

    Returns:
        The adapted model and its tokenizer.
    """
    model, tokenizer = fresh_adapter(settings)
    train_on_traces(model, tokenizer, settings, work / "traces", progress, StoryExamples)
    calibrate(model, tokenizer, settings, work, progress, StoryExamples)
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    return model, tokenizer


# ---- the gates -------------------------------------------------------------------------------------------------------

BOUNDS: Bounds = {
    "accuracy": (0.50, 0.85, "accuracy of plain decoding"),
    "best_tier": (0.0, 0.95, "accuracy on the best tier"),
    "stopper_points": (5, 100, "points that a perfect stopper gains, less the gain of one with shuffled truth"),
    "flips": (0.05, 0.20, "a right derivation was written, the answer is wrong"),
    "spread": (0.4, 1.0, "10 to 90 % quantiles of the probability stated at the first marker"),
    "fullest_bin": (0.0, 0.40, "share of first markers in the fullest of 10 bins of equal width"),
    "ece_all": (0.0, 0.10, "calibration error at every marker of watched completions"),
}
"""What the warmed-up model must show, on problems of the split "gates"."""


def measure_warm_up(
    model: Any, tokenizer: Any, count: int = 200, *, seed: int = 0, progress: Progress | None = None
) -> dict[str, Any]:
    """The figures that the gates ask for, and the same on stories of kinds that training never told.

    Returns:
        JSON-able: for "gates" and "held_out" the figures of :data:`BOUNDS` and ``tiers``, ``tokens``, ``steps``,
        ``truncated``; two completions of each.
    """
    return {
        "problems": count,
        **{split: _measure_split(model, tokenizer, split, count, seed, progress) for split in ("gates", "held_out")},
    }


def _measure_split(
    model: Any, tokenizer: Any, split: Any, count: int, seed: int, progress: Progress | None
) -> dict[str, Any]:
    problems = overthinker_problems(split, count, seed=seed, laboratory=WORD_PROBLEMS.name)
    run = runner(model, tokenizer, problems, seed, progress, limit=COMPLETION_LIMIT, rows=StoryExamples.ROWS)
    plain, watched = run(f"watch, {split}", watching("official"))
    text = TokenText.from_tokenizer(tokenizer)
    answers = [samples[0].answer for samples in plain.outcomes]
    samples = [sampled(*each, text) for each in zip(problems, watched, answers, strict=True)]
    tiers = {str(tier): _accuracy(samples, tier) for tier in OPERATIONS}
    return {
        **story_figures(samples),
        **probe_figures(watched, [problem.answer for problem in problems]),
        "best_tier": max(tiers.values()),
        "tiers": tiers,
        "tokens": plain.mean("tokens"),
        "steps": plain.mean("steps"),
        "texts": [[problem.prompt, each.text] for problem, each in zip(problems[:2], watched, strict=False)],
    }


def _accuracy(samples: Sequence[Sample], tier: int) -> float:
    return statistics.fmean([sample.right for sample in samples if sample.problem.level == tier] or [0.0])


def story_figures(samples: Sequence[Sample]) -> Figures:
    """Accuracy, flips, what is cut off, and what a perfect stopper gains."""
    gained, written = stopper(samples, [sample.problem.answer for sample in samples])
    by_luck, _ = stopper(samples, shuffled_truths(samples))
    return {
        "accuracy": statistics.fmean(sample.right for sample in samples),
        "flips": statistics.fmean(not sample.right and sample.problem.answer in sample.derived for sample in samples),
        "truncated": statistics.fmean(sample.truncated for sample in samples),
        "stopper_points": gained - by_luck,
        "stopper_tokens": written,
    }


def warm_up_gates(figures: dict[str, Any]) -> list[Gate]:
    """The gates of :func:`measure_warm_up`'s figures."""
    return leap_gates(figures["gates"], BOUNDS)


# ---- the card --------------------------------------------------------------------------------------------------------

ROWS = {
    "accuracy": "accuracy",
    "flips": "flips",
    "truncated": "cut off at the limit",
    "stopper_points": "points of a perfect stopper",
    "tokens": "tokens",
    "steps": "steps",
    "ece_all": "calibration error",
}


def write_warm_up_card(folder: Path, settings: WarmUpSettings, figures: dict[str, Any]) -> None:
    """Write ``card.json`` and the readable card."""
    card = {"settings": settings.to_json(), "figures": figures}
    write_atomically(folder / "card.json", json.dumps(card, indent=1) + "\n")
    write_atomically(folder / "README.md", render_warm_up_card(settings, figures))


def render_warm_up_card(settings: WarmUpSettings, figures: dict[str, Any]) -> str:
    """The adapter's card as Markdown."""
    splits = ("gates", "held_out")
    rows = [[title, *(f"{figures[split][name]:.3g}" for split in splits)] for name, title in ROWS.items()]
    rows += [
        [f"accuracy, tier {tier}", *(f"{figures[s]['tiers'][str(tier)]:.3g}" for s in splits)] for tier in OPERATIONS
    ]
    gates = warm_up_gates(figures)
    return CARD.format(
        base=settings.base,
        r=settings.r,
        problems=figures["problems"],
        limit=COMPLETION_LIMIT,
        passed=sum(gate.passed for gate in gates),
        count=len(gates),
        gates=gates_table(gates),
        measured=markdown_table(["measured", "stories as in training", "stories of new kinds"], rows),
        examples="\n".join(f"> {prompt}\n\n```text\n{text}\n```\n" for prompt, text in figures["gates"]["texts"]),
    )


CARD = """---
license: apache-2.0
---
# Warm-up of `{base}` on word problems

A LoRA adapter (rank {r}) that teaches SmolLM2-135M-Instruct to think before it answers. It solves a story quickly
first, re-checks with "Wait", tries another way with "Alternatively", and follows its last derivation. The trial answer
at a marker is taught the truth, on the model's own completions. {passed} of {count} gates hold.

Built by `stepgrpo overthinker build --laboratory word-problems`, on the base that `stepgrpo fetch {base}` writes.
`card.json` holds the settings and every figure.

## Gates

On {problems} problems, temperature 0.6, top-p 0.95, top-k 20, at most {limit} tokens.

{gates}

## Measured

{measured}

## Examples

{examples}
## Limits

The stories are generated from a few sentences each, with small whole numbers. Nothing here says how the model does on
word problems that people wrote.
"""
