"""The trajectory machine, driven by fakes of known tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepgrpo_lab.method.records import Trajectory, from_json, to_json
from stepgrpo_lab.method.rollout import Phase, RolloutSettings, TrajectoryMachine, probed_members, rollout_settings
from stepgrpo_lab.method.sampling import SampleKey, uniform
from stepgrpo_lab.method.token_text import TokenText

EOS = "<|im_end|>"
PIECES = [
    *("a ", "b ", "Wait", ",", "ing", ".Wait", "(W", "ait", "12 Wait", "so Wait, then", "Altern", "atively"),
    *("\n", "\n\n", "</think>", "\\boxed", "{", "}", "7", "}.", "**Final Answer**", " The final answer is "),
    *(" ", EOS),
]
TEXT = TokenText.from_pieces(PIECES, eos_ids=[PIECES.index(EOS)])
CLOSE = ["\n", "</think>", "\n\n"]
OFFICIAL_PROMPT = ["\n", "**Final Answer**", "\n", "\\boxed"]
PAPER_PROMPT = ["</think>", " The final answer is ", "\\boxed", "{"]
SURE = [("{", 0.5), ("7", 0.99), ("}", 0.98), ("\n", 0.97), ("</think>", 0.99)]
UNSURE = [("{", 0.5), ("7", 0.5), ("}", 0.98), ("\n", 0.97), ("</think>", 0.99)]
UNUSED = 0.0

Sampler = Callable[[list[int], int], tuple[int, float]]


@dataclass
class Run:
    """What happened while a fake engine drove a machine."""

    trajectory: Trajectory
    fed: list[tuple[str, int]] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    phases: list[Phase] = field(default_factory=list)

    @property
    def pieces(self) -> list[str]:
        return [PIECES[token] for token in self.trajectory.completion_ids]


def drive(machine: TrajectoryMachine, sample: Sampler, greedy: Sampler) -> Run:
    """A fake engine: keeps the context as a cache would, and checks that every choice sees the context it should."""
    context: list[int] = []
    seen: dict[int, list[int]] = {}
    run = Run(Trajectory([], [], [], "", 1, None, "eos"))
    while True:
        run.phases.append(machine.phase)
        if machine.choice == "sample":
            run.positions.append(machine.position)
            seen[len(context)] = list(context)
            machine.observe(*sample(context, machine.position))
        elif machine.choice == "greedy":
            token, probability = greedy(context, machine.position)
            machine.observe(token, None, probability)
        if machine.done:
            break
        token, place = machine.feed()
        assert 0 <= place <= len(context), "a hole in the context"
        assert place < machine.reach
        context[place:] = [token]
        run.fed.append((PIECES[token], place))
    run.phases.append(machine.phase)
    run.trajectory = machine.trajectory([1, 2, 3])
    ids, logprobs = run.trajectory.completion_ids, run.trajectory.logprobs
    assert len(ids) == len(logprobs)
    for place, logprob in enumerate(logprobs):
        if logprob is not None:  # backtracking left no trace in what the kept tokens were drawn from
            assert seen[place] == ids[:place]
    assert run.positions == sorted(set(run.positions)), "a random number was used twice"
    if run.trajectory.finish == "eos":  # the last token is never fed; the limit may cut off more
        assert len(run.fed) == run.trajectory.cost.decoded_tokens - 1
    return run


def script(sampled: list[str], trials: list[list[tuple[str, float]]] = (), **options: Any) -> Run:  # type: ignore[assignment]
    """Drive a machine with given sampled tokens (log-probability -1) and trial answers."""
    tokens: Iterator[str] = iter(sampled)
    answers = iter([pair for trial in trials for pair in trial])

    def sample(context: list[int], position: int) -> tuple[int, float]:
        return PIECES.index(next(tokens)), -1.0

    def greedy(context: list[int], position: int) -> tuple[int, float]:
        piece, probability = next(answers)
        return PIECES.index(piece), probability

    run = drive(TrajectoryMachine(TEXT, **{"limit": 60, **options}), sample, greedy)
    assert next(tokens, None) is None and next(answers, None) is None, "the machine ended early"
    return run


def official(**overrides: Any) -> RolloutSettings:
    return rollout_settings("official", **{"near_budget_margin": 0, **overrides})


def paper(**overrides: Any) -> RolloutSettings:
    return rollout_settings("paper", **{"near_budget_margin": 0, **overrides})


# ---- plain decoding --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [None, official()])
def test_without_probes_it_samples_thoughts_then_the_answer(settings: RolloutSettings | None) -> None:
    sampled = ["a ", "Wait", ",", "b ", "</think>", "\n\n", "7", EOS]
    run = script(sampled, settings=settings, probed=False)
    assert run.pieces == sampled
    assert run.fed == [(piece, place) for place, piece in enumerate(sampled[:-1])]
    assert run.phases == [*[Phase.THINK] * 5, *[Phase.ANSWER] * 3, Phase.DONE]
    record = run.trajectory
    assert (record.steps, record.close, record.finish, record.probed) == (2, "natural", "eos", False)
    assert record.logprobs == [-1.0] * 8 and record.text == "".join(sampled)
    assert from_json(Trajectory, json.loads(json.dumps(to_json(record)))) == record


def test_thoughts_that_never_close() -> None:
    record = script(["a ", EOS]).trajectory
    assert (record.close, record.finish) == (None, "eos")
    record = script(["a "] * 4, limit=4).trajectory
    assert (record.close, record.finish) == (None, "length")
    record = script(["a ", "</think>"], limit=2).trajectory
    assert (record.close, record.finish) == ("natural", "length")


# ---- probes ----------------------------------------------------------------------------------------------------------


def test_official_exit_drops_the_trial_answer_and_forces_the_close() -> None:
    run = script(["a ", "Wait", ",", "7", EOS], [SURE], settings=official())
    assert run.pieces == ["a ", *CLOSE, "7", EOS]
    assert run.trajectory.logprobs == [-1.0, None, None, None, -1.0, -1.0]
    trial = [*OFFICIAL_PROMPT, "{", "7", "}", "\n"]
    assert run.fed == [
        *(("a ", 0), ("Wait", 1)),
        *((piece, 1 + place) for place, piece in enumerate(trial)),
        *((piece, 1 + place) for place, piece in enumerate(CLOSE)),
        ("7", 4),
    ]
    assert list(dict.fromkeys(run.phases)) == list(Phase)  # all five, in order
    record = run.trajectory
    assert (record.steps, record.close, record.probed) == (1, "early", True)
    [probe] = record.probes
    assert (probe.position, probe.step, probe.marker) == (1, 1, "Wait")
    assert (probe.text, probe.answer, probe.closed, probe.accepted) == ("{7}\n</think>", "7", True, True)
    assert probe.confidence == pytest.approx((0.99 * 0.98 * 0.97 * 0.99) ** 0.25)
    assert probe.joint == pytest.approx(0.99 * 0.98)
    cost = record.cost
    assert (cost.prompt_tokens, cost.kept_tokens, cost.probe_tokens, cost.replayed_tokens) == (3, 6, 8, 1)


def test_the_answer_is_not_drawn_with_the_numbers_of_the_dropped_marker() -> None:
    # The close is shorter than what was held back, so that the answer's places had been sampled before.
    run = script(["a ", "Wait", ",", "7", EOS], [SURE], settings=official(close_text="</think>"))
    assert run.trajectory.dropped == [PIECES.index("Wait"), PIECES.index(",")]
    assert run.positions == [0, 1, 2, 4, 5]


def test_a_declined_probe_puts_the_marker_back() -> None:
    sampled = ["a ", "Wait", ",", "b ", "</think>", EOS]
    run = script(sampled, [UNSURE], settings=official())
    assert run.pieces == sampled
    assert run.trajectory.logprobs == [-1.0] * 6
    trial = [*OFFICIAL_PROMPT, "{", "7", "}", "\n"]
    assert run.fed == [
        *(("a ", 0), ("Wait", 1)),
        *((piece, 1 + place) for place, piece in enumerate(trial)),
        *(("Wait", 1), (",", 2), ("b ", 3), ("</think>", 4)),
    ]
    assert [probe.accepted for probe in run.trajectory.probes] == [False]
    assert (run.trajectory.close, run.trajectory.steps) == ("natural", 2)
    assert (run.trajectory.cost.probe_tokens, run.trajectory.cost.replayed_tokens) == (8, 1)


def test_official_scores_nothing_unless_the_trial_answer_closes() -> None:
    never_closed = [("{", 1.0), ("7", 1.0), ("}", 1.0), *[("a ", 1.0)] * 3]
    run = script(["a ", "Wait", ",", EOS], [never_closed], settings=official(probe_max_tokens=6))
    [probe] = run.trajectory.probes
    assert (probe.closed, probe.confidence, probe.answer, probe.joint) == (False, 0.0, "7", 1.0)
    assert not probe.accepted
    ended = script(["a ", "Wait", ",", EOS], [[("{", 1.0), (EOS, 1.0)]], settings=official())
    assert ended.trajectory.probes[0].confidence == 0.0
    assert ended.trajectory.completion_ids[-1] == PIECES.index(EOS) and len(ended.pieces) == 4


@pytest.mark.parametrize(("threshold", "accepted"), [(0.5, False), (0.49, True), (1.0, False)])
def test_the_threshold_is_strict(threshold: float, accepted: bool) -> None:
    settings = official(exit_threshold=threshold, confidence_rule="minimum")
    run = script(["a ", "Wait", ",", EOS], [UNSURE], settings=settings)
    assert run.trajectory.probes[0].confidence == 0.5
    assert run.trajectory.probes[0].accepted is accepted


def test_paper_exit_keeps_the_trial_answer() -> None:
    run = script(["a ", "Altern", "atively", ",", " ", EOS], [[("7", 0.99), ("}.", 0.98)]], settings=paper())
    assert run.pieces == ["a ", *PAPER_PROMPT, "7", "}.", " ", EOS]
    assert run.trajectory.logprobs == [-1.0, *[None] * 6, -1.0, -1.0]
    probe_fed = [*PAPER_PROMPT, "7", "}.", " "]
    assert run.fed == [
        *(("a ", 0), ("Altern", 1), ("atively", 2)),
        *((piece, 1 + place) for place, piece in enumerate(probe_fed)),
    ]
    record = run.trajectory
    assert (record.close, record.steps) == ("early", 1)
    assert record.probes[0].answer == "7"
    assert record.probes[0].confidence == pytest.approx((0.99 * 0.98) ** 0.5)
    assert (record.cost.probe_tokens, record.cost.replayed_tokens) == (0, 2)


def test_paper_decline_leaves_no_trace() -> None:
    sampled = ["a ", "Wait", ",", "</think>", "7", EOS]
    run = script(sampled, [[("7", 0.5), ("}", 0.9)]], settings=paper())
    assert run.pieces == sampled
    assert run.trajectory.cost.probe_tokens == 5


def test_paper_needs_a_completed_box() -> None:
    run = script(["a ", "Wait", ",", EOS], [[("{", 1.0), ("7", 1.0), ("}", 1.0)]], settings=paper(probe_max_tokens=3))
    [probe] = run.trajectory.probes
    assert (probe.answer, probe.confidence, probe.joint) == (None, 0.0, 0.0)


def test_declined_probes_are_capped() -> None:
    sampled = ["Wait", ",", "Wait", ",", "Wait", ",", EOS]
    run = script(sampled, [UNSURE, UNSURE], settings=official(max_probes=2))
    assert run.pieces == sampled
    assert [(probe.position, probe.step) for probe in run.trajectory.probes] == [(0, 1), (2, 2)]
    assert run.trajectory.steps == 4


@pytest.mark.parametrize(
    ("thoughts", "kept"),
    [
        (["a ", "(W", "ait", ","], ["a "]),
        (["a ", ".Wait", ","], ["a "]),
        (["a ", "12 Wait", ","], ["a ", "12 Wait"]),  # content stays; the lookahead goes
        (["a ", "so Wait, then"], ["a ", "so Wait, then"]),  # all in one token: nothing is held back
        (["Wait", ","], []),
    ],
)
def test_held_back_tokens(thoughts: list[str], kept: list[str]) -> None:
    exit_run = script([*thoughts, "7", EOS], [SURE], settings=official())
    assert exit_run.pieces == [*kept, *CLOSE, "7", EOS]
    decline_run = script([*thoughts, "b ", EOS], [UNSURE], settings=official())
    assert decline_run.pieces == [*thoughts, "b ", EOS]
    for run in (exit_run, decline_run):
        assert run.trajectory.probes[0].position == len(kept)


def test_a_word_that_only_starts_like_a_marker_is_none() -> None:
    run = script(["Wait", "ing", " ", "</think>", EOS], settings=official())
    assert run.trajectory.probes == [] and run.trajectory.steps == 1


def test_a_held_back_lookahead_acts_once_it_is_put_back() -> None:
    ended = script(["a ", "Wait", EOS], [UNSURE], settings=official())
    assert ended.pieces == ["a ", "Wait", EOS]
    assert (ended.trajectory.close, ended.trajectory.finish) == (None, "eos")
    closed = script(["a ", "Wait", "</think>", "7", EOS], [UNSURE], settings=official())
    assert closed.pieces == ["a ", "Wait", "</think>", "7", EOS]
    assert (closed.trajectory.close, closed.trajectory.steps) == ("natural", 2)
    early = script(["a ", "Wait", "</think>", "7", EOS], [SURE], settings=official())
    assert early.pieces == ["a ", *CLOSE, "7", EOS]


def test_markers_in_the_answer_start_no_probe() -> None:
    run = script(["a ", "</think>", "Wait", ",", EOS], settings=official())
    assert run.trajectory.probes == [] and run.trajectory.steps == 1


# ---- budgets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("probed", [True, False])
@pytest.mark.parametrize("budget", [4, 0.2])
def test_the_think_budget_closes_probed_or_not(probed: bool, budget: float) -> None:
    settings = official(think_budget=budget)
    run = script(["a ", "b ", "a ", "b ", "7", EOS], settings=settings, limit=20, probed=probed)
    assert run.pieces == ["a ", "b ", "a ", "b ", *CLOSE, "7", EOS]
    assert run.trajectory.close == "budget"
    assert run.trajectory.forced == [False] * 4 + [True] * 3 + [False] * 2


def test_a_declined_probe_at_the_budget_closes_after_its_marker() -> None:
    run = script(["a ", "b ", "Wait", ",", "7", EOS], [UNSURE], settings=official(think_budget=4))
    assert run.pieces == ["a ", "b ", "Wait", ",", *CLOSE, "7", EOS]
    assert (run.trajectory.close, run.trajectory.steps) == ("budget", 2)


@pytest.mark.parametrize(("margin", "reason"), [(9, "near_budget"), (8, "natural"), (0.15, "near_budget")])
def test_a_probe_near_the_budget_exits_whatever_its_confidence(margin: float, reason: str) -> None:
    settings = official(think_budget=10, near_budget_margin=margin)
    last = [EOS] if reason == "near_budget" else ["</think>", EOS]
    run = script(["a ", "Wait", ",", *last], [UNSURE], settings=settings)
    assert run.trajectory.close == reason
    assert run.trajectory.probes[0].accepted is (reason == "near_budget")


def test_a_confident_probe_near_the_budget_is_early() -> None:
    settings = official(think_budget=10, near_budget_margin=9)
    assert script(["a ", "Wait", ",", EOS], [SURE], settings=settings).trajectory.close == "early"


def test_paper_near_the_budget_without_a_box_forces_the_ordinary_close() -> None:
    settings = paper(think_budget=10, near_budget_margin=9, probe_max_tokens=2)
    run = script(["a ", "Wait", ",", "7", EOS], [[("7", 1.0), ("7", 1.0)]], settings=settings)
    assert run.pieces == ["a ", *CLOSE, "7", EOS]
    assert run.trajectory.close == "near_budget"


@pytest.mark.parametrize("limit", [2, 3, 4])
def test_the_limit_cuts_forced_tokens(limit: int) -> None:
    run = script(["a "], settings=official(think_budget=1), limit=limit)
    assert run.pieces == ["a ", *CLOSE][:limit]
    assert (run.trajectory.close, run.trajectory.finish) == ("budget", "length")
    kept = script(["Wait", ","], [[("7", 1.0), ("}", 1.0)]], settings=paper(), limit=5)
    assert kept.pieces == [*PAPER_PROMPT, "7"] and kept.trajectory.finish == "length"


def test_no_probe_starts_where_the_limit_already_ends_the_completion() -> None:
    run = script(["a ", "Wait", ","], settings=official(think_budget=1.0), limit=3)
    assert run.pieces == ["a ", "Wait", ","] and run.trajectory.probes == []


@pytest.mark.parametrize(
    ("settings", "thought", "close"),
    [
        (official(), ["a ", "\n"], CLOSE),
        (official(trim_newline=True), ["a ", "\n"], CLOSE[1:]),
        (official(trim_newline=True), ["a ", "\n\n"], CLOSE[1:]),
        (official(trim_newline=True), ["a "], CLOSE),
        (official(trim_newline=True), [], CLOSE),
    ],
)
def test_the_leading_newline_of_the_close(settings: RolloutSettings, thought: list[str], close: list[str]) -> None:
    run = script([*thought, "Wait", ",", EOS], [SURE], settings=settings)
    assert run.pieces == [*thought, *close, EOS]


# ---- any policy ------------------------------------------------------------------------------------------------------

# Markers, braces and closes are frequent, so that every transition happens.
SAMPLED = [0, 1, 2, 3, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 23]
TRIAL = [16, 18, 17, 19, 14, 18, 17, 12]


def policy(seed: int) -> tuple[Sampler, Sampler]:
    """A policy whose choices depend on the whole context, so that any trace of a probe would change what follows."""

    def sample(context: list[int], position: int) -> tuple[int, float]:
        number = uniform(SampleKey(seed, "sample", hash(tuple(context)), 0), position)
        return SAMPLED[int(len(SAMPLED) * number)], -number

    def greedy(context: list[int], position: int) -> tuple[int, float]:
        number = uniform(SampleKey(seed, "greedy", hash(tuple(context)), 0), 0)
        return TRIAL[int(len(TRIAL) * number)], 1.0 - number / 4

    return sample, greedy


@pytest.mark.parametrize("preset", ["official", "paper"])
@given(seed=st.integers(0, 10**6), limit=st.integers(1, 80), budget=st.one_of(st.integers(1, 80), st.just(0.9)))
def test_probes_that_never_exit_change_nothing(preset: str, seed: int, limit: int, budget: float) -> None:
    settings = rollout_settings(preset, exit_threshold=1.0, near_budget_margin=0, think_budget=budget)
    plain = drive(TrajectoryMachine(TEXT, limit, settings, probed=False), *policy(seed)).trajectory
    run = drive(TrajectoryMachine(TEXT, limit, settings, probed=True), *policy(seed))
    record = run.trajectory
    assert record.completion_ids == plain.completion_ids and record.logprobs == plain.logprobs
    assert (record.close, record.finish, record.steps) == (plain.close, plain.finish, plain.steps)
    assert not any(probe.accepted for probe in record.probes)


@pytest.mark.parametrize("preset", ["official", "paper"])
@given(seed=st.integers(0, 10**6), limit=st.integers(1, 80), threshold=st.floats(0, 1), margin=st.integers(0, 20))
def test_every_trajectory_is_clean(preset: str, seed: int, limit: int, threshold: float, margin: int) -> None:
    settings = rollout_settings(
        preset, exit_threshold=threshold, near_budget_margin=margin, require_close=False, max_probes=3
    )
    machine = TrajectoryMachine(TEXT, limit, settings)
    run = drive(machine, *policy(seed))
    record = run.trajectory
    assert len(record.completion_ids) <= limit and record.text == TEXT.decode(record.completion_ids)
    assert record.steps == machine._scanner.finish()
    tokens = zip(record.completion_ids, record.forced, strict=True)
    forced = TEXT.decode(token for token, is_forced in tokens if is_forced)
    accepted = [probe for probe in record.probes if probe.accepted]
    if not accepted and record.close != "budget":
        assert forced == ""
    elif preset == "paper" and accepted and accepted[0].closed:
        assert (settings.probe_prompt + accepted[0].text).startswith(forced) and forced
    else:
        assert forced in settings.close_text  # the limit may cut it, and a newline may be trimmed
    assert all(probe is record.probes[-1] for probe in accepted)


# ---- misuse, settings and members ------------------------------------------------------------------------------------


def test_an_engine_that_breaks_the_protocol_is_told() -> None:
    machine = TrajectoryMachine(TEXT, 5)
    with pytest.raises(RuntimeError, match="observe"):
        machine.feed()
    with pytest.raises(RuntimeError, match="until it is done"):
        machine.trajectory([1])
    machine.observe(0, -1.0)
    with pytest.raises(RuntimeError, match="feed"):
        machine.observe(0, -1.0)
    with pytest.raises(ValueError, match="limit is 0"):
        TrajectoryMachine(TEXT, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("exit_threshold", 1.5),
        ("probe_rate", -0.1),
        ("probe_rate", True),
        ("probe_max_tokens", 0),
        ("max_probes", 1.5),
        ("skip_first", -1),
        ("think_budget", 0),
        ("think_budget", 1.5),
        ("think_budget", "half"),
        ("near_budget_margin", -1),
        ("confidence_rule", "mode"),
        ("keep_probe", 1),
        ("keep_probe", True),  # the official prompt opens no box
        ("probe_prompt", ""),
        ("close_text", "\n"),
        ("markers", "waits"),
        ("markers", []),
        ("temprature", 1.0),
    ],
)
def test_bad_settings_are_named(name: str, value: Any) -> None:
    expected = {"markers": "marker", "temprature": "exit_threshold"}.get(name, name)  # an unknown name: the known ones
    with pytest.raises(ValueError, match=expected):
        rollout_settings("official", **{name: value})


def test_presets_and_their_json() -> None:
    with pytest.raises(ValueError, match="official, paper"):
        rollout_settings("published")
    for preset in ("official", "paper"):
        settings = rollout_settings(preset, markers=["Hmm", "Wait"])
        assert from_json(RolloutSettings, json.loads(json.dumps(to_json(settings)))) == settings
    assert official().skip_first == 1 and official().require_close and not official().keep_probe
    assert paper().skip_first == 0 and not paper().require_close and paper().keep_probe


def test_half_of_eight_members_are_probed() -> None:
    assert sum(probed_members(8, 0.5)) == 4
    assert probed_members(3, 1.0) == [True] * 3 and probed_members(3, 0.0) == [False] * 3
    with pytest.raises(ValueError, match="probe_rate"):
        probed_members(8, 1.1)
    with pytest.raises(ValueError, match="group_size"):
        probed_members(0, 0.5)


@given(st.integers(1, 64), st.floats(0, 1))
def test_the_probed_share_is_exact_and_even(group_size: int, rate: float) -> None:
    members = probed_members(group_size, rate)
    assert len(members) == group_size and abs(sum(members) - rate * group_size) <= 0.5
    for end in range(group_size + 1):
        assert abs(sum(members[:end]) - end * sum(members) / group_size) < 1


# ---- probes that end as soon as they are decided ---------------------------------------------------------------------


def test_a_decided_probe_ends_with_its_box() -> None:
    lost = [("{", 0.5), ("7", 0.2), ("}", 0.98)]
    run = script(
        ["a ", "Wait", ",", "b ", "</think>", EOS], [lost], settings=official(stop_decided=True, probe_max_tokens=10)
    )
    [probe] = run.trajectory.probes
    assert (probe.text, probe.answer, probe.accepted, probe.closed) == ("{7}", "7", False, False)
    assert probe.joint == pytest.approx(0.2 * 0.98)
    assert run.pieces == ["a ", "Wait", ",", "b ", "</think>", EOS]


PROBABILITY = st.one_of(st.floats(0.0, 1.0), st.sampled_from([0.0, 0.3, 0.9, 0.95, 0.99, 1.0]))


@given(
    probabilities=st.lists(PROBABILITY, min_size=20, max_size=20),
    pieces=st.lists(st.sampled_from(["7", "}", "\n", " ", "a ", "{"]), max_size=12),
    rule=st.sampled_from(["geometric", "arithmetic", "minimum", "joint"]),
    threshold=st.sampled_from([0.0, 0.3, 0.9, 0.95, 1.0]),
    margin=st.sampled_from([0, 0.5, 1.0]),
    preset=st.sampled_from(["official", "paper"]),
)
def test_ending_decided_probes_changes_no_verdict(
    probabilities: list[float], pieces: list[str], rule: str, threshold: float, margin: float, preset: str
) -> None:
    thoughts = ["a ", "Wait", ",", "b ", "</think>", EOS]
    trial = list(zip(["{", *pieces, "</think>", *["a "] * 20], probabilities, strict=False))
    full, stopped = (
        _probed_once(
            thoughts,
            trial,
            rollout_settings(
                preset,
                confidence_rule=rule,
                exit_threshold=threshold,
                near_budget_margin=margin,
                max_probes=1,
                stop_decided=stop,
            ),
        )
        for stop in (False, True)
    )
    assert stopped.completion_ids == full.completion_ids and stopped.close == full.close
    [mine], [other] = stopped.probes, full.probes
    assert (mine.accepted, mine.answer, mine.joint) == (other.accepted, other.answer, other.joint)
    assert mine.token_ids == other.token_ids[: len(mine.token_ids)]


def _probed_once(thoughts: list[str], trial: list[tuple[str, float]], settings: RolloutSettings) -> Trajectory:
    def sample(context: list[int], position: int) -> tuple[int, float]:
        left = thoughts[position:] or [EOS]
        return PIECES.index(left[0]), -1.0

    answers = iter(trial)

    def greedy(context: list[int], position: int) -> tuple[int, float]:
        piece, probability = next(answers)
        return PIECES.index(piece), probability

    return drive(TrajectoryMachine(TEXT, 60, settings), sample, greedy).trajectory
