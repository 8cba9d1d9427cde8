"""``stepgrpo plan`` and ``stepgrpo rate``: what comes before a training on real models."""

from __future__ import annotations

import argparse
import json
from argparse import Namespace
from pathlib import Path

from stepgrpo_lab.cli._output import StatusLine, printable
from stepgrpo_lab.cli._parsing import add_command, add_number, add_recipe_arguments
from stepgrpo_lab.engines import ENGINES

GPU_NAMES = ("T4", "L4", "A100", "H100", "H200")


def add_plan(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The arguments of ``stepgrpo plan``."""
    command = add_command(
        commands,
        "plan",
        "scaling.plan",
        "say how much memory a recipe takes on a GPU, whether it fits, and what to change when it does not",
        "stepgrpo plan --recipe qwen3-8b-lora-a100 --gpu L4",
    )
    add_recipe_arguments(command, required=True)
    command.add_argument("--gpu", choices=GPU_NAMES, help="default: the recipe's")
    add_number(command, "--gpus", 1, 100_000, metavar="N", help="how many of them (default: the recipe's)")
    command.add_argument(
        "--engine",
        choices=ENGINES,
        help="who samples: the trained model, a second copy beside it, or one on other GPUs (default: the recipe's)",
    )
    add_number(command, "--prompt-tokens", 1, default=512, help="longest prompt (default: %(default)s)")
    command.add_argument("--json", action="store_true", help="print the plan as JSON")


def add_rate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The arguments of ``stepgrpo rate``."""
    command = add_command(
        commands,
        "rate",
        "scaling.rate",
        "measure how often a recipe's untrained model solves each training problem, to select among them (resumable)",
        "stepgrpo rate --recipe qwen3-8b-full-8xh100",
    )
    add_recipe_arguments(command, required=True)


def plan(options: Namespace) -> int:
    """``stepgrpo plan``; the exit code is 0 also where the recipe does not fit."""
    from stepgrpo_lab.cli.quiet import hush
    from stepgrpo_lab.planning import plan_memory
    from stepgrpo_lab.planning.views import plan_lines
    from stepgrpo_lab.recipes import load_recipe
    from stepgrpo_lab.recipes._launching import launch_line

    hush()
    recipe = load_recipe(options.recipe, options.overrides)
    launch = launch_line(recipe, options.recipe, options.overrides)
    planned = plan_memory(
        recipe, gpu=options.gpu, gpus=options.gpus, engine=options.engine, prompt_tokens=options.prompt_tokens
    )
    if options.json:
        print(json.dumps({**planned.to_json(), "launch": launch}))
    else:
        print(printable("\n".join([*plan_lines(planned), f"launch: {launch}"])))
    return 0


def rate(options: Namespace) -> int:
    """``stepgrpo rate``."""
    from stepgrpo_lab.cli.quiet import hush, quiet
    from stepgrpo_lab.recipes import load_recipe

    hush()
    recipe = load_recipe(options.recipe, options.overrides)
    chosen = recipe.data.pass_rates
    if chosen is None:
        raise ValueError(f"recipe {recipe.name!r} has no data.pass_rates: add --set data.pass_rates.samples=8")
    quiet()
    from stepgrpo_lab.engines.hub import loading_options
    from stepgrpo_lab.engines.models import mixed_precision
    from stepgrpo_lab.engines.writers import Writer
    from stepgrpo_lab.evaluation.grading import Grader
    from stepgrpo_lab.evaluation.selection import PassRate, append_pass_rates, measure_pass_rates, read_pass_rates
    from stepgrpo_lab.method.sampling import Sampling
    from stepgrpo_lab.recipes._building import check_engine, recipe_model, recipe_problems, sampling_engine
    from stepgrpo_lab.run.folder import check_file

    loading_options(recipe.model.path)
    check_engine(recipe)
    check_file(Path(chosen.file))
    path, status = Path(chosen.file), StatusLine()
    problems = recipe_problems(recipe.data.train, recipe.data.counts.train)
    known = read_pass_rates(path) if path.exists() else {}
    done = sum(problem.id in known for problem in problems)

    def keep(rates: list[PassRate]) -> None:
        nonlocal done
        done += len(rates)
        append_pass_rates(path, rates)
        status(f"{done}/{len(problems)} problems")

    model, tokenizer = recipe_model(recipe)
    with (
        Writer.beside(path),
        Grader(timeout=recipe.reward.grading_timeout) as grader,
        mixed_precision(model, recipe.optimisation.mixed_precision),
        sampling_engine(recipe, model, tokenizer) as engine,
    ):
        measure_pass_rates(
            model,
            tokenizer,
            problems,
            grader,
            samples=chosen.samples,
            limit=recipe.rollout.max_tokens,
            sampling=Sampling(recipe.rollout.temperature),
            seed=recipe.seed,
            rows=recipe.evaluation.rows or recipe.rollout.rows,
            suffix=recipe.data.suffix,
            known=known,
            on_batch=keep,
            engine=engine,
        )
    status.end()
    rates = read_pass_rates(path)
    found = [rates[problem.id].rate for problem in problems]
    kept = sum(chosen.least <= rate <= chosen.most for rate in found)
    print(f"{kept} of {len(found)} problems have a pass rate from {chosen.least:g} to {chosen.most:g} ", end="")
    print(f"({sum(rate == 0 for rate in found)} never solved, {sum(rate == 1 for rate in found)} always)")
    print(f"written: {printable(str(path))}")
    return 0
