"""What each marker set counts: scripts without spaces, what a person would count, paragraphs."""

from __future__ import annotations

import pytest
import torch

import stepgrpo_lab as lab
from stepgrpo_lab.engines.tokenizers import encode_prompt
from stepgrpo_lab.method.markers import MARKER_SETS
from stepgrpo_lab.method.reader import LOOKAHEAD
from stepgrpo_lab.method.steps import BlankLineSegmenter, MarkerSegmenter
from stepgrpo_lab.method.token_text import TokenText


def found(markers: str | list[str], text: str) -> list[str]:
    return [step.marker or "" for step in MarkerSegmenter(markers).split(text)[1:]]


@pytest.mark.parametrize(
    ("markers", "text", "expected"),
    [
        (["等等"], "嗯等等，2+2=4。等等看", ["等等", "等等"]),
        (["不过"], "不过用户想要的，不过", ["不过", "不过"]),
        (["等", "等等"], "等等等", ["等等", "等"]),  # the longest that fits, one after another
        (["ちょっと待って", "待って"], "ちょっと待ってください、待って", ["ちょっと待って", "待って"]),
        (["잠깐"], "잠깐만, 잠깐! 아니잠깐", ["잠깐"] * 3),
        (["เดี๋ยวก่อน"], "แต่เดี๋ยวก่อนนะ", ["เดี๋ยวก่อน"]),
        (["等等", "Wait"], "但是Wait，Waiting等等", ["Wait", "等等"]),  # a script's end is a word's end
        (["रुको"], "रुको, रुकोगे", ["रुको"]),  # a word with combining marks
        (["éa"], "éa éab", ["éa"]),
        (["Wait"], "等Wait", []),  # the paper's rule: one run of word characters
    ],
)
def test_words_of_any_script(markers: list[str], text: str, expected: list[str]) -> None:
    assert found(markers, text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "嗯等等，",
        "不过用户",
        "但是，不過",
        "잠깐만, ",
        "ちょっと待って、",
        "เดี๋ยวก่อน ",
        "Warte, ",
        "Espera: ",
        "Подожди! ",
        "Wait, ",
    ],
)
def test_the_multilingual_set(text: str) -> None:
    assert len(found("multilingual", text)) == 1
    assert found("multilingual", text + "</think>" + text) == found("multilingual", text)


COUNTED = {
    "a clause of its own": [
        *(
            "It is 8, wait, that's 9.",
            "So 4. wait, no.",
            "WAIT! No.",
            "8? Wait</think>",
            "Wait",
            "Wait... no",
            "wait no",
        ),
        *(
            "So, wait that's 5",
            "Oh wait, no",
            "Oh, wait. No",
            "No, wait, it is 4",
            "(Wait, no)",
            "wait—no",
            "wait is it 4?",
        ),
        "Wait\n\nno",
        "**Wait**, no",
        "- Wait, no",
        "Wait a minute",
        "x=8. (Wait, no)",
        "8 (evening? Wait, 6th is M",
        *(
            "<think>Wait, no",
            "嗯，wait，不对",
            "so 5.Wait, no",
            "Wait - that is 4",
            "Wait: is it 4?",
            "Hold on, no",
            "hold on, is it",
        ),
    ],
    "other openings": [
        *(
            "Hmm, 2+2=4",
            "It is 8, hmm, no",
            "hmm.",
            "Let me check.",
            "So it is 8. Let me re-check",
            "x. let me double-check it",
        ),
        "Let's verify: 2",
        "Okay, let me just verify this",
        "But the sum is 8.",
        "But... it is 8.",
        "However, it is 8.",
        "Actually, no",
        "Another way to see it",
        "On second thought, 8",
        "It’s 5. Let’s check",
        "Alternatively, 8",
    ],
    "other scripts": [
        "嗯等等，不对",
        "等等，2+2",
        "不过用户想",
        "2。不對，是",
        "让我再检查一下",
        "ちょっと待って、2",
        "잠깐만, 2",
        "아니 잠깐",
    ],
    "one opening, several words": [
        "Hmm, let me check.",
        "But wait, is it 8?",
        "Wait, no, wait, it is 8",
        "Hold on, let me check",
    ],
    "after code and quotation": [
        *(
            "```\nwait, no\n```\nWait, no",
            'He said "Wait, no." But is it?',
            "> Wait, no\nHmm.",
            "it's 5' wide. 'Wait, no.' Wait, no",
        ),
        "`wait` is not. Wait, no",
        "~~~\nWait, no\n~~~\nWait, it is ~5",
        'An open "quote\nWait, no',
        '"' + "x " * 200 + ". Wait, no",
    ],
}
NOT_COUNTED = [
    *(
        'The "Wait Time" column',
        "Wait Time is 5.",
        "Call `wg.Wait()` now. wg.Wait() blocks",
        "Average Wait is 5.",
        "The wait is long.",
    ),
    *(
        "Wait for it.",
        "Wait until 5.",
        "wait times are long",
        "stop, wait, and listen",
        "Please wait, then go",
        "| Wait | 5 |",
    ),
    *(
        "wait()",
        "f(wait, x)",
        "Wait-time",
        "a.Wait, no",
        "Wait is 5 minutes",
        "don't wait, go",
        "await, no",
        "Waiting, no",
        "Wait in line.",
        "Wait a day.",
        "Wait the full 5 minutes",
        "Wait: 5 minutes",
        "~~~\nWait, no\n```\nWait, no\n",
        "Wait;",
    ),
    *(
        "x, but y",
        "However many",
        "HMM models. An HMM.",
        "Let me see.",
        "Let me explain",
        "Hold on to it",
        "On second base",
    ),
    *(
        'He said "Wait, stop."',
        "“Wait, stop.”",
        "'Wait, stop.'",
        "「等等，不对」",
        "> Wait, stop",
        "```\nWait, no\n",
        "``Wait, no``",
    ),
    "苹果、梨等等。",
    "苹果，梨，等等。",
    "只不过是",
    "两个等等号",
]


@pytest.mark.parametrize("text", [text for texts in COUNTED.values() for text in texts])
def test_the_reader_counts(text: str) -> None:
    assert len(found("reader", text)) == 1


@pytest.mark.parametrize("text", NOT_COUNTED)
def test_the_reader_does_not_count(text: str) -> None:
    assert found("reader", text) == []


def test_the_reader_names_what_it_found_by_names_of_its_set() -> None:
    text = "\n".join(text.partition("</think>")[0] for texts in COUNTED.values() for text in texts)
    assert set(found("reader", text)) <= set(MARKER_SETS["reader"])
    assert len(found("reader", text)) > 40


@pytest.mark.parametrize("text", [*(text for texts in COUNTED.values() for text in texts), *NOT_COUNTED])
def test_an_opening_is_certain_within_the_stated_lookahead(text: str) -> None:
    """Character by character, no hit comes later than promised, and never is one taken back."""
    thoughts = text.partition("</think>")[0]
    toy = TokenText.from_pieces(sorted({*thoughts, *" x."}))
    starts = [step.start for step in MarkerSegmenter("reader").split(thoughts + " x. " * 20)[1:]]
    scanner = MarkerSegmenter("reader").scanner(toy)
    for place, char in enumerate(thoughts + " x. " * 20):
        for hit in filter(None, [scanner.push(toy.encode(char)[0])]):
            assert hit.held <= LOOKAHEAD + 2 and place - starts[scanner.steps - 2] <= LOOKAHEAD
    assert scanner.steps == 1 + len(starts)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("a\n\nb\n\n\nc", ["a\n\n", "b\n\n\n", "c"]),
        ("<think>\n\nOkay\n\nSo\n\n</think>\n\n4", ["<think>\n\nOkay\n\n", "So\n\n"]),
        ("a\r\n \r\nb", ["a\r\n \r\n", "b"]),
        ("a\n\n  b\nc", ["a\n\n  ", "b\nc"]),
        ("a\n\n```\nx\n\ny\n```\n\nz", ["a\n\n", "```\nx\n\ny\n```\n\n", "z"]),
        ("a\n\n<b>", ["a\n\n", "<b>"]),
        ("a\n\n</thi", ["a\n\n", "</thi"]),
        ("\n\na\n\n", ["\n\na\n\n"]),
    ],
)
def test_paragraphs_are_steps_without_marker_words(text: str, steps: list[str]) -> None:
    assert [step.text for step in BlankLineSegmenter().split(text)] == steps
    assert found("blank_lines", text) == ["\n\n"] * (len(steps) - 1)


@pytest.mark.parametrize("markers", ["reader", "blank_lines"])
def test_a_close_that_begins_with_space_is_refused_where_space_is_read(markers: str) -> None:
    with pytest.raises(ValueError, match="must not start with white space"):
        MarkerSegmenter(markers, "\n</think>")


@pytest.mark.parametrize("preset", ["official", "paper"])
@pytest.mark.parametrize("threshold", [1.0, 0.5])
def test_paragraphs_start_probes_in_the_truncated_rollout(preset: str, threshold: float) -> None:
    """The Overthinker, made to write a blank line wherever it would write "Wait": its two tokens change places."""
    model, tokenizer = lab.load_overthinker()
    texts = TokenText.from_tokenizer(tokenizer)
    [wait], [blank] = texts.encode(" Wait"), texts.encode("\n\n")
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    with torch.no_grad():
        for weight in {id(layer.weight): layer.weight for layer in layers}.values():
            weight[[wait, blank]] = weight[[blank, wait]]
    settings = lab.rollout_settings(
        preset, markers="blank_lines", exit_threshold=threshold, max_probes=100, near_budget_margin=0, think_budget=1.0
    )
    prompts = [encode_prompt(tokenizer, problem.prompt) for problem in lab.overthinker_problems("test", 6)]
    trajectories, _ = lab.LockstepEngine(model, tokenizer).generate(
        prompts, lab.Decoding(256, settings), keys=[lab.SampleKey(0, "test", 0, place) for place in range(6)]
    )
    probes = [probe for trajectory in trajectories for probe in trajectory.probes]
    assert len(probes) >= 5 and {probe.marker for probe in probes} == {"\n\n"}
    assert any(probe.accepted for probe in probes) == (threshold < 1)
    for trajectory in trajectories:
        accepted = [probe for probe in trajectory.probes if probe.accepted]
        assert trajectory.steps == lab.BlankLineSegmenter().count(trajectory.text)
        assert len(trajectory.probes) == trajectory.steps - 1 + len(accepted)
