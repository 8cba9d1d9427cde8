"""Tokenizers: whether one can serve the method, with the remedy where it cannot; prompts, and whether they fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stepgrpo_lab.engines._positions import position_bound
from stepgrpo_lab.method.names import shown
from stepgrpo_lab.method.records import Problem
from stepgrpo_lab.method.rollout import TrajectoryMachine
from stepgrpo_lab.method.settings import PRESETS, RolloutSettings
from stepgrpo_lab.method.steps import MARKER_SETS, MarkerSegmenter, resolve_markers
from stepgrpo_lab.method.token_text import THINK_CLOSE, TokenText

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

THINK_TAGS = ("<think>", THINK_CLOSE)


def separate_padding(tokenizer: PreTrainedTokenizerBase) -> None:
    """Give the tokenizer a padding token apart from its end of sequence, if it already knows one that can serve.

    DeepSeek-R1's distilled models and SmolLM2, for two, pad with their end-of-sequence token. A token that was meant
    for padding comes first, then any special token that neither begins a text nor stands in the chat template.
    """
    if _pads_apart(tokenizer):
        return
    added = [token for token in tokenizer.added_tokens_decoder.values() if str(token) != tokenizer.eos_token]
    template = str(tokenizer.chat_template or "")
    used = (tokenizer.bos_token, *THINK_TAGS)
    meant = [str(token) for token in added if "pad" in str(token).lower()]
    idle = [str(token) for token in added if token.special and str(token) not in used and str(token) not in template]
    if meant or idle:
        tokenizer.pad_token = meant[-1] if meant else idle[0]


def _pads_apart(tokenizer: PreTrainedTokenizerBase) -> bool:
    return tokenizer.pad_token_id is not None and tokenizer.pad_token_id != tokenizer.eos_token_id


def pad_with(tokenizer: PreTrainedTokenizerBase, token: str | None) -> None:
    """Make sure that a tokenizer can pad the passes of a training; decoding pads nothing.

    Args:
        tokenizer: As :func:`separate_padding` left it.
        token: The token to pad with; None keeps the tokenizer's own.

    Raises:
        ValueError: It is no token of the vocabulary, or the end of sequence; or there is none.
    """
    if token is not None:
        if token not in tokenizer.get_vocab():
            raise ValueError(f"model.pad_token is {shown(token)}, which is no token of the model's vocabulary")
        tokenizer.pad_token = token
    if not _pads_apart(tokenizer):
        raise ValueError(
            "the tokenizer's pad_token is missing or the same as its eos_token, so padding could be taken for a "
            "finished answer: set model.pad_token to another token of its vocabulary"
        )


def thinks(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer is a reasoning model's: it has ``</think>`` as a token, or its chat template knows it.

    Example:
        >>> from stepgrpo_lab.engines.models import load_tokenizer
        >>> thinks(load_tokenizer("overthinker"))
        True
    """
    return THINK_CLOSE in tokenizer.get_vocab() or any(tag in str(tokenizer.chat_template) for tag in THINK_TAGS)


def check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that the tokenizer can serve a truncated rollout.

    Raises:
        ValueError: It lacks an end-of-sequence token, cannot write the think tags or strips them, does not show the
            markers or the forced close as text, or its chat template is missing, loses the question, or closes the
            thoughts before they start; one line that names the remedy.

    Example:
        >>> from stepgrpo_lab.engines.models import load_tokenizer
        >>> check_tokenizer(load_tokenizer("overthinker"))
    """
    _check_ends(tokenizer)
    _check_think_tags(tokenizer)
    token_text = TokenText.from_tokenizer(tokenizer)
    _check_forced_texts(token_text)
    _check_markers(token_text)
    _check_template(tokenizer)


def _check_ends(tokenizer: PreTrainedTokenizerBase) -> None:
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no eos_token: set it to the token that ends an answer")


def _check_think_tags(tokenizer: PreTrainedTokenizerBase) -> None:
    for tag in THINK_TAGS:
        ids = tokenizer.encode(tag, add_special_tokens=False)
        if tokenizer.decode(ids, clean_up_tokenization_spaces=False) != tag:
            raise ValueError(f"the tokenizer cannot encode {tag!r}: use a reasoning model's tokenizer")
        if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
            raise ValueError(f"the tokenizer encodes {tag!r} as unknown: add it with tokenizer.add_tokens([{tag!r}])")
        if tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) != tag:
            raise ValueError(
                f"the tokenizer strips {tag!r} from completions, because it is marked as special: "
                'set "special": false for it in tokenizer.json and tokenizer_config.json'
            )


def _check_forced_texts(token_text: TokenText) -> None:
    """What the rollout forces must come out as it went in, and hold the close where the machine looks for it."""
    for name, settings in PRESETS.items():
        for text in (settings.close_text, settings.probe_prompt):
            if token_text.decode(token_text.encode(text)) != text:
                raise ValueError(
                    f"the tokenizer changes {text!r}, which preset {name!r} forces: use a byte-level or SentencePiece "
                    "tokenizer without a normaliser"
                )


def _check_markers(token_text: TokenText) -> None:
    for marker in MARKER_SETS["paper"]:
        for text in (f"so 2.\n\n{marker}, is it", f"so 2. {marker} again"):
            if MarkerSegmenter().count_ids(token_text.encode(text), token_text) != 2:
                raise ValueError(
                    f"the tokenizer hides the marker {marker!r} in its tokens: use a tokenizer without a normaliser"
                )


def _check_template(tokenizer: PreTrainedTokenizerBase) -> None:
    if not tokenizer.chat_template:
        raise ValueError("the tokenizer has no chat_template: set tokenizer.chat_template or use an instruct model")
    try:
        rendered = _chat_text(tokenizer, [{"role": "user", "content": "question"}])
    except ValueError as error:
        raise ValueError(
            f"{error}: set another chat_template, in chat_template.jinja or tokenizer_config.json"
        ) from error
    if "question" not in rendered:
        raise ValueError("the chat template loses the user's question: set another tokenizer.chat_template")
    if THINK_CLOSE in rendered:
        raise ValueError("the chat template closes the thoughts before the model starts: switch its thinking mode on")


def check_markers(token_text: TokenText, markers: str | Sequence[str]) -> None:
    """Check that the tokenizer can write every marker; one that it cannot write would never be seen.

    Raises:
        ValueError: It cannot; of a named marker set, that it can write none.

    Example:
        >>> from stepgrpo_lab.method.token_text import TokenText
        >>> check_markers(TokenText.from_pieces(["Wait"]), ["Wait"])
    """
    unseen = [marker for marker in resolve_markers(markers) if not _writes(token_text, marker)]
    if isinstance(markers, str) and len(unseen) < len(resolve_markers(markers)):
        return
    for marker in unseen:
        raise ValueError(f"markers: the tokenizer cannot write {marker!r}, so it would never be seen: leave it out")


def _writes(token_text: TokenText, marker: str) -> bool:
    try:
        return token_text.decode(token_text.encode(marker)) == marker
    except ValueError:
        return False


# ---- prompts ---------------------------------------------------------------------------------------------------------


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase, question: str, suffix: str = "", **template_options: Any
) -> list[int]:
    """Encode a question as the chat prompt whose continuation is the model's completion.

    Args:
        tokenizer: Any tokenizer with a chat template.
        question: The problem's text.
        suffix: Appended to the question as it is; start it with a space or a line break.
        template_options: Passed to the chat template, such as ``enable_thinking=True``.

    Returns:
        Prompt token ids, shape (prompt length,).

    Example:
        >>> from stepgrpo_lab.engines.models import load_tokenizer
        >>> tokenizer = load_tokenizer("overthinker")
        >>> tokenizer.decode(encode_prompt(tokenizer, "1+1?"))
        '<|im_start|>user\\n1+1?<|im_end|>\\n<|im_start|>assistant\\n'
    """
    return encode_messages(tokenizer, [{"role": "user", "content": question + suffix}], template_options)


def encode_messages(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, str]],
    template_options: Mapping[str, Any] | None = None,
) -> list[int]:
    """Encode a conversation, the assistant's turn opened; shape (prompt length,)."""
    text = _chat_text(tokenizer, messages, template_options)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _chat_text(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, str]],
    template_options: Mapping[str, Any] | None = None,
) -> str:
    """What ``tokenizer.apply_chat_template`` gives, except that the template is held to bounds."""
    from stepgrpo_lab.engines.templates import render_chat

    known = {**tokenizer.special_tokens_map, "add_generation_prompt": True, **(template_options or {})}
    try:
        return render_chat(tokenizer.get_chat_template(), messages, known)
    except ValueError as error:
        place = f"tokenizer {tokenizer.name_or_path!r}: " if tokenizer.name_or_path else ""
        raise ValueError(f"{place}{error}") from error


# ---- whether prompts fit, asked before a run begins instead of in its middle -----------------------------------------

MOST_TOKENS_PER_BYTE = 3
"""A byte of text is at most so many tokens: a byte-level token has a byte, and normalisation triples it at most."""


def prompt_room(model: Any, tokenizer: Any, limit: int, settings: RolloutSettings | None = None) -> int | None:
    """How many tokens a prompt may have beside its completion and its probes; None where the model sets no bound."""
    positions, _ = position_bound(model.config)
    if positions is None:
        return None
    return positions - TrajectoryMachine(TokenText.from_tokenizer(tokenizer), limit, settings).reach


def long_prompts(problems: Sequence[Problem], tokenizer: Any, room: int | None, suffix: str = "") -> Iterator[str]:
    """Name the problems whose prompts do not fit: one line for each, with its id and the remedy.

    Args:
        problems: In any order.
        tokenizer: Any tokenizer with a chat template.
        room: Most tokens of a prompt (see :func:`prompt_room`); None lets everything pass.
        suffix: Appended to every question.
    """
    if room is None:
        return
    frame = len(encode_prompt(tokenizer, "", suffix))
    for problem in problems:
        if frame + MOST_TOKENS_PER_BYTE * len(problem.prompt.encode("utf-8", "replace")) <= room:
            continue
        tokens = len(encode_prompt(tokenizer, problem.prompt, suffix))
        if tokens > room:
            yield (
                f"problem {problem.id!r}: its prompt has {tokens} tokens, but the model's context leaves room for "
                f"{room} beside the completion; lower rollout.max_tokens, shorten the problem or drop it"
            )
