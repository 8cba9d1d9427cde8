"""Confidence of a trial answer."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepgrpo_lab.method.boxes import boxed_answer_span, opening_tokens
from stepgrpo_lab.method.confidence import RULES, confidence
from stepgrpo_lab.method.records import Probe
from stepgrpo_lab.method.settings import PRESETS

PUBLISHED = [0.99, 0.9, 0.8, 0.999]
PROBABILITIES = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("rule", "skip_first", "expected"),
    [
        ("geometric", 1, 0.895982),
        ("arithmetic", 1, 0.899667),
        ("minimum", 1, 0.8),
        ("joint", 1, 0.71928),
        ("geometric", 0, 0.918614),
        ("arithmetic", 0, 0.92225),
        ("joint", 0, 0.712087),
        ("minimum", 3, 0.999),
    ],
)
def test_golden(rule: str, skip_first: int, expected: float) -> None:
    assert confidence(PUBLISHED, rule, skip_first) == pytest.approx(expected, abs=5e-7)


@pytest.mark.parametrize(("tokens", "score"), [(3, 0.928), (4, 0.946), (5, 0.956)])
def test_length_normalising_lifts_an_unsure_answer(tokens: int, score: float) -> None:
    unsure = [0.80] + [1.0] * (tokens - 1)  # the answer, then tokens that are sure in any case
    assert confidence(unsure) == pytest.approx(score, abs=5e-4)
    assert confidence(unsure, "joint") == pytest.approx(0.80)


@given(PROBABILITIES)
def test_rules_are_ordered_and_stay_in_the_unit_interval(probabilities: list[float]) -> None:
    joint, minimum, geometric, arithmetic = (
        confidence(probabilities, rule) for rule in ("joint", "minimum", "geometric", "arithmetic")
    )
    slack = 1e-12
    assert 0.0 <= joint <= minimum + slack <= geometric + 2 * slack <= arithmetic + 3 * slack <= 1.0 + 4 * slack


@given(PROBABILITIES.filter(lambda p: min(p) > 1e-300))
def test_geometric_is_the_exponential_of_the_mean_log_probability(probabilities: list[float]) -> None:
    mean = sum(math.log(p) for p in probabilities) / len(probabilities)
    assert confidence(probabilities) == pytest.approx(math.exp(mean), rel=1e-9)


@pytest.mark.parametrize("rule", RULES)
def test_edges(rule: str) -> None:
    assert confidence([], rule) == 0.0
    assert confidence([0.7], rule, skip_first=1) == 0.0
    assert confidence([0.7], rule, skip_first=5) == 0.0
    assert confidence([0.7], rule) == pytest.approx(0.7)
    assert confidence([1.0, 1.0], rule) == 1.0
    assert confidence([0.0, 1.0], rule) == (0.5 if rule == "arithmetic" else 0.0)


@pytest.mark.parametrize("bad", [-0.1, 1.5, float("nan")])
def test_no_probabilities_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match=r"probabilities\[1\] is .*not logits"):
        confidence([0.5, bad], skip_first=2)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown confidence rule 'mean': choose one of geometric, arithmetic"):
        confidence([0.5], "mean")
    with pytest.raises(ValueError, match=r"skip_first is -1"):
        confidence([0.5], skip_first=-1)


@pytest.mark.parametrize(
    ("pieces", "opened", "span"),
    [
        (["{", "4", "2", "}", "\n"], False, (1, 4)),  # the bare opening brace is no part of the answer
        (["4", "2", "}", "\n"], True, (0, 3)),
        (["{4", "2}"], False, (0, 2)),
        ([" ", "{ ", "42", "}."], False, (2, 4)),
        (["{", "\\frac", "{", "1", "}{", "2", "}", "}", "}"], False, (1, 8)),
        (["\\frac{1}", "{2}", "}}"], True, (0, 3)),
        (["{}"], False, (0, 1)),
        (["}"], True, (0, 1)),
        (["{", "\\{", "1", "\\}", "}"], False, (1, 5)),  # escaped braces are characters
        (["{", "\\left\\", "{", "x", "}"], False, (1, 5)),  # also when the escape is split
        (["{", "a\\\\", "}"], False, (1, 3)),  # a line break, then a true brace
        (["}", "{", "7", "}"], False, (2, 4)),
        (["{", "4", "2"], False, None),
        (["{", "{4}"], False, None),
        (["4", "2"], True, None),
        (["no box"], False, None),
        ([], True, None),
    ],
)
def test_boxed_answer_span(pieces: list[str], opened: bool, span: tuple[int, int] | None) -> None:
    assert boxed_answer_span(pieces, opened) == span


@given(st.text("ab {}", max_size=12).filter(lambda text: text.strip()), st.data())
def test_span_does_not_depend_on_how_the_answer_is_cut(inside: str, data: st.DataObject) -> None:
    depth = 0
    for char in inside:
        depth += (char == "{") - (char == "}")
        if depth < 0:
            break
    text = inside + "}"
    cuts = sorted(data.draw(st.sets(st.integers(1, len(text) - 1))))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    span = boxed_answer_span(pieces, opened=True)
    if depth > 0:
        assert span is None
    else:
        assert span is not None and span[0] == 0
        covered = "".join(pieces[: span[1]])
        whole = boxed_answer_span(list(text), opened=True)
        assert whole is not None and len(covered) >= whole[1] > len("".join(pieces[: span[1] - 1]))


def test_joint_of_the_boxed_answer() -> None:
    pieces, probabilities = ["{", "4", "2", "}", "\n", "</think>"], [0.5, 0.9, 0.8, 0.95, 0.4, 0.3]
    span = boxed_answer_span(pieces, opened=False)
    assert span is not None
    assert confidence(probabilities[slice(*span)], "joint") == pytest.approx(0.9 * 0.8 * 0.95)


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["{", "7", "}\n", "</think>"], (0.7 * 0.9 * 0.9) ** (1 / 3)),  # the brace is left out, as published
        (
            ["{-", "7", "}\n", "</think>"],
            (0.5 * 0.7 * 0.9 * 0.9) ** (1 / 4),
        ),  # merged with a sign, it is not
        (["{x", "}\n", "</think>"], (0.5 * 0.7 * 0.9) ** (1 / 3)),
    ],
)
def test_no_token_that_holds_a_part_of_the_answer_is_left_out(pieces: list[str], expected: float) -> None:
    probabilities = [0.5, 0.7, 0.9, 0.9][: len(pieces)]
    opening = opening_tokens(pieces, opened=False)
    probe = Probe(3, 1, "Wait", [0], probabilities, "".join(pieces), None, True, 0.0, 0.0, False, opening)
    assert PRESETS["official"].exit_rule(256).score(probe) == pytest.approx(expected)
