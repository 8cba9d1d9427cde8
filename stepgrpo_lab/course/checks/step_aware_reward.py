"""Checks of notebook 06: the group's mean, one member's reward, and advantages that do not know ``step_beta``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean

from stepgrpo_lab.course.checks._result import Unsolved, exercise, expect
from stepgrpo_lab.method.rewards import group_advantages, group_mean_steps, step_aware_rewards

GOLDEN = ([True, True, True, False, False], [2, 4, 6, 3, 9])
"""Correctness and steps of the course's group."""

DIGITS, TOLERANCE = 4, 1e-3
"""Messages round their numbers, the same on every machine."""

MeanSteps = Callable[[Sequence[bool], Sequence[int]], float | None]
MemberReward = Callable[[bool, int, bool, float | None, float, float], float]
Advantages = Callable[[Sequence[int]], Sequence[float]]


@exercise("06.1", "the right members alone say what is long, and nobody does where nobody is right.")
def mean_steps_of_right(solution: MeanSteps) -> None:
    """Hold ``mean_steps(correct, steps)`` against Eq. 4's mean over the right members.

    Example:
        >>> mean_steps_of_right(lambda correct, steps: sum(steps) / len(steps)).passed
        False
    """
    correct, steps = GOLDEN
    what = f"mean_steps({correct}, {steps})"
    mistakes = {"that is the mean over all members; take the right ones alone": fmean(steps)}
    expect(solution(correct, steps), group_mean_steps(correct, steps), what, mistakes=mistakes)
    expect(solution([False, True], [9, 2]), 2.0, "mean_steps([False, True], [9, 2])")
    try:
        nobody = solution([False, False], [3, 5])
    except ZeroDivisionError as error:
        raise Unsolved("mean_steps([False, False], [3, 5]) divides by 0: nobody is right, so give None") from error
    expect(nobody, None, "mean_steps([False, False], [3, 5])", hint="nobody is right, so there is no mean")


@exercise("06.2", "this is Eq. 5; the published values keep right answers in [0.55, 1.343] and wrong ones below.")
def member_reward(solution: MemberReward) -> None:
    """Hold ``member_reward(correct, steps, formatted, mean, alpha, beta)`` against the library's reward.

    Example:
        >>> member_reward(lambda correct, steps, formatted, mean, alpha=0.9, beta=0.5: 1.0).passed
        False
    """
    correct, steps = GOLDEN
    mean = group_mean_steps(correct, steps)
    wrong_again = step_aware_rewards(correct, steps, [True] * 5, penalize_wrong=True)
    for alpha, beta in ((0.9, 0.5), (0.6, 0.2)):
        rewards = step_aware_rewards(correct, steps, [True] * 5, step_alpha=alpha, step_beta=beta)
        for is_correct, k, reward in zip(correct, steps, rewards, strict=True):
            what = f"member_reward({is_correct}, {k}, True, {mean}, {alpha}, {beta})"
            answer = solution(is_correct, k, True, mean, alpha, beta)
            expect(answer, round(reward, DIGITS), what, hint=_hint(solution, wrong_again), tolerance=TOLERANCE)
    expect(
        solution(False, 3, False, mean, 0.9, 0.5),
        0.0,
        f"member_reward(False, 3, False, {mean}, 0.9, 0.5)",
        hint="a wrong answer without a box earns nothing: multiply 1 - alpha with the format",
    )
    try:
        nobody = solution(False, 3, True, None, 0.9, 0.5)
    except TypeError as error:
        raise Unsolved(
            "member_reward(False, 3, True, None, 0.9, 0.5) uses the mean, but nobody is right: look at it for right "
            "answers alone"
        ) from error
    expect(nobody, 0.1, "member_reward(False, 3, True, None, 0.9, 0.5)")


def _hint(solution: MemberReward, wrong_penalised: Sequence[float]) -> str:
    """What a common mistake gives away."""
    short, wrong = solution(True, 2, True, 4.0, 0.9, 0.5), solution(False, 3, True, 4.0, 0.9, 0.5)
    if not isinstance(short, int | float) or not isinstance(wrong, int | float):
        return ""
    if short < 1:
        return "a short right answer earns more than 1: mind the sign before beta"
    if math.isclose(short, 0.9 * (1 - 0.5 * (2 - 4.0) / 4.0) + 0.1):
        return "(k - mu) / mu goes through tanh first"
    if math.isclose(wrong, wrong_penalised[3]):
        return "a wrong answer gets no step term: c multiplies the whole bracket"
    return ""


@exercise("06.3", "no step_beta in it, and yet these are the advantages that training uses: the setting is inert here.")
def advantages_of_right(solution: Advantages) -> None:
    """Hold ``advantages_of_right(steps)`` against the library's, for several ``step_beta``.

    Example:
        >>> advantages_of_right(lambda steps: [0.0] * len(steps)).passed
        False
    """
    for steps in ([2, 3, 4, 5, 6], [1, 9], [4, 7, 7, 12]):
        right = [True] * len(steps)
        for beta in (0.5, 0.05):
            expected = group_advantages(step_aware_rewards(right, steps, right, step_beta=beta), eps=0.0)
            n = len(steps)
            mistakes = {
                "the sign is wrong: fewer steps must come out positive": [-advantage for advantage in expected],
                "that divides by the population's deviation: use statistics.stdev, not pstdev": [
                    advantage * math.sqrt(n / (n - 1)) for advantage in expected
                ],
            }
            expect(
                solution(steps),
                [round(advantage, DIGITS) for advantage in expected],
                f"advantages_of_right({steps})",
                hint="standardise tanh((k - mu) / mu), and turn its sign",
                mistakes=mistakes,
                tolerance=TOLERANCE,
            )
    try:
        equal = solution([3, 3])
    except ZeroDivisionError as error:
        raise Unsolved("advantages_of_right([3, 3]) divides by 0: where all are equal, give zeros") from error
    expect(equal, [0.0, 0.0], "advantages_of_right([3, 3])", hint="where all are equal, give zeros")
