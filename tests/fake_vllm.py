"""vLLM as far as our engines use it, over a transformers model: engine and server.

It keeps vLLM's habits: a stop id is part of what comes back, a request draws from its own seeded generator, and, like
an asynchronous scheduler, it may bring a token of a request that has been aborted meanwhile. New weights leave cached
prefixes of the old ones behind, on a CPU a tied LM head stays as it was packed, and an adapter is read when first used.
"""

from __future__ import annotations

import copy
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file


class Request:
    """One request under way; ``options`` are vLLM's sampling options."""

    def __init__(self, model: Any, prompt: list[int], options: dict[str, Any]) -> None:
        assert options["max_tokens"] >= 1 and options["ignore_eos"] and options["logprobs"] == 0
        self.model, self.new, self.cache, self.options = model, list(prompt), None, options
        self.prompt_ids = list(prompt)
        self.generator = torch.Generator().manual_seed(options["seed"] or 0)
        self.tokens: list[int] = []
        self.finish_reason: str | None = None

    @torch.no_grad()
    def advance(self) -> tuple[int, float]:
        """Choose one more token; its id and log-probability at its temperature (greedy: at 1)."""
        output = self.model(input_ids=torch.tensor([self.new]), past_key_values=self.cache, use_cache=True)
        self.cache, logits = output.past_key_values, output.logits[0, -1].float()
        logprobs = (logits / (self.options["temperature"] or 1.0)).log_softmax(dim=-1)
        if self.options["temperature"] == 0:
            token = int(logprobs.argmax())
        else:
            noise = torch.empty_like(logprobs).exponential_(generator=self.generator)
            token = int((logprobs.exp() / noise).argmax())
        self.new = [token]
        self.tokens.append(token)
        if token in self.options["stop_token_ids"]:
            self.finish_reason = "stop"
        elif len(self.tokens) == self.options["max_tokens"]:
            self.finish_reason = "length"
        return token, float(logprobs[token])


class FakeEngine:
    """A ``vllm.LLMEngine``.

    Args:
        models: The base model, and those with an adapter by the adapter's folder.
        tokens_a_step: How many tokens a request gets in each step.
        late: Whether an aborted request brings one more token.
        sleeps: Whether it was started with sleep mode.
        shift: Added to every log-probability of a sampled token, as another kernel would.
        device: "cpu" or "cuda".
        in_process: Whether its core runs in this process, so that it can be handed tensors.
        from_folders: Whether it is of an older version, which reads weights from a folder alone.
    """

    def __init__(
        self,
        models: dict[str | None, Any],
        *,
        tokens_a_step: int = 1,
        late: bool = False,
        sleeps: bool = False,
        shift: float = 0.0,
        device: str = "cuda",
        in_process: bool = False,
        from_folders: bool = False,
    ) -> None:
        self.models, self.tokens_a_step, self.late, self.shift = models, tokens_a_step, late, shift
        self.stale = self.asleep = self.closed = self.head_is_old = False
        self.adapters: list[int] = []
        self.engine_core = SimpleNamespace(shutdown=lambda: setattr(self, "closed", True))
        if in_process:
            self.engine_core.engine_core = object()
        self.from_folders = from_folders
        self.running: dict[str, Request] = {}
        self.aborted: dict[str, Request] = {}
        self.asked: list[Request] = []
        self.vllm_config = SimpleNamespace(
            parallel_config=SimpleNamespace(tensor_parallel_size=1, pipeline_parallel_size=1),
            scheduler_config=SimpleNamespace(max_num_seqs=4),
            lora_config=SimpleNamespace() if len(models) > 1 else None,
            device_config=SimpleNamespace(device=torch.device(device)),
            model_config=SimpleNamespace(
                max_model_len=512,
                logprobs_mode="processed_logprobs",
                try_get_generation_config=dict,
                enable_sleep_mode=sleeps,
            ),
        )

    def has_unfinished_requests(self) -> bool:
        return bool(self.running)

    def add_request(self, name: str, prompt: Any, params: Any, lora_request: Any = None) -> None:
        assert len(self.running) < self.vllm_config.scheduler_config.max_num_seqs and name not in self.running
        assert not (self.stale or self.asleep or self.closed or self.head_is_old)
        options = dict(vars(params))
        assert options.pop("output_kind") == "delta" and options.pop("detokenize") is False
        path = lora_request.lora_path if lora_request else None
        if path not in self.models:
            self.models[path] = with_adapter(self.models[None], path)
            self.adapters.append(lora_request.lora_int_id)
        model = self.models[path]
        self.running[name] = Request(model, prompt["prompt_token_ids"], options)
        self.asked.append(self.running[name])

    def collective_rpc(self, method: Any, kwargs: dict[str, Any] | None = None) -> None:
        assert not self.asleep and not self.closed
        if method == "reload_weights":
            assert kwargs is not None
            if "weights_iterator" in kwargs:
                if self.from_folders:
                    raise TypeError("reload_weights() got an unexpected keyword argument 'weights_iterator'")
                assert hasattr(self.engine_core, "engine_core"), "no tensor goes to another process"
                self.models[None] = with_tensors(self.models[None], dict(kwargs["weights_iterator"]))
            else:
                self.models[None] = with_weights(self.models[None], kwargs["weights_path"])
            self.stale, self.head_is_old = True, self.vllm_config.device_config.device.type == "cpu"
            return
        head = SimpleNamespace(quant_method=SimpleNamespace(process_weights_after_loading=self._pack))
        runner = SimpleNamespace(
            get_model=lambda: SimpleNamespace(lm_head=head),
            model_config=SimpleNamespace(hf_config=self.models[None].config),
        )
        method(SimpleNamespace(model_runner=runner))

    def _pack(self, head: Any) -> None:
        self.head_is_old = False

    def reset_prefix_cache(self) -> bool:
        self.stale = self.stale and bool(self.running)
        return not self.running

    def remove_lora(self, number: int) -> bool:
        known = number in self.adapters
        self.adapters = [other for other in self.adapters if other != number]
        return known

    def is_sleeping(self) -> bool:
        return self.asleep

    def sleep(self, level: int) -> None:
        assert level == 1 and not self.running
        self.asleep = True

    def wake_up(self) -> None:
        self.asleep = False

    def abort_request(self, names: list[str]) -> None:
        for name in names:
            if name in self.running:
                self.aborted[name] = self.running.pop(name)

    def step(self) -> list[Any]:
        outputs = [self._output(name, request, 1) for name, request in self.aborted.items() if self.late]
        self.aborted.clear()
        for name, request in list(self.running.items()):
            outputs.append(self._output(name, request, self.tokens_a_step))
            if request.finish_reason:
                del self.running[name]
        return outputs

    def _output(self, name: str, request: Request, count: int) -> Any:
        tokens, logprobs = [], []
        while len(tokens) < count and request.finish_reason is None:
            token, logprob = request.advance()
            tokens.append(token)
            shift = 0.0 if request.options["temperature"] == 0 else self.shift
            logprobs.append({token: SimpleNamespace(logprob=logprob + shift)})
        new = SimpleNamespace(token_ids=tokens, logprobs=logprobs, finish_reason=request.finish_reason)
        return SimpleNamespace(request_id=name, outputs=[new], finished=request.finish_reason is not None)


@contextmanager
def installed(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make ``import vllm`` find what the engines take from it; one thread meanwhile, as its server has threads too."""

    def lora_request(name: str, number: int, path: str) -> Any:
        return SimpleNamespace(lora_name=name, lora_int_id=number, lora_path=path)

    modules = {name: ModuleType(name) for name in ("vllm", "vllm.lora", "vllm.lora.request")}
    modules["vllm"].SamplingParams = SimpleNamespace  # type: ignore[attr-defined]
    modules["vllm"].sampling_params = SimpleNamespace(RequestOutputKind=SimpleNamespace(DELTA="delta"))  # type: ignore[attr-defined]
    modules["vllm"].lora = modules["vllm.lora"]  # type: ignore[attr-defined]
    modules["vllm.lora"].request = modules["vllm.lora.request"]  # type: ignore[attr-defined]
    modules["vllm.lora.request"].LoRARequest = lora_request  # type: ignore[attr-defined]
    for name, module in modules.items():
        patch.setitem(sys.modules, name, module)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def with_weights(model: Any, folder: str) -> Any:
    """A copy of a model with the weights of a folder."""
    found = {name: tensor for path in Path(folder).glob("*.safetensors") for name, tensor in load_file(path).items()}
    return with_tensors(model, found)


def with_tensors(model: Any, weights: dict[str, torch.Tensor]) -> Any:
    """A copy of a model with these weights, which are copied too."""
    renewed = copy.deepcopy(model)
    missing, unexpected = renewed.load_state_dict(weights, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}
    return renewed


def with_adapter(model: Any, folder: str) -> Any:
    """A copy of a model with the adapter of a folder."""
    from peft import PeftModel

    return PeftModel.from_pretrained(copy.deepcopy(model), folder).eval()


@contextmanager
def fake_server(
    models: dict[str, Any], *, token_ids: bool = True, renewable: bool = False, device: str = "cuda"
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A vLLM server on a free port of this machine; gives its address and the list of what it was asked.

    Args:
        models: By name; the first is the base model.
        token_ids: Whether it sends token ids.
        renewable: Whether it was started to take new weights and adapters.
        device: Where it says that it runs.
    """
    asked: list[dict[str, Any]] = []
    base = next(iter(models))
    stale = False

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/server_info?config_format=json" and renewable:
                model = {"logprobs_mode": "processed_logprobs"}
                return self._send(200, {"vllm_config": {"model_config": model, "device_config": {"device": device}}})
            if self.path != "/v1/models":
                return self._send(404, {"detail": "Not Found"})
            first, *others = models
            cards = [{"id": first, "max_model_len": 512}, *({"id": name, "max_model_len": None} for name in others)]
            self._send(200, {"data": cards})

        def do_POST(self) -> None:
            nonlocal stale
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path != "/v1/completions":
                if not renewable:
                    return self._send(404, {"detail": "Not Found"})
                if self.path == "/collective_rpc":
                    assert body["method"] == "reload_weights"
                    models[base], stale = with_weights(models[base], body["kwargs"]["weights_path"]), True
                elif self.path == "/reset_prefix_cache":
                    stale = False
                elif self.path == "/v1/load_lora_adapter":
                    models[body["lora_name"]] = with_adapter(models[base], body["lora_path"])
                else:
                    assert self.path == "/v1/unload_lora_adapter"
                    del models[body["lora_name"]]
                return self._send(200, {})
            assert not stale
            asked.append(dict(body))
            if len(body["prompt"]) > 500:
                return self._send(400, {"error": {"message": "the prompt is too long"}})
            request = Request(models[body.pop("model")], body.pop("prompt"), body)
            logprobs = []
            while request.finish_reason is None:
                logprobs.append(request.advance()[1])
            choice = {"finish_reason": request.finish_reason, "logprobs": {"token_logprobs": logprobs}}
            self._send(200, {"choices": [{**choice, "token_ids": request.tokens if token_ids else None}]})

        def _send(self, status: int, answer: dict[str, Any]) -> None:
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def save_marker_file(folder: Path) -> str:
    """A folder that looks like a LoRA adapter's; the fake goes by its name."""
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"")
    return str(folder)
