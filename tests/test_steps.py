"""Semantic steps: the same markers in the text, in the token ids and while streaming."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepgrpo_lab.method.records import Step
from stepgrpo_lab.method.steps import (
    MARKER_SETS,
    BlankLineSegmenter,
    MarkerHit,
    MarkerSegmenter,
    Segmenter,
    SplitScanner,
    StepScanner,
    resolve_markers,
)
from stepgrpo_lab.method.token_text import THINK_CLOSE, TokenText, decode_partial

PAPER = MarkerSegmenter("paper")
FOREIGN = MarkerSegmenter(["Wait", "éé"], close="</思>")  # markers and a close of several bytes a character
JOINED = MarkerSegmenter(["Wait", "等", "等等看", "잠깐", "รอ", "रुको"], close="</思>")  # one begins another
READER, BLANK = MarkerSegmenter("reader"), BlankLineSegmenter()
IN_CONTEXT = (JOINED, MarkerSegmenter("multilingual"), READER, BLANK)

TRAPS = [
    *("Wait", "Waiting", "await", " Wait", ".Wait", "(Wait", "\n\nWait", "_Wait", "Wait_", "Wait1", "12 Wait", "WAIT"),
    *("Alternatively", "Altern", "atively", "</think>", "</", "think>", "<think>", "<", ">", "W", "ait", "wait"),
    *(
        ",",
        ".",
        " ",
        "\n",
        "é",
        "éé",
        "e\u0301",
        "\u0301",
        "等",
        "</思>",
        "🤔",
        "∑",
        "\u200b",
        "7",
        "_",
        "x",
        "<|im_end|>",
    ),
]
CONTEXTS = [  # what the rules of context turn on
    *(
        "\n\n",
        "\n",
        " ",
        ", ",
        ". ",
        "? ",
        "...",
        "，",
        "。",
        "、",
        "- ",
        "> ",
        "```\n",
        "`",
        '"',
        "“",
        "”",
        "'",
        "「",
        "」",
    ),
    *(
        "Wait",
        "wait",
        " wait",
        "Wait Time",
        " no",
        " that's",
        " is",
        " for",
        "(",
        ")",
        "**",
        "</",
        "</think>",
        "<think>",
    ),
    *(
        "Hold",
        " on",
        "Hmm",
        "HMM",
        "Let",
        " me",
        " just",
        " check",
        "let's",
        "But",
        " but",
        "However",
        "Actually",
        "Oh",
    ),
    *(
        "等",
        "等等",
        "嗯",
        "看",
        "不过",
        "ちょっと待って",
        "잠깐",
        "만",
        "รอ",
        "ก่อน",
        "रु",
        "को",
        "\u0301",
        "x",
        "8",
        "é",
        "🤔",
    ),
    "\r\n",
    "\t",
    "<",
    "On second thought",
    "Another way",
    "</思>",
]
TRAP_TEXT = st.lists(st.sampled_from(TRAPS), max_size=14).map("".join)
# Pieces that no tokenizer would make: split characters, several markers in a token, empty pieces.
TOY = TokenText.from_pieces(
    [
        *(trap.encode() for trap in TRAPS),
        *(bytes([byte]) for trap in ("é", "等", "🤔", "</思>") for byte in trap.encode()),
        *(
            b"",
            b"Wait. Wait",
            b"Wait Wait Wait,",
            b"Wait</think>",
            b"x Wait</think>",
            b"12 W",
            b"\x94Wait",
            b"\xa9Wait",
        ),
        *(b"\xff", b"Wait\xc3", b".\xe7", b"x\xe7", b"\xad\x89", b"9 \xc3"),
        *(context.encode() for context in CONTEXTS),
        *(b"\xe7\xad", b"\x89\xe7", b"x\n\nx", b", wait, no", b"\n\n</", b"Hmm, wait. But", "等等看等".encode()),
    ]
)
CONTEXT_TEXT = st.lists(st.sampled_from(CONTEXTS), max_size=16).map("".join)
TOY_IDS = st.lists(st.sampled_from(sorted(TOY.table)), max_size=14)
PROPERTY = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture(scope="module", params=["byte_bpe_tokenizer", "bytes_tokenizer", "qwen3_tokenizer"])
def token_text(request: pytest.FixtureRequest) -> TokenText:
    return TokenText.from_tokenizer(request.getfixturevalue(request.param))


def stream(segmenter: Segmenter, ids: Sequence[int], token_text: TokenText) -> tuple[StepScanner, list[MarkerHit]]:
    scanner = segmenter.scanner(token_text)
    return scanner, [hit for hit in map(scanner.push, ids) if hit]


def reference_count(segmenter: MarkerSegmenter, text: str) -> int:
    """Eq. 3 once more, in the plainest way."""
    thoughts = text.split(segmenter.close)[0]
    return 1 + sum(len(re.findall(rf"(?<!\w){marker}(?!\w)", thoughts)) for marker in segmenter.markers)


def check_all_agree(segmenter: MarkerSegmenter, ids: Sequence[int], token_text: TokenText) -> None:
    text = token_text.decode(ids)
    steps = segmenter.split_ids(ids, token_text)
    scanner, _ = stream(segmenter, ids, token_text)

    expected = len(steps) if segmenter in IN_CONTEXT else reference_count(segmenter, text)
    assert segmenter.count(text) == segmenter.count_ids(ids, token_text) == scanner.finish() == len(steps) == expected
    assert scanner.closed == (segmenter.close in text)
    assert scanner.steps <= expected

    assert "".join(step.text for step in steps) == text.split(segmenter.close)[0]
    assert [step.index for step in steps] == list(range(len(steps)))
    assert all(step.text == text[step.start : step.end] for step in steps)
    assert all(before.end == after.start and before.token_end == after.token_start for before, after in pairwise(steps))
    assert all(step.token_start is not None and step.token_start <= (step.token_end or 0) for step in steps)
    assert steps[0].token_start == 0 and steps[0].marker is None
    if not scanner.closed:
        assert steps[-1].token_end == len(ids)
    for step in steps[1:]:
        assert step.marker in segmenter.markers
        assert segmenter in (READER, BLANK) or step.text.startswith(step.marker or "?")


def check_hits(segmenter: MarkerSegmenter, ids: Sequence[int], token_text: TokenText) -> None:
    """Each hit comes as soon as it is certain, holds no content back, and dropping it undoes its tokens."""
    text, steps = token_text.decode(ids), segmenter.split_ids(ids, token_text)
    scanner = segmenter.scanner(token_text)
    for end, token in enumerate(ids, start=1):
        seen = scanner.steps
        hit = scanner.push(token)
        assert scanner.finish() == segmenter.count(token_text.decode(ids[:end]))
        if segmenter not in IN_CONTEXT:
            certain, _ = decode_partial(b"".join(map(token_text.pieces, ids[:end])))
            assert scanner.steps == segmenter.count(certain + "x")
        if hit is None:
            assert scanner.steps == seen or scanner.closed
            continue

        kept, held = ids[: end - hit.held], ids[end - hit.held : end]
        step, kept_text = steps[seen], token_text.decode(kept)
        assert scanner.steps > seen
        assert (step.marker, step.token_start) == (hit.marker, len(kept))
        if len(kept_text) <= step.start:
            assert text.startswith(kept_text), "what stays ends with a whole character"
            assert not re.search(r"\w", text[len(kept_text) : step.start]), "content is never held back"

        scanner.drop(hit.held)
        fresh, _ = stream(segmenter, kept, token_text)
        assert (scanner.steps, scanner.closed, scanner.finish()) == (fresh.steps, fresh.closed, fresh.finish())
        assert [scanner.push(token) for token in held] == [fresh.push(token) for token in held]


@PROPERTY
@given(text=TRAP_TEXT)
def test_three_counts_agree_on_encoded_text(token_text: TokenText, text: str) -> None:
    for segmenter in (PAPER, FOREIGN):
        ids = token_text.encode(text)
        check_all_agree(segmenter, ids, token_text)
        check_hits(segmenter, ids, token_text)


@PROPERTY
@given(text=CONTEXT_TEXT)
def test_three_counts_agree_in_any_context(token_text: TokenText, text: str) -> None:
    for segmenter in IN_CONTEXT:
        ids = token_text.encode(text)
        check_all_agree(segmenter, ids, token_text)
        check_hits(segmenter, ids, token_text)


@PROPERTY
@given(text=CONTEXT_TEXT, data=st.data())
def test_where_the_text_is_cut_into_tokens_makes_no_difference(text: str, data: st.DataObject) -> None:
    written = text.encode()
    cuts = sorted(data.draw(st.sets(st.integers(0, len(written)), max_size=len(written))) | {0, len(written)})
    toy = TokenText.from_pieces([written[start:stop] for start, stop in pairwise(cuts)] or [b""])
    for segmenter in (PAPER, *IN_CONTEXT):
        check_all_agree(segmenter, range(len(toy.table)), toy)
        check_hits(segmenter, range(len(toy.table)), toy)
        whole = TokenText.from_pieces([written])
        assert [step.text for step in segmenter.split_ids(range(len(toy.table)), toy)] == [
            step.text for step in segmenter.split_ids([0], whole)
        ]


@PROPERTY
@given(data=st.data())
def test_three_counts_agree_on_ids_that_no_encoder_makes(token_text: TokenText, data: st.DataObject) -> None:
    fragments = [token_text.encode(trap) for trap in TRAPS]
    some_id = st.sampled_from(sorted({token for fragment in fragments for token in fragment}))
    ids = data.draw(st.lists(some_id | st.integers(0, max(token_text.table) + 1), max_size=20))
    for segmenter in (PAPER, *IN_CONTEXT):
        check_all_agree(segmenter, ids, token_text)
        check_hits(segmenter, ids, token_text)


@settings(PROPERTY, max_examples=600)
@given(ids=TOY_IDS)
def test_three_counts_agree_on_toy_pieces(ids: list[int]) -> None:
    for segmenter in (PAPER, FOREIGN, *IN_CONTEXT):
        check_all_agree(segmenter, ids, TOY)
        check_hits(segmenter, ids, TOY)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("(Wait, no)", ["(", "Wait, no)"]),
        ("So.Wait, no", ["So.", "Wait, no"]),
        ("So Wait, no", ["So ", "Wait, no"]),
        ("So\n\nWait, no", ["So\n\n", "Wait, no"]),
        ("Waiting, await, Wait_, Wait1, WAIT, wait", ["Waiting, await, Wait_, Wait1, WAIT, wait"]),
        ("Wait", ["", "Wait"]),
        ("a Wait", ["a ", "Wait"]),
        ("a Wait</think>Wait. Wait", ["a ", "Wait"]),
        ("a</think> Wait</think>", ["a"]),
        ("Wait Alternatively, Wait", ["", "Wait ", "Alternatively, ", "Wait"]),
        ("Wait\u0301 is two", ["", "Wait\u0301 is two"]),  # a combining mark is no \w
        ("等Wait, éWait, 🤔Wait", ["等Wait, éWait, 🤔", "Wait"]),
        ("", [""]),
        ("</think>", [""]),
    ],
)
def test_split_text(text: str, steps: list[str]) -> None:
    assert [step.text for step in PAPER.split(text)] == steps
    assert PAPER.count(text) == len(steps)


def test_official_markers_leave_alternatively_alone() -> None:
    assert MarkerSegmenter("official").count("Wait, Alternatively, Wait") == 3
    assert PAPER.count("Wait, Alternatively, Wait") == 4
    assert MarkerSegmenter(["Hmm"]).count("Hmm, Wait") == 2


@pytest.mark.parametrize(
    ("pieces", "hits"),
    [
        (["so", ".Wait", ","], {2: 2}),
        (["so", "(W", "ait", ","], {3: 3}),
        (["so", " Wait", ","], {2: 2}),
        (["so", "\n\nWait", ","], {2: 2}),
        (["so", "\n\n", "Wait", ","], {3: 2}),  # the token before the marker covers nothing of it
        (["Wait", "ing"], {}),
        (["a", "Wait", ","], {}),
        ([" W", "a", "i", "t", "e", "d", ","], {}),
        (["W", "a", "i", "t", ","], {4: 5}),
        (["Wait", "</think>"], {1: 2}),
        (["Wait", "<|im_end|>"], {1: 2}),
        (["Wait", "", ","], {2: 3}),
        (["</think>", "Wait", ","], {}),
        (["</", "think", ">", "Wait", ","], {}),
        (["so", " Wait"], {}),  # at the very end it is never certain: finish() counts it
        (["12 Wait", ","], {1: 1}),  # content stays
        (["12 W", "ait", ","], {2: 2}),
        (["12 Wait,"], {0: 0}),
        ([" Wait,"], {0: 1}),
        (["Wait. Wait", ","], {0: 1, 1: 1}),  # the second marker's token carries content, the first marker
        (["Wait", " Wait", ","], {1: 2, 2: 2}),  # the first marker's lookahead is the second marker
        (["Wait", " Wait Wait,"], {1: 2}),  # three become certain at once: the first is reported
        (["Wait", b"\xf0\x9f", b"\xa4", b"\x94"], {3: 4}),  # the character after it is known only when complete
        (["Wait", b"\xc3", b"\xa9"], {}),  # and may be a letter
        (["Wait", b"\xc3", "("], {2: 3}),  # or broken
        ([b"\xc3", b"\xa9Wait", ","], {}),
        ([b"\xf0\x9f\xa4", b"\x94Wait", ","], {2: 1}),  # its token ends an earlier character, so it stays
        (["x Wait</think>"], {}),  # nothing can be held back, and the thoughts are closed
    ],
)
def test_hits_and_held(pieces: list[str | bytes], hits: dict[int, int]) -> None:
    toy = TokenText.from_pieces(pieces)
    scanner = PAPER.scanner(toy)
    found = {place: hit.held for place in range(len(pieces)) if (hit := scanner.push(place))}
    assert found == hits
    check_all_agree(PAPER, range(len(pieces)), toy)


def test_held_with_a_marker_whose_characters_are_split_over_tokens() -> None:
    toy = TokenText.from_pieces([b".\xc3", b"\xa9", "é".encode(), ",", b"x\xc3"])
    assert stream(FOREIGN, [0, 1, 2, 3], toy)[1] == [MarkerHit("éé", 4)]
    assert stream(FOREIGN, [4, 1, 2, 3], toy)[1] == []  # xéé is one word
    superword = TokenText.from_pieces([b"x.\xc3", "\udca9é".encode(errors="surrogateescape"), ","])
    assert stream(FOREIGN, [0, 1, 2], superword)[1] == [MarkerHit("éé", 2)]
    joined = TokenText.from_pieces([b"x\xe7", b"\xad", b"\x89", ",", "等"])
    assert stream(JOINED, [0, 1, 2, 3], joined)[1] == [MarkerHit("等", 3)]  # x stays
    assert stream(JOINED, [4, 4, 3], joined)[1] == [MarkerHit("等", 3)]  # 等等看 might have followed


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("(Wait,", ["(W", "ait", ","]),
        (".Wait,", [".Wait", ","]),
        (" Wait,", [" Wait", ","]),
        ("Waiting", ["Waiting"]),
    ],
)
def test_traps_exist_in_the_tokenizers(
    byte_bpe_tokenizer: Any, qwen3_tokenizer: Any, text: str, pieces: list[str]
) -> None:
    for tokenizer in (byte_bpe_tokenizer, qwen3_tokenizer):
        token_text = TokenText.from_tokenizer(tokenizer)
        ids = token_text.encode(text)
        assert [token_text.decode([token]) for token in ids] == pieces
        held = [hit.held for hit in stream(PAPER, ids, token_text)[1]]
        assert held == ([] if text == "Waiting" else [len(pieces)])


def test_superword_tokens_exist_in_the_trained_tokenizer(byte_bpe_tokenizer: Any) -> None:
    token_text = TokenText.from_tokenizer(byte_bpe_tokenizer)
    for text, count in {"12 Wait": 2, "Wait. Wait": 3, "\n\nWait": 2}.items():
        ids = token_text.encode(text)
        assert len(ids) == 1 and PAPER.count_ids(ids, token_text) == count


def test_token_spans_of_steps() -> None:
    toy = TokenText.from_pieces(["so", ".Wait", ",", "12 Wait", "!", "</think>", "4"])
    steps = PAPER.split_ids([0, 1, 2, 3, 4, 5, 6], toy)
    assert [(step.text, step.token_start, step.token_end) for step in steps] == [
        ("so.", 0, 1),
        ("Wait,12 ", 1, 4),
        ("Wait!", 4, 5),
    ]
    assert PAPER.split("so.Wait")[1].token_start is None


def test_dropped_tokens_leave_no_trace() -> None:
    toy = TokenText.from_pieces(["so", ".Wait", "</think>", "\n", "4"])
    scanner, hits = stream(PAPER, [0, 1, 2], toy)
    assert hits == [MarkerHit("Wait", 2)] and scanner.closed and scanner.steps == 2
    scanner.drop(2)
    assert not scanner.closed and scanner.steps == scanner.finish() == 1
    assert [scanner.push(token) for token in (3, 2, 4)] == [None] * 3
    assert scanner.closed and scanner.finish() == PAPER.count("so\n</think>4") == 1


def test_a_kept_superword_marker_still_counts_after_the_drop() -> None:
    toy = TokenText.from_pieces(["12 Wait", ",", "\n", "</think>"])
    scanner, hits = stream(PAPER, [0, 1], toy)
    scanner.drop(hits[0].held)
    scanner.push(2)
    scanner.push(3)
    assert scanner.finish() == PAPER.count("12 Wait\n</think>") == 2


def test_only_the_last_hit_can_be_dropped() -> None:
    toy = TokenText.from_pieces(["so", ".Wait", ","])
    scanner, _ = stream(PAPER, [0, 1, 2], toy)
    with pytest.raises(ValueError, match="cannot drop 3 tokens: the last hit leaves 2"):
        scanner.drop(3)
    with pytest.raises(ValueError, match="cannot drop -1"):
        scanner.drop(-1)
    assert scanner.steps == 2


@pytest.mark.parametrize("markers", sorted(MARKER_SETS))
@pytest.mark.parametrize("close", ["</think>", "#END"])
def test_a_hit_reaches_back_a_bounded_way(markers: str, close: str) -> None:
    """However long a completion, what a hit may hold back, and so what a scanner remembers, does not grow."""
    toy = TokenText.from_pieces(
        ["a", " ", "Wait", "7", b"\xc3", ",", '"', "`", "\n\n", "let ", "me ", "等", "不", close]
    )
    rng = random.Random(0)
    scanner = MarkerSegmenter(markers, close).scanner(toy)
    for _ in range(4000):
        hit = scanner.push(rng.randrange(13))
        assert hit is None or hit.held <= 60
        with pytest.raises(ValueError, match="cannot drop"):
            scanner.drop(60)


@pytest.mark.parametrize(
    ("markers", "message"),
    [
        ("Wait", r"unknown marker set 'Wait': use official, paper, .*, or a list of words"),
        ("Reader", r"did you mean 'reader'"),
        ("multi_lingual", r"did you mean 'multilingual'"),
        ("blank-lines", r"did you mean 'blank_lines'"),
        (["等Wait"], r"marker '等Wait' mixes a script without spaces"),
        (["等等 看"], r"marker '等等 看' is not one word"),
        (["等等，"], r"marker '等等，' is not one word"),
        (["・"], r"is not one word"),
        ([], r"markers is empty"),
        (["Hold on"], r"marker 'Hold on' is not one word"),
        (["Wait,"], r"marker 'Wait,' is not one word"),
        ([""], r"marker '' is not one word"),
        ([3], r"marker 3 is not one word"),
    ],
)
def test_bad_markers_are_refused(markers: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MarkerSegmenter(markers)


@pytest.mark.parametrize("close", ["", "END", "<Wait>"])
def test_a_close_that_could_be_taken_for_a_marker_is_refused(close: str) -> None:
    with pytest.raises(ValueError, match=r"must start with a sign.*and hold no marker"):
        MarkerSegmenter("official", close)


def test_a_close_that_ends_in_a_word_character() -> None:
    segmenter = MarkerSegmenter("official", close="#END")
    toy = TokenText.from_pieces(["Wait", "#", "END", "Wait", "."])
    check_all_agree(segmenter, [0, 1, 2, 3, 4], toy)
    assert stream(segmenter, [0, 1, 2, 3, 4], toy)[0].finish() == 2


def test_resolve_markers() -> None:
    assert resolve_markers("official") == MARKER_SETS["official"] == ("Wait",)
    assert resolve_markers(["Hmm", "Wait", "Hmm"]) == ("Hmm", "Wait")


def test_word_characters_are_those_of_python() -> None:
    word = re.compile(r"\w")
    scanner_says = [char for char in map(chr, range(sys.maxunicode + 1)) if char.isalnum() or char == "_"]
    assert scanner_says == [char for char in map(chr, range(sys.maxunicode + 1)) if word.match(char)]


# A segmenter of one's own, written in the plainest way.


class OwnSegmenter(Segmenter):
    """Each text after a blank line is a step, unless it begins like a tag."""

    def split(self, text: str) -> list[Step]:
        thoughts = text.split("</think>")[0]
        starts = [0, *(gap.end() for gap in re.finditer(r"\n\n+(?=[^\n<])", thoughts))]
        bounds = pairwise([*starts, len(thoughts)])
        return [Step(i, "\n\n" if i else None, text[a:b], a, b) for i, (a, b) in enumerate(bounds)]

    def scanner(self, token_text: TokenText) -> OwnScanner:
        return OwnScanner(self, token_text)


class OwnScanner:
    """The simplest possible scanner: looks at the whole text again after each token."""

    def __init__(self, segmenter: OwnSegmenter, token_text: TokenText) -> None:
        self._segmenter, self._token_text, self._ids = segmenter, token_text, list[int]()

    @property
    def _text(self) -> str:
        return self._token_text.decode(self._ids).rstrip("\ufffd")  # an unfinished character is not known yet

    @property
    def steps(self) -> int:
        return self._segmenter.count(self._text)

    @property
    def closed(self) -> bool:
        return "</think>" in self._text

    def push(self, token_id: int) -> MarkerHit | None:
        before = self.steps
        self._ids.append(token_id)
        return MarkerHit("\n\n", held=1) if self.steps > before else None

    def drop(self, count: int) -> None:
        del self._ids[len(self._ids) - count :]

    def finish(self) -> int:
        return self._segmenter.count_ids(self._ids, self._token_text)


@PROPERTY
@given(text=st.lists(st.sampled_from(["2+2", "=4", "\n", "\n\n", "\n\n\n", "é", "🤔", "</think>", " "])).map("".join))
def test_own_segmenter(token_text: TokenText, text: str) -> None:
    segmenter = OwnSegmenter()
    ids = token_text.encode(text)
    scanner, hits = stream(segmenter, ids, token_text)
    assert segmenter.count(text) == segmenter.count_ids(ids, token_text) == scanner.finish()
    assert len(hits) == scanner.finish() - 1 and scanner.closed == ("</think>" in text)
    steps = segmenter.split_ids(ids, token_text)
    assert "".join(step.text for step in steps) == text.split("</think>")[0]
    assert all(before.token_end == after.token_start for before, after in pairwise(steps))


def test_own_segmenter_by_example() -> None:
    toy = TokenText.from_pieces(["2+2", "\n\n", "=4", "</think>"])
    scanner, hits = stream(OwnSegmenter(), [0, 1, 2], toy)
    assert hits == [MarkerHit("\n\n", held=1)] and scanner.steps == 2
    scanner.drop(1)
    assert scanner.finish() == 1


class Lines(Segmenter):
    """Every line of the thoughts is a step; nothing but ``split``."""

    def split(self, text: str) -> list[Step]:
        steps: list[Step] = []
        end = 0
        for line in text.partition(THINK_CLOSE)[0].splitlines(keepends=True) or [""]:
            steps.append(Step(len(steps), None, line, end, end + len(line)))
            end += len(line)
        return steps


PIECES = ("2+2", "=4", "\n", "so\nWait", " Wait", "ing", ",", "</think>", "é", " ")


@given(st.lists(st.sampled_from(PIECES), max_size=24))
def test_a_segmenter_of_split_alone_scans_as_it_splits(pieces: list[str]) -> None:
    token_text = TokenText.from_pieces(pieces)
    ids = list(range(len(pieces)))
    for segmenter in (Lines(), MarkerSegmenter()):
        scanner = SplitScanner(segmenter, token_text)
        for place, token in enumerate(ids):
            known = ids[: place + 1]
            before, was_closed = scanner.steps, scanner.closed
            hit = scanner.push(token)
            assert scanner.finish() == segmenter.count_ids(known, token_text)
            assert before <= scanner.steps <= segmenter.count_ids(known, token_text) or was_closed
            assert scanner.closed == (THINK_CLOSE in token_text.decode(known))
            if hit is not None:
                assert scanner.steps > before and 0 <= hit.held <= len(known)


def test_a_split_scanner_drops_what_a_hit_holds() -> None:
    token_text = TokenText.from_pieces(["so", " Wait", ",", " no", "</think>"])
    scanner = SplitScanner(MarkerSegmenter(), token_text)
    hits = [scanner.push(token) for token in (0, 1, 2)]
    assert hits == [None, None, MarkerHit("Wait", 2)]
    with pytest.raises(ValueError):
        scanner.drop(3)
    scanner.drop(2)
    assert (scanner.steps, scanner.finish()) == (1, 1)
    scanner.push(4)
    assert scanner.closed and scanner.finish() == 1
