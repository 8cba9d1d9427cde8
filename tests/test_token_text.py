"""Token ids and their text, against the tokenizers' own decoding."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepgrpo_lab.method.token_text import TokenText, decode_partial

FIXTURE_SETTINGS = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture(scope="module", params=["byte_bpe_tokenizer", "bytes_tokenizer", "qwen3_tokenizer"])
def pair(request: pytest.FixtureRequest) -> tuple[Any, TokenText]:
    tokenizer = request.getfixturevalue(request.param)
    return tokenizer, TokenText.from_tokenizer(tokenizer)


@FIXTURE_SETTINGS
@given(data=st.data())
def test_decode_equals_the_tokenizer_for_any_ids(pair: tuple[Any, TokenText], data: st.DataObject) -> None:
    tokenizer, token_text = pair
    # the last few ids lie beyond the vocabulary, like those of a padded embedding
    ids = data.draw(st.lists(st.integers(0, len(tokenizer) + 5), max_size=40))
    expected = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    assert token_text.decode(ids) == expected


@FIXTURE_SETTINGS
@given(text=st.text(max_size=40))
def test_encode_then_decode_gives_the_text_back(pair: tuple[Any, TokenText], text: str) -> None:
    tokenizer, token_text = pair
    ids = token_text.encode(text)
    assert ids == tokenizer.encode(text, add_special_tokens=False)
    normalizer = tokenizer.backend_tokenizer.normalizer
    assert token_text.decode(ids) == (normalizer.normalize_str(text) if normalizer else text)


@FIXTURE_SETTINGS
@given(data=st.data())
def test_spans_cover_the_text_in_order(pair: tuple[Any, TokenText], data: st.DataObject) -> None:
    tokenizer, token_text = pair
    ids = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=40))
    text, spans = token_text.decode(ids), token_text.spans(ids)
    assert len(spans) == len(ids)
    touched: set[int] = set()
    for start, end in spans:
        touched.update(range(start, end))
    assert touched == set(range(len(text)))
    assert spans == sorted(spans) and [end for _, end in spans] == sorted(end for _, end in spans)


@FIXTURE_SETTINGS
@given(chunks=st.lists(st.binary(max_size=4) | st.text(max_size=3).map(str.encode), max_size=12))
def test_decoding_in_chunks_equals_decoding_at_once(chunks: list[bytes]) -> None:
    text, pending = "", b""
    for chunk in chunks:
        done, pending = decode_partial(pending + chunk)
        text += done
    assert len(pending) < 4
    assert text + pending.decode(errors="replace") == b"".join(chunks).decode(errors="replace")


def test_control_tokens(byte_bpe_tokenizer: Any, bytes_tokenizer: Any) -> None:
    token_text = TokenText.from_tokenizer(byte_bpe_tokenizer, eos_ids=[byte_bpe_tokenizer.pad_token_id])
    assert token_text.eos_ids == {byte_bpe_tokenizer.eos_token_id, byte_bpe_tokenizer.pad_token_id}
    assert token_text.close_id == byte_bpe_tokenizer.convert_tokens_to_ids("</think>")
    assert token_text.encode("a</think>")[1:] == [token_text.close_id]
    assert token_text.decode([byte_bpe_tokenizer.eos_token_id]) == "<|im_end|>"
    assert TokenText.from_tokenizer(bytes_tokenizer).close_id is None


def test_qwen3_control_tokens(qwen3_tokenizer: Any) -> None:
    token_text = TokenText.from_tokenizer(qwen3_tokenizer)
    assert (token_text.eos_ids, token_text.close_id) == ({151645}, 151668)
    assert token_text.pieces(151_800) == b""


def test_added_token_with_a_space_stands_for_itself() -> None:
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE(vocab={"a": 0, "Ġ": 1}, merges=[]))
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens(["two words"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    token_text = TokenText.from_tokenizer(tokenizer)
    assert token_text.decode([0, 1, 2]) == tokenizer.decode([0, 1, 2]) == "a two words"
    assert token_text.eos_ids == frozenset()


def test_sentencepiece_pieces() -> None:
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    vocab = {"<unk>": 0, "▁Wait": 1, "<0xC3>": 2, "<0xA9>": 3, "x": 4}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>", byte_fallback=True))
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    backend.add_tokens(["<|end▁of▁turn|>"])
    token_text = TokenText.from_tokenizer(PreTrainedTokenizerFast(tokenizer_object=backend))
    assert token_text.decode([4, 1, 2, 3, 5]) == "x Waité<|end▁of▁turn|>"


def test_a_tokenizer_without_exact_bytes_is_refused() -> None:
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordPiece(vocab={"[UNK]": 0, "##ing": 1}, unk_token="[UNK]"))
    backend.decoder = decoders.WordPiece()
    with pytest.raises(ValueError, match=r"WordPiece.*use a fast byte-level BPE or SentencePiece tokenizer"):
        TokenText.from_tokenizer(PreTrainedTokenizerFast(tokenizer_object=backend))
    with pytest.raises(ValueError, match=r"object has decoder None"):
        TokenText.from_tokenizer(object())


def test_pickle(pair: tuple[Any, TokenText]) -> None:
    _, token_text = pair
    copy = pickle.loads(pickle.dumps(token_text))
    ids = copy.encode("Wait, é</think>")
    assert ids == token_text.encode("Wait, é</think>") and copy.decode(ids) == "Wait, é</think>"
    assert (copy.eos_ids, copy.close_id) == (token_text.eos_ids, token_text.close_id)


def test_toy_vocabulary_takes_the_longest_piece_and_names_what_it_lacks() -> None:
    toy = TokenText.from_pieces(["W", "Wait", "a", b"\xc3", b"\xa9"], eos_ids=[2])
    assert toy.encode("WaWaité") == [0, 2, 1, 3, 4] and toy.eos_ids == {2} and toy.close_id is None
    with pytest.raises(ValueError, match=r"starts b'x': add the missing pieces"):
        toy.encode("Wx")
