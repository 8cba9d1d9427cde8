"""The comparison as one HTML page."""

from __future__ import annotations

from stepgrpo_lab.experiments.figures import comparison_figures
from stepgrpo_lab.experiments.results import ComparisonRecord
from stepgrpo_lab.experiments.tables import KINDS, Table, comparison_tables, conditions
from stepgrpo_lab.viz.html import figure, render_page, section, table

CAPTIONS = {
    "tradeoff": "Mean tokens (across) and share of right answers (up) with 95 % intervals; vanilla is the untrained "
    "model. Up and to the left is better.",
    "labels": "What the steps of a completion were good for, by their true label, mean per completion.",
    "curves": "Plain decoding on validation problems while the first seed of each method trained.",
}
"""Caption of each figure; those of the exits share one."""

EXITS_CAPTION = "Why the thoughts ended in training rollouts of the first seed."


def comparison_page(record: ComparisonRecord) -> str:
    """The whole comparison as a self-contained HTML page, readable without a network."""
    figures = comparison_figures(record)
    tables = comparison_tables(record)
    main = [each for each in tables if each.caption in KINDS.values()]
    rest = [each for each in tables if each not in main]
    glance = "".join(figure(name, CAPTIONS[name]) for name in figures if name in CAPTIONS)
    exits = "".join(figure(name, EXITS_CAPTION) for name in figures if name not in CAPTIONS)
    sections = [
        section("glance", "At a glance", glance),
        section("rows", "Every row", "".join(map(_html, main))),
        section("details", "In detail", "".join(map(_html, rest))),
        section("exits", "Exits over time", exits),
    ]
    return render_page(
        kicker="Comparison on the Overthinker",
        heading="Step-GRPO and its alternatives",
        lead=conditions(record),
        caveat="A miniature: a model of a million parameters on generated problems. It shows mechanisms, no more.",
        sections="\n".join(sections),
        figures=figures,
    )


def _html(shown: Table) -> str:
    return table(shown.caption, shown.head, shown.rows, small_bounds=True)
