"""A policy whose every choice is written down beforehand, to drive a trajectory machine by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from stepgrpo_lab.method.rollout import TrajectoryMachine
from stepgrpo_lab.method.token_text import TokenText

PIECES = (
    *("2+3=5", "2+3=6", " ", "Wait", ",", "so ", "Alternatively", "\n", "\n\n", "</think>"),
    *("**Final Answer**", " The final answer is ", "\\boxed", "{", "}", "5", "6", "<eos>"),
)
"""The tokens of :func:`toy_token_text`: enough for two thoughts, both presets' forced texts, and an answer."""
LOGPROB = -0.1
"""Log-probability of every scripted sample."""


def toy_token_text() -> TokenText:
    """A vocabulary of eighteen tokens, each of which is a readable piece of text.

    Example:
        >>> toy = toy_token_text()
        >>> [toy.decode([token]) for token in toy.encode("2+3=5 Wait,")]
        ['2+3=5', ' ', 'Wait', ',']
    """
    return TokenText.from_pieces(PIECES, eos_ids=[PIECES.index("<eos>")])


class FedToken(NamedTuple):
    """One forward pass: the phase that asked for it, the token's text, and its place in the completion."""

    phase: str
    piece: str
    place: int


class ScriptedPolicy:
    """Plays the model: its samples and its trial answers are known tokens.

    Args:
        token_text: Text of the tokens.
        samples: What it samples, one token after the other.
        trials: What it answers to each probe: (token, its probability at temperature 1).

    Example:
        >>> policy = ScriptedPolicy(toy_token_text(), ["5"], [[("6", 0.9)]])
        >>> policy.sample(), policy.likeliest()
        ((15, -0.1), (16, 0.9))
    """

    def __init__(
        self, token_text: TokenText, samples: Sequence[str], trials: Sequence[Sequence[tuple[str, float]]] = ()
    ) -> None:
        self.token_text = token_text
        self._samples: Iterator[str] = iter(samples)
        self._greedy: Iterator[tuple[str, float]] = chain.from_iterable(trials)

    def sample(self) -> tuple[int, float]:
        """The next sampled token and its log-probability.

        Raises:
            ValueError: The script is at its end, or a piece is no token.
        """
        return self._token(next(self._samples, None), "samples"), LOGPROB

    def likeliest(self) -> tuple[int, float]:
        """The next greedy token of a trial answer and its probability.

        Raises:
            ValueError: The script is at its end, or a piece is no token.
        """
        piece, probability = next(self._greedy, (None, 0.0))
        return self._token(piece, "trials"), probability

    def _token(self, piece: str | None, what: str) -> int:
        if piece is None:
            raise ValueError(f"the script has no more {what}: the machine asked for one more token than it holds")
        ids = self.token_text.encode(piece)
        if len(ids) != 1:
            raise ValueError(f"{piece!r} is {len(ids)} tokens: write each token of the script by itself")
        return ids[0]


def drive(machine: TrajectoryMachine, policy: ScriptedPolicy) -> list[FedToken]:
    """An engine for one completion: answer the machine's choices and feed what it asks for, until it is done.

    Returns:
        Every forward pass after the prompt's, in order.

    Raises:
        ValueError: The script ends before the completion does.

    Example:
        >>> toy = toy_token_text()
        >>> machine = TrajectoryMachine(toy, limit=10)
        >>> [fed.piece for fed in drive(machine, ScriptedPolicy(toy, ["2+3=5", "</think>", "5", "<eos>"]))]
        ['2+3=5', '</think>', '5']
    """
    passes: list[FedToken] = []
    while True:
        if machine.choice == "sample":
            machine.observe(*policy.sample())
        elif machine.choice == "greedy":
            token, probability = policy.likeliest()
            machine.observe(token, None, probability)
        if machine.done:
            return passes
        phase = machine.phase.name
        token, place = machine.feed()
        passes.append(FedToken(phase, policy.token_text.decode([token]), place))
