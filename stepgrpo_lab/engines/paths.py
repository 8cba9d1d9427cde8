"""Where the package's data lie."""

from __future__ import annotations

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
