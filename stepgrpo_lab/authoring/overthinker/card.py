"""Measures an Overthinker, holds it against the gates of a fair laboratory, and writes its model card.

Every figure of the card comes from :func:`measure_overthinker`. If needed steps could be guessed away, a plain length
penalty would win and there would be no question left; if trial answers were not calibrated, no exit rule could work.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepgrpo_lab.authoring.overthinker.stages import COMPLETION_LIMIT, ModelSettings, Progress
from stepgrpo_lab.evaluation._tables import markdown_table
from stepgrpo_lab.evaluation.evaluating import evaluate
from stepgrpo_lab.evaluation.results import Evaluation, compare
from stepgrpo_lab.method.records import Problem
from stepgrpo_lab.method.settings import cut_at_first_marker, rollout_settings
from stepgrpo_lab.method.steps import MarkerSegmenter
from stepgrpo_lab.method.token_text import TokenText
from stepgrpo_lab.overthinker.tasks import overthinker_problems
from stepgrpo_lab.overthinker.verifier import label_steps, shown_labels, structure
from stepgrpo_lab.viz._style import PALETTE
from stepgrpo_lab.viz._svg import QUIET, Axes, frame, picture, text

LEAST_ACCURACY = 0.85
LEAST_ORACLE_SAVING = 0.60
LEAST_CUT_COST = 8.0
LEAST_CUT_COST_TRAINED = 5.0
MOST_CALIBRATION_ERROR = 0.05
RELIABILITY, RELIABILITY_TITLE = "reliability.svg", "Trial answers at the first marker"


def measure_overthinker(
    model: Any, tokenizer: Any, count: int = 1000, *, seed: int = 0, progress: Progress | None = None
) -> dict[str, Any]:
    """The card's figures, on ``count`` held-out test problems at temperature 0.6, top-p 0.95, top-k 20.

    Returns:
        JSON-able dictionary: ``plain`` decoding, ``deer_official`` and ``deer_paper`` (truncated rollout at
        evaluation), ``first_cut`` (thoughts closed by force at the first marker) as evaluation summaries;
        ``structure`` (steps by true label, tokens an oracle saves); ``calibration`` of the first probe;
        ``first_cut_change`` per family and ``deer_change`` per preset, paired, in points of accuracy; ``examples``.

    Example:
        >>> figures = measure_overthinker(*load_overthinker(), count=200)  # doctest: +SKIP
    """
    problems = overthinker_problems("test", count, seed=seed)

    def run(name: str, **options: Any) -> Evaluation:
        report = (lambda done, total: progress(name, done, total, 0.0)) if progress else None
        return evaluate(model, tokenizer, problems, limit=COMPLETION_LIMIT, seed=seed, progress=report, **options)

    first_cut = cut_at_first_marker(rollout_settings("official", markers="paper"))
    plain = run("measure plain decoding", keep_texts=count)
    cut = run("measure the first cut", settings=first_cut)
    summaries = {"plain": plain, "first_cut": cut}
    deer_change = {}
    for preset in ("official", "paper"):
        deer = rollout_settings(preset, markers="paper", near_budget_margin=0)
        summaries[f"deer_{preset}"] = run(f"measure DEER, {preset}", settings=deer)
        deer_change[preset] = compare(plain, summaries[f"deer_{preset}"]).accuracy_points
    figures: dict[str, Any] = {name: evaluation.summary() for name, evaluation in summaries.items()}
    figures["structure"] = structure(problems, plain.texts, TokenText.from_tokenizer(tokenizer))
    figures["calibration"] = cut.calibration()
    families = compare(plain, cut).families
    figures["first_cut_change"] = {name: comparison.accuracy_points for name, comparison in families.items()}
    figures["deer_change"] = deer_change
    figures["examples"] = labelled_examples(problems, plain.texts)
    figures["problems"] = count
    return json.loads(json.dumps(figures, default=dataclasses.asdict))


def labelled_examples(problems: Sequence[Problem], texts: dict[str, str]) -> list[dict[str, Any]]:
    """The first completion of each family, step by step with its true labels."""
    first = {problem.family: problem for problem in reversed(problems)}
    return [
        {
            "family": family,
            "prompt": problem.prompt,
            "answer": problem.answer,
            "steps": [
                [label, step.text.strip()]
                for label, step in zip(
                    label_steps(problem, texts[problem.id]),
                    MarkerSegmenter("paper").split(texts[problem.id]),
                    strict=True,
                )
            ],
        }
        for family, problem in sorted(first.items())
    ]


def write_card(folder: Path, settings: ModelSettings, figures: dict[str, Any]) -> None:
    """Write ``card.json`` (settings and every figure), the readable card ``README.md`` and its picture."""
    record = {"settings": settings.to_json(), "figures": figures}
    (folder / "card.json").write_text(json.dumps(record, indent=1) + "\n")
    (folder / "README.md").write_text(render_card(figures), encoding="utf-8")
    if figures["calibration"]:
        (folder / RELIABILITY).write_text(draw_reliability(figures["calibration"], RELIABILITY_TITLE), encoding="utf-8")


def _share(interval: dict[str, float]) -> str:
    return f"{100 * interval['estimate']:.1f} % ({100 * interval['low']:.1f} to {100 * interval['high']:.1f})"


def _number(interval: dict[str, float]) -> str:
    return f"{interval['estimate']:.1f}"


def render_card(figures: dict[str, Any]) -> str:
    """The model card as Markdown, from :func:`measure_overthinker`'s figures."""
    rows = [
        ("plain decoding", figures["plain"]),
        ("truncated rollout, `official`", figures["deer_official"]),
        ("truncated rollout, `paper`", figures["deer_paper"]),
        ("thoughts cut at the first marker", figures["first_cut"]),
    ]
    families = sorted(figures["plain"]["families"])
    measured = [
        [
            name,
            _share(summary["accuracy"]),
            _number(summary["tokens"]),
            _number(summary["steps"]),
            *(_share(summary["families"][family]["accuracy"]) for family in families),
        ]
        for name, summary in rows
    ]
    head = ["measured", "accuracy (95 %)", "tokens", "steps", *(f"{family}: accuracy" for family in families)]
    labels = shown_labels(*figures["structure"].values())
    steps = [
        [name, *(f"{row[label]:.2f}" for label in labels), f"{100 * row['oracle_saves']:.1f} %"]
        for name, row in figures["structure"].items()
    ]
    return CARD.format(
        problems=figures["problems"],
        table=markdown_table(head, measured),
        labels=markdown_table(["completions of", *labels, "tokens an oracle saves"], steps),
        gates=_gates_table(figures),
        examples="\n".join(map(render_example, figures["examples"])),
        calibration=_calibration_text(figures["calibration"]),
    )


def _gates_table(figures: dict[str, Any]) -> str:
    rows = [[gate.asks, gate.measured, "passed" if gate.passed else "**failed**"] for gate in gates(figures)]
    return markdown_table(["gate", "measured", ""], rows)


def render_example(example: dict[str, Any]) -> str:
    """One labelled completion as Markdown."""
    rows = [[label, f"`{' '.join(step.removeprefix('<think>').split())}`"] for label, step in example["steps"]]
    return f"*{example['prompt']}* ({example['answer']})\n\n{markdown_table(['label', 'step'], rows)}\n"


def _calibration_text(calibration: dict[str, Any] | None) -> str:
    if calibration is None:
        return "No trial answer completed its box."
    rows = [
        [f"{part['confidence']:.3f}", str(part["count"]), f"{100 * part['accuracy']:.1f} %"]
        for part in calibration["bins"]
        if part["count"]
    ]
    return (
        f"![Share right against stated probability]({RELIABILITY})\n\n"
        "Expected calibration error (10 bins) of the joint probability of the boxed answer: "
        f"{calibration['ece']:.3f}.\n\n{markdown_table(['joint probability', 'trial answers', 'right'], rows)}"
    )


@dataclass(frozen=True)
class Gate:
    """One condition: what it asks, what was measured, whether that passes."""

    asks: str
    measured: str
    passed: bool


def gates(figures: dict[str, Any]) -> list[Gate]:
    """The gates of a freshly built model.

    Args:
        figures: From :func:`stepgrpo_lab.authoring.overthinker.card.measure_overthinker`.

    Returns:
        In the order of the card. That the steps are still needed *after* training is the study "fairness".
    """
    accuracy = figures["plain"]["accuracy"]["estimate"]
    saves = figures["structure"]["all"]["oracle_saves"]
    ece = figures["calibration"]["ece"] if figures["calibration"] else 1.0
    return [
        Gate(f"accuracy at least {100 * LEAST_ACCURACY:.0f} %", f"{100 * accuracy:.1f} %", accuracy >= LEAST_ACCURACY),
        Gate(
            f"stopping after the last needed step saves at least {100 * LEAST_ORACLE_SAVING:.0f} % of the tokens",
            f"{100 * saves:.1f} %",
            saves >= LEAST_ORACLE_SAVING,
        ),
        *(
            Gate(
                f"{family}: a cut after the first step costs at least {LEAST_CUT_COST:.0f} points",
                f"{-change['estimate']:.1f}",
                -change["estimate"] >= LEAST_CUT_COST,
            )
            for family, change in figures["first_cut_change"].items()
        ),
        Gate(
            f"calibration error of the first trial answer at most {MOST_CALIBRATION_ERROR:.2f}",
            f"{ece:.3f}",
            ece <= MOST_CALIBRATION_ERROR,
        ),
        *(
            Gate(
                f"truncated rollout at evaluation, `{preset}`: no loss (the interval of the change reaches 0)",
                f"{change['estimate']:+.1f} [{change['low']:+.1f}, {change['high']:+.1f}] points",
                change["high"] >= 0,
            )
            for preset, change in figures["deer_change"].items()
        ),
    ]


def draw_reliability(calibration: dict[str, Any], title: str) -> str:
    """Share right against stated probability, one dot for each bin, its area the number of answers in it.

    Args:
        calibration: A :class:`stepgrpo_lab.evaluation.statistics.Calibration` as a dictionary.
        title: What was calibrated.

    Returns:
        SVG text. On the diagonal a probability is worth what it says; below it, the model is too sure.
    """
    bins = [part for part in calibration["bins"] if part["count"]]
    axes = Axes(72, 72, 432, 372, (0.0, 1.0), (0.0, 100.0))
    (start, low), (end, high) = axes.at(0, 0), axes.at(1, 100)
    lines = frame(axes, title, "stated probability", "%")
    lines.append(f'<path d="M{start:.1f} {low:.1f}L{end:.1f} {high:.1f}" stroke="{QUIET}" stroke-dasharray="6 4"/>')
    for part in bins:
        x, y = axes.at(part["confidence"], 100 * part["accuracy"])
        _, even = axes.at(0, 100 * part["confidence"])
        radius = 3 + 17 * (part["count"] / calibration["count"]) ** 0.5
        lines.append(f'<path d="M{x:.1f} {y:.1f}V{even:.1f}" stroke="{PALETTE[1]}" stroke-width="2.5"/>')
        lines.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{PALETTE[0]}" fill-opacity="0.75"/>')
    lines.append(text(f"ECE {calibration['ece']:.3f}, {calibration['count']} answers", 88, 92, weight="600"))
    listed = "; ".join(f"{part['confidence']:.2f} stated, {part['accuracy']:.2f} right" for part in bins)
    return picture(480, 440, title, listed, lines)


CARD = """---
license: apache-2.0
---
# The Overthinker

A `Qwen3ForCausalLM` of about a million parameters with its own byte-complete tokenizer and Qwen3's chat format, trained
from scratch on generated problems to solve them step by step *and to overthink by construction*. It exists to study
early exit on a CPU; it knows nothing but two families of problems:

- **chain**: apply four to six operations to a digit, modulo 10, two operations a step;
- **search**: find the one of four or five chains of two operations that gives 0, one candidate a step.

Built by `stepgrpo overthinker build`; `card.json` holds the settings and every figure below. Load it with
`stepgrpo_lab.load_overthinker()` or plain `AutoModelForCausalLM.from_pretrained`.

All operations are modulo 10 and from left to right. "Wait" goes on or over the same work again, "Alternatively" turns
to another candidate.

## Is it a fair laboratory?

{gates}

Whether the needed steps are still needed after training is measured by `stepgrpo compare fairness`.

## Measured

On {problems} held-out problems, one sample each, temperature 0.6, top-p 0.95, top-k 20, at most 256 tokens.

{table}

The truncated rollout here is used at evaluation (this is DEER): confidence above 0.95 ends the thoughts.

## Steps by true label (mean per completion, plain decoding)

{labels}

A needed step comes no later than the first right derivation; the oracle stops after the last one. The first completion
of each family in this measurement:

{examples}

## Calibration of the first trial answer

{calibration}

## Limits

It has seen only these two kinds of problem, in one wording. Nothing measured on it is evidence about a large model; it
shows mechanisms.
"""
