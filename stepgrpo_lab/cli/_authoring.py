"""Commands that make what the package carries: recordings, the embedded model, the notebooks."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepgrpo_lab._imports import require
from stepgrpo_lab.cli._output import StatusLine, bar, printable
from stepgrpo_lab.cli.quiet import quiet

if TYPE_CHECKING:
    from stepgrpo_lab.engines.completions import RolloutEngine


def record(options: Namespace) -> int:
    """``stepgrpo record``."""
    quiet()
    from stepgrpo_lab.cli._commands import own_problems
    from stepgrpo_lab.cli._engines import opened_engine
    from stepgrpo_lab.engines.hub import loading_options, model_location
    from stepgrpo_lab.engines.vllm_engine import check_vllm
    from stepgrpo_lab.engines.writers import Writer
    from stepgrpo_lab.recipes import load_recipe
    from stepgrpo_lab.recipes._building import recipe_config
    from stepgrpo_lab.recordings.making import record_survey, record_trajectories
    from stepgrpo_lab.run.folder import check_file

    laboratory = own_problems(options.trained).partition(":")[0]
    models = {"untrained": model_location(options.untrained or laboratory), "trained": model_location(options.trained)}
    for model in reversed(models.values()):
        loading_options(model)
    if options.engine == "vllm":
        check_vllm("--engine")
    check_file(options.output)
    config = recipe_config(load_recipe(laboratory), options.output.parent)
    record_all = record_trajectories if options.survey is None else partial(record_survey, problems=options.survey)
    status = StatusLine()

    @contextmanager
    def vllm_of(path: str | Path) -> Iterator[RolloutEngine]:
        with opened_engine(Namespace(engine="vllm", model=str(path)), dtype="float32") as (engine, _):
            yield engine

    try:
        with Writer.beside(options.output):
            path = record_all(
                models,
                options.output,
                settings=config.rollout,
                limit=config.max_completion_length,
                seed=options.seed,
                progress=status,
                laboratory=laboratory,
                opened=None if options.engine == "lockstep" else vllm_of,
            )
    finally:
        status.end()
    print(f"written: {printable(str(path))} ({path.stat().st_size // 1000} kB)")
    return 0


def build_overthinker(options: Namespace) -> int:
    """``stepgrpo overthinker build``."""
    quiet()
    from stepgrpo_lab.authoring.overthinker.build import BUILDS, build_overthinker
    from stepgrpo_lab.engines.writers import Writer, is_unused
    from stepgrpo_lab.run.folder import new_parts

    new_parts(options.output)
    if not is_unused(options.output) and not (options.output / "build").is_dir():
        raise ValueError(f"{options.output} is not empty, and no earlier build lies there: give another --output")
    settings = BUILDS[options.laboratory](seed=options.seed)
    with _progress_line() as show_progress, Writer.in_folder(options.output):
        build_overthinker(options.output, settings, progress=show_progress)
    print(f"written: {printable(str(options.output))}")
    return 0


def measure_gates(options: Namespace) -> int:
    """``stepgrpo overthinker gates``."""
    quiet()
    from stepgrpo_lab.authoring.overthinker.gates import BOUNDS, TRAINED_BOUNDS, leap_gates, measure_trained
    from stepgrpo_lab.authoring.overthinker.leap_card import gates_table, leap_figures, untrained_leaps
    from stepgrpo_lab.engines.files import write_atomically
    from stepgrpo_lab.engines.models import load_model
    from stepgrpo_lab.run.folder import check_file

    if options.output:
        check_file(options.output)
    model, tokenizer = load_model(options.model, device="cpu")
    figures: dict[str, Any]
    with _progress_line() as show_progress:
        if options.trained:
            figures = measure_trained(
                model, tokenizer, untrained_leaps(), options.count, seed=options.seed, progress=show_progress
            )
            gates = leap_gates(figures, TRAINED_BOUNDS)
        else:
            figures = leap_figures(model, tokenizer, options.count, seed=options.seed, progress=show_progress)
            gates = leap_gates(figures["gated"], BOUNDS)
    if options.output:
        write_atomically(options.output, json.dumps(figures, indent=1) + "\n")
    print(gates_table(gates))
    return 0 if all(gate.passed for gate in gates) else 1


@contextmanager
def _progress_line() -> Iterator[Callable[[str, int, int, float], None]]:
    """Shows how far a build or a measurement is."""
    status = StatusLine()

    def show_progress(stage: str, done: int, total: int, loss: float) -> None:
        if status.live or done % max(1, total // 10) == 0:
            status(f"{bar(done, total)} {stage} {done}/{total}" + f", loss {loss:.3f}" * (loss > 0))

    try:
        yield show_progress
    finally:
        status.end()


def build_notebooks(options: Namespace) -> int:
    """``stepgrpo notebooks build``."""
    packages = ("jupytext", "nbformat", "nbclient", "ipykernel", "kaleido", "ipywidgets", "anywidget")
    require("building notebooks", *packages, install="'stepgrpo-lab[authoring,notebooks]'")
    from stepgrpo_lab.authoring.notebooks.building import build_notebooks as build

    def show_progress(name: str) -> None:
        print(f"building {printable(name)}")

    how = {"fast": options.fast, "keep_outputs": options.keep_outputs}
    for path in build(options.root, options.names, **how, progress=show_progress):
        print(f"written: {printable(str(path))} ({path.stat().st_size // 1000} kB)")
    return 0


def check_notebooks(options: Namespace) -> int:
    """``stepgrpo notebooks check``."""
    require("checking notebooks", "jupytext", "nbformat", install="'stepgrpo-lab[authoring]'")
    from stepgrpo_lab.authoring.notebooks.linting import lint_course

    findings = lint_course(options.root)
    print("\n".join(map(printable, findings) if findings else ["every notebook is as its script builds it"]))
    return 1 if findings else 0


def grade(options: Namespace) -> int:
    """``stepgrpo grade``."""
    from stepgrpo_lab.authoring.notebooks.grading import Row, grade_folder, table
    from stepgrpo_lab.engines.files import write_atomically
    from stepgrpo_lab.run.folder import check_file

    for folder in (options.folder, options.course):
        if not folder.is_dir():
            raise ValueError(f"{folder} is no folder")
    if options.output:
        check_file(options.output)
    print("This runs the code of the notebooks that you grade, with your rights and in no sandbox.", file=sys.stderr)
    status = StatusLine()

    def show_progress(row: Row) -> None:
        status(f"{row.path}: {sum(row.earned.values()):g} of {row.out_of:g}")

    rows = grade_folder(
        options.folder,
        options.course,
        seconds=options.seconds,
        memory=int(options.memory) * 1024**3,
        progress=show_progress if options.output or status.live else None,
    )
    status.end()
    if options.output:
        write_atomically(options.output, table(rows))
        print(f"written: {printable(str(options.output))} ({len(rows)} notebooks)")
    else:
        print(table(rows), end="")
    return 0


def build_site(options: Namespace) -> int:
    """``stepgrpo site``."""
    quiet()
    from stepgrpo_lab.engines.paths import cache_folder
    from stepgrpo_lab.site import LIVE_MODELS, build_site

    models = LIVE_MODELS
    if options.models:
        if wrong := [given for given in options.models if not all(given.partition("="))]:
            raise ValueError(f"--model {wrong[0]}: give NAME=MODEL, such as untrained=overthinker-2")
        models = {name: model for name, _, model in (given.partition("=") for given in options.models)}
    cache = options.cache or (cache_folder() or Path("build")) / "site"

    def say(line: str) -> None:
        print(printable(line), flush=True)

    build_site(options.root, options.output, options.parts, cache=cache, models=models, say=say)
    print(f"written: {printable(str(options.output))}")
    return 0
