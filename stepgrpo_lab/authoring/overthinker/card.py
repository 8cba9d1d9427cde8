"""Measures an Overthinker and writes its model card, whose every figure comes from :func:`measure_overthinker`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stepgrpo_lab.authoring.overthinker.gates import gates
from stepgrpo_lab.authoring.overthinker.pretraining import BuildSettings, Progress
from stepgrpo_lab.authoring.overthinker.reliability import draw_reliability
from stepgrpo_lab.evaluation.evaluating import evaluate
from stepgrpo_lab.evaluation.evaluation_records import Evaluation, compare
from stepgrpo_lab.method.presets import cut_at_first_marker, rollout_settings
from stepgrpo_lab.method.records import Problem
from stepgrpo_lab.method.steps import MarkerSegmenter
from stepgrpo_lab.method.token_text import TokenText
from stepgrpo_lab.overthinker.tasks import overthinker_problems
from stepgrpo_lab.overthinker.verifier import label_steps, structure

COMPLETION_LIMIT = 256
RELIABILITY, RELIABILITY_TITLE = "reliability.svg", "Trial answers at the first marker"
LABELS = ("needed", "verifying", "redundant", "malformed")


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


def write_card(folder: Path, settings: BuildSettings, figures: dict[str, Any]) -> None:
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
    head = ["measured", "accuracy (95 %)", "tokens", "steps", *(f"{family}: accuracy" for family in families)]
    table = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for name, summary in rows:
        cells = [name, _share(summary["accuracy"]), _number(summary["tokens"]), _number(summary["steps"])]
        cells += [_share(summary["families"][family]["accuracy"]) for family in families]
        table.append(f"| {' | '.join(cells)} |")
    labels = [
        "| completions of | needed | verifying | redundant | malformed | tokens an oracle saves |",
        "|" + " --- |" * 6,
    ]
    for name, row in figures["structure"].items():
        cells = [name, *(f"{row[label]:.2f}" for label in LABELS), f"{100 * row['oracle_saves']:.1f} %"]
        labels.append(f"| {' | '.join(cells)} |")
    return CARD.format(
        problems=figures["problems"],
        table="\n".join(table),
        labels="\n".join(labels),
        gates=_gates_table(figures),
        examples="\n".join(map(_example, figures["examples"])),
        calibration=_calibration_text(figures["calibration"]),
    )


def _gates_table(figures: dict[str, Any]) -> str:
    rows = [
        f"| {gate.asks} | {gate.measured} | {'passed' if gate.passed else '**failed**'} |" for gate in gates(figures)
    ]
    return "\n".join(["| gate | measured | |", "| --- | --- | --- |", *rows])


def _example(example: dict[str, Any]) -> str:
    shown = [(label, " ".join(step.removeprefix("<think>").split())) for label, step in example["steps"]]
    rows = [f"| {label} | `{step}` |" for label, step in shown]
    return "\n".join(
        [f"*{example['prompt']}* ({example['answer']})", "", "| label | step |", "| --- | --- |", *rows, ""]
    )


def _calibration_text(calibration: dict[str, Any] | None) -> str:
    if calibration is None:
        return "No trial answer completed its box."
    rows = ["| joint probability | trial answers | right |", "| --- | --- | --- |"]
    for part in calibration["bins"]:
        if part["count"]:
            rows.append(f"| {part['confidence']:.3f} | {part['count']} | {100 * part['accuracy']:.1f} % |")
    table = "\n".join(rows)
    ece = calibration["ece"]
    told = f"Expected calibration error (10 bins) of the joint probability of the boxed answer: {ece:.3f}."
    return f"![Share right against stated probability]({RELIABILITY})\n\n{told}\n\n{table}"


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
