"""What the tests with vLLM share: the Overthinker in transformers, in a vLLM engine and on a vLLM server."""

from __future__ import annotations

import copy
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import torch

from stepgrpo_lab.engines.models import load_model
from stepgrpo_lab.engines.tokenizers import encode_prompt
from stepgrpo_lab.overthinker.tasks import overthinker_problems


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def policy() -> tuple[Any, Any]:
    return load_model("overthinker", device="cpu")


@pytest.fixture(scope="session")
def prompts(policy: Any) -> list[list[int]]:
    return [encode_prompt(policy[1], problem.prompt) for problem in overthinker_problems("validation", 16)]


@pytest.fixture(scope="session")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, str]:
    """The Overthinker with an adapter that changes its words but does not make it stammer, and the adapter's folder."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    model = get_peft_model(
        load_model("overthinker", device="cpu")[0],
        LoraConfig(r=8, lora_alpha=8, target_modules="all-linear", init_lora_weights=False),
    ).eval()
    folder = tmp_path_factory.mktemp("lora") / "adapter"
    model.save_pretrained(str(folder))
    return model, str(folder)


@pytest.fixture(scope="session")
def engine() -> Any:
    from stepgrpo_lab.engines.vllm_engine import VLLMEngine

    options = {"max_model_len": 512, "enforce_eager": True, "enable_lora": True, "max_lora_rank": 8}
    return VLLMEngine.load("overthinker", dtype="float32", **options)


@pytest.fixture(scope="session")
def untied(policy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Overthinker with an LM head of its own: on a CPU, a server cannot renew one that is tied."""
    model = copy.deepcopy(policy[0])
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    folder = tmp_path_factory.mktemp("untied")
    model.save_pretrained(str(folder))
    policy[1].save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def server(adapted: Any, untied: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(untied), "--served-model-name", "base", "--dtype", "float32"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--max-model-len", "512", "--enforce-eager"]
    command += ["--logprobs-mode", "processed_logprobs", "--enable-lora", "--lora-modules", f"adapter={adapted[1]}"]
    command += ["--max-lora-rank", "8", "--enable-prefix-caching"]
    renewed = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=os.environ | renewed)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(url + "/health", process, log)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=60)


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        try:
            urlopen(url, timeout=5).close()
            return
        except (URLError, OSError):
            assert process.poll() is None, f"the server ended: {log.read_text()[-3000:]}"
            time.sleep(1)
    raise AssertionError(f"the server did not start: {log.read_text()[-3000:]}")
