"""The report of a run: one HTML file, a small Markdown table and one picture, all from the run folder's files alone."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepgrpo_lab.evaluation.evaluation_records import Evaluation
from stepgrpo_lab.evaluation.statistics import points, ratio
from stepgrpo_lab.run import report_html
from stepgrpo_lab.run.report_files import RunRecord, read_run
from stepgrpo_lab.run.report_svg import draw_headline
from stepgrpo_lab.viz import completions, curves, tradeoff
from stepgrpo_lab.viz.curves import series
from stepgrpo_lab.viz.html import render_page

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


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
        sections=report_html.sections(run, set(figures)),
        figures=figures,
    )
    path = Path(run_folder) / "report.html"
    path.write_text(page, encoding="utf-8", newline="\n")
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
    decoding = f"truncated rollout, preset {rollout['preset']}" if rollout else "plain decoding"
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
        f"| {_markdown(run.model)}, {name} | {figures['tokens']} | {figures['accuracy'] * 100} % |"
        for name, figures in run.summaries.items()
    ]
    return "\n".join(
        [
            "| model | tokens | accuracy |",
            "| --- | --- | --- |",
            *rows,
            f"| change | {ratio(comparison.token_ratio)} | {points(comparison.accuracy_points)} points |",
            "",
            f"{comparison.problems} problems, {conditions(run.after)}; brackets: 95 % intervals over problems.",
            "",
        ]
    )


def headline_svg(run_folder: Path | str) -> str:
    """The result as one SVG picture; see :mod:`stepgrpo_lab.run.report_svg`.

    Raises:
        ValueError: The folder holds nothing to draw, or a broken file.
    """
    run = read_run(run_folder)
    return draw_headline(run, headline(run))


def _markdown(text: str) -> str:
    """Text that cannot end its table cell or become markup."""
    return escape(text, quote=False).replace("|", "\\|").replace("\n", " ")


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
