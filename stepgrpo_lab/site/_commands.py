"""Programs that the build of the site starts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

Say = Callable[[str], None]
"""Receives a line about what is being done."""

MOST_SECONDS = 1800


def run_command(command: Sequence[str], folder: Path, **variables: str) -> str:
    """Run a program and return what it printed.

    Args:
        command: Program and arguments.
        folder: Where it runs.
        variables: More environment variables.

    Raises:
        ValueError: There is no such program, it failed, or it ran for half an hour; the message ends with its last lines.

    Example:
        >>> import sys
        >>> run_command([sys.executable, "-c", "print(2 + 2)"], Path())
        '4\\n'
    """
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=MOST_SECONDS,
            env={**os.environ, **variables},
        )
    except FileNotFoundError as error:
        raise ValueError(f"{command[0]} is not installed: the site cannot be built without it") from error
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"{command[0]} took more than {MOST_SECONDS} s") from error
    if done.returncode:
        tail = "\n".join(done.stdout.strip().splitlines()[-20:])
        raise ValueError(f"`{' '.join(map(str, command[:5]))} ...` failed with {done.returncode}:\n{tail}")
    return done.stdout
