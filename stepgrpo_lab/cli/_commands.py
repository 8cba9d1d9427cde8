"""What each command does."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from argparse import Namespace
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from stepgrpo_lab.cli._output import StatusLine, printable, result_lines, rollout_lines
from stepgrpo_lab.cli.quiet import hush, quiet
from stepgrpo_lab.engines.distributed import is_main_process
from stepgrpo_lab.engines.signals import exit_code
from stepgrpo_lab.method.records import Problem

if TYPE_CHECKING:
    from stepgrpo_lab.engines.completions import Decoding
    from stepgrpo_lab.experiments.plan import Experiment
    from stepgrpo_lab.experiments.record import Record

GENERATED_PROBLEMS = 1000


def train(options: Namespace) -> int:
    """``stepgrpo train``."""
    if is_main_process():
        return _train(options)
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):  # one process speaks for all
        return _train(options)


def _train(options: Namespace) -> int:
    from stepgrpo_lab.recipes import load_recipe

    given = (options.recipe, options.seed, options.output)
    if options.resume and (options.overrides or any(value is not None for value in given)):
        raise ValueError("--resume goes on with the run's own recipe: drop --recipe, --set, --seed and --output")
    hush()
    recipe, folder = None, options.resume
    if not options.resume:
        seed = [] if options.seed is None else [f"seed={options.seed}"]
        recipe = load_recipe("overthinker" if options.recipe is None else options.recipe, [*options.overrides, *seed])
        folder = options.output or Path("runs") / f"{recipe.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    quiet()
    from stepgrpo_lab.evaluation.results import compare
    from stepgrpo_lab.run import job as run

    status = StatusLine()
    named = iter([f"run folder: {printable(str(folder))}"])

    def progress(line: str) -> None:
        for name in named:  # with the first line, so that a start that is refused names no folder
            print(name, flush=True)
        status(line)

    try:
        result = run.train(
            recipe, folder, resume=recipe is None, progress=progress, progress_every=1 if status.live else 10
        )
    except KeyboardInterrupt:
        status.end()
        if (folder / "recipe.yaml").exists():
            print(f"stopped without saving; go on from the last checkpoint: stepgrpo train --resume {_word(folder)}")
        raise
    finally:
        status.end()
    if result.after is None:
        print(f"stopped and saved; go on with: stepgrpo train --resume {_word(folder)}")
        return exit_code(result.signal)
    comparison = compare(result.before, result.after)
    print(f"accuracy {result.before.mean('correct'):.1%} -> {result.after.mean('correct'):.1%}", end="")
    print(f" (difference {comparison.accuracy_points} points)")
    print(f"tokens   {result.before.mean('tokens'):.1f} -> {result.after.mean('tokens'):.1f}", end="")
    print(f" (ratio {comparison.token_ratio * 100} %)")
    print(f"report: {printable(str(folder / 'report.html'))}")
    print(f"model:  {printable(str(folder / 'model'))}")
    return 0


def _word(path: Path) -> str:
    """A path as one word of a command that is printed."""
    text = str(path)
    return printable(shlex.quote(f"./{text}" if text.startswith("-") else text))


def evaluate(options: Namespace) -> int:
    """``stepgrpo evaluate``."""
    quiet()
    from stepgrpo_lab.cli._engines import check_engine, opened_engine
    from stepgrpo_lab.evaluation import evaluating as evaluation
    from stepgrpo_lab.method.rollout import Sampling, rollout_settings
    from stepgrpo_lab.overthinker.tasks import LABORATORIES
    from stepgrpo_lab.recipes._building import recipe_problems
    from stepgrpo_lab.recipes._rules import check_source

    options.data = options.data or own_problems(options.model)
    generated = options.data.partition(":")[0] in LABORATORIES
    count = GENERATED_PROBLEMS if generated and options.count is None else options.count
    check_source(options.data, count)
    check_engine(options)
    problems = recipe_problems(options.data, count)
    status = StatusLine()

    def show_progress(done: int, total: int) -> None:
        if status.live and not options.json:
            status(f"{done}/{total} completions")

    with opened_engine(options) as (engine, tokenizer):
        measured = evaluation.evaluate(
            None,
            tokenizer,
            problems,
            samples=options.samples,
            limit=options.limit,
            sampling=Sampling(options.temperature, options.top_p, options.top_k),
            settings=rollout_settings(options.deer, markers=options.markers, stop_decided=True)
            if options.deer
            else None,
            seed=options.seed,
            markers=options.markers,
            suffix=options.suffix,
            progress=show_progress,
            engine=engine,
        )
    status.end()
    summary = measured.summary()
    if options.json:
        print(json.dumps({**summary, "settings": measured.settings}, default=asdict))
    else:
        print("\n".join(result_lines(summary)))
    return 0


def benchmark(options: Namespace) -> int:
    """``stepgrpo benchmark``."""
    quiet()
    from stepgrpo_lab.cli._engines import check_engine, opened_engine
    from stepgrpo_lab.evaluation.benchmarks import PAPER_SUITE, check_suite, evaluate_suite, suite_problems, suite_table

    names = options.sets or list(PAPER_SUITE)
    check_suite(names, options.folder)
    check_engine(options)
    problems = {name: suite_problems(name, options.folder, count=options.count) for name in names}
    status = StatusLine()

    def show_progress(name: str, done: int, total: int) -> None:
        if status.live:
            status(f"{name}: {done}/{total} completions")

    with opened_engine(options, dtype=options.dtype, rows=options.rows) as (engine, tokenizer):
        measured = evaluate_suite(
            None,
            tokenizer,
            problems,
            samples=options.samples,
            limit=options.limit,
            seed=options.seed,
            progress=show_progress,
            engine=engine,
        )
    status.end()
    print(suite_table(measured))
    return 0


def own_problems(model: str) -> str:
    """The test problems that a model is asked by default: those of its laboratory, which its run's recipe names."""
    from stepgrpo_lab.engines.hub import EMBEDDED
    from stepgrpo_lab.overthinker.tasks import LABORATORIES, laboratory_of
    from stepgrpo_lab.recipes import load_recipe

    if model in EMBEDDED:
        return f"{laboratory_of(model)}:test"
    folder = Path(model).resolve()
    if folder.name == "model":
        folder = folder.parent
    elif folder.parent.name == "checkpoints":
        folder = folder.parent.parent
    recipe = folder / "recipe.yaml"
    source = load_recipe(recipe).data.test if recipe.is_file() else ""
    return source if source.partition(":")[0] in LABORATORIES else "overthinker:test"


def rollout(options: Namespace) -> int:
    """``stepgrpo rollout``."""
    quiet()
    from stepgrpo_lab.cli._engines import check_engine, opened_engine
    from stepgrpo_lab.engines.tokenizers import encode_prompt, thinks
    from stepgrpo_lab.evaluation.grading import Grader
    from stepgrpo_lab.method.boxes import extract_boxed
    from stepgrpo_lab.method.sampling import SampleKey

    decoding = _take_recipe(options) if options.recipe or options.overrides else _decoding(options)
    check_engine(options)
    problem = _problem(options)
    with opened_engine(options) as (engine, tokenizer):
        if decoding.settings is not None and not options.force_close and not thinks(tokenizer):
            print("no reasoning model: it knows no </think>, so this is plain decoding (--force-close truncates it)")
            decoding = replace(decoding, settings=None)
        [trajectory], _ = engine.generate(
            [encode_prompt(tokenizer, problem.prompt, options.suffix)],
            decoding,
            keys=[SampleKey(options.seed, "eval", 0, 0)],
        )
    correct = None
    if problem.answer:
        with Grader() as grader:
            [correct] = grader.grade([extract_boxed(trajectory.text)], [problem.answer])
    print("\n".join(rollout_lines(problem, trajectory, engine.token_text, correct)))
    return 0


def _decoding(options: Namespace) -> Decoding:
    """How the options say that a rollout decodes."""
    from stepgrpo_lab.engines.completions import Decoding
    from stepgrpo_lab.method.rollout import Sampling, rollout_settings

    options.model = options.model or "overthinker"
    options.data = options.data or own_problems(options.model)
    changes = {} if options.threshold is None else {"exit_threshold": options.threshold}
    settings = rollout_settings(options.preset, markers=options.markers, **changes)
    return Decoding(options.limit, settings, Sampling(options.temperature, options.top_p, options.top_k))


def _take_recipe(options: Namespace) -> Decoding:
    """How a recipe's training decodes; its model, problems, suffix and seed go into the options."""
    from stepgrpo_lab.engines.completions import Decoding
    from stepgrpo_lab.method.sampling import Sampling
    from stepgrpo_lab.recipes import load_recipe

    recipe = load_recipe(options.recipe or "overthinker", options.overrides)
    options.model = options.model or recipe.model.path
    options.data, options.suffix, options.seed = recipe.data.train, recipe.data.suffix, recipe.seed
    options.self_test = recipe.model.self_test
    options.force_close = options.force_close or recipe.rollout.force_close
    settings = recipe.rollout.settings if recipe.rollout.dynamic else None
    return Decoding(recipe.rollout.max_tokens, settings, Sampling(recipe.rollout.temperature))


def _problem(options: Namespace) -> Problem:
    """The problem that the options name.

    Raises:
        ValueError: The data has not so many.
    """
    from stepgrpo_lab.recipes._building import recipe_problems
    from stepgrpo_lab.recipes._rules import source_fault

    if options.problem is not None:
        return Problem(id="own", prompt=options.problem, answer="")
    if fault := source_fault(options.data):
        raise ValueError(f"--data is {fault}")
    problems = recipe_problems(options.data, options.index + 1)
    if options.index >= len(problems):
        raise ValueError(f"--index is {options.index}: {options.data} has {len(problems)} problems, counted from 0")
    return problems[options.index]


def export(options: Namespace) -> int:
    """``stepgrpo export``."""
    quiet()
    from stepgrpo_lab.run.folder import export_model

    print(f"written: {printable(str(export_model(options.run, options.output)))}")
    return 0


def fetch(options: Namespace) -> int:
    """``stepgrpo fetch``."""
    quiet()
    from stepgrpo_lab.engines.fetching import fetch_model
    from stepgrpo_lab.run.folder import new_parts

    if options.output:
        new_parts(options.output)
    print(f"here: {printable(str(fetch_model(options.model, options.output)))}")
    return 0


def report(options: Namespace) -> int:
    """``stepgrpo report``."""
    from stepgrpo_lab.run.folder import check_file, check_is_run
    from stepgrpo_lab.run.report import headline_svg, summary_markdown, write_report

    check_is_run(options.run)
    if options.picture:
        check_file(options.picture)
    written = [write_report(options.run)]
    if options.picture:
        options.picture.write_text(headline_svg(options.run), encoding="utf-8")
        written.append(options.picture)
    if (options.run / "evaluation_after.json").exists():  # an interrupted run has no result yet
        print(printable(summary_markdown(options.run)))
    print("\n".join(f"written: {printable(str(path))}" for path in written))
    return 0


def reproduce(options: Namespace) -> int:
    """``stepgrpo reproduce``: :func:`compare` under its old name."""
    from stepgrpo_lab.cli import parse

    arguments = ["compare", options.table]
    if options.row is not None:
        arguments += ["--row", _row_name(options.table, options.row)]
    if options.output:
        arguments += ["--output", str(options.output)]
    print(f"stepgrpo reproduce is now: stepgrpo {printable(shlex.join(arguments))}", file=sys.stderr)
    return compare(parse(arguments))


def _row_name(table: str, row: str) -> str:
    """The name of a row, or of one that version 0.1 called by its title and seed."""
    from stepgrpo_lab.experiments.plan import find_experiment

    title = row.partition(", seed ")[0]
    return next((each.name for each in find_experiment(table).rows if each.title == title), row)


def compare(options: Namespace) -> int:
    """``stepgrpo compare``."""
    from stepgrpo_lab.experiments.plan import EXPERIMENTS, file_stem, find_experiment
    from stepgrpo_lab.experiments.rows import find_rows

    if options.list:
        for each in EXPERIMENTS.values():
            print(f"{each.name}: {each.question}")
            print("\n".join(f"  {row.name:<22} {row.kind:<10} {row.title}" for row in each.rows))
        return 0
    experiment = find_experiment(options.table)
    find_rows(options.rows, experiment.rows)
    quiet()
    from stepgrpo_lab.experiments._page import write_published
    from stepgrpo_lab.experiments.tables import headline_markdown, scope

    folder = options.output or Path("runs") / experiment.folder
    record = write_published(folder, experiment.name) if options.published else _run(experiment, folder, options)
    print(printable(f"{headline_markdown(record)}\n\n{scope(record)}"))
    print(f"written: {printable(str(folder / file_stem(experiment.name)))}.html")
    return 0


def _run(experiment: Experiment, folder: Path, options: Namespace) -> Record:
    from stepgrpo_lab.experiments.run import run_experiment

    status = StatusLine()
    try:
        return run_experiment(
            experiment,
            folder,
            options.rows,
            hours=options.hours,
            overrides=options.overrides,
            progress=status,
            progress_every=1 if status.live else 10,
        )
    except KeyboardInterrupt:
        status.end()
        print("stopped; what is done is kept: run the same command to go on")
        raise
    finally:
        status.end()
