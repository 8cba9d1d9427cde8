"""Hides from the library what Windows lacks; every Python process imports it that finds it as ``sitecustomize``.

Only imports made by ``stepgrpo_lab`` are served so: the libraries below it know this platform for what it is.
"""

from __future__ import annotations

import builtins
import os
import signal
import subprocess
import sys
import warnings
from types import ModuleType
from typing import Any

POSIX_MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"}
WINDOWS_SIGNALS = {"SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM", "SIG_DFL", "SIG_IGN"}
POSIX_SIGNAL_CALLS = (
    "alarm getitimer pause pthread_kill pthread_sigmask setitimer siginterrupt sigpending sigtimedwait sigwait "
    "sigwaitinfo SIG_BLOCK SIG_SETMASK SIG_UNBLOCK ITIMER_PROF ITIMER_REAL ITIMER_VIRTUAL"
)
POSIX_OS_CALLS = (
    "chown chroot ctermid fchdir fchmod fchown fdatasync fork forkpty fpathconf fstatvfs getegid geteuid getgid "
    "getgroups getloadavg getpgid getpgrp getpriority getresuid getsid getuid killpg lchown lockf mkfifo mknod nice "
    "openpty pathconf posix_fadvise posix_fallocate posix_spawn pread preadv pwrite pwritev readv register_at_fork "
    "sched_getaffinity sched_setaffinity sched_yield sendfile setpgid setpriority setsid setuid statvfs sync sysconf "
    "uname wait wait3 wait4 waitid writev O_CLOEXEC O_DIRECTORY O_DSYNC O_NOCTTY O_NOFOLLOW O_NONBLOCK O_SYNC "
    "RTLD_GLOBAL WEXITSTATUS WIFEXITED WIFSIGNALED WNOHANG WTERMSIG"
)
POSIX_PROCESS_OPTIONS = {"preexec_fn", "pass_fds", "user", "group", "umask"}


def without(module: ModuleType, names: set[str], **replaced: Any) -> ModuleType:
    """A copy of a module that lacks some names."""
    copy = ModuleType(module.__name__, module.__doc__)
    vars(copy).update({name: value for name, value in vars(module).items() if name not in names}, **replaced)
    return copy


def open_no_folder(path: Any, *arguments: Any, **options: Any) -> int:
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", str(path))
    return os.open(path, *arguments, **options)


class Process(subprocess.Popen):  # type: ignore[type-arg]
    def __init__(self, *arguments: Any, **options: Any) -> None:
        given = sorted(name for name in POSIX_PROCESS_OPTIONS & set(options) if options[name])
        if given:
            raise ValueError(f"{given[0]} is not supported on Windows platforms")
        super().__init__(*arguments, **options)


HIDDEN = {
    "os": without(os, set(POSIX_OS_CALLS.split()), name="nt", open=open_no_folder),
    "signal": without(
        signal,
        {name for name in vars(signal) if name.startswith("SIG")} - WINDOWS_SIGNALS | set(POSIX_SIGNAL_CALLS.split()),
    ),
    "subprocess": without(subprocess, set(), Popen=Process),
}


def serve_as_on_windows(real: Any = builtins.__import__) -> None:
    def import_(name: str, namespace: Any = None, *rest: Any, **named: Any) -> Any:
        module = real(name, namespace, *rest, **named)
        if not str((namespace or {}).get("__name__", "")).startswith("stepgrpo_lab"):
            return module
        if name.partition(".")[0] in POSIX_MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return HIDDEN.get(name, module)

    builtins.__import__ = import_


if "stepgrpo_lab" not in sys.modules:
    serve_as_on_windows()
    # There text files are written in another encoding wherever none is named.
    warnings.filterwarnings("error", category=EncodingWarning, module="stepgrpo_lab")
