"""The text of token ids, for any byte-level or SentencePiece tokenizer.

A token is a piece of bytes, not of text: a character may be split over two tokens, and a marker word over three.
Whoever looks for words in token ids therefore needs the exact bytes of each token, which :class:`TokenText` knows.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

THINK_CLOSE = "</think>"
"""The text that ends the thoughts."""


@dataclass(frozen=True, eq=False)
class TokenText:
    """What each token id of one tokenizer says.

    Build it with :meth:`from_tokenizer`, or with :meth:`from_pieces` for a toy vocabulary. Instances can be pickled.

    Attributes:
        table: Token id -> the token's exact bytes.
        eos_ids: Ids that end a completion.
        close_id: The single id of ``</think>``; None where it takes several tokens.
        encoder: Text -> token ids, without added special tokens.

    Example:
        >>> toy = TokenText.from_pieces(["Wait", "ing", " ", "</think>"])
        >>> toy.encode("Waiting</think>"), toy.decode([0, 2, 0]), toy.close_id
        ([0, 1, 3], 'Wait Wait', 3)
    """

    table: dict[int, bytes] = field(repr=False)
    eos_ids: frozenset[int]
    close_id: int | None
    encoder: Callable[[str], list[int]] = field(repr=False)

    @classmethod
    def from_tokenizer(cls, tokenizer: Any, eos_ids: Iterable[int] = ()) -> TokenText:
        """Read the pieces of a fast Hugging Face tokenizer.

        Args:
            tokenizer: A ``transformers.PreTrainedTokenizerFast``.
            eos_ids: Ids that end a completion, beside the tokenizer's own end-of-sequence token (a model's generation
                configuration may name several).

        Raises:
            ValueError: The tokenizer's pieces cannot be joined to text byte by byte (WordPiece, WordLevel, slow ones).
        """
        to_bytes = _piece_reader(tokenizer)
        table = {index: to_bytes(token) for token, index in tokenizer.get_vocab().items()}
        if to_bytes is _sentencepiece_bytes:  # an added token stands for itself, also where it has a "▁" in it
            table |= {index: token.content.encode() for index, token in tokenizer.added_tokens_decoder.items()}
        own_eos = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        return cls._build(table, [*own_eos, *eos_ids], partial(tokenizer.encode, add_special_tokens=False))

    @classmethod
    def from_pieces(cls, pieces: Sequence[str | bytes], eos_ids: Iterable[int] = ()) -> TokenText:
        """Make a toy vocabulary, for experiments without a tokenizer: the id of a piece is its place in the list.

        ``encode`` then takes the longest piece that fits at each place.
        """
        table = {index: piece.encode() if isinstance(piece, str) else piece for index, piece in enumerate(pieces)}
        return cls._build(table, eos_ids, partial(_encode_longest, {piece: index for index, piece in table.items()}))

    @classmethod
    def _build(cls, table: dict[int, bytes], eos_ids: Iterable[int], encoder: Callable[[str], list[int]]) -> TokenText:
        close_ids = [index for index, piece in table.items() if piece == THINK_CLOSE.encode()]
        return cls(table, frozenset(eos_ids), close_ids[0] if close_ids else None, encoder)

    def pieces(self, token_id: int) -> bytes:
        """The exact bytes of one token; empty for an id without a token (models pad their embedding with such ids)."""
        return self.table.get(token_id, b"")

    def decode(self, token_ids: Iterable[int]) -> str:
        """The text of a completion, special tokens included; bytes that are no UTF-8 become U+FFFD.

        Equals ``tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)`` for byte-level
        tokenizers.
        """
        return b"".join(map(self.pieces, plain_values(token_ids))).decode("utf-8", errors="replace")

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``; no special token is added, and ``</think>`` and the like become their single ids."""
        return list(self.encoder(text))

    def spans(self, token_ids: Iterable[int]) -> list[tuple[int, int]]:
        """For each token, the half-open span of the characters of :meth:`decode`'s text that it touches.

        The spans of two neighbours overlap where they share a character. Both ends never decrease.

        Example:
            >>> TokenText.from_pieces(["a", b"\\xc3", b"\\xa9!"]).spans([0, 1, 2])   # a, é!
            [(0, 1), (1, 2), (1, 3)]
        """
        spans = []
        end, pending = 0, b""
        for token_id in plain_values(token_ids):
            text, pending = decode_partial(pending + self.pieces(token_id))
            start, end = end, end + len(text)
            spans.append((start, end + bool(pending)))
        return spans


def plain_values(values: Iterable[Any]) -> list[Any]:
    """Python's own numbers from a list, or from a numpy array or torch tensor, whose elements hash in their own way.

    Example:
        >>> plain_values(range(3))
        [0, 1, 2]
    """
    return list(values.tolist() if hasattr(values, "tolist") else values)


def decode_partial(data: bytes) -> tuple[str, bytes]:
    """Decode all characters that are complete; returns them and the bytes of an unfinished one at the end.

    Decoding a stream so, chunk by chunk, gives the same text as decoding all of it at once.

    Example:
        >>> decode_partial("a€".encode()[:-1])
        ('a', b'\\xe2\\x82')
    """
    text, consumed = codecs.utf_8_decode(data, "replace", False)
    return text, data[consumed:]


def _piece_reader(tokenizer: Any) -> Callable[[str], bytes]:
    """How this tokenizer writes bytes in its vocabulary, from the decoder that undoes it."""
    decoder = getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None)
    kinds = set() if decoder is None else _decoder_kinds(json.loads(decoder.__getstate__()))
    if "ByteLevel" in kinds:
        return _byte_level_bytes
    if kinds & {"ByteFallback", "Metaspace"}:
        return _sentencepiece_bytes
    raise ValueError(
        f"tokenizer {type(tokenizer).__name__} has decoder {sorted(kinds) or None}, whose tokens have no exact bytes: "
        "use a fast byte-level BPE or SentencePiece tokenizer (Qwen, Llama, Mistral, Gemma, ...)"
    )


def _decoder_kinds(decoder: dict[str, Any]) -> set[str]:
    return {decoder["type"]}.union(*map(_decoder_kinds, decoder.get("decoders", [])))


def _byte_alphabet() -> dict[str, int]:
    """The characters that stand for the 256 bytes in a byte-level vocabulary (Radford et al. 2019).

    Visible Latin-1 characters stand for themselves; the others are numbered on from U+0100, so a space is ``Ġ``.
    """
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(0x100 + place): byte for place, byte in enumerate(hidden)}


_BYTE_ALPHABET = _byte_alphabet()
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_level_bytes(token: str) -> bytes:
    try:
        return bytes(map(_BYTE_ALPHABET.__getitem__, token))
    except KeyError:  # an added token that no byte-level piece could spell, e.g. one with a space in it
        return token.encode()


def _sentencepiece_bytes(token: str) -> bytes:
    if match := _BYTE_TOKEN.fullmatch(token):
        return bytes([int(match[1], 16)])
    return token.replace("▁", " ").encode()


def _encode_longest(vocabulary: dict[bytes, int], text: str) -> list[int]:
    data, ids = text.encode(), []
    longest = max(map(len, vocabulary))
    while data:
        size = next((size for size in range(longest, 0, -1) if data[:size] in vocabulary), None)
        if size is None:
            raise ValueError(f"no piece of this vocabulary starts {data[:12]!r}: add the missing pieces")
        ids.append(vocabulary[data[:size]])
        data = data[size:]
    return ids
