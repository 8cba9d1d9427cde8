"""Ctrl-C, SIGTERM and SIGHUP are one wish: stop in order.

Schedulers and containers send SIGTERM before they kill, and a terminal that is closed sends SIGHUP.

Only the main thread receives signals. One that is ignored stays so: that is how ``nohup`` keeps a program running.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

Handlers = dict[int, Any]

TO_STOP = tuple(int(getattr(signal, name)) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Numbers of the signals that ask a program to stop; Windows lacks SIGHUP."""


class Stopped(KeyboardInterrupt):
    """SIGTERM or SIGHUP, where Ctrl-C is a ``KeyboardInterrupt``.

    Attributes:
        signal: Its number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.signal = number


class RunStopped(InterruptedError):
    """A signal has stopped a run in order, and what is done of it is saved.

    Attributes:
        signal: Its number; None if it was no signal, but a button.
    """

    def __init__(self, message: str, number: int | None) -> None:
        super().__init__(message)
        self.signal = number


def raise_stop(number: int, frame: FrameType | None = None) -> None:
    """A handler that stops at once.

    Raises:
        KeyboardInterrupt: After Ctrl-C.
        Stopped: After another signal.
    """
    raise KeyboardInterrupt if number == signal.SIGINT else Stopped(number)


def exit_code(number: int | None) -> int:
    """The exit code of a program that a signal has stopped, as shells expect it; 0 without a signal.

    Example:
        >>> exit_code(2), exit_code(15), exit_code(None)
        (130, 143, 0)
    """
    return 128 + number if number else 0


def take_signals(handler: Callable[[int, Any], None]) -> Handlers:
    """Let a handler hear what asks to stop; returns who heard it before, for :func:`give_back_signals`."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    heard = {number: signal.getsignal(number) for number in TO_STOP}
    return {number: signal.signal(number, handler) for number, before in heard.items() if before != signal.SIG_IGN}


def give_back_signals(handlers: Handlers) -> None:
    """Give signals back to who heard them before."""
    for number, handler in handlers.items():
        signal.signal(number, signal.SIG_DFL if handler is None else handler)


def is_importing(frame: FrameType | None) -> bool:
    """Whether one of our functions is importing something where a signal arrives.

    An error raised there is lost in whatever a library tries to import, or aborts the process within torch's C++.
    """
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module in ("importlib._bootstrap", "_frozen_importlib"):
            return True
        if module.startswith("stepgrpo_lab") and frame.f_code.co_name != "<module>":
            return False
        frame = frame.f_back
    return False


@contextmanager
def stops_raised(leave: Callable[[int], None]) -> Iterator[None]:
    """Every signal that asks to stop raises, as Ctrl-C does, so that what is open is closed.

    Args:
        leave: Called with the number of one that arrives during an import; ends the process.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        if is_importing(frame):
            leave(number)
        raise_stop(number, frame)

    handlers = take_signals(stop)
    try:
        yield
    finally:
        give_back_signals(handlers)
