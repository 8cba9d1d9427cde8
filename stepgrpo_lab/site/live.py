"""The live page: embedded models think in the browser, side by side, with nothing installed and no server behind it.

The page's scripts lie in ``live/``. This module writes beside them what they have to know of the models: weights in 16
bits, tokenizers, rollout settings in token ids, and problems to pick from. Nothing of that is written by hand twice.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepgrpo_lab.engines.completions import text_of
from stepgrpo_lab.engines.models import load_model
from stepgrpo_lab.engines.tokenizers import encode_prompt
from stepgrpo_lab.method.markers import is_plain
from stepgrpo_lab.method.records import Problem
from stepgrpo_lab.method.settings import RolloutSettings, budget_tokens, close_tokens, rollout_settings
from stepgrpo_lab.method.steps import resolve_markers
from stepgrpo_lab.method.token_text import THINK_CLOSE, TokenText
from stepgrpo_lab.overthinker.tasks import find_laboratory, overthinker_problems
from stepgrpo_lab.recipes.loading import load_recipe
from stepgrpo_lab.recordings.making import watching

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

EXAMPLES = 4
"""Problems of each family and level to pick from."""

MANIFEST = "live.json"
"""Names the models and problems of a page; in its folder ``data``."""

PAGE_PRESETS = ("official", "paper")
"""The rollouts that the page offers."""

_MODEL_TYPE = "qwen3"
_CONFIG = (
    *("hidden_size", "head_dim", "num_attention_heads", "num_key_value_heads", "num_hidden_layers"),
    *("intermediate_size", "vocab_size", "max_position_embeddings", "rms_norm_eps", "rope_parameters"),
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.-]*")


def write_live(folder: str | Path, models: Mapping[str, str], *, laboratory: str = "overthinker-2") -> Path:
    """Write the live page: a folder that any plain file server can show, at any address.

    Args:
        folder: Where to write; made if it is missing, and files of an earlier page are replaced.
        models: Name on the page -> embedded model, run folder or model folder, in the order of the columns. The page
            tells the story of an untrained and a trained model; it takes one model, or three, as well.
        laboratory: Whose problems are offered, and whose recipe sets the rollouts.

    Returns:
        The page itself, ``index.html``.

    Raises:
        ValueError: No models, a name that makes no file name, or a model or tokenizer that the page cannot run.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     write_live(folder, {"untrained": "overthinker-2"}).name
        'index.html'
    """
    if not models:
        raise ValueError("models is empty: give the page at least one model, such as {'untrained': 'overthinker-2'}")
    for name in models:
        if not _NAME.fullmatch(name):
            raise ValueError(f"model name {name!r} makes no file name: use letters, digits and spaces")
    folder = Path(folder)
    data = folder / "data"
    if (data / MANIFEST).is_file():
        shutil.rmtree(data)  # an earlier page's models
    data.mkdir(parents=True, exist_ok=True)
    shutil.copytree(Path(__file__).with_suffix(""), folder, dirs_exist_ok=True)  # the scripts in live/
    rollout = load_recipe(laboratory).rollout
    entries = [_write_model(data, name, path, rollout.settings, rollout.max_tokens) for name, path in models.items()]
    manifest = {"limit": rollout.max_tokens, "models": entries, "problems": _examples(laboratory)}
    _write_json(data / MANIFEST, manifest)
    return folder / "index.html"


def _examples(laboratory: str) -> list[dict[str, Any]]:
    home = find_laboratory(laboratory)
    problems: list[Problem] = []
    for family, levels in home.level_weights.items():
        for level in levels:
            problems += overthinker_problems("test", EXAMPLES, family=family, level=level, laboratory=laboratory)
    return [
        {"prompt": problem.prompt, "answer": problem.answer, "family": problem.family, "level": problem.level}
        for problem in problems
    ]


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")


# ---- what the page knows of a model ----------------------------------------------------------------------------------


def _write_model(data: Path, name: str, source: str, settings: RolloutSettings, limit: int) -> dict[str, str]:
    """Write a model's weights and its description; returns its entry of the manifest."""
    from safetensors.torch import save

    model, tokenizer = load_model(source, device="cpu", merge=True)
    file = "model-" + name.replace(" ", "-")
    (data / f"{file}.safetensors").write_bytes(save(half_weights(model)))
    _write_json(data / f"{file}.json", describe_model(model, tokenizer, settings, limit))
    return {"name": name, "description": f"{file}.json", "weights": f"{file}.safetensors"}


def half_weights(model: PreTrainedModel) -> dict[str, Any]:
    """The model's tensors in 16-bit floats, a tied head left out.

    Raises:
        ValueError: It is no Qwen3 that the page can run, or a weight is too large for 16 bits.
    """
    import torch

    config: Any = model.config
    if config.model_type != _MODEL_TYPE or config.hidden_act != "silu" or config.attention_bias:
        raise ValueError(f"the page runs Qwen3 models without attention bias, and this is {config.model_type!r}")
    if config.use_sliding_window or config.rope_parameters["rope_type"] != "default":
        raise ValueError("the page runs Qwen3 models with full attention and plain rotary positions only")
    if any(weight.ndim == 2 and weight.shape[1] % 4 for weight in model.parameters()):
        raise ValueError("the page adds four products at a time: use layers whose widths are multiples of 4")
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    halves = {name: weight.half() for name, weight in model.state_dict().items() if name not in tied}
    large = [name for name, weight in halves.items() if not torch.isfinite(weight).all()]
    if large:
        raise ValueError(f"{large[0]} holds numbers that 16-bit floats cannot: train with a smaller learning rate")
    return {name: weight.contiguous() for name, weight in halves.items()}


def describe_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: RolloutSettings, limit: int
) -> dict[str, Any]:
    """All that the page has to know of a model beside its weights; JSON-able.

    Args:
        model, tokenizer: The model.
        settings: The rollout's settings; those of each preset differ from them by what makes the preset.
        limit: Longest completion, in tokens.

    Raises:
        ValueError: The tokenizer is no byte-level BPE, or the settings ask for what the page does not do.
    """
    token_text = text_of(tokenizer, model.generation_config.eos_token_id)
    before, after = _prompt_frame(tokenizer, token_text)
    presets = [_with_preset(settings, preset) for preset in PAGE_PRESETS]
    return {
        "config": {name: getattr(model.config, name) for name in _CONFIG},
        "parameters": model.num_parameters(),
        "tokenizer": describe_tokenizer(tokenizer),
        "prompt": {"before": before, "after": after},
        "end_ids": sorted(token_text.eos_ids),
        "presets": {each.preset: describe_rollout(each, limit, token_text) for each in presets},
        "watching": {each.preset: describe_rollout(watching(each), limit, token_text) for each in presets},
    }


def _with_preset(settings: RolloutSettings, preset: str) -> RolloutSettings:
    """The settings of another preset, with the recipe's markers, budgets and threshold."""
    names = ("markers", "exit_threshold", "probe_max_tokens", "max_probes", "think_budget", "near_budget_margin")
    return rollout_settings(preset, **{name: getattr(settings, name) for name in names})


def _prompt_frame(tokenizer: PreTrainedTokenizerBase, token_text: TokenText) -> tuple[str, str]:
    """What the chat template writes before a question and after it."""
    before, asked, after = token_text.decode(encode_prompt(tokenizer, "question")).partition("question")
    if not asked:
        raise ValueError("the chat template changes the question, so the page cannot write its prompts")
    return before, after


def describe_rollout(settings: RolloutSettings, limit: int, token_text: TokenText) -> dict[str, Any]:
    """A rollout's settings as the page needs them: texts in token ids, budgets in tokens.

    Raises:
        ValueError: Markers that are no plain words, or ``stop_decided``, which the page does not do.
    """
    markers = resolve_markers(settings.markers)
    if not is_plain(markers) or settings.stop_decided:
        raise ValueError("the page's rollout has plain marker words, and does not know stop_decided")
    return {
        "markers": markers,
        "close": THINK_CLOSE,
        "probe_prompt": settings.probe_prompt,
        "probe_prompt_ids": token_text.encode(settings.probe_prompt),
        "box_opened": settings.box_opened,
        "confidence_rule": settings.confidence_rule,
        "skip_first": settings.skip_first,
        "require_close": settings.require_close,
        "keep_probe": settings.keep_probe,
        "exit_threshold": settings.exit_threshold,
        "probe_max_tokens": settings.probe_max_tokens,
        "max_probes": settings.max_probes,
        "think_budget": max(1, budget_tokens(settings.think_budget, limit)),
        "near_budget": settings.exit_rule(limit).near_budget,
        "close_ids": close_tokens([], settings, token_text),
        "close_ids_after_newline": close_tokens(token_text.encode("\n"), settings, token_text),
    }


# ---- what the page knows of a tokenizer ------------------------------------------------------------------------------


def describe_tokenizer(tokenizer: Any) -> dict[str, Any]:
    """A byte-level BPE tokenizer in numbers: the bytes of each id, the merges as ids, and how text is cut.

    Raises:
        ValueError: It is none, or does more to a text than cut it.
    """
    known = json.loads(tokenizer.backend_tokenizer.to_str())
    model, ids = known["model"], tokenizer.get_vocab()
    table = TokenText.from_tokenizer(tokenizer).table
    if model["type"] != "BPE" or known["normalizer"] is not None or model.get("ignore_merges"):
        raise ValueError("the page reads byte-level BPE tokenizers without a normaliser only")
    merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    return {
        "pieces": [table.get(index, b"").hex() for index in range(1 + max(table))],
        "merges": [[ids[left], ids[right], ids[left + right]] for left, right in merges],
        "added": {token["content"]: token["id"] for token in known["added_tokens"]},
        "pattern": _pattern_for_javascript(_split_pattern(known["pre_tokenizer"])),
    }


def _split_pattern(pre_tokenizer: Any) -> str:
    parts: Sequence[Any] = pre_tokenizer.get("pretokenizers", []) if pre_tokenizer else []
    if [part["type"] for part in parts] != ["Split", "ByteLevel"] or parts[1]["use_regex"]:
        raise ValueError("the page reads tokenizers that cut a text by one pattern and then go by bytes")
    split, by_bytes = parts
    if split["behavior"] != "Isolated" or split["invert"] or by_bytes["add_prefix_space"]:
        raise ValueError("the page reads tokenizers whose pattern keeps all of a text")
    return str(split["pattern"]["Regex"])


def _pattern_for_javascript(pattern: str) -> str:
    """A tokenizer's regular expression in JavaScript's dialect, for its flag ``u``."""

    def both_cases(group: re.Match[str]) -> str:
        return "(?:" + re.sub("[a-z]", lambda letter: f"[{letter[0]}{letter[0].upper()}]", group[1]) + ")"

    pattern = re.sub(r"\(\?i:([^()]*)\)", both_cases, pattern)  # older browsers know no flags of a group
    return pattern.replace(r"\s", r"\p{White_Space}").replace(r"\S", r"\P{White_Space}")  # theirs has a BOM in it
