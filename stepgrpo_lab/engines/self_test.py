"""Whether the lockstep engine decodes a model rightly: asked of the model itself, before anything is sampled from it.

A list of known good architectures proves nothing about the next one: an attention window may live in a module, rotary
factors may depend on the longest row of a batch. So a few steps in lockstep, with rows of unequal length and one
rewind, are held against one plain pass over the same tokens.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from stepgrpo_lab.engines._feeding import Feeder, base_of, evaluation_mode

TESTED = frozenset(
    """
    afmoe apertus arcee aria_text axk1 bailing_hybrid bamba beam bert bert-generation big_bird biogpt bitnet
    codegen cohere cohere2 cohere2_moe cohere_compass_text ctrl cwm dbrx deepseek_v2 deepseek_v3 diffllama doge
    dots1 electra emu3 ernie ernie4_5 ernie4_5_moe exaone4 exaone_moe falcon flex_olmo flint fuyu gemma gemma2
    gemma3 gemma3_text gemma3n_text gemma4 gemma4_text gemma4_unified gemma4_unified_text glm glm4 glm4_moe
    glm4_moe_lite gpt-sw3 gpt2 gpt_bigcode gpt_neox gpt_neox_japanese gpt_oss gptj granite granite_swa
    granitemoe granitemoe_swa granitemoehybrid granitemoeshared helium hrm_text hunyuan_v1_dense hunyuan_v1_moe
    hy_v3 hyperclovax internlm3 iquestcoder jais2 jamba jetmoe kimi_linear kolibri1 laguna lfm2 lfm2_moe lfm3
    llama llama4 llama4_text longcat_flash megatron-bert mellum mimo_v2_flash minicpm3 minimax_m2
    minimax_m3_vl_text ministral ministral3 mistral mixtral mllama modernbert-decoder nanochat nemotron olmo
    olmo2 olmo3 olmo_hybrid olmoe opt persimmon phi phi3 phimoe qwen2 qwen2_moe qwen3 qwen3_5 qwen3_5_moe
    qwen3_5_moe_text qwen3_5_text qwen3_moe qwen3_next rembert roc_bert seed_oss smollm3 solar_open stablelm
    starcoder2 vaultgemma xglm youtu
    """.split()  # noqa: SIM905 (a list would take a page)
)
"""Architectures (``model_type``) that pass every test of ``tests/test_architectures.py``: they need no self-test."""

TOLERANCE = 1e-3
"""Largest difference of log-probabilities in fp32."""

SPREADS = 5
"""In 16 bits: so many times the difference between two plain passes in different batches."""

STEPS = 5
SHORT = (3, 11, 6)
"""Prompt lengths of the rows that every self-test has."""

_passed: dict[str, set[int]] = {}
"""For each configuration that passed, the position thresholds that rows stood on both sides of."""

_warned_only: set[str] = set()
"""Configurations that are used although they fail."""


def warn_only(model: Any) -> None:
    """Use a model, and all others of its configuration, even where the self-test fails: with a warning.

    Example:
        >>> from stepgrpo_lab.course.toys import tiny_policy
        >>> warn_only(tiny_policy()[0])
    """
    _warned_only.add(_configuration(base_of(model)))


def check_decoding(feeder: Feeder, reach: int) -> None:
    """Check once for each configuration that decoding in lockstep equals a plain pass, for rows of up to ``reach``.

    Args:
        feeder: The model.
        reach: Most places that any row will use: thresholds beyond it need no test.

    Raises:
        ValueError: The model fails, and :func:`warn_only` was not said of it; the message names the broken invariant.
    """
    base = feeder.base
    if type(base).__module__.startswith("transformers.models.") and base.config.model_type in TESTED:
        return
    configuration = _configuration(base)
    passed = _passed.setdefault(f"{base.device.type} {feeder.precision} {configuration}", set())
    for threshold in sorted({0, *(bound for bound in thresholds(base.config) if bound < reach)} - passed):
        with torch.no_grad(), evaluation_mode(feeder.model):
            broken = _broken(feeder, threshold)
        if broken is not None:
            message = f"{type(base).__name__} cannot be decoded in lockstep: {broken}."
            if configuration not in _warned_only:
                raise ValueError(f"{message} Use another model, or set model.self_test: warn to use it all the same.")
            warnings.warn(message, stacklevel=2)
        passed.add(threshold)


def check_padding(model: Any) -> None:
    """Check that a row's log-probabilities stay what they are with padding on its left, as a trainer's passes have it.

    Models with learned positions count the padding, unless they are told the positions; TRL tells none.

    Args:
        model: The policy.

    Raises:
        ValueError: They do not, and :func:`warn_only` was not said of the model.
    """
    base = base_of(model)
    configuration = _configuration(base)
    if configuration in _padded | _warned_only:
        return
    feeder = Feeder(model)
    row = _rows(_vocabulary(base), 0, rewind=False)[1]
    with torch.no_grad(), evaluation_mode(model):
        allowed, references = _references(feeder, [row])
        padding = 5
        ids = torch.tensor([[row.ids[0]] * padding + row.ids], device=model.device)
        mask = torch.ones_like(ids)
        mask[:, :padding] = 0
        found = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[0, -STEPS:].float().log_softmax(-1)
    gap = _gap_of(found, references[tuple(row.ids)])
    if gap > allowed:
        raise ValueError(
            f"{type(base).__name__} gives a row other log-probabilities (by {gap:.2g}) where padding stands on its "
            "left, as in every pass of the training: train a model with rotary positions, or set model.self_test: warn."
        )
    _padded.add(configuration)


_padded: set[str] = set()


def thresholds(config: Any) -> dict[int, str]:
    """The positions at which a configuration says that something changes, and what they are called there."""
    found: dict[int, str] = {}

    def look(values: Any, name: str) -> None:
        if isinstance(values, dict):
            for key, value in values.items():
                look(value, str(key))
        elif isinstance(values, list):
            for value in values:
                look(value, name)
        elif type(values) is int and values > 1 and any(word in name for word in _THRESHOLD_WORDS):
            found[values] = name

    look(config.get_text_config(decoder=True).to_dict(), "")
    return found


_THRESHOLD_WORDS = ("window", "chunk", "original_max_position", "floor_scale", "local")


def _vocabulary(base: Any) -> int:
    return int(base.config.get_text_config(decoder=True).vocab_size)


def _configuration(base: Any) -> str:
    """What decides how a model computes: not where it came from."""
    values = base.config.to_dict()
    for name in ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version"):
        values.pop(name, None)
    return f"{type(base)} {sorted(values.items(), key=str)}"


# ---- one self-test: rows on both sides of a threshold ----------------------------------------------------------------


@dataclass
class _Row:
    """Known tokens, fed after a prompt of a given length; a row that rewinds feeds two wrong ones in between."""

    ids: list[int]
    prompt: int
    rewinds: bool

    def feeds(self) -> list[tuple[int, int, bool]]:
        """(token, place, whether its logits count) of each step."""
        places = range(self.prompt - 1, self.prompt - 1 + STEPS)
        right = [(self.ids[place], place, True) for place in places]
        if not self.rewinds:
            return right
        wrong = [(self.ids[place] + 1, place, False) for place in places[2:4]]
        return [*right[:2], *wrong, *right[2 : STEPS - 2]]


def _rows(vocabulary: int, threshold: int, rewind: bool) -> list[_Row]:
    """Short rows, and around a threshold one that crosses it and one beyond it; every other one rewinds."""
    prompts = [*SHORT, *((threshold - 2, threshold + 40) if threshold > 2 else ())]
    rows = []
    for number, prompt in enumerate(prompts):
        places = range(prompt + STEPS - 1)
        ids = [3 + (7 * place * place + 31 * place + 101 * number) % (vocabulary - 5) for place in places]
        rows.append(_Row(ids, prompt, rewind and number % 2 == 1))
    return rows


def _broken(feeder: Feeder, threshold: int) -> str | None:
    """Which invariant is broken, and where; None if all hold."""
    vocabulary = _vocabulary(feeder.base)
    try:
        rows = _rows(vocabulary, threshold, rewind=True)
        allowed, references = _references(feeder, rows)
        if _gap(feeder, rows, references) <= allowed:
            return None
        rows = _rows(vocabulary, threshold, rewind=False)
        alone = max(_gap(feeder, [row], references) for row in rows)
        together = _gap(feeder, rows, references)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a foreign forward pass raises
        reason = " ".join(str(error).split())[:200]
        return f"its forward pass takes no mask, place or cache of a row's own ({type(error).__name__}: {reason})"
    where = f" for rows around position {threshold} ({thresholds(feeder.base.config)[threshold]})" if threshold else ""
    if alone > allowed:
        what = f"a token's logits with the cache are not those of one pass over the whole row (by {alone:.2g})"
    elif together > allowed:
        what = f"a completion depends on which others share its batch (by {together:.2g})"
    else:
        what = "a probe that was taken back leaves a trace in what follows"
    return what + where


def _gap(feeder: Feeder, rows: Sequence[_Row], references: dict[tuple[int, ...], torch.Tensor]) -> float:
    """Largest difference of log-probabilities between lockstep and the plain passes."""
    reach = max(len(row.ids) for row in rows)
    cache = feeder.cache(len(rows), reach)
    feeder.prefill(cache, range(len(rows)), [row.ids[: row.prompt - 1] for row in rows])
    gap = 0.0
    for feeds in zip(*(row.feeds() for row in rows), strict=True):
        logits = feeder.step(cache, [[token] for token, _, _ in feeds], [place for _, place, _ in feeds])
        for row, found, (_, place, counts) in zip(rows, logits, feeds, strict=True):
            if counts:
                expected = references[tuple(row.ids)][place - row.prompt + 1]
                gap = max(gap, _gap_of(found.log_softmax(-1), expected))
    return gap


def _references(feeder: Feeder, rows: Sequence[_Row]) -> tuple[float, dict[tuple[int, ...], torch.Tensor]]:
    """How much lockstep may differ, and each row's log-probabilities [steps, vocabulary] without a cache."""
    plain = [_plain_pass(feeder, row, 1) for row in rows]
    found = {tuple(row.ids): logits.log_softmax(-1) for row, logits in zip(rows, plain, strict=True)}
    if feeder.precision == torch.float32:
        return TOLERANCE, found
    spread = max(_gap_of(found[tuple(row.ids)], _plain_pass(feeder, row, 3).log_softmax(-1)) for row in rows)
    rounding = torch.finfo(feeder.precision).eps * max(float(logits.abs().max()) for logits in plain)
    return max(TOLERANCE, SPREADS * max(spread, rounding)), found


def _plain_pass(feeder: Feeder, row: _Row, copies: int) -> torch.Tensor:
    """Logits [steps, vocabulary] of a row, in a batch with copies of itself; its positions are the model's own."""
    ids = torch.tensor([row.ids] * copies, device=feeder.model.device)
    keep = {"logits_to_keep": STEPS} if feeder.last_logits_only else {}
    return feeder.model(input_ids=ids, use_cache=False, **keep).logits[0, -STEPS:].float()


def _gap_of(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference; 0 where the model itself has no number to compare with: decoding will say so."""
    if expected.isnan().any():
        return 0.0
    apart = (found - expected).abs().masked_fill(found == expected, 0.0)  # as where both are -inf
    return float(apart.nan_to_num(nan=float("inf")).max())
