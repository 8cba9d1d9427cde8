"""S-GRPO's rollout (arXiv 2505.07686): one chain of thought for each prompt, answered at several of its places.

The members of a group share one chain. It is sampled whole, which makes the last member; for each of the others the
chain is cut at an exit, closed by force, and an answer is sampled. Exits stand at markers, drawn at random, like those
of the dynamic truncated rollout; a chain with fewer markers than exits is also cut at random tokens, as S-GRPO cuts all
of its chains.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from stepgrpo_lab.engines.completions import Decoding, RolloutEngine
from stepgrpo_lab.method.records import Cost, Trajectory
from stepgrpo_lab.method.sampling import SampleKey
from stepgrpo_lab.method.settings import RolloutSettings, close_tokens
from stepgrpo_lab.method.steps import MarkerSegmenter, Segmenter
from stepgrpo_lab.method.token_text import TokenText


def complete_serially(
    engine: RolloutEngine,
    prompt_ids: Sequence[Sequence[int]],
    decoding: Decoding,
    *,
    group_size: int,
    keys: Sequence[SampleKey],
) -> tuple[list[Trajectory], Cost]:
    """Complete each prompt ``group_size`` times along one chain.

    Args:
        engine: Samples chains and answers.
        prompt_ids: Token ids of each group's prompt, ``[groups][tokens]``.
        decoding: Limit, sampling and segmenter as ever; of the settings, the markers, the forced close and the think
            budget hold, and nothing is probed.
        group_size: Members of a group: its exits, and the whole chain.
        keys: Random numbers of each member, ``groups x group_size``; the last one's draw the chain.

    Returns:
        The members, group after group, from the earliest exit to the whole chain, and what all of them cost. A
        member's cost counts the whole completion, because its part of the chain is fed through the model again.

    Raises:
        ValueError: The numbers of prompts and keys do not match, ``group_size`` is below 2, or there are no settings.
    """
    limit, settings = decoding.limit, decoding.settings
    if settings is None:
        raise ValueError("a serial rollout needs settings: they say where chains are cut and how they are closed")
    if group_size < 2 or len(keys) != group_size * len(prompt_ids):
        raise ValueError(
            f"{len(keys)} keys for {len(prompt_ids)} groups of {group_size}: give one for each member, at least 2 each"
        )
    segmenter = decoding.segmenter or MarkerSegmenter(settings.markers)
    chains, cost = engine.generate(
        prompt_ids, decoding, keys=keys[group_size - 1 :: group_size], probed=[False] * len(prompt_ids)
    )
    each = group_size - 1
    exits: list[_Exit] = []
    for chain, key in zip(chains, keys[::group_size], strict=True):
        whole = _Chain(chain, settings, segmenter, engine.token_text)
        exits += map(whole.exit_at, whole.exit_places(each, limit, random.Random(f"exits:{key}")))
    answers, answer_cost = engine.generate(
        [exit.prompt for exit in exits],
        Decoding(limit, sampling=decoding.sampling),
        keys=[key for member, key in enumerate(keys) if (member + 1) % group_size],
        limits=[limit - exit.length for exit in exits],
    )
    cut = [exit.answered(answer, segmenter, engine.token_text) for exit, answer in zip(exits, answers, strict=True)]
    members: list[Trajectory] = []
    for group, chain in enumerate(chains):
        members += [*cut[group * each : (group + 1) * each], chain]
    total = sum((member.cost for member in members), Cost())
    total.forward_passes = cost.forward_passes + answer_cost.forward_passes
    return members, total


@dataclass(frozen=True)
class _Exit:
    """A chain cut off and closed: what an answer is sampled after."""

    chain: Trajectory
    place: int
    close: list[int]

    @property
    def prompt(self) -> list[int]:
        return [*self.chain.prompt_ids, *self.chain.completion_ids[: self.place], *self.close]

    @property
    def length(self) -> int:
        """Tokens of the completion so far."""
        return self.place + len(self.close)

    def answered(self, answer: Trajectory, segmenter: Segmenter, token_text: TokenText) -> Trajectory:
        """The whole completion: thoughts up to the exit, forced close, and the answer sampled after it."""
        ids = [*self.chain.completion_ids[: self.place], *self.close, *answer.completion_ids]
        text = token_text.decode(ids)
        return Trajectory(
            prompt_ids=self.chain.prompt_ids,
            completion_ids=ids,
            logprobs=[*self.chain.logprobs[: self.place], *[None] * len(self.close), *answer.logprobs],
            text=text,
            steps=segmenter.count(text),
            close="early",
            finish=answer.finish,
            cost=Cost(prompt_tokens=len(self.chain.prompt_ids), kept_tokens=len(ids)),
        )


class _Chain:
    """A whole chain of thought and the places where it can be cut."""

    def __init__(
        self, trajectory: Trajectory, settings: RolloutSettings, segmenter: Segmenter, token_text: TokenText
    ) -> None:
        self.trajectory, self.settings, self.token_text = trajectory, settings, token_text
        steps = segmenter.split_ids(trajectory.completion_ids, token_text)
        self.end = steps[-1].token_end or 0
        self.markers = sorted({step.token_start or 0 for step in steps[1:]} - {0})

    def exit_at(self, place: int) -> _Exit:
        thoughts = self.trajectory.completion_ids[:place]
        return _Exit(self.trajectory, place, close_tokens(thoughts, self.settings, self.token_text))

    def exit_places(self, count: int, limit: int, rng: random.Random) -> list[int]:
        """``count`` places in order: at markers as far as they go, then at other tokens, all different if possible.

        Each leaves room for the close and one token of an answer.
        """
        room = limit - len(self.token_text.encode(self.settings.close_text)) - 1
        markers = [place for place in self.markers if place <= room]
        others = sorted(set(range(1, min(self.end, room + 1))) - set(markers))
        places = rng.sample(markers, min(count, len(markers)))
        places += rng.sample(others, min(count - len(places), len(others)))
        places += rng.choices([*markers, *others] or [0], k=count - len(places))
        return sorted(places)
