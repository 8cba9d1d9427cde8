"""Tokenizers and data that several test modules share."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# One thread for each test process and what it starts: with more, processes that share the cores wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["STEPGRPO_CACHE"] = "off"  # no test may know what another has measured

# A suite that was started in the background ignores Ctrl-C, and so would every process that it starts.
for _number, _handler in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
    if hasattr(signal, _number) and signal.getsignal(getattr(signal, _number)) is signal.SIG_IGN:
        signal.signal(getattr(signal, _number), _handler)

SLOW = (
    *("browser", "distributed", "with_vllm", "robustness/test_foreign_files", "robustness/test_hostile_output"),
    *("robustness/test_killed_runs", "robustness/test_machine_troubles", "robustness/test_signals"),
    *("robustness/test_streams", "test_user_paths"),
    *("test_browser_imports", "test_site"),
    *("test_ci", "test_embedded_model", "test_experiments", "test_methods", "test_recipes_run", "test_recordings"),
    *("test_tools", "test_vllm_engine", "test_vllm_training"),
)
"""Modules and folders that take more than 20 s on one core, or need what not every platform has; marked ``slow``."""

LOOPBACK = ("127.0.0.1", "::1", "localhost", "", None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """``-m "not slow"`` selects what every Python, platform and set of versions is tried with, in three minutes."""
    here = Path(__file__).parent
    slow = tuple(str(here / name) for name in SLOW)
    for item in items:
        if str(item.path.with_suffix("")).startswith(slow):
            item.add_marker("slow")


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Tests talk to nobody but this machine."""
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def guarded_connect(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in LOOPBACK:
            raise ConnectionRefusedError(f"no test may leave this machine, but one wants to reach {address[0]}")
        connect(self, address)

    def guarded_look_up(host: Any, *arguments: Any, **options: Any) -> Any:
        if host not in LOOPBACK:
            raise ConnectionRefusedError(f"no test may leave this machine, but one asks where {host} is")
        return look_up(host, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded_connect)
        patch.setattr(socket, "getaddrinfo", guarded_look_up)
        yield


ENDOFTEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

# How often each string is trained on decides the order of the merges, and so the traps: "(W" is merged before
# "W" + "ait", and some pieces run over a word's edge.
_TRAP_COUNTS = {
    "ait": 3000,
    "(W": 4000,
    "Wait": 700,
    " Wait": 350,
    ".Wait": 300,
    "\n\n": 900,
    "\n\nWait": 250,
    "Waiting": 200,
    "12 Wait": 150,
    "Wait. Wait": 120,
    "Altern": 100,
    "atively": 100,
    "</": 90,
    "think": 80,
}


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of third-party data for tests (real tokenizer, benchmark files)."""
    folder = os.environ.get("STEPGRPO_REAL_DATA")
    if not folder:
        pytest.skip("STEPGRPO_REAL_DATA is not set: no real tokenizer or benchmark files")
    return Path(folder)


@pytest.fixture(scope="session")
def qwen3_tokenizer(real_data: Path) -> Any:
    """Qwen3's own tokenizer."""
    folder = real_data / "qwen3-tokenizer"
    if not folder.is_dir():
        pytest.skip(f"no Qwen3 tokenizer at {folder}")
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="session")
def byte_bpe_tokenizer() -> Any:
    """A small byte-level BPE, trained here, whose merges lay every trap of :mod:`stepgrpo_lab.method.steps`.

    Special tokens as in Qwen3; ``<think>`` and ``</think>`` are single tokens that are not marked special.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False, min_frequency=20
    )
    tokenizer.train_from_iterator((text for text, count in _TRAP_COUNTS.items() for _ in range(count)), trainer)
    return _wrapped(tokenizer, think_tokens=["<think>", "</think>"])


@pytest.fixture(scope="session")
def bytes_tokenizer() -> Any:
    """One token a byte and no merges: every marker, and ``</think>`` too, takes many tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: place for place, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return _wrapped(tokenizer, think_tokens=[])


def _wrapped(tokenizer: Any, think_tokens: list[str]) -> Any:
    from tokenizers import decoders
    from transformers import PreTrainedTokenizerFast

    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([ENDOFTEXT, IM_START, IM_END])
    tokenizer.add_tokens(think_tokens)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=IM_END,
        pad_token=ENDOFTEXT,
        additional_special_tokens=[IM_START],
        clean_up_tokenization_spaces=False,
    )
