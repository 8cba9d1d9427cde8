"""``python -m stepgrpo_lab`` is the command ``stepgrpo``."""

from __future__ import annotations

import sys

from stepgrpo_lab.cli import main

if __name__ == "__main__":
    sys.exit(main())
