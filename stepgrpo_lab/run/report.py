"""The report of a run: one HTML file, a small Markdown table and one picture, all from the run folder's files alone.

Whatever a model or a recipe wrote passes through :func:`~stepgrpo_lab.viz._html.visible_text`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepgrpo_lab.engines.files import write_atomically
from stepgrpo_lab.evaluation._tables import markdown_table
from stepgrpo_lab.evaluation.results import Comparison, Evaluation
from stepgrpo_lab.evaluation.statistics import Interval, points, ratio
from stepgrpo_lab.method.steps import MarkerSegmenter
from stepgrpo_lab.run._report_svg import draw_headline
from stepgrpo_lab.run.folder import RunRecord, read_run
from stepgrpo_lab.training.metrics import nothing_to_learn
from stepgrpo_lab.viz import completions, curves, tradeoff
from stepgrpo_lab.viz._html import figure, note, render_page, section, table, visible_text
from stepgrpo_lab.viz.curves import series

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


SHOWN_COMPLETIONS = 8
SHOWN_CHARACTERS = 50_000
"""Of a completion; whoever runs on and on must not fill the page."""
STEP_TINTS = 6
"""Number of step colours in the style sheet; step 7 takes the first again."""


def write_report(run_folder: Path | str) -> Path:
    """Write ``report.html`` into a run folder: self-contained, readable without a network, in light and in dark.

    A section whose file is missing is left out with a note. Model text is escaped, and the page's content security
    policy allows no script but its own two and no network request at all.

    Args:
        run_folder: A folder with any of ``recipe.yaml``, ``metrics.jsonl``, ``evaluation_before.json``,
            ``evaluation_after.json``, ``completions.jsonl`` and ``environment.json``.

    Returns:
        Path of the report.

    Raises:
        ValueError: The folder is missing or one of its files is broken; the message names file and row.

    Example:
        >>> write_report("runs/overthinker")  # doctest: +SKIP
    """
    run = read_run(run_folder)
    figures = _figures(run)
    page = render_page(
        kicker="Step-GRPO run",
        heading=run.name,
        lead=headline(run),
        caveat="Intervals cover the choice of problems and the sampling noise, not the training seed: this is one run.",
        picture=_picture(run),
        sections=_sections(run, set(figures)),
        figures=figures,
    )
    path = Path(run_folder) / "report.html"
    write_atomically(path, page)
    return path


def headline(run: RunRecord) -> str:
    """One or two sentences: what was measured, on which model, under which decoding, with which result."""
    comparison = run.comparison
    if run.after is None or comparison is None:
        return f"{run.model} was not measured before and after training, so there is no result to state."
    before, after = run.summaries["before"], run.summaries["after"]
    change = comparison.accuracy_points
    verdict = (
        "The interval of the difference includes zero"
        if 0.0 in change
        else f"The interval of the difference lies {'above' if change.estimate > 0 else 'below'} zero"
    )
    return (
        f"On {comparison.problems} problems ({conditions(run.after)}), {run.model} wrote "
        f"{after['tokens'].estimate:.1f} tokens per completion after training instead of "
        f"{before['tokens'].estimate:.1f} ({ratio(comparison.token_ratio)} of the length), and "
        f"{_percent(after)} of its answers were correct instead of {_percent(before)} "
        f"({points(change)} points). {verdict}; brackets hold 95 % intervals."
    )


def _percent(figures: dict[str, Any]) -> str:
    return f"{100 * figures['accuracy'].estimate:.1f} %"


def conditions(evaluation: Evaluation) -> str:
    """How completions were decoded, in words: "plain decoding, temperature 0.6, 1 sample each"."""
    settings = evaluation.settings
    rollout = settings.get("rollout")
    decoding = f"truncated rollout, preset {rollout.get('preset')}" if rollout else "plain decoding"
    samples = len(evaluation.outcomes[0])
    temperature = f", temperature {settings['temperature']:g}" if "temperature" in settings else ""
    return f"{decoding}{temperature}, {samples} sample{'' if samples == 1 else 's'} each"


def summary_markdown(run_folder: Path | str) -> str:
    """The result as a small Markdown table: tokens and accuracy before, after, and their change with 95 % intervals.

    Raises:
        ValueError: The folder holds no evaluations before and after training, or a broken file.
    """
    run = read_run(run_folder)
    comparison = run.comparison
    if run.after is None or comparison is None:
        raise ValueError(
            f"{run_folder} lacks evaluation_before.json or evaluation_after.json; evaluate the model before and after"
        )
    rows = [
        [f"{escape(run.model, quote=False)}, {name}", str(figures["tokens"]), f"{figures['accuracy'] * 100} %"]
        for name, figures in run.summaries.items()
    ]
    rows.append(["change", ratio(comparison.token_ratio), f"{points(comparison.accuracy_points)} points"])
    scope = f"{comparison.problems} problems, {conditions(run.after)}; brackets: 95 % intervals over problems."
    return f"{markdown_table(['model', 'tokens', 'accuracy'], rows)}\n\n{scope}\n"


def headline_svg(run_folder: Path | str) -> str:
    """The result as one SVG picture; see :mod:`stepgrpo_lab.run._report_svg`.

    Raises:
        ValueError: The folder holds nothing to draw, or a broken file.
    """
    run = read_run(run_folder)
    return draw_headline(run, headline(run))


def _picture(run: RunRecord) -> str:
    try:
        return draw_headline(run, headline(run))
    except ValueError:  # nothing to draw; the sections say which files are missing
        return ""


def _figures(run: RunRecord) -> dict[str, Figure]:
    """The figures for which the run has records, by the name under which the page places them."""

    def recorded(keys: Iterable[str]) -> bool:
        return any(series(run.metrics, key)[0] for key in keys)

    drawn = {}
    if run.summaries:
        drawn["tradeoff"] = tradeoff.tradeoff(_tradeoff_points(run.summaries))
    if recorded(curves.CURVES):
        drawn["learning"] = curves.learning_curves(run.metrics)
    if recorded(curves.EXITS):
        drawn["exits"] = curves.exit_reasons(run.metrics)
    calibrations = [part.calibration() for part in (run.after, run.before) if part is not None]
    for calibration in calibrations:
        if calibration is not None:
            drawn.setdefault("reliability", completions.reliability_diagram(calibration))
    return drawn


def _tradeoff_points(summaries: dict[str, dict[str, Any]]) -> list[tradeoff.TradeoffPoint]:
    """Both evaluations, and each family's when there are few enough to tell their markers apart."""
    measured = dict(summaries)
    if 1 < len(summaries["before"]["families"]) <= 2:
        for name, summary in summaries.items():
            measured |= {f"{family}, {name}": figures for family, figures in summary["families"].items()}
    return [
        {"name": name, "accuracy": figures["accuracy"], "tokens": figures["tokens"]}
        for name, figures in measured.items()
    ]


_MEASURES = {
    "accuracy": ("correct answers", 100, " %"),
    "tokens": ("tokens per completion", 1, ""),
    "steps": ("semantic steps", 1, ""),
    "closed": ("completions that closed their thoughts", 100, " %"),
    "truncated": ("completions cut off at the limit", 100, " %"),
}


def _sections(run: RunRecord, figures: set[str]) -> str:
    """Every section of the page, in reading order; ``figures`` names those that the page carries."""
    parts = [
        section("result", "Before and after", _result_tables(run)),
        section("tradeoff", "Accuracy against length", _figure("tradeoff", figures)),
        section("training", "Training", _signal(run) + _figure("learning", figures) + _figure("exits", figures)),
        section("reliability", "Reliability of trial answers", _figure("reliability", figures)),
        section("completions", "Completions side by side", _completions(run)),
        section("time", "Time", _time(run)),
        section("recipe", "Recipe", _recipe(run)),
        section("rerun", "How to run it again", _rerun(run)),
    ]
    return "\n".join(parts)


def _signal(run: RunRecord) -> str:
    """Steps from which nothing could be learned, if there were any, and why."""
    reasons = Counter(filter(None, map(nothing_to_learn, run.metrics)))
    if not reasons:
        return ""
    of = sum("groups/informative" in row for row in run.metrics)
    why = "; ".join(f"{reason} ({count} steps)" for reason, count in reasons.most_common())
    return note(f"In {reasons.total()} of {of} steps no group could be learned from: {escape(why)}.")


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
        "has learned to stop.",
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
    settings = run.after.settings if run.after else {}
    segmenter = None if "segmenter" in settings else MarkerSegmenter(settings.get("markers", "paper"))
    tints = "Each tint is one semantic step, with its number in front; the text after the thoughts has none. "
    legend = f"<p>{tints if segmenter else ''}The first sample of each problem is shown, whatever it was.</p>"
    return legend + "\n".join(_pair(row, segmenter) for row in run.completions[:SHOWN_COMPLETIONS])


def _pair(row: Mapping[str, Any], segmenter: MarkerSegmenter | None) -> str:
    problem = row["problem"]
    sides = "".join(_completion(side, row[side], segmenter) for side in ("before", "after"))
    return (
        f'<article><h3>{visible_text(str(problem["id"]))}</h3><p class="question">{visible_text(problem["prompt"])}</p>'
        f'<p>Gold answer: <b>{visible_text(str(row["gold"]))}</b></p><div class="pair">{sides}</div></article>'
    )


def _completion(side: str, row: Mapping[str, Any], segmenter: MarkerSegmenter | None) -> str:
    verdict = "correct" if row["correct"] else "wrong"
    count = int(row["steps"])
    figures = f"{int(row['tokens'])} tokens, {count} step{'' if count == 1 else 's'}"
    return (
        f'<div><h4>{side}: <span class="{verdict}">{verdict}</span>, {figures}</h4>'
        f'<pre tabindex="0" dir="ltr">{_tinted(row["text"], segmenter)}</pre></div>'
    )


def _tinted(text: str, segmenter: MarkerSegmenter | None) -> str:
    text, rest = text[:SHOWN_CHARACTERS], len(text) - SHOWN_CHARACTERS
    more = f'<span class="control">{rest} more characters stand in completions.jsonl</span>' if rest > 0 else ""
    steps = segmenter.split(text) if segmenter else []
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
    reused = "".join(
        note(f"{visible_text(str(phase))} was measured by an earlier run, in {float(spent):.1f} s, not counted here.")
        for phase, spent in (run.environment.get("reused") or {}).items()
    )
    return table("Seconds by phase", ["phase", "seconds"], rows) + reused


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
    noted = {
        key: value for key, value in run.environment.items() if key not in ("seconds", "reused", "versions", "command")
    }
    versions = {**(run.environment.get("versions") or {}), **noted}
    if not versions:
        return steps + note("Versions are left out: environment.json is missing or names none.")
    rows = [[str(name), _plain(value)] for name, value in versions.items()]
    return steps + table("Environment", ["what", "which"], rows)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
