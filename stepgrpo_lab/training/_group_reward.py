"""The one reward function that TRL calls: grades, gathers whole groups from every process, rewards, measures."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, is_dataclass
from functools import partial
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object

from stepgrpo_lab.evaluation.evaluating import outcomes
from stepgrpo_lab.evaluation.grading import Grader
from stepgrpo_lab.method.records import Trajectory
from stepgrpo_lab.method.rewards import BatchReward, GroupReward, grouped, outcome_rewards
from stepgrpo_lab.training._guard import NotFiniteError
from stepgrpo_lab.training.metrics import RolloutRow, rollout_metrics, rollout_row


class GroupRewardFunction:
    """Reward completions group by group, however the groups are spread over processes.

    A process may hold only a part of a group, so the outcomes of all processes are gathered first; their order is the
    sampler's, and a group is ``group_size`` consecutive rows (the same problem may well be in two groups).

    Args:
        reward: From one group's correctness, steps, format and tokens to its rewards, or a reward that first sees the
            correctness of every group of the rollout.
        grader: Judges answers.
        scale: How the trainer scales advantages; used for the metrics alone.
        clock: Called with a phase's name and its seconds.
        unmarked: Called with the number of completions of the first rollout, if none of them has more than one step.

    Attributes:
        last: The rewards that were returned last.
    """

    __name__ = "group_reward"

    def __init__(
        self,
        reward: GroupReward | BatchReward,
        grader: Grader,
        *,
        scale: Any,
        clock: Callable[[str, float], None],
        unmarked: Callable[[int], None] = lambda completions: None,
    ) -> None:
        self.reward = reward
        self.grader = grader
        self.scale = scale
        self.clock = clock
        self.unmarked = unmarked
        self.last: list[float] = []
        self._first = True

    def __call__(
        self,
        *,
        answer: Sequence[str],
        step_trajectory: Sequence[Trajectory],
        step_group_size: Sequence[int],
        log_metric: Callable[[str, float], None],
        **_: Any,
    ) -> list[float]:
        """Rewards of this process's completions, in their order.

        Args:
            answer: Gold answers, a column of the data set.
            step_trajectory: The completions, from the rollout.
            step_group_size: G, the same in every row.
            log_metric: TRL's; it averages over processes, which all hold the same values here, but for
                ``grading/timeouts``: answers of this process whose comparison ran out of time or memory.
        """
        group_size = step_group_size[0]
        started, timeouts = time.perf_counter(), self.grader.timeouts
        rows = judge(step_trajectory, answer, self.grader)
        self.clock("grading", time.perf_counter() - started)
        log_metric("grading/timeouts", float(self.grader.timeouts - timeouts))
        everyone: list[RolloutRow] = gather_object(rows)
        if self._first and all(row.outcome.steps <= 1 for row in everyone):
            self.unmarked(len(everyone))
        self._first = False
        groups = grouped(everyone, group_size)
        chosen = zip(self.rewards_of(groups), groups, strict=True)
        rewards = [
            value for reward, group in chosen for value in outcome_rewards(reward, [row.outcome for row in group])
        ]
        _check_finite(rewards, everyone, group_size)
        for name, value in rollout_metrics(everyone, rewards, group_size, scale=self.scale).items():
            log_metric(name, value)
        first = PartialState().process_index * len(rows)
        self.last = rewards[first : first + len(rows)]
        return self.last

    def rewards_of(self, groups: Sequence[Sequence[RolloutRow]]) -> Sequence[GroupReward]:
        """The reward of each group of the rollout."""
        if isinstance(self.reward, BatchReward):
            return self.reward.rewards_of_groups([[row.outcome.correct for row in group] for group in groups])
        return [self.reward] * len(groups)


def describe(reward: Any) -> Any:
    """A reward and its settings as plain values, for a tracker: what it is stands under "function".

    Example:
        >>> from functools import partial
        >>> describe(partial(math.pow, 2, y=0.5))
        {'function': 'math:pow', 'args': [2], 'y': 0.5}
    """
    if isinstance(reward, partial):
        arguments = {"args": list(reward.args)} if reward.args else {}
        return {**describe(reward.func), **arguments, **reward.keywords}
    if callable(reward) or isinstance(reward, BatchReward):
        kind = reward if hasattr(reward, "__qualname__") else type(reward)
        settings = fields(reward) if is_dataclass(reward) else ()
        name = f"{kind.__module__}:{kind.__qualname__}"
        return {"function": name, **{field.name: describe(getattr(reward, field.name)) for field in settings}}
    return reward if isinstance(reward, (str, int, float, type(None))) else repr(reward)


def _check_finite(rewards: Sequence[float], rows: Sequence[RolloutRow], group_size: int) -> None:
    """TRL would read a reward of NaN as a missing one and go on."""
    for place, reward in enumerate(rewards):
        if not math.isfinite(reward):
            group, member = divmod(place, group_size)
            evidence = [
                {"reward": rewards[index], **asdict(rows[index])}
                for index in range(group * group_size, (group + 1) * group_size)
            ]
            raise NotFiniteError(f"the reward of member {member} of group {group} is {reward}", evidence)


def judge(trajectories: Sequence[Trajectory], golds: Sequence[str], grader: Grader) -> list[RolloutRow]:
    """Grade the final answers and every trial answer."""
    final = outcomes(trajectories, golds, grader)
    trials = [(probe.answer, gold) for row, gold in zip(trajectories, golds, strict=True) for probe in row.probes]
    verdicts = iter(grader.grade([answer for answer, _ in trials], [gold for _, gold in trials]))
    return [
        rollout_row(trajectory, outcome, [next(verdicts) for _ in trajectory.probes])
        for trajectory, outcome in zip(trajectories, final, strict=True)
    ]
