"""What a dynamic truncated rollout does: its settings, the two published presets, and who is probed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stepgrpo_lab.method.confidence import RULES, ExitRule
from stepgrpo_lab.method.names import did_you_mean, shown
from stepgrpo_lab.method.steps import resolve_markers
from stepgrpo_lab.method.token_text import THINK_CLOSE, TokenText

MOST_TOKENS = 10**9
"""No setting counts more tokens, or probes, than this: a bound for slips of the finger."""


@dataclass(frozen=True)
class RolloutSettings:
    """Everything a trajectory machine needs to know; JSON-able with :func:`stepgrpo_lab.method.records.to_json`.

    Which tokens the confidence counts: the greedy tokens of the trial answer, without the first ``skip_first``, the
    inducing prompt excluded. In ``official`` the trial answer ends with ``</think>`` and its first token is the opening
    brace, so the score covers the answer, the closing brace, the line break and ``</think>``. In ``paper`` the prompt
    already opened the box, so the score covers the answer and the token with the closing brace. A trial answer that did
    not reach its end within ``probe_max_tokens`` scores 0. Sure tokens around a wrong answer lift such a score, so each
    probe also records the joint probability of the answer and its closing brace.

    A budget is a whole number of tokens, or a float: a share of the completion limit.

    Attributes:
        preset: The preset that these settings started from ("official" or "paper").
        markers: Name of a marker set (official, paper, multilingual, reader, blank_lines), or the marker words
            themselves.
        probe_prompt: The answer-inducing prompt, forced after the kept thoughts.
        confidence_rule: How token probabilities become one score (see :mod:`stepgrpo_lab.method.confidence`).
        skip_first: How many leading tokens of the trial answer the score leaves out, if they hold nothing but the brace
            that opens the box.
        require_close: True: a trial answer ends with ``</think>``. False: it ends with its completed box.
        exit_threshold: Exit when the confidence is greater than this (strictly, so 1.0 never exits).
        probe_max_tokens: Longest trial answer, in tokens.
        max_probes: Declined probes after which the thoughts run on without probes.
        think_budget: Where the thoughts are closed by force. It binds every member, probed or not.
        near_budget_margin: A probe at most this far from the think budget exits whatever its confidence. A rule about
            probes: members without probes are closed at the budget itself.
        close_text: The forced close.
        keep_probe: An accepted probe becomes the close and the answer, instead of being dropped. If it did not complete
            its box (possible only near the budget), ``close_text`` is forced as usual.
        trim_newline: Drop the leading newline of ``close_text`` after thoughts that already end in one.
        probe_rate: Share of a group's members that are probed (see :func:`probed_members`).
        stop_decided: End a trial answer as soon as its box is written and its score cannot reach the threshold any
            more. No verdict, answer or joint probability changes, and fewer tokens are fed; but a probe that was ended
            so has no score (0), and cannot be judged again under a lower threshold or another rule.

    Raises:
        ValueError: A value is out of range; the message names the field and the remedy.
    """

    preset: str
    markers: str | tuple[str, ...]
    probe_prompt: str
    confidence_rule: str
    skip_first: int
    require_close: bool
    keep_probe: bool
    trim_newline: bool
    exit_threshold: float = 0.95
    probe_max_tokens: int = 20
    max_probes: int = 10
    think_budget: float | int = 0.9
    near_budget_margin: float | int = 50
    close_text: str = "\n</think>\n\n"
    probe_rate: float = 1.0
    stop_decided: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.markers, str):
            object.__setattr__(self, "markers", tuple(self.markers))
        resolve_markers(self.markers)
        if self.confidence_rule not in RULES:
            raise ValueError(
                f"confidence_rule is {shown(self.confidence_rule)}: choose one of {', '.join(RULES)}"
                + did_you_mean(self.confidence_rule, RULES)
            )
        for name in ("exit_threshold", "probe_rate"):
            _check_share(name, getattr(self, name))
        for name, least in (("probe_max_tokens", 1), ("max_probes", 0), ("skip_first", 0)):
            _check_whole(name, getattr(self, name), least)
        _check_budget("think_budget", self.think_budget, 1)
        _check_budget("near_budget_margin", self.near_budget_margin, 0)
        for name in ("require_close", "keep_probe", "trim_newline", "stop_decided"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r}: give true or false.")
        if not isinstance(self.probe_prompt, str) or not self.probe_prompt:
            raise ValueError("probe_prompt is empty: give the text that induces a trial answer.")
        if not isinstance(self.close_text, str) or THINK_CLOSE not in self.close_text:
            raise ValueError(f"close_text is {self.close_text!r}: it must contain '</think>'.")
        if self.keep_probe and not (THINK_CLOSE in self.probe_prompt and self.box_opened):
            raise ValueError(
                "probe_prompt must contain '</think>' and end in '\\boxed{' when keep_probe is true: "
                "an accepted probe becomes the close and the answer."
            )

    @property
    def box_opened(self) -> bool:
        """Whether the inducing prompt opens the box itself, so that the trial answer starts inside it."""
        return self.probe_prompt.endswith("{")

    def exit_rule(self, limit: int) -> ExitRule:
        """What ends the thoughts in a rollout with these settings and this completion limit, in tokens.

        Example:
            >>> rollout_settings("official").exit_rule(256).near_budget
            180
        """
        budget = max(1, budget_tokens(self.think_budget, limit))
        return ExitRule(
            threshold=self.exit_threshold,
            confidence_rule=self.confidence_rule,
            markers=self.markers,
            skip_first=self.skip_first,
            max_probes=self.max_probes,
            near_budget=budget - budget_tokens(self.near_budget_margin, limit),
        )


def _check_share(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ValueError(f"{name} is {shown(value)}: give a number from 0 to 1, such as {_default(name):g}.")


def _default(name: str) -> Any:
    """A value that fits, for a message."""
    return next(field.default for field in dataclasses.fields(RolloutSettings) if field.name == name)


def _check_whole(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MOST_TOKENS:
        raise ValueError(
            f"{name} is {shown(value)}: give a whole number of at least {least} and at most {MOST_TOKENS}."
        )


def _check_budget(name: str, value: Any, least: int) -> None:
    if isinstance(value, float):
        if not (0 < value <= 1 or (value == 0 and least == 0)):
            raise ValueError(
                f"{name} is {shown(value)}: a float is a share of the limit in (0, 1], an integer counts tokens, "
                f"such as {_default(name):g}."
            )
    else:
        _check_whole(name, value, least)


def budget_tokens(budget: float | int, limit: int) -> int:
    """A budget in tokens: a float is a share of the completion limit, rounded down.

    Example:
        >>> budget_tokens(0.9, 256), budget_tokens(50, 256)
        (230, 50)
    """
    return int(budget * limit) if isinstance(budget, float) else budget


PRESETS: dict[str, RolloutSettings] = {
    "official": RolloutSettings(
        preset="official",
        markers="official",
        probe_prompt="\n**Final Answer**\n\\boxed",
        confidence_rule="geometric",
        skip_first=1,
        require_close=True,
        keep_probe=False,
        trim_newline=False,
    ),
    "paper": RolloutSettings(
        preset="paper",
        markers="paper",
        probe_prompt="</think> The final answer is \\boxed{",
        confidence_rule="geometric",
        skip_first=0,
        require_close=False,
        keep_probe=True,
        trim_newline=True,
    ),
}
"""``official`` follows the public code, ``paper`` the paper (Chen et al., arXiv 2604.16890), with a prompt that opens
the box: its answers could not be graded without. Both score with exp of the mean log-probability (Eq. 2)."""


def rollout_settings(preset: str = "official", **overrides: Any) -> RolloutSettings:
    """A preset with some of its fields replaced.

    Raises:
        ValueError: Unknown preset or field, or a value out of range.

    Example:
        >>> rollout_settings("paper", exit_threshold=0.9).exit_threshold
        0.9
    """
    if preset not in PRESETS:
        raise ValueError(
            f"Unknown rollout preset {shown(preset)}: choose one of {', '.join(PRESETS)}"
            + did_you_mean(preset, PRESETS)
        )
    fields = [field.name for field in dataclasses.fields(RolloutSettings) if field.name != "preset"]
    for name in overrides:
        if name not in fields:
            raise ValueError(
                f"Unknown rollout setting {name!r}: choose from {', '.join(fields)}{did_you_mean(name, fields)}."
            )
    return dataclasses.replace(PRESETS[preset], **overrides)


def cut_at_first_marker(settings: RolloutSettings) -> RolloutSettings:
    """The same rollout with an exit at the first probe, whatever its confidence: what are the further steps worth?

    Example:
        >>> cut_at_first_marker(rollout_settings("official")).near_budget_margin
        1.0
    """
    return dataclasses.replace(settings, near_budget_margin=1.0)  # all places are near the budget: every probe exits


def probed_members(group_size: int, probe_rate: float) -> list[bool]:
    """Which members of a group may be probed: exactly the nearest whole share of them, spread evenly.

    The others are sampled without probes, under the same think budget, so that a group can always compare short with
    long. The published method probes every member (``probe_rate`` 1).

    Raises:
        ValueError: ``group_size`` is below 1 or ``probe_rate`` outside 0..1.

    Example:
        >>> probed_members(4, 0.5)
        [False, True, False, True]
    """
    _check_whole("group_size", group_size, 1)
    _check_share("probe_rate", probe_rate)
    share = int(probe_rate * group_size + 0.5)
    return [(member + 1) * share // group_size > member * share // group_size for member in range(group_size)]


def close_tokens(thoughts: Sequence[int], settings: RolloutSettings, token_text: TokenText) -> list[int]:
    """The forced close after some thoughts, both in token ids; with ``trim_newline`` no blank line is made.

    Example:
        >>> toy = TokenText.from_pieces(["so", "\\n", "\\n\\n", "</think>"])
        >>> [close_tokens(thoughts, rollout_settings("paper"), toy) for thoughts in ([0], [0, 1])]
        [[1, 3, 2], [3, 2]]
    """
    text = settings.close_text
    if settings.trim_newline and text.startswith("\n") and token_text.decode(thoughts[-1:]).endswith("\n"):
        text = text[1:]
    return token_text.encode(text)
