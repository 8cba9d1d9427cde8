"""``python -m stepgrpo_lab`` is the command ``stepgrpo``."""

from __future__ import annotations

import signal
import sys


def main() -> int:
    """Run the command; Ctrl-C before it has begun, or while the interpreter ends, ends the process without a word."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from stepgrpo_lab.cli import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
