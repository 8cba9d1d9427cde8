"""What every command's arguments share."""

from __future__ import annotations

import argparse

from stepgrpo_lab.engines import ENGINES


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
    command.set_defaults(function=function)
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
    """``--engine``, ``--url`` and ``--served-name``."""
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
