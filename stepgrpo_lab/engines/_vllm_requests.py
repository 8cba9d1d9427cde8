"""From a trajectory machine to requests for vLLM: token ids in, token ids out, with id stops and a seed for each.

vLLM chooses many tokens for one request by itself, and the machine looks at each of them. As soon as it feeds anything
other than the token that was chosen (a probe, what was held back, a forced close), the request is over, whatever else
it has brought, and the next one starts from the machine's context. vLLM's prefix cache still holds that context up to
its last block, so that a probe or a backtrack computes a few tokens anew and nothing else.

The stop ids only save work: a request ends by itself where the machine is likely to turn. Markers that are spread over
several tokens are found by the machine's own scan. Where requests are cut depends on the trajectory alone, neither on
the batch nor on the way that tokens arrive, so a colocated engine and a server draw the same completions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepgrpo_lab.engines.completions import Completion, Decoding
from stepgrpo_lab.method.records import Trajectory
from stepgrpo_lab.method.rollout import Phase
from stepgrpo_lab.method.sampling import Sampling, request_seed
from stepgrpo_lab.method.settings import RolloutSettings
from stepgrpo_lab.method.steps import MarkerSegmenter, Segmenter
from stepgrpo_lab.method.token_text import TokenText


@dataclass(frozen=True)
class TokenRequest:
    """What vLLM is asked for.

    Attributes:
        prompt: Token ids of everything before the tokens to choose.
        greedy: Take the likeliest tokens instead of sampling.
        max_tokens: At most so many.
        stop_ids: Ids after which to stop, the id included.
        seed: Of the request's own generator, in [0, 2**63).
    """

    prompt: list[int]
    greedy: bool
    max_tokens: int
    stop_ids: list[int]
    seed: int

    def options(self, sampling: Sampling) -> dict[str, Any]:
        """vLLM's sampling options, all that shape the distribution: a server fills in its own where they lack."""
        drawn = Sampling(temperature=0.0) if self.greedy else sampling
        return {
            "temperature": drawn.temperature,
            "top_p": drawn.top_p,
            "top_k": drawn.top_k,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "max_tokens": self.max_tokens,
            "stop_token_ids": self.stop_ids,
            "ignore_eos": True,  # the machine's end-of-sequence ids are among the stop ids
            "logprobs": 0,  # of the chosen token alone
            "seed": None if drawn.temperature == 0 else self.seed,
        }


@dataclass(frozen=True)
class StopIds:
    """The ids at which a machine is likely to turn.

    Attributes:
        eos: End of sequence.
        markers: What opens a step all by itself.
        probe: What may end a probe's answer.
    """

    eos: frozenset[int]
    markers: frozenset[int] = frozenset()
    probe: frozenset[int] = frozenset()

    def of(self, phase: Phase) -> frozenset[int]:
        """The ids that stop a request of this phase."""
        return self.eos | {Phase.THINK: self.markers, Phase.PROBE: self.probe}.get(phase, frozenset())


class StopFinder:
    """Finds the stop ids of a vocabulary, and remembers the last markers: a large one takes a second or two.

    Example:
        >>> from stepgrpo_lab.method.settings import rollout_settings
        >>> toy = TokenText.from_pieces(["so ", "Wait", " Wait,", "ait", "7}"], eos_ids=[4])
        >>> stops = StopFinder(toy).find(rollout_settings("paper"))
        >>> sorted(stops.markers), sorted(stops.probe)
        ([1, 2], [4])
    """

    def __init__(self, token_text: TokenText) -> None:
        self._text = token_text
        self._key: object = None
        self._markers: frozenset[int] = frozenset()

    def find(self, settings: RolloutSettings | None = None, segmenter: Segmenter | None = None) -> StopIds:
        """The stop ids of completions that are probed with these settings; without them, of others."""
        if settings is None:
            return StopIds(self._text.eos_ids)
        key = segmenter or settings.markers
        if key is not self._key and key != self._key:
            scanned = segmenter or MarkerSegmenter(settings.markers)
            pieces = self._text.table.items()
            self._markers = frozenset(i for i, piece in pieces if scanned.may_open(piece.decode(errors="replace")))
            self._key = key
        return StopIds(self._text.eos_ids, self._markers, self._probe_ends(settings))

    def _probe_ends(self, settings: RolloutSettings) -> frozenset[int]:
        if settings.require_close:
            return frozenset() if self._text.close_id is None else frozenset([self._text.close_id])
        return frozenset(token for token, piece in self._text.table.items() if b"}" in piece)


class RequestRow:
    """One completion as a sequence of requests.

    Args:
        completion: The completion; its machine decides everything.
        stops: Where its requests stop.
    """

    def __init__(self, completion: Completion, stops: StopIds) -> None:
        self.completion = completion
        self._stops = stops
        self._fed: list[int] = []  # the machine's context by place, as an engine with a cache of its own would hold it

    @property
    def done(self) -> bool:
        """Whether the completion is finished."""
        return self.completion.machine.done

    def trajectory(self) -> Trajectory:
        """The finished completion, as a record."""
        return self.completion.machine.trajectory(self.completion.prompt)

    def next_request(self) -> TokenRequest:
        """What to ask for now; the machine must not be done."""
        machine = self.completion.machine
        # A marker is certain with the token after it, so that one is asked for alone.
        looks_ahead = machine.phase is Phase.THINK and self._fed[-1:] and self._fed[-1] in self._stops.markers
        return TokenRequest(
            prompt=[*self.completion.prompt, *self._fed],
            greedy=machine.choice == "greedy",
            max_tokens=1 if looks_ahead else machine.room,
            stop_ids=sorted(self._stops.of(machine.phase)),
            seed=request_seed(self.completion.key, machine.position),
        )

    def take(self, token: int, logprob: float) -> bool:
        """Give the machine one token that the request brought.

        Args:
            token: The chosen id.
            logprob: Its log-probability: at the sampling temperature, or at temperature 1 if it was greedy.

        Returns:
            Whether the machine goes on from this token. If not, what else the request brought is of no use.

        Raises:
            FloatingPointError: The log-probability is NaN or infinite.
        """
        machine = self.completion.machine
        self.completion.check_finite(logprob)
        choice = machine.choice
        if choice == "greedy":
            machine.observe(token, None, math.exp(logprob))
        else:
            machine.observe(token, logprob)
        expected, fed = [(token, len(self._fed))], []
        while not machine.done and machine.choice is None:
            fed.append(machine.feed())
            token, place = fed[-1]
            self._fed[place:] = [token]
        return fed == expected and machine.choice == choice

    def take_all(self, tokens: Iterable[tuple[int, float]]) -> None:
        """Give the machine the tokens of a whole request, as far as it goes on from them."""
        for token, logprob in tokens:
            if not self.take(token, logprob):
                return


def request_rows(
    finder: StopFinder,
    opened: Sequence[Completion],
    decoding: Decoding,
    probed: Sequence[bool] | None,
) -> list[RequestRow]:
    """The completions of one call, each with the stop ids that it needs."""
    plain, probing = finder.find(), finder.find(decoding.settings, decoding.segmenter)
    return [RequestRow(row, probing if probed is None or probed[row.index] else plain) for row in opened]


def check_weights(folder: str | Path, name: str = "*.safetensors") -> None:
    """Refuse a folder without weights in safetensors; vLLM would look for others.

    Raises:
        ValueError: There are none; the message names the folder.
    """
    if not any(Path(folder).glob(name)):
        raise ValueError(f"{folder} holds no {name}: save the weights there as safetensors")
