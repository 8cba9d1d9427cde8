"""Checks of notebook 04: dynamic truncated rollout, phase by phase."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from statistics import fmean
from typing import Any

from stepgrpo_lab.course.checks._result import Unsolved, agree, draws, exercise, expect
from stepgrpo_lab.course.toys import ScriptedPolicy, TinyWriter, drive, toy_token_text
from stepgrpo_lab.method.records import Trajectory
from stepgrpo_lab.method.rollout import TrajectoryMachine, rollout_settings


@exercise("04.1", "that is the whole decision: a strict comparison, and a rule for the budget's last tokens")
def exit_reason(solution: Callable[[float, float, int, int, int], str | None]) -> None:
    """``exit_reason(confidence, threshold, place, think_budget, margin)``: "early", "near_budget" or None.

    Example:
        >>> exit_reason(lambda confidence, threshold, *rest: "early" if confidence >= threshold else None).passed
        False
    """

    def near(place: int, think_budget: int, margin: int) -> bool:
        return think_budget - place <= margin

    def reason(confidence: float, threshold: float, *rest: int) -> str | None:
        return "early" if confidence > threshold else "near_budget" if near(*rest) else None

    mistakes: dict[str, Callable[..., str | None]] = {
        "the score must be greater than the threshold, not equal to it": lambda score, threshold, *rest: (
            "early" if score >= threshold else reason(0, 1, *rest)
        ),
        "a confident probe is an early exit wherever it stands": lambda score, threshold, *rest: (
            reason(0, 1, *rest) or reason(score, threshold, *rest)
        ),
        "a probe exactly as far from the budget as the margin counts as near": lambda *case: reason(
            *case[:4], case[4] - 1
        ),
        "a probe at most the margin before the think budget exits whatever its score": lambda score, threshold, *_: (
            "early" if score > threshold else None
        ),
    }
    corners = [
        (0.97, 0.95, 40, 230, 50),
        (0.95, 0.95, 40, 230, 50),
        (0.6, 0.95, 180, 230, 50),
        (0.99, 0.95, 200, 230, 50),
    ]
    cases = corners + draws(_probe)
    agree(solution, reason, cases, "exit_reason", mistakes=mistakes)


def _probe(rng: random.Random, size: int) -> tuple[float, float, int, int, int]:
    """On a grid, so that scores equal thresholds and places lie exactly on the margin."""
    return rng.randint(16, 20) / 20, rng.randint(16, 20) / 20, 10 * rng.randint(1, 20), 200, 10 * rng.randint(0, 6)


@exercise("04.2", "it is what the recorded rollouts cost, token for token")
def decoded_tokens(solution: Callable[[int, Sequence[int], int, int], int]) -> None:
    """``decoded_tokens(kept, trials, prompt, replayed)``: everything that is fed for one completion.

    Example:
        >>> decoded_tokens(lambda kept, trials, prompt, replayed: kept).passed
        False
    """

    def decoded(kept: int, trials: Sequence[int], prompt: int, replayed: int) -> int:
        return kept + replayed + sum(prompt + trial - 1 for trial in trials)

    mistakes: dict[str, Callable[..., int]] = {
        "the probes cost tokens too, although they leave no trace": lambda kept, *_: kept,
        "every probe also feeds its inducing prompt": lambda kept, trials, prompt, replayed: decoded(
            kept, trials, 0, replayed
        ),
        "the last token of a trial answer is chosen but never fed": lambda *case: decoded(*case) + len(case[1]),
        "every probe feeds the inducing prompt, not only one": lambda *case: (
            decoded(*case) - case[2] * max(0, len(case[1]) - 1)
        ),
        "held-back tokens are fed a second time": lambda *case: decoded(*case) - case[3],
    }
    cases = [(41, [4], 6, 3), (128, [], 6, 0), *draws(_costs)]
    agree(solution, decoded, cases, "decoded_tokens", mistakes=mistakes)


def _costs(rng: random.Random, size: int) -> tuple[int, list[int], int, int]:
    trials = [rng.randint(1, 9) for _ in range(rng.randint(0, size))]
    return rng.randint(20, 200), trials, rng.randint(1, 9), 2 * len(trials)


_ANSWER = ["\\boxed", "{", "5", "}", "<eos>"]


def _driven(machine: TrajectoryMachine, policy: ScriptedPolicy) -> Trajectory:
    drive(machine, policy)
    return machine.trajectory([0])


@exercise("04.3", "you have written an engine; the library's does the same for many rows at once", reference=_driven)
def run_engine(solution: Callable[[TrajectoryMachine, ScriptedPolicy], Trajectory]) -> None:
    """``run_engine(machine, policy)`` drives a machine to its end and returns its trajectory for the prompt ``[0]``.

    Example:
        >>> run_engine(lambda machine, policy: None).passed
        False
    """
    scripts = [
        ("a completion without a marker", _script([])),
        ("a confident probe", _script([True])),
        ("a declined probe", _script([False])),
        *((f"a script of {len(verdicts)} probes", _script(verdicts)) for (verdicts,) in draws(_verdicts, 8)),
    ]
    for name, (samples, trials) in scripts:
        expected = _finished(samples, trials)
        machine, policy = _machine(), ScriptedPolicy(toy_token_text(), samples, trials)
        actual = solution(machine, policy)
        if not isinstance(actual, Trajectory):
            expect(actual, "a trajectory", f"run_engine on {name}", hint="Return machine.trajectory([0])")
        if expected.close == "early" and actual.close != "early":
            raise Unsolved(
                f"on {name} the machine never exits: give observe() the greedy token's probability as third argument"
            )
        hint = "Compare your loop with the calls above"
        expect(actual.completion_ids, expected.completion_ids, f"the completion on {name}", hint=hint)
        expect(actual.prompt_ids, expected.prompt_ids, f"the prompt on {name}", hint="The prompt is [0]")
        scores, right_scores = ([probe.confidence for probe in row.probes] for row in (actual, expected))
        expect(scores, right_scores, f"the probes' confidence on {name}", hint=hint)
        hint = "Give observe() the sampled token's own log-probability"
        expect(actual.logprobs, expected.logprobs, f"the log-probabilities on {name}", hint=hint)


def _verdicts(rng: random.Random, size: int) -> tuple[list[bool]]:
    """Declined probes, and now and then a confident one at the end."""
    return ([False] * rng.randint(1, 1 + size // 4) + [True] * rng.randint(0, 1),)


def _script(verdicts: Sequence[bool]) -> tuple[list[str], list[list[tuple[str, float]]]]:
    """Samples and trial answers of a completion whose probes have these verdicts; only the last may be confident."""
    samples, trials = ["2+3=5"], []
    for confident in verdicts:
        samples += [" ", "Wait", ","] + ([] if confident else ["2+3=5"])
        trials.append([("{", 0.99), ("5", 0.98 if confident else 0.4), ("}", 0.99), ("\n", 0.99), ("</think>", 0.99)])
    natural = not verdicts or not verdicts[-1]
    return [*samples, *(["\n", "</think>"] if natural else []), *_ANSWER], trials


def _machine() -> TrajectoryMachine:
    return TrajectoryMachine(toy_token_text(), limit=60, settings=rollout_settings("official", near_budget_margin=0))


def _finished(samples: Sequence[str], trials: Sequence[Sequence[tuple[str, float]]]) -> Trajectory:
    return _driven(_machine(), ScriptedPolicy(toy_token_text(), samples, trials))


Rollout = tuple[list[int], str | None, list[float]]


def _by_machine(writer: TinyWriter, threshold: float) -> Rollout:
    """The library's machine, driven by the writer: tokens, why the thoughts ended, and the probes' confidence."""
    settings = rollout_settings("official", exit_threshold=threshold, think_budget=1.0, max_probes=1000)
    machine = TrajectoryMachine(
        writer.token_text,
        limit=1000,
        settings=replace(settings, near_budget_margin=0, markers=("Wait", "Alternatively")),
    )
    context: list[int] = []
    while True:
        if machine.choice == "sample":
            machine.observe(writer.sample(context), 0.0)
        elif machine.choice == "greedy":
            token, probability = writer.likeliest(context)
            machine.observe(token, None, probability)
        if machine.done:
            break
        token, place = machine.feed()
        context[place:] = [token]
    rollout = machine.trajectory([0])
    return rollout.completion_ids, rollout.close, [probe.confidence for probe in rollout.probes]


def _geometric(odds: Sequence[float]) -> float:
    return prod(odds) ** (1 / len(odds))


def _by_hand(
    writer: TinyWriter,
    threshold: float,
    *,
    score: Callable[[Sequence[float]], float] = lambda odds: _geometric(odds[1:]),
    backtracks: bool = True,
    in_answers: bool = False,
    keeps_marker: bool = False,
    keeps_trial: bool = False,
    sampled: bool = False,
    closes: bool = True,
) -> Rollout:
    """The loop as one writes it, right by default, or with a mistake in it."""
    tokens: list[int] = []
    close: str | None = None
    scores: list[float] = []
    while not tokens or tokens[-1] != writer.end:
        token = writer.sample(tokens)
        if token in writer.markers and (close is None or in_answers):
            trial: list[int] = []
            odds: list[float] = []
            while writer.close not in trial and len(trial) < 20:
                context = [*tokens, *writer.probe_prompt, *trial]
                likely, probability = writer.likeliest(context)
                trial.append(writer.sample(context) if sampled else likely)
                odds.append(probability)
            scores.append(score(odds))
            if scores[-1] > threshold:
                tokens += [token] * keeps_marker
                tokens += [*writer.probe_prompt, *trial] if keeps_trial else writer.forced_close * closes
                close = "early"
                continue
            tokens += [] if backtracks else [*writer.probe_prompt, *trial]
        if token == writer.close and close is None:
            close = "natural"
        tokens.append(token)
    return tokens, close, scores


_ROLLOUT_MISTAKES: dict[str, dict[str, Any]] = {
    "a declined probe leaves no trace: go on from the tokens before it": {"backtracks": False},
    "the marker is dropped as well where the thoughts end early": {"keeps_marker": True},
    "the trial answer is dropped; the close is forced, and the answer is sampled anew": {"keeps_trial": True},
    "where the thoughts end early, force the close: writer.forced_close": {"closes": False},
    "once the thoughts are closed, a marker is a word like any other": {"in_answers": True},
    "a trial answer is greedy: a sample would use up the numbers of the thoughts": {"sampled": True},
    "the score is the geometric mean, not the arithmetic": {"score": lambda odds: fmean(odds[1:])},
    "the opening brace is no part of the answer: leave the first token out": {"score": _geometric},
    "that is the joint probability: take its root": {"score": lambda odds: prod(odds[1:])},
}


@exercise(
    "04.4",
    "your loop and the library's machine agree, token for token: that is the whole dynamic truncated rollout",
    reference=_by_machine,
)
def truncated_rollout(solution: Callable[[TinyWriter, float], Rollout]) -> None:
    """``truncated_rollout(writer, threshold)``: write one completion, and ask at every marker.

    Sample with ``writer.sample(tokens)`` until the token is ``writer.end``. Where the thoughts reach one of
    ``writer.markers``, force ``writer.probe_prompt`` in its place and take ``writer.likeliest(context)`` until
    ``writer.close``. The score is the geometric mean of these tokens' probabilities without the first, the opening
    brace. Above the threshold the thoughts end before the marker: ``writer.forced_close`` is forced, and the answer
    sampled. If not, the probe is forgotten and the marker stays.

    Returns ``(tokens, close, scores)``: the completion, "early" or "natural", and the score of each probe.

    Example:
        >>> truncated_rollout(lambda writer, threshold: ([writer.end], "natural", [])).passed
        False
    """

    mistakes = {message: _readable(partial(_by_hand, **mistake)) for message, mistake in _ROLLOUT_MISTAKES.items()}
    agree(_readable(solution), _readable(_by_machine), draws(_writers), "truncated_rollout", mistakes=mistakes)


def _readable(loop: Callable[[TinyWriter, float], Any]) -> Callable[[TinyWriter, float], Any]:
    """The same loop with its tokens as text."""

    def readable(writer: TinyWriter, threshold: float) -> Any:
        rollout = loop(writer, threshold)
        if not isinstance(rollout, tuple | list) or len(rollout) != 3:
            return rollout
        return (writer.text([int(token) for token in rollout[0]]), *rollout[1:])

    return readable


def _writers(rng: random.Random, size: int) -> tuple[TinyWriter, float]:
    return TinyWriter(rng.randrange(10_000)), rng.choice([0.8, 0.95, 1.0])
