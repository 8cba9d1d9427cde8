"""A policy of a few parameters, trained by GRPO from scratch: it chooses which of several completions to write.

The whole loop in plain Python, without a model: sample groups, reward them, turn rewards into advantages, follow the
loss's gradient. Each completion is one choice, its first token; the tokens after it follow with certainty, so they
have log-probability 0 and no gradient, but they count where a loss type counts tokens.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stepgrpo_lab.method.loss import LossSettings, token_weights
from stepgrpo_lab.method.rewards import AdvantageScale, GroupReward, group_advantages
from stepgrpo_lab.method.token_loss import token_loss
from stepgrpo_lab.viz._html import visible_text
from stepgrpo_lab.viz._style import line_look, styled

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True)
class ToyCompletion:
    """Something the toy policy can write.

    Attributes:
        name: For tables and figures.
        steps: Its semantic steps, at least 1.
        tokens: Its length, at least 1.
        right: Probability that its answer is right, drawn anew each time.

    Raises:
        ValueError: A value is out of range.

    Example:
        >>> ToyCompletion("think", steps=4, tokens=8, right=0.9).steps
        4
    """

    name: str
    steps: int
    tokens: int
    right: float

    def __post_init__(self) -> None:
        if self.steps < 1 or self.tokens < 1 or not 0 <= self.right <= 1:
            raise ValueError(f"{self.name!r} needs at least 1 step, 1 token, and right in [0, 1]; got {self}")


@dataclass(frozen=True)
class ToySettings:
    """How the toy policy is trained.

    Attributes:
        loss: The loss of a token, and how tokens are weighted.
        scale: How advantages are scaled.
        rollouts: How often completions are sampled.
        groups, group_size: Groups of each rollout, and members of each group.
        updates: Steps of gradient descent on each rollout's completions; after the first they are old samples.
        learning_rate: Of plain gradient descent on the logits.
        seed: Of everything that is drawn.

    Raises:
        ValueError: A count is below 1, a group below 2, or the learning rate not above 0.
    """

    loss: LossSettings = field(default_factory=LossSettings)
    scale: AdvantageScale = "group"
    rollouts: int = 100
    groups: int = 4
    group_size: int = 8
    updates: int = 1
    learning_rate: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.rollouts, self.groups, self.updates) < 1 or self.group_size < 2:
            raise ValueError("rollouts, groups and updates must be at least 1, group_size at least 2")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be greater than 0")


@dataclass(frozen=True)
class ToyRun:
    """How training went.

    Attributes:
        completions: What could be written.
        probabilities: ``[rollouts + 1][completions]`` the policy before each rollout, and at the end.
        clipped: ``[rollouts]`` share of the choices that the clip held back, over all updates of the rollout.
    """

    completions: tuple[ToyCompletion, ...]
    probabilities: list[list[float]]
    clipped: list[float]

    @property
    def accuracy(self) -> list[float]:
        """``[rollouts + 1]`` probability that an answer is right."""
        return [self._mean([completion.right for completion in self.completions], row) for row in self.probabilities]

    @property
    def tokens(self) -> list[float]:
        """``[rollouts + 1]`` expected tokens of a completion."""
        return [self._mean([completion.tokens for completion in self.completions], row) for row in self.probabilities]

    @staticmethod
    def _mean(values: Sequence[float], probabilities: Sequence[float]) -> float:
        return sum(value * probability for value, probability in zip(values, probabilities, strict=True))


def softmax(logits: Sequence[float]) -> list[float]:
    """Probabilities from logits.

    Example:
        >>> softmax([0.0, 0.0])
        [0.5, 0.5]
    """
    top = max(logits)
    powers = [math.exp(logit - top) for logit in logits]
    return [power / sum(powers) for power in powers]


def train_toy_policy(
    completions: Sequence[ToyCompletion], reward: GroupReward, settings: ToySettings | None = None
) -> ToyRun:
    """Train a softmax over completions with GRPO, from equal probabilities.

    Args:
        completions: What can be written; at least 2.
        reward: Rewards each group.
        settings: How it is trained.

    Returns:
        The policy over time; the same arguments give the same run.

    Raises:
        ValueError: There are fewer than 2 completions.

    Example:
        >>> from stepgrpo_lab.method.rewards import StepAwareReward
        >>> short, long = ToyCompletion("short", 2, 8, 1.0), ToyCompletion("long", 6, 24, 1.0)
        >>> train_toy_policy([short, long], StepAwareReward()).probabilities[-1][0] > 0.9
        True
    """
    if len(completions) < 2:
        raise ValueError(f"{len(completions)} completions leave nothing to choose; give at least 2")
    settings = settings or ToySettings()
    rng = random.Random(settings.seed)
    logits = [0.0] * len(completions)
    probabilities, clipped = [softmax(logits)], []
    for _ in range(settings.rollouts):
        choices, advantages = sample_rollout(completions, reward, probabilities[-1], settings, rng)
        masks = [[True] * completions[choice].tokens for choice in choices]
        weights = [row[0] for row in token_weights(masks, settings.loss)]
        old, held = probabilities[-1], 0
        for _ in range(settings.updates):
            gradient, held_now = loss_gradient(choices, advantages, weights, old, softmax(logits), settings.loss)
            logits = [x - settings.learning_rate * slope for x, slope in zip(logits, gradient, strict=True)]
            held += held_now
        probabilities.append(softmax(logits))
        clipped.append(held / (len(choices) * settings.updates))
    return ToyRun(tuple(completions), probabilities, clipped)


def sample_rollout(
    completions: Sequence[ToyCompletion],
    reward: GroupReward,
    probabilities: Sequence[float],
    settings: ToySettings,
    rng: random.Random,
) -> tuple[list[int], list[float]]:
    """Draw a rollout's completions, group after group.

    Returns:
        Which completion each member is, and its advantage.
    """
    groups, rewards = [], []
    for _ in range(settings.groups):
        drawn = rng.choices(range(len(completions)), weights=probabilities, k=settings.group_size)
        members = [completions[choice] for choice in drawn]
        correct = [rng.random() < member.right for member in members]
        steps, tokens = [member.steps for member in members], [member.tokens for member in members]
        groups.append(drawn)
        rewards.append(reward(correct, steps, [True] * len(members), tokens))
    spread = statistics.stdev(value for group in rewards for value in group)
    advantages = [group_advantages(group, scale=settings.scale, batch_std=spread) for group in rewards]
    return [choice for group in groups for choice in group], [value for group in advantages for value in group]


def loss_gradient(
    choices: Sequence[int],
    advantages: Sequence[float],
    weights: Sequence[float],
    old: Sequence[float],
    now: Sequence[float],
    loss: LossSettings,
) -> tuple[list[float], int]:
    """Derivative of the batch's loss by each logit, by the chain rule: loss -> log-probability -> logits.

    Args:
        choices: ``[members]`` index of each member's completion.
        advantages: ``[members]``.
        weights: ``[members]`` what the loss type makes the choice, a completion's first token, count.
        old, now: ``[completions]`` probabilities when the members were sampled, and now.
        loss: The loss.

    Returns:
        ``[completions]`` derivatives, and how many choices the clip holds back.

    Example:
        >>> loss_gradient([0, 1], [1.0, -1.0], [0.5, 0.5], [0.5, 0.5], [0.5, 0.5], LossSettings())[0]
        [-0.5, 0.5]
    """
    gradient, held = [0.0] * len(now), 0
    for choice, advantage, weight in zip(choices, advantages, weights, strict=True):
        token = token_loss(math.log(now[choice]), advantage, loss, old_logprob=math.log(old[choice]))
        held += token.clipped
        for index, probability in enumerate(now):
            # d log softmax(logits)[choice] / d logits[index]
            gradient[index] += weight * token.gradient * ((index == choice) - probability)
    return gradient, held


def toy_policies(runs: Mapping[str, ToyRun]) -> Figure:
    """Probability of each completion over training: one panel for each run.

    Args:
        runs: Name -> run; all of the same completions.

    Raises:
        ValueError: There is no run, or the runs are of different completions.

    Example:
        >>> from stepgrpo_lab.course.toy_policy import ToyCompletion
        >>> run = ToyRun((ToyCompletion("a", 1, 1, 1.0),), [[1.0], [1.0]], [0.0])
        >>> list(toy_policies({"one": run}).data[0].y)
        [1.0, 1.0]
    """
    from plotly.subplots import make_subplots

    if len({run.completions for run in runs.values()}) != 1:
        raise ValueError(f"{len(runs)} runs of different completions, or none; pass runs of the same completions")
    figure = make_subplots(
        rows=1,
        cols=len(runs),
        subplot_titles=[visible_text(name) for name in runs],
        shared_yaxes=True,
        horizontal_spacing=0.06,
    )
    for column, run in enumerate(runs.values(), start=1):
        for number, completion in enumerate(run.completions):
            figure.add_scatter(
                y=[row[number] for row in run.probabilities],
                name=visible_text(completion.name),
                legendgroup=completion.name,
                showlegend=column == 1,
                mode="lines",
                row=1,
                col=column,
                **line_look(number, width=3),
            )
    figure.update_xaxes(title_text="rollout")
    figure.update_yaxes(title_text="probability", range=[0, 1], row=1, col=1)
    return styled(figure, height=340).update_layout(legend={"y": -0.25, "yanchor": "top"})
