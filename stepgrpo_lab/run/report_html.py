"""The sections of the report as HTML. Whatever a model or a recipe wrote passes through :func:`visible_text`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from stepgrpo_lab.evaluation.evaluation_records import Comparison
from stepgrpo_lab.evaluation.statistics import Interval, points, ratio
from stepgrpo_lab.method.steps import MarkerSegmenter
from stepgrpo_lab.run.report_files import RunRecord
from stepgrpo_lab.viz.html import figure, note, section, table, visible_text

SHOWN_COMPLETIONS = 8
SHOWN_CHARACTERS = 50_000
"""Of a completion; whoever runs on and on must not fill the page."""
STEP_TINTS = 6
"""Number of step colours in the style sheet; step 7 takes the first again."""

_MEASURES = {
    "accuracy": ("correct answers", 100, " %"),
    "tokens": ("tokens per completion", 1, ""),
    "steps": ("semantic steps", 1, ""),
    "closed": ("completions that closed their thoughts", 100, " %"),
    "truncated": ("completions cut off at the limit", 100, " %"),
}


def sections(run: RunRecord, figures: set[str]) -> str:
    """Every section of the page, in reading order; ``figures`` names those that the page carries."""
    parts = [
        section("result", "Before and after", _result_tables(run)),
        section("tradeoff", "Accuracy against length", _figure("tradeoff", figures)),
        section("training", "Training", _figure("learning", figures) + _figure("exits", figures)),
        section("reliability", "Reliability of trial answers", _figure("reliability", figures)),
        section("completions", "Completions side by side", _completions(run)),
        section("time", "Time", _time(run)),
        section("recipe", "Recipe", _recipe(run)),
        section("rerun", "How to run it again", _rerun(run)),
    ]
    return "\n".join(parts)


_FIGURES = {
    "tradeoff": (
        "Mean tokens (across) and share of correct answers (up) before and after training, with 95 % intervals. "
        "Up and to the left is better. The figures are those of the tables above.",
        "The trade-off is left out: it needs evaluation_before.json and evaluation_after.json.",
    ),
    "learning": (
        "Training step by step. Validation is plain decoding on held-out problems; the other panels describe the "
        "training rollouts, where probes may cut the thoughts short.",
        "The learning curves are left out: metrics.jsonl is missing or holds none of their metrics.",
    ),
    "exits": (
        "Why the thoughts ended in training rollouts. A growing share closed by the model itself means that it "
        "has learnt to stop.",
        "The exits are left out: metrics.jsonl holds no exits/... metrics.",
    ),
    "reliability": (
        "Share of correct trial answers against their joint probability. On the dashed diagonal, a stated probability "
        "can be taken at its word.",
        "Left out: no probes were made in the evaluations (plain decoding makes none).",
    ),
}
"""Caption of each figure, and the note in its place."""


def _figure(name: str, figures: set[str]) -> str:
    caption, missing = _FIGURES[name]
    if name not in figures:
        return note(missing)
    return figure(name, caption)


def _with_bounds(interval: Interval, unit: str) -> str:
    return f"{interval.estimate:.1f}{unit} [{interval.low:.1f}, {interval.high:.1f}]"


def _result_tables(run: RunRecord) -> str:
    comparison = run.comparison
    if comparison is None:
        return note("Left out: it needs evaluation_before.json and evaluation_after.json.")
    before, after = run.summaries["before"], run.summaries["after"]
    changes = {
        "accuracy": points(comparison.accuracy_points),
        "tokens": ratio(comparison.token_ratio),
        "steps": points(comparison.steps),
    }
    overall = [
        [
            label,
            _with_bounds(before[name] * scale, unit),
            _with_bounds(after[name] * scale, unit),
            changes.get(name, "-"),
        ]
        for name, (label, scale, unit) in _MEASURES.items()
    ]
    caption = f"All {comparison.problems} problems; brackets hold 95 % intervals over problems, changes are paired"
    head = ["", "before", "after", "change (points, ratio, steps)"]
    return table(caption, head, overall, small_bounds=True) + _families(before, after, comparison)


def _families(before: Mapping[str, Any], after: Mapping[str, Any], comparison: Comparison) -> str:
    rows = []
    for name, change in comparison.families.items():
        first, second = before["families"][name], after["families"][name]
        rows.append(
            [
                name or "all",
                str(change.problems),
                _with_bounds(first["accuracy"] * 100, " %"),
                _with_bounds(second["accuracy"] * 100, " %"),
                points(change.accuracy_points),
                _with_bounds(first["tokens"], ""),
                _with_bounds(second["tokens"], ""),
                ratio(change.token_ratio),
                points(change.steps),
            ]
        )
    head = ["family", "problems", "correct before", "after", "points", "tokens before", "after", "ratio", "steps"]
    return table("By family of problems", head, rows, small_bounds=True)


def _completions(run: RunRecord) -> str:
    if not run.completions:
        return note("Left out: completions.jsonl is missing or empty.")
    markers = run.after.settings.get("markers", "paper") if run.after else "paper"
    segmenter = MarkerSegmenter(markers)
    legend = (
        "<p>Each tint is one semantic step, with its number in front; the text after the thoughts has none. "
        "The first sample of each problem is shown, whatever it was.</p>"
    )
    return legend + "\n".join(_pair(row, segmenter) for row in run.completions[:SHOWN_COMPLETIONS])


def _pair(row: Mapping[str, Any], segmenter: MarkerSegmenter) -> str:
    problem = row["problem"]
    sides = "".join(_completion(side, row[side], segmenter) for side in ("before", "after"))
    return (
        f'<article><h3>{visible_text(str(problem["id"]))}</h3><p class="question">{visible_text(problem["prompt"])}</p>'
        f'<p>Gold answer: <b>{visible_text(str(row["gold"]))}</b></p><div class="pair">{sides}</div></article>'
    )


def _completion(side: str, told: Mapping[str, Any], segmenter: MarkerSegmenter) -> str:
    verdict = "correct" if told["correct"] else "wrong"
    count = int(told["steps"])
    figures = f"{int(told['tokens'])} tokens, {count} step{'' if count == 1 else 's'}"
    return (
        f'<div><h4>{side}: <span class="{verdict}">{verdict}</span>, {figures}</h4>'
        f'<pre tabindex="0" dir="ltr">{_tinted(told["text"], segmenter)}</pre></div>'
    )


def _tinted(text: str, segmenter: MarkerSegmenter) -> str:
    text, rest = text[:SHOWN_CHARACTERS], len(text) - SHOWN_CHARACTERS
    more = f'<span class="control">{rest} more characters stand in completions.jsonl</span>' if rest > 0 else ""
    steps = segmenter.split(text)
    tinted = [
        f'<span class="step s{step.index % STEP_TINTS}"><b>{step.index + 1}</b>{visible_text(step.text)}</span>'
        for step in steps
    ]
    return "".join(tinted) + visible_text(text[steps[-1].end :] if steps else text) + more


def _time(run: RunRecord) -> str:
    seconds = run.environment.get("seconds") or {}
    if not seconds:
        return note("Left out: environment.json is missing or names no seconds.")
    rows = [[str(phase), f"{float(spent):.1f}"] for phase, spent in seconds.items()]
    return table("Seconds by phase", ["phase", "seconds"], rows)


def _recipe(run: RunRecord) -> str:
    if not run.recipe:
        return note("Left out: recipe.yaml is missing.")
    return f'<pre tabindex="0">{visible_text(run.recipe)}</pre>'


def _rerun(run: RunRecord) -> str:
    command = str(run.environment.get("command") or "stepgrpo train --recipe recipe.yaml --output runs/again")
    steps = (
        f"<p>With the versions below and the recipe above saved as <code>recipe.yaml</code>:</p>"
        f"<pre>{visible_text(command)}</pre>"
        "<p>The same seed on the same machine repeats the run; other hardware rounds differently, so figures may move "
        "within their intervals.</p>"
    )
    noted = {key: value for key, value in run.environment.items() if key not in ("seconds", "versions", "command")}
    versions = {**(run.environment.get("versions") or {}), **noted}
    if not versions:
        return steps + note("Versions are left out: environment.json is missing or names none.")
    rows = [[str(name), _plain(value)] for name, value in versions.items()]
    return steps + table("Environment", ["what", "which"], rows)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
