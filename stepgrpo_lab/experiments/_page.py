"""A record as one HTML page, and all its files."""

from __future__ import annotations

from pathlib import Path

from stepgrpo_lab.engines.files import write_atomically
from stepgrpo_lab.experiments.pictures import CURVE_FIGURES, draw_record, record_figures
from stepgrpo_lab.experiments.plan import file_stem
from stepgrpo_lab.experiments.record import Record, load_record
from stepgrpo_lab.experiments.tables import KINDS, Table, conditions, record_markdown, record_tables
from stepgrpo_lab.viz._html import figure, render_page, section, table

CAPTIONS = {
    "tradeoff": "Mean tokens (across) and share of right answers (up) with 95 % intervals; vanilla is the untrained "
    "model. Up and to the left is better.",
    "labels": "The steps of a completion by their true label, mean per completion.",
    **{name: caption for name, (_, caption) in CURVE_FIGURES.items()},
}
"""Caption of each figure; those of the exits share one."""

EXITS_CAPTION = "Why the thoughts ended in training rollouts of the first seed."


def record_page(record: Record) -> str:
    """The whole record as a self-contained HTML page, readable without a network."""
    figures = record_figures(record)
    tables = record_tables(record)
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


def write_record(folder: Path, record: Record) -> list[Path]:
    """Write the record (``.json``) and what is made of it (``.md``, ``.svg``, ``.html``); returns the files."""
    stem = file_stem(record.experiment)
    texts = {".json": record.text(), ".md": record_markdown(record)}
    if any(row.kind in ("untrained", "method") for row in record.rows):
        texts[".svg"] = draw_record(record)
    texts[".html"] = record_page(record)
    for ending, text in texts.items():
        write_atomically(folder / f"{stem}{ending}", text)
    return [folder / f"{stem}{ending}" for ending in texts]


def write_published(folder: str | Path, experiment: str) -> Record:
    """Write a record that comes with the package: its tables, its picture and its page with all figures.

    Raises:
        ValueError: The folder holds runs of its own, or the package has no such record.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_published(folder, "sweep").rows[0].title
        'the recipe'
    """
    folder = Path(folder)
    if (folder / "plan.json").exists():
        raise ValueError(f"{folder} holds runs of its own: give another folder with --output")
    record = load_record(experiment)
    folder.mkdir(parents=True, exist_ok=True)
    write_record(folder, record)
    return record
