"""Starts a function in several processes that form a group, and brings their results back."""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
import traceback
from collections.abc import Callable
from typing import Any

import pytest


def needs_gloo() -> pytest.MarkDecorator:
    """Skips a module where torch cannot connect processes."""
    import torch.distributed

    usable = torch.distributed.is_available() and torch.distributed.is_gloo_available()
    return pytest.mark.skipif(not usable, reason="torch was built without torch.distributed or gloo")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(rank: int, count: int, port: int) -> dict[str, str]:
    """What ``torchrun`` tells each process."""
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    return {
        **{name: str(value) for name, value in names.items()},
        "MASTER_ADDR": "127.0.0.1",
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


def run_together(function: Callable[..., Any], *arguments: Any, count: int = 2, seconds: float = 120) -> list[Any]:
    """Call a function in ``count`` processes at once.

    Args:
        function: At the top level of a module.
        arguments: The same for all.
        count: With 1 there is no group.
        seconds: After these, processes that wait for each other are ended.

    Returns:
        What each process returned, by rank.

    Raises:
        AssertionError: A process failed, or did not come to an end.
    """
    context = multiprocessing.get_context("forkserver")  # the server has imported everything that takes long
    context.set_forkserver_preload(
        ["stepgrpo_lab.run.job", "stepgrpo_lab.training.trainer", "stepgrpo_lab.run.report", "peft"]
    )
    port = free_port()
    pipes, processes = [], []
    for rank in range(count):
        ours, theirs = context.Pipe(duplex=False)
        answer = environment(rank, count, port) if count > 1 else {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        processes.append(context.Process(target=_answer, args=(answer, theirs, function, arguments)))
        processes[-1].start()
        theirs.close()
        pipes.append(ours)
    end = time.monotonic() + seconds
    try:
        answers = []
        for rank, pipe in enumerate(pipes):
            assert pipe.poll(max(0.0, end - time.monotonic())), f"rank {rank} still waits after {seconds} s"
            answers.append(pipe.recv())
        failures = [f"rank {rank}: {answer}" for rank, (worked, answer) in enumerate(answers) if not worked]
        assert not failures, "\n".join(failures)
        return [answer for _, answer in answers]
    finally:
        for process in processes:
            process.kill()
            process.join()


def _answer(answer: dict[str, str], pipe: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ.update(answer)
    import torch

    torch.set_num_threads(1)
    try:
        pipe.send((True, function(*arguments)))
    except BaseException:
        pipe.send((False, traceback.format_exc()))
    if torch.distributed.is_initialized():
        torch.distributed.barrier()  # whoever ends first must not end the others' connection
        torch.distributed.destroy_process_group()
