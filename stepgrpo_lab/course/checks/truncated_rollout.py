"""Checks of notebook 04: dynamic truncated rollout, phase by phase."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stepgrpo_lab.course.checks._result import Unsolved, exercise, expect
from stepgrpo_lab.course.toys import ScriptedPolicy, drive, toy_token_text
from stepgrpo_lab.method.records import Trajectory
from stepgrpo_lab.method.rollout import TrajectoryMachine, rollout_settings

_VERDICTS = (
    # confidence, threshold, place, think budget, margin -> why the thoughts are closed
    ((0.97, 0.95, 40, 230, 50), "early", "it is above the threshold"),
    ((0.60, 0.95, 40, 230, 50), None, "it is neither confident nor near the budget"),
    ((0.60, 0.95, 200, 230, 50), "near_budget", "30 tokens are left of the think budget, and the margin is 50"),
    ((0.99, 0.95, 200, 230, 50), "early", "a confident probe is an early exit wherever it stands"),
    ((0.95, 0.95, 40, 230, 50), None, "the score must be greater than the threshold, not equal to it"),
    ((0.60, 0.95, 180, 230, 50), "near_budget", "a probe exactly as far as the margin counts as near"),
)


@exercise("04.1", "that is the whole decision: a strict comparison, and a rule for the budget's last tokens")
def exit_reason(solution: Callable[[float, float, int, int, int], str | None]) -> None:
    """``exit_reason(confidence, threshold, place, think_budget, margin)``: "early", "near_budget" or None.

    Example:
        >>> exit_reason(lambda confidence, threshold, *rest: "early" if confidence >= threshold else None).passed
        False
    """
    for values, reason, why in _VERDICTS:
        expect(solution(*values), reason, f"exit_reason{values}", hint=why)


_COSTS: tuple[tuple[tuple[int, list[int], int, int], int], ...] = (
    # kept tokens, lengths of the trial answers, length of the inducing prompt, held-back tokens fed twice
    ((41, [4, 4, 4], 6, 3), 71),
    ((68, [3, 3, 3, 3], 6, 4), 104),
    ((128, [], 6, 0), 128),
)


@exercise("04.2", "it is what the recorded rollouts cost, token for token")
def decoded_tokens(solution: Callable[[int, Sequence[int], int, int], int]) -> None:
    """``decoded_tokens(kept, trials, prompt, replayed)``: everything that is fed for one completion.

    Example:
        >>> decoded_tokens(lambda kept, trials, prompt, replayed: kept).passed
        False
    """
    for (kept, trials, prompt, replayed), total in _COSTS:
        fed = kept + replayed + sum(trials)
        mistakes = {
            "the probes cost tokens too, although they leave no trace": kept,
            "every probe also feeds its inducing prompt": fed - len(trials),
            "the last token of a trial answer is chosen but never fed": fed + prompt * len(trials),
            "every probe feeds the inducing prompt, not only one": fed - len(trials) + prompt,
            "held-back tokens are fed a second time": total - replayed,
        }
        what = f"decoded_tokens({kept}, {trials}, {prompt}, {replayed})"
        expect(solution(kept, trials, prompt, replayed), total, what, mistakes=mistakes)


_SURE = [("{", 0.99), ("5", 0.98), ("}", 0.99), ("\n", 0.99), ("</think>", 0.99)]
_UNSURE = [("{", 0.99), ("6", 0.40), ("}", 0.99), ("\n", 0.99), ("</think>", 0.99)]
_ANSWER = ["\\boxed", "{", "5", "}", "<eos>"]
_SCRIPTS = {
    "a natural end": (["2+3=5", "\n", "</think>", *_ANSWER], []),
    "a confident probe": (["2+3=5", " ", "Wait", ",", *_ANSWER], [_SURE]),
    "a declined probe": (["2+3=5", " ", "Wait", ",", "2+3=5", "\n", "</think>", *_ANSWER], [_UNSURE]),
}


@exercise("04.3", "you have written an engine; the library's does the same for many rows at once")
def run_engine(solution: Callable[[TrajectoryMachine, ScriptedPolicy], Trajectory]) -> None:
    """``run_engine(machine, policy)`` drives a machine to its end and returns its trajectory for the prompt ``[0]``.

    Example:
        >>> run_engine(lambda machine, policy: None).passed
        False
    """
    for name, (samples, trials) in _SCRIPTS.items():
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


def _machine() -> TrajectoryMachine:
    return TrajectoryMachine(toy_token_text(), limit=40, settings=rollout_settings("official", near_budget_margin=0))


def _finished(samples: Sequence[str], trials: Sequence[Sequence[tuple[str, float]]]) -> Trajectory:
    machine = _machine()
    drive(machine, ScriptedPolicy(toy_token_text(), samples, trials))
    return machine.trajectory([0])
