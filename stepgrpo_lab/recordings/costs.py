"""What an exit rule would have cost: the tokens fed for its completions and for its probes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from stepgrpo_lab.method.exit_rules import ExitRule
from stepgrpo_lab.recordings.schema import RecordedGroup


@dataclass(frozen=True)
class RuleCost:
    """Tokens fed for a completion under an exit rule; means over completions.

    Attributes:
        probes: Probes made, up to and including the one that exits.
        kept_tokens: Length of the completion, stopped there.
        probe_tokens: Tokens fed for probes: inducing prompts and trial answers.
        replayed_tokens: Held-back tokens that were fed a second time or in vain.
    """

    probes: float
    kept_tokens: float
    probe_tokens: float
    replayed_tokens: float

    @property
    def decoded_tokens(self) -> float:
        """Everything that was fed after the prompt."""
        return self.kept_tokens + self.probe_tokens + self.replayed_tokens


def cost_of_rule(groups: Sequence[RecordedGroup], rule: ExitRule) -> RuleCost:
    """What every member of groups that were only watched would have cost under a rule.

    A probe feeds its inducing prompt and its trial answer but for the last token, whose logits nobody needs. The tokens
    that it makes the rollout feed again are taken as the completion's mean.

    Args:
        groups: Groups of which no probe ended the thoughts, such as :func:`load_survey`'s.
        rule: The rule.

    Raises:
        ValueError: There are no groups, or a group's probes were acted upon.

    Example:
        >>> from stepgrpo_lab.recordings import load_survey
        >>> cost = cost_of_rule(load_survey()[:1], ExitRule())
        >>> cost.probes, cost.kept_tokens, cost.probe_tokens
        (1.0, 22.0, 8.0)
    """
    rows = [_member_cost(group, index, rule) for group in groups for index in range(len(group.members))]
    if not rows:
        raise ValueError("there are no groups; pass recorded completions, such as load_survey()")
    return RuleCost(*(fmean(column) for column in zip(*rows, strict=True)))


def _member_cost(group: RecordedGroup, index: int, rule: ExitRule) -> tuple[float, ...]:
    point = group.exit_point(index, rule)
    trajectory = group.members[index].trajectory
    reached = trajectory.probes[: None if point.probe is None else point.probe + 1]
    made = [probe for probe in reached if rule.asks(probe)]
    prompt = len(group.token_text.encode(group.settings.probe_prompt)) if group.settings else 0
    replayed = trajectory.cost.replayed_tokens * len(made) / max(1, len(trajectory.probes))
    return len(made), point.tokens, sum(prompt + len(probe.token_ids) - 1 for probe in made), replayed
