"""Checks of notebook 04: dynamic truncated rollout, phase by phase."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from stepgrpo_lab.course.checks._result import Unsolved, agree, draws, exercise, expect
from stepgrpo_lab.course.toys import ScriptedPolicy, drive, toy_token_text
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


@exercise("04.3", "you have written an engine; the library's does the same for many rows at once")
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
    machine = _machine()
    drive(machine, ScriptedPolicy(toy_token_text(), samples, trials))
    return machine.trajectory([0])
