"""A vLLM server that is not there, says nothing or says something else is reported in seconds, on one line."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from tiny import tiny_tokenizer

from stepgrpo_lab.cli import main
from stepgrpo_lab.engines import vllm_server
from stepgrpo_lab.engines.vllm_server import VLLMServerEngine

MODELS = b'{"data": [{"id": "m", "max_model_len": 512}]}'


def http(body: bytes, status: str = "200 OK", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n".encode() + body


@contextmanager
def server(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """The address of one that deals with each connection so; in a thread of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        held: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                held.append(connection)
                answer(connection)

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            for connection in held:
                connection.close()


def says(*parts: bytes, pause: float = 0.0) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        for part in parts:
            time.sleep(pause)
            connection.sendall(part)
        connection.close()

    return answer


FAULTS: dict[str, Callable[[socket.socket], None]] = {
    "says nothing": lambda connection: None,
    "hangs up": lambda connection: connection.close(),
    "is in trouble": says(http(b"out of order", "500 Internal Server Error")),
    "is cut off": says(http(MODELS, length=999)),
    "is something else": says(http(b'{"hello": []}')),
    "is no JSON": says(http(b"<html>")),
    "is no web server": says(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "serves nothing": says(http(b'{"data": []}')),
}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_server, "SECONDS", 0.5)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that_does_not_serve_is_told_of(fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    with server(FAULTS[fault]) as url:
        assert main(["rollout", "--engine", "vllm-server", "--url", url]) == 2
        error = capsys.readouterr().err
    assert error.startswith("stepgrpo: error: ") and error.count("\n") == 1
    assert url in error and ("vllm serve" in error or "give another address" in error)


def test_a_server_that_refuses_is_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    assert main(["rollout", "--engine", "vllm-server", "--url", f"http://127.0.0.1:{port}"]) == 2
    assert f"no vLLM server answers at http://127.0.0.1:{port}: start one" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://x", "http://", "http://x:eighty", "file:///etc/passwd"])
def test_what_is_no_address_is_refused(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rollout", "--engine", "vllm-server", "--url", url]) == 2
    assert "no address of a server: give one such as http://" in capsys.readouterr().err


def test_a_completion_may_take_longer_than_the_greeting() -> None:
    slow = threading.Event()

    def answer(connection: socket.socket) -> None:
        says(http(MODELS), pause=1.5 if slow.is_set() else 0.0)(connection)

    with server(answer) as url:
        engine = VLLMServerEngine(tiny_tokenizer(), url=url)
        slow.set()
        assert engine._call("/v1/completions", {})["data"]
