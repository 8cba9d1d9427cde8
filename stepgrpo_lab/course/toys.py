"""Policies small enough to read: one whose every choice is written down, one of a few rules, one of random weights.

The scripted one drives a trajectory machine by hand. The one of rules writes thoughts, probes and answers without any
model. The tiny one is a language model that knows nothing, but attends.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from stepgrpo_lab.method.rollout import TrajectoryMachine
from stepgrpo_lab.method.token_text import TokenText

if TYPE_CHECKING:
    from transformers import Qwen3ForCausalLM

TOY_PIECES = (
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
    return TokenText.from_pieces(TOY_PIECES, eos_ids=[TOY_PIECES.index("<eos>")])


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


WRITER_PIECES = (
    *("2+3=5", "2+3=6", " Wait,", " Alternatively,", "\n", "\n\n", "</think>"),
    *("**Final Answer**", "\\boxed", "{", "}", "5", "6", "<eos>"),
)
"""The tokens of a :class:`TinyWriter`; a marker is one token, its comma included, so that nothing need be awaited."""
_THOUGHTS = {"2+3=5": 5, "2+3=6": 2, " Wait,": 3, " Alternatively,": 1, "</think>": 1}
_ANSWERS = {"\\boxed": 6, "\n": 2, " Wait,": 1}
_AFTER = {"\\boxed": "{", "}": "\n", "\n": "</think>"}
"""How a trial answer goes on."""


class TinyWriter:
    """Writes thoughts with markers, trial answers and answers by a few rules: a policy without a model.

    Every probability depends on all tokens before it, as in a language model; and each sample takes the next number of
    a generator, so a token that is sampled too often or too rarely changes all that follows.

    Args:
        seed: Of the rules and of the samples.

    Attributes:
        markers: Ids of the tokens at which a rollout asks.
        probe_prompt: Ids that are forced to induce a trial answer.
        forced_close: Ids that are forced where the thoughts are ended early.
        close, end: Ids of ``</think>`` and of the end of sequence.

    Example:
        >>> writer = TinyWriter(seed=0)
        >>> trial = [*writer.probe_prompt, writer.likeliest(writer.probe_prompt)[0]]
        >>> writer.text(trial)
        '\\n**Final Answer**\\n\\\\boxed{'
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.token_text = TokenText.from_pieces(WRITER_PIECES, eos_ids=[WRITER_PIECES.index("<eos>")])
        self.markers = frozenset(map(WRITER_PIECES.index, (" Wait,", " Alternatively,")))
        self.probe_prompt = self.token_text.encode("\n**Final Answer**\n\\boxed")
        self.forced_close = self.token_text.encode("\n</think>\n\n")
        self.close, self.end = map(WRITER_PIECES.index, ("</think>", "<eos>"))
        self._numbers = random.Random(seed)
        self._left, self._trials_left = 200, 2000

    def sample(self, tokens: Sequence[int]) -> int:
        """Draw the token that follows these.

        Raises:
            ValueError: More is drawn than any completion holds.
        """
        self._left -= 1
        if self._left < 0:
            raise ValueError("more tokens are drawn than any completion holds: does the loop stop at writer.end?")
        odds = self._odds(tokens)
        return WRITER_PIECES.index(self._numbers.choices(list(odds), list(odds.values()))[0])

    def likeliest(self, tokens: Sequence[int]) -> tuple[int, float]:
        """The likeliest token after these, and its probability.

        Raises:
            ValueError: More is asked for than the probes of any completion hold.
        """
        self._trials_left -= 1
        if self._trials_left < 0:
            raise ValueError("a trial answer goes on for ever: does it stop at writer.close, or after 20 tokens?")
        odds = self._odds(tokens)
        piece = max(odds, key=lambda name: odds[name])
        return WRITER_PIECES.index(piece), odds[piece] / sum(odds.values())

    def text(self, tokens: Sequence[int]) -> str:
        """The tokens' text."""
        return self.token_text.decode(list(tokens))

    def _odds(self, tokens: Sequence[int]) -> dict[str, float]:
        """How likely each piece is after these tokens, up to a factor."""
        pieces = [WRITER_PIECES[token] for token in tokens]
        rng = random.Random(f"{self.seed} {pieces}")
        last, closed = pieces[-1] if pieces else "", "</think>" in pieces
        if last == "{":
            right = rng.random()
            return {"5": right + 0.01, "6": 1.01 - right if closed else (1 - right) / 3}
        if last in "56" and last:
            return {"}": 1.0}
        if closed and "}" in pieces[pieces.index("</think>") :]:
            return {"<eos>": 4 * rng.random(), "\n": rng.random(), " Wait,": rng.random()}
        if last == "\\boxed" or (not closed and "\\boxed" in pieces):
            return {_AFTER.get(last, "</think>"): 30 + rng.random(), "\n\n": 1.0}
        return {name: weight * (0.1 + rng.random()) for name, weight in (_ANSWERS if closed else _THOUGHTS).items()}

    def __repr__(self) -> str:
        return f"TinyWriter(seed={self.seed})"


TINY_PIECES = (
    *(" Wait", "\nWait", " Alternatively", " so", " then", " is", " one", " two", " three", " four", ".", ","),
    *("\n", "\n\n", "</think>", " \\boxed", "{", "}", "7", "**Final Answer**", "\\boxed", "<eos>"),
)
"""Its tokens; markers are three of them, so that thoughts of random tokens hold some."""


def tiny_policy(seed: int = 0) -> tuple[Qwen3ForCausalLM, TokenText]:
    """A ``Qwen3ForCausalLM`` of two layers and random weights, and the text of its 22 tokens.

    What it writes is noise, but every token depends on everything before it, as in any causal language model. The same
    seed gives the same weights; torch's own random state is left alone.

    Example:
        >>> model, token_text = tiny_policy()
        >>> model.config.vocab_size, token_text.decode([0, 3])
        (22, ' Wait so')
    """
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    eos = TINY_PIECES.index("<eos>")
    config = Qwen3Config(
        vocab_size=len(TINY_PIECES),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=256,
        initializer_range=0.3,
        eos_token_id=eos,
        pad_token_id=eos,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config).eval()
    return model, TokenText.from_pieces(TINY_PIECES, eos_ids=[eos])
