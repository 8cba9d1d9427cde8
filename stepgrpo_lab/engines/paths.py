"""Where the package's data lie, and where it keeps what it can make again."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def data_path(*parts: str) -> Path:
    """Path of a file or folder of the package's data.

    A wheel carries the data inside the package (``stepgrpo_lab/data``); a checkout keeps them at its top level
    (``data/``).

    Args:
        *parts: Path components below the data folder; none gives the folder itself.

    Returns:
        An existing absolute path.

    Raises:
        FileNotFoundError: The path does not exist.

    Example:
        >>> data_path("README.md").name
        'README.md'
    """
    packaged = _PACKAGE / "data"
    root = packaged if packaged.is_dir() else _PACKAGE.parent / "data"
    path = root.joinpath(*parts)
    if not path.exists():
        raise FileNotFoundError(
            f"no {'/'.join(('data', *parts))} at {path}: restore it with `git checkout -- data` in a checkout, "
            "or with `pip install --force-reinstall --no-deps stepgrpo-lab` elsewhere"
        )
    return path


CACHE_VARIABLE = "STEPGRPO_CACHE"
"""Names the cache folder; "off" for none."""


def cache_folder() -> Path | None:
    """``stepgrpo-lab`` among the user's caches, or where ``STEPGRPO_CACHE`` says; None where that says "off".

    Example:
        >>> folder = cache_folder()
        >>> folder is None or folder.name != ""
        True
    """
    named = os.environ.get(CACHE_VARIABLE, "")
    if named.lower() == "off":
        return None
    if named:
        return Path(named).expanduser()
    if sys.platform == "win32":
        caches = os.environ.get("LOCALAPPDATA", "~/AppData/Local")
    else:
        caches = os.environ.get("XDG_CACHE_HOME") or ("~/Library/Caches" if sys.platform == "darwin" else "~/.cache")
    return Path(caches).expanduser() / "stepgrpo-lab"
