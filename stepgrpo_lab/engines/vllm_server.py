"""The truncated rollout on a vLLM server: every completion sends its own requests, with token ids both ways.

The server batches what is under way, so no completion waits for another. Nothing but Python's standard library is
needed on this side.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPHandler, ProxyHandler, Request, build_opener

from stepgrpo_lab.engines._vllm_requests import RequestRow, StopFinder, TokenRequest, check_weights, request_rows
from stepgrpo_lab.engines.completions import Decoding, OnFinish, open_completions, text_of
from stepgrpo_lab.engines.files import parse_json
from stepgrpo_lab.engines.model_files import tensor_shapes
from stepgrpo_lab.method.records import Cost, Trajectory
from stepgrpo_lab.method.sampling import SampleKey, Sampling

_START = "vllm serve MODEL --host 127.0.0.1 --logprobs-mode processed_logprobs"
_DEVELOPING = "VLLM_SERVER_DEV_MODE=1"
_RENEWING = "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"

SECONDS = 10.0
"""How long a server may take to accept a connection, and to say what it serves; completions may take longer."""


class ServerError(RuntimeError, ConnectionError):
    """A server answers, but not with what it was asked for; the message says what to do."""


class _Connection(HTTPConnection):
    """One that is made in seconds or not at all, whatever its answer may take."""

    def connect(self) -> None:
        patience = self.timeout
        self.timeout = min(SECONDS, SECONDS if patience is None else patience)
        super().connect()
        self.sock.settimeout(patience)


class _Handler(HTTPHandler):
    def http_open(self, request: Any) -> Any:
        return self.do_open(_Connection, request)


class VLLMServerEngine:
    """Completes prompts on a running vLLM server; draws the same completions as :class:`VLLMEngine` in fp32.

    Start the server with ``vllm serve MODEL --host 127.0.0.1 --logprobs-mode processed_logprobs``; for LoRA add
    ``--enable-lora --lora-modules NAME=FOLDER`` and give that name as ``model``.

    A training renews the server's weights through a folder that both see. Start the server with VLLM_SERVER_DEV_MODE=1
    in its environment for whole models, with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1, ``--enable-lora`` and a sufficient
    ``--max-lora-rank`` for adapters. Both let whoever reaches the port change the model: keep it on this machine or on
    a trusted network.

    Args:
        tokenizer: The tokenizer of the model, or the text of its tokens (with every end-of-sequence id, if the model
            has others than the tokenizer's).
        url: Where the server listens.
        model: The name of the model or adapter; by default the first that the server names.
        max_rows: Most completions in progress at once.
        timeout: Seconds after which a request counts as lost.

    Raises:
        ConnectionError: No server answers there, which is known within seconds.
        ServerError: Something answers that is no vLLM server, or one in trouble.
        ValueError: It has no such model, ``url`` is no address, or ``max_rows`` is below 1.

    Example:
        >>> engine = VLLMServerEngine(tokenizer, model="adapter")     # doctest: +SKIP
        >>> keys = [SampleKey(seed=0, split="eval", rollout=0, sample=0)]
        >>> [trajectory], cost = engine.generate([[9707]], Decoding(limit=256), keys=keys)  # doctest: +SKIP
    """

    shared = True
    """All processes of a training use one server: one of them brings it the weights."""

    def __init__(
        self,
        tokenizer: Any,
        *,
        url: str = "http://127.0.0.1:8000",
        model: str | None = None,
        max_rows: int = 64,
        timeout: float = 600.0,
    ) -> None:
        if max_rows < 1:
            raise ValueError(f"max_rows is {max_rows}: give at least 1.")
        self.url, self.timeout, self.max_rows = url.rstrip("/"), timeout, max_rows
        self.token_text = text_of(tokenizer)
        self._stops = StopFinder(self.token_text)
        _check_address(self.url)
        self._opener = build_opener(ProxyHandler({}), _Handler)  # no proxy: the server is the rollout's own
        cards = self._cards(SECONDS)
        names = [card["id"] for card in cards]
        self._base = self.model = names[0] if model is None else model
        if self.model not in names:
            raise ValueError(f"the server at {self.url} has no model {model!r}: it serves {', '.join(names)}")
        lengths = [card["max_model_len"] for card in cards if card.get("max_model_len")]  # an adapter's card has none
        self._positions = max(lengths, default=None)

    def generate(
        self,
        prompt_ids: Sequence[Sequence[int]],
        decoding: Decoding,
        *,
        keys: Sequence[SampleKey],
        probed: Sequence[bool] | None = None,
        limits: Sequence[int] | None = None,
        on_finish: OnFinish | None = None,
    ) -> tuple[list[Trajectory], Cost]:
        """Complete every prompt; arguments and results as in the lockstep engine.

        The cost counts tokens as the lockstep engine does, without those that a request brought and the
        machine discarded. A server does not report its forward passes: they stay 0.

        Raises:
            ValueError: Lengths that do not match, an empty prompt, a limit below 1 or beyond the model's positions.
            ConnectionError: The server does not answer any more.
            ServerError: It refused a request or sent no token ids; the message says why.
            FloatingPointError: The model returned NaN or infinite logits; the message names prompt and position.
        """
        sampling = decoding.sampling
        opened = open_completions(
            self.token_text,
            prompt_ids,
            decoding,
            keys=keys,
            probed=probed,
            limits=limits,
            positions=self._positions,
            positions_name="max_model_len",
        )
        waiting = deque(request_rows(self._stops, opened, decoding, probed))
        finished: dict[int, Trajectory] = {}
        total = Cost()
        under_way: dict[Future[list[tuple[int, float]]], RequestRow] = {}
        with ThreadPoolExecutor(self.max_rows) as pool:
            try:
                while waiting or under_way:
                    while waiting and len(under_way) < self.max_rows:
                        row = waiting.popleft()
                        under_way[pool.submit(self._complete, row.next_request(), sampling)] = row
                    for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                        row = under_way.pop(future)
                        row.take_all(future.result())
                        if not row.done:
                            waiting.appendleft(row)
                            continue
                        trajectory = finished[row.completion.index] = row.trajectory()
                        total += trajectory.cost
                        if on_finish is not None:
                            on_finish(row.completion.index, trajectory)
            finally:
                pool.shutdown(cancel_futures=True)
        return [finished[index] for index in range(len(finished))], total

    def load_weights(self, folder: str | Path) -> None:
        """Let the server sample from the weights in a folder from now on: all of the model's, as safetensors.

        Raises:
            ValueError: The folder holds no safetensors, or the server cannot take a model with tied embeddings.
            RuntimeError: It was not started for this; the message says how.
        """
        check_weights(folder)
        self._check_reload(Path(folder))
        self._call("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}})
        self._call("/reset_prefix_cache", {})

    def use_adapter(self, folder: str | Path | None) -> None:
        """Sample with the LoRA adapter in a folder from now on; None is the model that the engine was made for.

        The adapter's name is its folder, so give every version a folder of its own.

        Raises:
            ValueError: The folder holds no adapter in safetensors.
            RuntimeError: The server was not started for this; the message says how.
        """
        before, self.model = self.model, self._base if folder is None else str(folder)
        served = {card["id"] for card in self._cards(self.timeout)}
        if folder is not None and self.model not in served:
            check_weights(folder, "adapter_model.safetensors")
            adapter = {"lora_name": self.model, "lora_path": str(folder)}
            self._call("/v1/load_lora_adapter", adapter, needs=f"{_RENEWING} and --enable-lora")
        if before not in (self._base, self.model) and before in served:
            self._call("/v1/unload_lora_adapter", {"lora_name": before}, needs=_RENEWING)

    def close(self) -> None:
        """Nothing: the server goes on."""

    def wake(self) -> None:
        """Nothing: a server has GPUs of its own."""

    def sleep(self) -> None:
        """Nothing: a server has GPUs of its own."""

    def _check_reload(self, folder: Path) -> None:
        """vLLM for CPUs packs a tied LM head by itself, and a server offers no way to have it packed anew."""
        info = self._call("/server_info?config_format=json", needs=_DEVELOPING)["vllm_config"]
        mode = info["model_config"]["logprobs_mode"]
        if mode != "processed_logprobs":
            raise RuntimeError(f"the server at {self.url} gives {mode}: start it with {_START}")
        if info["device_config"]["device"] == "cpu" and "lm_head.weight" not in _names_in(folder):
            raise ValueError(
                f"the server at {self.url} runs on a CPU, where vLLM keeps the old LM head of a model with tied "
                "embeddings: train an adapter, or use rollout.engine=vllm"
            )

    def _complete(self, request: TokenRequest, sampling: Sampling) -> list[tuple[int, float]]:
        """The tokens of one request with their log-probabilities."""
        answer = self._call(
            "/v1/completions",
            {
                "model": self.model,
                "prompt": request.prompt,
                "return_token_ids": True,
                **request.options(sampling),
            },
        )
        [choice] = answer["choices"]
        tokens = choice.get("token_ids")
        if not tokens:
            raise ServerError(
                f"the server at {self.url} sent no token ids (finish_reason {choice.get('finish_reason')!r}): it must "
                "be vLLM's, 0.10.2 or later"
            )
        return list(zip(tokens, choice["logprobs"]["token_logprobs"], strict=True))

    def _cards(self, timeout: float) -> list[dict[str, Any]]:
        """What the server says of each model and adapter that it serves."""
        answer = self._call("/v1/models", timeout=timeout)
        cards = answer.get("data") if isinstance(answer, dict) else None
        if isinstance(cards, list) and cards and all(isinstance(card, dict) and "id" in card for card in cards):
            return cards
        raise ServerError(f"what answers at {self.url} is no vLLM server: give another address, or start {_START}")

    def _call(
        self, path: str, body: dict[str, Any] | None = None, needs: str = "", timeout: float | None = None
    ) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            with self._opener.open(request, timeout=timeout or self.timeout) as response:
                text = response.read()
                return parse_json(text) if response.headers.get_content_type() == "application/json" else text
        except HTTPError as error:
            if error.code == 404 and needs:
                raise ServerError(
                    f"the server at {self.url} takes no new weights: start it with {needs} (see VLLMServerEngine)"
                ) from error
            reason = error.read().decode(errors="replace").strip()
            raise ServerError(
                f"the server at {self.url} refused a request ({error.code}): {reason[:500] or 'without a reason'}; see "
                "what it has printed, or give another address"
            ) from error
        except (URLError, TimeoutError, ConnectionError) as error:
            raise ConnectionError(f"no vLLM server answers at {self.url}: start one with {_START}") from error
        except (HTTPException, ValueError) as error:  # cut off, or in another protocol
            raise ServerError(
                f"what answers at {self.url} is no vLLM server, or was cut off ({type(error).__name__}): give another "
                f"address, or start {_START}"
            ) from error


def _check_address(url: str) -> None:
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, brackets that do not match
        fits = False
    if not fits or not url.isascii() or any(char.isspace() for char in url):
        raise ValueError(f"{url!r} is no address of a server: give one such as http://127.0.0.1:8000")


def _names_in(folder: Path) -> set[str]:
    return {name for path in folder.glob("*.safetensors") for name in tensor_shapes(path)}
