"""What every command's arguments share."""

from __future__ import annotations

import argparse
import itertools
import math
import re
import sys
from pathlib import Path
from typing import Any, NoReturn

from stepgrpo_lab.engines import ENGINES
from stepgrpo_lab.method.names import did_you_mean, listed, shown

MANY = 10**9
MOST_SAMPLES = 10_000
LAST_SEED = 2**32 - 1


class Parser(argparse.ArgumentParser):
    """A parser that says which name was probably meant, and that of a command where an option is unknown."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = listed(action.choices)
            raise argparse.ArgumentError(
                action, f"invalid choice: {shown(value)} (choose from {known}){did_you_mean(value, action.choices)}"
            )

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As the class below; keeps the arguments for :meth:`error`."""
        self.given = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """End with the usage; what an unknown option made argparse stumble over is not the mistake to name."""
        super().error(self._unknown_option() or message)

    def _unknown_option(self) -> str | None:
        if not self.get_default("function"):
            return None  # the options are the command's
        known = [*re.findall(r"--[\w-]+", self.format_usage()), "--help"]
        for argument in itertools.takewhile(lambda argument: argument != "--", self.given):
            name = argument.partition("=")[0]
            if name.startswith("--") and not any(option.startswith(name) for option in known):
                return f"unknown option {shown(name)}{did_you_mean(name, known) or f' (options: {listed(known)})'}"
        return None


def place(text: str) -> Path:
    """A path; an empty one, as an unset variable of the shell leaves it, would be the current folder.

    Raises:
        argparse.ArgumentTypeError: It is empty.
    """
    if not text:
        raise argparse.ArgumentTypeError("the name is empty: give a file or folder, or . for this one")
    return Path(text)


class NumberOption(argparse.Action):
    """An option whose value is a number in a range; another value is refused in one line, before anything is done.

    Args:
        within: Lowest and highest value.
        whole: Whether it must be a whole number.
    """

    def __init__(self, *args: Any, within: tuple[float, float], whole: bool, **more: Any) -> None:
        super().__init__(*args, **more)
        self.within, self.whole = within, whole

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        """Keep the number.

        Raises:
            ValueError: It is none, or out of range.
        """
        low, high = self.within
        try:
            number = int(values) if self.whole else float(values)
        except ValueError:
            number = math.nan
        if not low <= number <= high:
            kind = "a whole number" if self.whole else "a number"
            given = values if re.fullmatch(r"[+-]?[\w.]{1,40}", values) else shown(values)
            example = low if self.default is None else self.default
            raise ValueError(f"{option_string} is {given}: give {kind} from {low} to {high}, such as {example}")
        setattr(namespace, self.dest, number)


def add_number(
    command: argparse._ActionsContainer, name: str, low: float, high: float = MANY, *, whole: bool = True, **more: Any
) -> None:
    """Add an option that takes a number from ``low`` to ``high``."""
    command.add_argument(name, action=NumberOption, within=(low, high), whole=whole, **more)


def add_seed(command: argparse.ArgumentParser, **more: Any) -> None:
    """``--seed``."""
    add_number(command, "--seed", 0, LAST_SEED, **(more or {"default": 0, "help": "default: %(default)s"}))


def add_limit(command: argparse.ArgumentParser, default: int = 256) -> None:
    """``--limit``."""
    add_number(command, "--limit", 1, default=default, help="completion limit in tokens (default: %(default)s)")


def add_temperature(command: argparse.ArgumentParser, default: float) -> None:
    """``--temperature``."""
    add_number(command, "--temperature", 0, 10, whole=False, default=default, help="default: %(default)s")


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    function: str,
    help_text: str,
    example: str,
) -> argparse.ArgumentParser:
    """Add a command.

    Args:
        commands: The parser's commands.
        name, help_text, example: What people see.
        function: What carries it out: a name in ``stepgrpo_lab.cli._commands``, or "module.name" in another module.
    """
    command = commands.add_parser(
        name,
        help=help_text,
        description=help_text[0].upper() + help_text[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(function=function, parser=command)
    command.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return command


def add_recipe_arguments(command: argparse.ArgumentParser, *, required: bool = False) -> None:
    """``--recipe`` and ``--set``."""
    default = "" if required else " (default: overthinker)"
    command.add_argument(
        "--recipe", required=required, help=f"name of a shipped recipe or path of a YAML file{default}"
    )
    command.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one value of the recipe; can be repeated",
    )


def add_engine_arguments(command: argparse.ArgumentParser) -> None:
    """``--engine``, ``--url``, ``--served-name`` and ``--self-test``."""
    command.add_argument(
        "--engine",
        choices=ENGINES,
        default="lockstep",
        help="who samples: this package's own engine, vLLM in this process, or a vLLM server (default: %(default)s)",
    )
    command.add_argument(
        "--url", default="http://127.0.0.1:8000", help="where the vLLM server listens (default: %(default)s)"
    )
    command.add_argument(
        "--served-name", metavar="NAME", help="the server's name of the model or adapter (default: its first)"
    )
    command.add_argument(
        "--self-test",
        choices=("refuse", "warn"),
        default="refuse",
        help="what becomes of a model that this package's engine does not decode rightly (default: %(default)s)",
    )
