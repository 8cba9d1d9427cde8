"""Programs that the build of the site starts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

Say = Callable[[str], None]
"""Receives a line about what is being done."""

EXTRA = "'stepgrpo-lab[site]'"
"""What pip is to install for building the site."""

MOST_SECONDS = 1800


def run_command(command: Sequence[str], folder: Path, **variables: str) -> str:
    """Run a program and return what it printed.

    Args:
        command: Program and arguments.
        folder: Where it runs.
        variables: More environment variables.

    Raises:
        ValueError: There is no such program, it failed, or it ran for half an hour; the message ends with what it said.

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
        tail = "\n".join(done.stdout.strip().splitlines()[-60:])
        raise ValueError(f"`{' '.join(map(str, command[:5]))} ...` failed with {done.returncode}:\n{tail}")
    return done.stdout


def fetch_from_npm(package: str, version: str, cache: Path) -> Path:
    """The archive of a package on npm, kept for the next time.

    Raises:
        ValueError: npm is not installed, or could not fetch it.
    """
    archive = cache / f"{package}-{version}.tgz"
    if not archive.exists():
        cache.mkdir(parents=True, exist_ok=True)
        run_command(["npm", "pack", "--silent", f"{package}@{version}"], cache)
    return archive
