"""The truncated rollout on a vLLM server: every completion sends its own requests, with token ids both ways.

The server batches what is under way, so no completion waits for another. Nothing but Python's standard library is
needed on this side.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

from stepgrpo_lab.engines.completions import OnFinish, open_completions, text_of
from stepgrpo_lab.engines.vllm_requests import RequestRow, StopFinder, TokenRequest, request_rows
from stepgrpo_lab.presets import RolloutSettings
from stepgrpo_lab.records import Cost, Trajectory
from stepgrpo_lab.sampling import SampleKey, Sampling
from stepgrpo_lab.steps import Segmenter

_START = "vllm serve MODEL --host 127.0.0.1 --logprobs-mode processed_logprobs"


class VLLMServerEngine:
    """Completes prompts on a running vLLM server; draws the same completions as :class:`VLLMEngine` in fp32.

    Start the server with ``vllm serve MODEL --host 127.0.0.1 --logprobs-mode processed_logprobs``; for LoRA add
    ``--enable-lora --lora-modules NAME=FOLDER`` and give that name as ``model``. It has to serve the weights that are
    meant: this engine brings it none.

    Args:
        tokenizer: The tokenizer of the model, or the text of its tokens (with every end-of-sequence id, if the model
            has others than the tokenizer's).
        url: Where the server listens.
        model: The name of the model or adapter; by default the first that the server names.
        max_rows: Most completions under way at once.
        timeout: Seconds after which a request counts as lost.

    Raises:
        ConnectionError: No server answers there.
        ValueError: It has no such model, or ``max_rows`` is below 1.

    Example:
        >>> engine = VLLMServerEngine(tokenizer, model="adapter")     # doctest: +SKIP
        >>> keys = [SampleKey(seed=0, split="eval", rollout=0, sample=0)]
        >>> [trajectory], cost = engine.generate([[9707]], limit=256, keys=keys)    # doctest: +SKIP
    """

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
        self._opener = build_opener(ProxyHandler({}))  # a proxy in the environment is none for the rollout's own server
        cards = self._call("/v1/models")["data"]
        names = [card["id"] for card in cards]
        self.model = names[0] if model is None else model
        if self.model not in names:
            raise ValueError(f"the server at {self.url} has no model {model!r}: it serves {', '.join(names)}")
        lengths = [card["max_model_len"] for card in cards if card.get("max_model_len")]  # an adapter names none
        self._positions = max(lengths, default=None)

    def generate(
        self,
        prompt_ids: Sequence[Sequence[int]],
        *,
        limit: int | Sequence[int],
        keys: Sequence[SampleKey],
        settings: RolloutSettings | None = None,
        sampling: Sampling | None = None,
        probed: Sequence[bool] | None = None,
        segmenter: Segmenter | None = None,
        on_finish: OnFinish | None = None,
    ) -> tuple[list[Trajectory], Cost]:
        """Complete every prompt; arguments and results as in the lockstep engine.

        The cost counts tokens as the lockstep engine does, without those that a request brought in vain. A server does
        not tell its forward passes: they stay 0.

        Raises:
            ValueError: Lengths that do not match, an empty prompt, a limit below 1 or beyond the model's positions.
            ConnectionError: The server does not answer any more.
            RuntimeError: It refused a request or sent no token ids; the message says why.
            FloatingPointError: The model returned logits that are no numbers; the message names row and position.
        """
        sampling = sampling or Sampling()
        opened = open_completions(
            self.token_text,
            prompt_ids,
            limit=limit,
            keys=keys,
            settings=settings,
            probed=probed,
            segmenter=segmenter,
            positions=self._positions,
            positions_name="max_model_len",
        )
        waiting = deque(request_rows(self._stops, opened, settings, probed, segmenter))
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
            raise RuntimeError(
                f"the server at {self.url} sent no token ids (finish_reason {choice.get('finish_reason')!r}): it must "
                "be vLLM's, 0.10.2 or later"
            )
        return list(zip(tokens, choice["logprobs"]["token_logprobs"], strict=True))

    def _call(self, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            with self._opener.open(request, timeout=self.timeout) as response:
                return json.load(response)
        except HTTPError as error:
            reason = error.read().decode(errors="replace").strip()
            raise RuntimeError(f"the server at {self.url} refused a request ({error.code}): {reason[:500]}") from error
        except (URLError, TimeoutError, ConnectionError) as error:
            raise ConnectionError(f"no vLLM server answers at {self.url}: start one with {_START}") from error
