"""The untrained model's evaluation, kept for the next run that would measure the very same thing.

Several trainings of one comparison begin with the same model on the same problems. What is measured once is kept in a
cache folder, ``stepgrpo-lab`` among the user's caches (``~/.cache`` under Linux), or where the environment variable
``STEPGRPO_CACHE`` says; ``STEPGRPO_CACHE=off`` measures every time. An entry's name is a hash of all that decides its
content: the weights, tokenizer and configuration, the problems, the sampling, this package's code, and the versions and
the device that it ran with. So nothing is ever taken for something else, and the folder can be removed at any time.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, TypedDict

from filelock import FileLock, Timeout

from stepgrpo_lab.engines.distributed import broadcast, is_main_process
from stepgrpo_lab.engines.files import read_json, write_atomically
from stepgrpo_lab.engines.paths import CACHE_VARIABLE, cache_folder
from stepgrpo_lab.evaluation.results import Evaluation
from stepgrpo_lab.method.records import Problem, from_json
from stepgrpo_lab.recipes.schema import Recipe
from stepgrpo_lab.run.folder import system


class _Entry(TypedDict):
    seconds: float
    evaluation: dict[str, Any]


def measured_once(
    key: Callable[[], str], measure: Callable[[], Evaluation], say: Callable[[str], None]
) -> tuple[Evaluation, float | None]:
    """An evaluation from the cache, or made now and kept there; every process of a run must call.

    Of two runs that want the same at the same time, one measures and the other waits for it. Where the folder cannot be
    used, it is measured and not kept.

    Args:
        key: Names all that decides the evaluation, as :func:`evaluation_key` does; asked in the main process.
        measure: Makes it.
        say: Receives a line where something is to be said.

    Returns:
        The evaluation, and the seconds that it took when it was made; None if that was now.
    """
    folder = broadcast(cache_folder() if is_main_process() else None)
    if folder is None:
        return measure(), None
    with _entry(folder, key, say) as path:
        found = broadcast(_read(path) if path is not None else None)
        if found is not None:
            say(f"the untrained model was measured before: taken from {folder} ({CACHE_VARIABLE}=off measures again)")
            return Evaluation.from_dict(found["evaluation"]), found["seconds"]
        started = time.perf_counter()
        evaluation = measure()
        if path is not None:
            entry = _Entry(seconds=time.perf_counter() - started, evaluation=evaluation.to_dict())
            try:
                write_atomically(path, json.dumps(entry))
            except OSError as error:
                say(f"the evaluation cannot be kept in {folder} ({error.strerror})")
        return evaluation, None


@contextmanager
def _entry(folder: Path, key: Callable[[], str], say: Callable[[str], None]) -> Iterator[Path | None]:
    """The path of an entry, locked against other runs; None in all but the main process, and where that cannot be."""
    if not is_main_process():
        yield None
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"evaluation-{key()}.json"
        lock = FileLock(path.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say("another process is measuring the same model: waiting for its result")
            lock.acquire()
    except (OSError, NotImplementedError) as error:
        say(f"the cache {folder} cannot be used ({error})")
        yield None
        return
    try:
        yield path
    finally:
        lock.release()


def _read(path: Path) -> _Entry | None:
    """An entry; None where there is none that can be read, so that it is made anew."""
    try:
        entry = read_json(path, lambda data: from_json(_Entry, data), "it is made anew")
        Evaluation.from_dict(entry["evaluation"])
    except (OSError, ValueError):
        return None
    return entry


def evaluation_key(recipe: Recipe, model: Any, tokenizer: Any, problems: Sequence[Problem]) -> str:
    """A hash of everything that decides the evaluation of a model which samples for itself (with the lockstep engine).

    Args:
        recipe: Its evaluation, rollout and data sections say how.
        model, tokenizer: As loaded.
        problems: The test problems.
    """
    rollout, device = recipe.rollout, model.device
    decides = {
        "weights": _weights(model),
        "configuration": _configuration(model),
        "tokenizer": _tokenizer(tokenizer),
        "problems": [asdict(problem) for problem in problems],
        "evaluation": asdict(recipe.evaluation),
        "rollout": [rollout.max_tokens, rollout.markers, rollout.rows],
        "suffix": recipe.data.suffix,
        "seed": recipe.seed,
        "precision": recipe.optimisation.mixed_precision,
        "grading_timeout": recipe.reward.grading_timeout,
        "code": _code(),
        "system": {**system(), "device": _device(device)},
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()


def _weights(model: Any) -> str:
    """A hash of every parameter and buffer, as it lies in memory."""
    import torch

    total = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if isinstance(tensor, torch.Tensor):
            total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        else:  # a quantised layer's notes
            total.update(f"{name} {tensor}\n".encode())
    return total.hexdigest()


def _configuration(model: Any) -> list[Any]:
    adapters = {name: config.to_dict() for name, config in getattr(model, "peft_config", {}).items()}
    parts = [model.config.to_dict(), model.config._attn_implementation, model.generation_config.to_dict(), adapters]
    for part in (*parts[:1], *adapters.values()):
        part.pop("_name_or_path", None)  # where it lies says nothing about what it is
    return parts


def _tokenizer(tokenizer: Any) -> list[Any]:
    text = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
    return [text, tokenizer.chat_template, tokenizer.special_tokens_map]


def _device(device: Any) -> list[Any]:
    import torch

    return [device.type, torch.cuda.get_device_name(device) if device.type == "cuda" else torch.get_num_threads()]


@cache
def _code() -> str:
    """A hash of this package's modules: whatever changes in them may change a figure."""
    package = Path(__file__).parents[1]
    total = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        total.update(path.relative_to(package).as_posix().encode() + b"\n" + path.read_bytes())
    return total.hexdigest()
