"""What surrounds every command: streams that may break, signals that stop it, and errors in one line."""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, TextIO, cast

from stepgrpo_lab.cli._output import printable
from stepgrpo_lab.engines.failures import full_disk, in_words, machine_trouble
from stepgrpo_lab.engines.signals import exit_code, stops_raised, take_signals

_NOBODY_READS = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ESHUTDOWN)
"""Of a pipe whose reader has ended (``| head -1``), a terminal that is gone, a stream that was closed."""


class SteadyStream:
    """A text stream that outlives its reader: once nobody reads, what is written is dropped.

    Attributes:
        lost: Why something could not be written although somebody wants to read it, such as a full disk.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._open = True
        self.lost: str | None = None

    def write(self, text: str) -> int:
        """Write; characters that the stream's encoding lacks become escapes."""
        encoding = self._stream.encoding or "utf-8"
        with suppress(LookupError):
            text = text.encode(encoding, "backslashreplace").decode(encoding)
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush."""
        self._attempt(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _attempt(self, action: Callable[[], object]) -> None:
        if not self._open:
            return
        try:
            action()
        except OSError as error:
            self._give_up(None if error.errno in _NOBODY_READS else in_words(error))
        except (RuntimeError, ValueError) as error:
            if "reentrant" not in str(error):  # a signal's line within another line: the line is dropped
                self._give_up(None)  # closed

    def _give_up(self, why: str | None) -> None:
        """Drop what follows, and what the interpreter has still to flush when it ends."""
        self._open, self.lost = False, why
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextmanager
def steady_streams() -> Iterator[None]:
    """Within, ``print`` cannot fail."""
    _open_descriptors()
    out, err = (SteadyStream(stream or io.StringIO()) for stream in (sys.stdout, sys.stderr))
    with redirect_stdout(cast(TextIO, out)), redirect_stderr(cast(TextIO, err)):
        try:
            yield
        finally:
            out.flush()
            err.flush()


def _open_descriptors() -> None:
    """Open what the caller closed (``>&-``), or the next file would get its number and what a library prints."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number


def run(command: Callable[[], int], *, debug: bool) -> int:
    """Run a command to its exit code.

    Args:
        command: Does it all.
        debug: Print the traceback of an error before its line.

    Returns:
        The command's; or as :func:`stepgrpo_lab.cli.main` says.
    """
    with steady_streams(), stops_raised(_leave):
        code = _attempt(command, debug)
        if code == 0:
            _attempt(check_output, debug=False)
        return code


def _leave(number: int) -> None:
    """End the process as a kill would, which loses nothing: see the run folder's promises."""
    take_signals(lambda *_: None)
    for stream, line in ((sys.stdout, ""), (sys.stderr, "\nstopped\n")):
        stream.write(line)
        stream.flush()
    os._exit(exit_code(number))


def check_output() -> int:
    """Check that what was printed could be written, if anybody reads it.

    Raises:
        OSError: It could not.
    """
    sys.stdout.flush()
    if lost := getattr(sys.stdout, "lost", None):
        raise OSError(f"standard output cannot be written ({lost}): make room, or send it elsewhere")
    return 0


def _attempt(command: Callable[[], int], debug: bool) -> int:
    try:
        return command()
    except KeyboardInterrupt as stop:
        take_signals(lambda *_: None)  # it is ending already
        print("\nstopped", file=sys.stderr)
        return exit_code(getattr(stop, "signal", 2))
    except (SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # Rust's panics are no Exception
        if debug:
            traceback.print_exc()
        return _report(error, debug)


def _report(error: BaseException, debug: bool) -> int:
    notes = getattr(error, "__notes__", [])
    trouble = machine_trouble(error)
    if isinstance(error, (ValueError, OSError, ImportError, FloatingPointError)) and trouble is None:
        code = _say(*getattr(error, "mistakes", [_line(error)]))
        return exit_code(getattr(error, "signal", None)) or code
    if trouble or full_disk(error):
        return _say("; ".join([trouble or f"{full_disk(error)}: make room there, and try again", *notes]))
    where = notes or ([] if debug else ["run it again with stepgrpo --debug to see the traceback"])
    what = f"{type(error).__name__}: {in_words(error)}; this is a fault of the program, please report it"
    _say("; ".join([what, *where]))
    return 1


def _line(error: BaseException) -> str:
    """An error in words; one that the operating system has raised names the file and the remedy."""
    if not isinstance(error, OSError) or error.errno is None or error.filename is None:
        return str(error)
    return f"{error.filename}: {error.strerror}; give another file or folder, or see that this one can be used"


def _say(*mistakes: str) -> int:
    for mistake in mistakes:
        print(f"stepgrpo: error: {printable(' '.join(mistake.split()))}", file=sys.stderr)
    return 2


def check_arguments(arguments: list[str]) -> None:
    """Check that arguments are text.

    Raises:
        ValueError: Bytes that are no text in the locale's encoding; the message shows them as escapes.
    """
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(argument).decode("ascii", "backslashreplace")
            raise ValueError(
                f"the argument {shown} is not UTF-8 text: write it in UTF-8, or rename the file or folder that is "
                "called so"
            ) from None


def ensure_utf8() -> None:
    """Start the interpreter again in UTF-8 mode where the locale (C or POSIX) knows ASCII alone.

    There arguments, file names and output cannot hold any other character, and libraries stumble over each in a way of
    its own.
    """
    if os.name == "posix" and sys.executable and not sys.flags.utf8_mode and sys.getfilesystemencoding() == "ascii":
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
