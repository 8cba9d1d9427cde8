"""Replay a recorded trajectory through the trajectory machine: what was in the cache at every forward pass.

The machine decides as it did then, because it gets the recorded choices; the method is not written a
second time here. A trajectory that does not come out as it was recorded is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from stepgrpo_lab.method.records import Trajectory
from stepgrpo_lab.method.rollout import Phase, TrajectoryMachine
from stepgrpo_lab.method.settings import RolloutSettings
from stepgrpo_lab.method.steps import Segmenter
from stepgrpo_lab.method.token_text import TokenText

Source = Literal["sampled", "forced", "greedy"]
"""How a token came to be: drawn by the policy, put there by the machine, or the likeliest one of a trial answer."""

Event = Literal["token", "probe", "declined", "accepted", "natural", "budget", "done"]
"""What the newest logits led to: one more token, a probe begins, its verdict, the thoughts' end, the completion's."""


@dataclass(frozen=True)
class Cell:
    """One place of the key-value cache.

    Attributes:
        token: The token id whose key and value lie there.
        source: How the token came to be.
        probe: Whether it was fed for a probe, and so will be overwritten (or, in ``paper``, may be kept).
    """

    token: int
    source: Source
    probe: bool


@dataclass(frozen=True)
class Frame:
    """One completion right after one forward pass of its row.

    Attributes:
        phase: The phase in which the token was fed.
        cells: What the newest token attends to, besides the prompt: places 0, 1, ...; the last one is itself. Empty
            when only the prompt has been fed.
        stale: Cells that lie behind the newest place since the last backtracking: masked, and overwritten one by one.
        held: Sampled tokens that a probe holds back: a marker and its lookahead.
        again: Whether the newest token had been fed at this place before.
        chosen: The token that the logits led to; None where the next token was fixed already.
        event: What that choice led to.
        probe: Index of the probe that runs; None outside of probes.
    """

    phase: Phase
    cells: tuple[Cell, ...]
    stale: tuple[Cell, ...]
    held: tuple[int, ...]
    again: bool
    chosen: int | None
    event: Event
    probe: int | None


def replay(
    trajectory: Trajectory,
    token_text: TokenText,
    *,
    limit: int,
    settings: RolloutSettings | None = None,
    segmenter: Segmenter | None = None,
) -> list[Frame]:
    """Every forward pass of one completion, in order.

    Args:
        trajectory: The record.
        token_text, limit, settings, segmenter: As the engine had them.

    Returns:
        One frame for the prompt, then one for each token fed.

    Raises:
        ValueError: The trajectory does not come out as it was recorded: it was made with other settings.

    Example:
        >>> toy = TokenText.from_pieces(["1+1=2", "</think>", "2", "<eos>"], eos_ids=[3])
        >>> recorded = Trajectory([0], [0, 1, 2, 3], [-0.1] * 4, "1+1=2</think>2<eos>", 1, "natural", "eos")
        >>> [(frame.phase.name, len(frame.cells), frame.event) for frame in replay(recorded, toy, limit=8)]
        [('THINK', 0, 'token'), ('THINK', 1, 'natural'), ('ANSWER', 2, 'token'), ('ANSWER', 3, 'done')]
    """
    machine = TrajectoryMachine(token_text, limit, settings, trajectory.probed, segmenter)
    prompt_length = len(token_text.encode(settings.probe_prompt)) if settings and trajectory.probes else 0
    try:
        frames = list(_Replay(machine, trajectory, prompt_length).frames())
    except (RuntimeError, IndexError):  # the machine wants a choice that was not recorded
        frames = []
    if not frames or not _same(machine.trajectory(trajectory.prompt_ids), trajectory):
        raise ValueError(
            "the trajectory does not replay as recorded: pass the limit, settings, segmenter and tokens of then"
        )
    return frames


def _same(again: Trajectory, recorded: Trajectory) -> bool:
    """Whether every decision was the recorded one; probabilities may have been rounded in a file."""

    def decisions(trajectory: Trajectory) -> tuple[object, ...]:
        probes = [(probe.position, probe.step, probe.accepted) for probe in trajectory.probes]
        return trajectory.completion_ids, trajectory.steps, trajectory.close, trajectory.finish, probes

    return decisions(again) == decisions(recorded)


class _Replay:
    """Plays the engine's part for one machine, with recorded choices, and keeps the cache's books."""

    def __init__(self, machine: TrajectoryMachine, trajectory: Trajectory, prompt_length: int) -> None:
        self.machine = machine
        self.trajectory = trajectory
        self.prompt_length = prompt_length
        self.samples = _sampled(trajectory)
        self.greedy = [zip(probe.token_ids, probe.probabilities, strict=True) for probe in trajectory.probes]
        self.drawn: list[int] = []
        self.cells: list[Cell] = []
        self.fed: set[tuple[int, int]] = set()
        self.probe = -1  # index of the newest probe

    def frames(self) -> Iterator[Frame]:
        phase, place, again = Phase.THINK, -1, False
        while True:
            before = self.machine.phase
            probing = before is Phase.PROBE
            chosen = self.choose()
            event = self.event(before, chosen)
            yield Frame(
                phase=phase,
                cells=tuple(self.cells[: place + 1]),
                stale=tuple(self.cells[place + 1 :]),
                held=tuple(self.drawn[self.base :]) if probing else (),
                again=again,
                chosen=chosen,
                event=event,
                probe=self.probe if probing else None,
            )
            if self.machine.done:
                return
            self.probe += event == "probe"
            phase = self.machine.phase
            place, again = self.feed(phase)

    @property
    def base(self) -> int:
        """Place where the newest probe began."""
        return self.trajectory.probes[self.probe].position

    def choose(self) -> int | None:
        """Answer the machine, if it asks for a token."""
        if self.machine.choice is None:
            return None
        if self.machine.choice == "greedy":
            token, probability = next(self.greedy[self.probe])
            self.machine.observe(token, None, probability)
            return token
        token, logprob = next(self.samples)
        self.drawn.append(token)
        self.machine.observe(token, logprob)
        return token

    def event(self, before: Phase, chosen: int | None) -> Event:
        after = self.machine.phase
        if before is Phase.PROBE and after is not before:
            return "accepted" if self.trajectory.probes[self.probe].accepted else "declined"
        if after is Phase.DONE:
            return "done"
        if before is Phase.THINK and chosen is not None:
            events: dict[Phase, Event] = {Phase.PROBE: "probe", Phase.ANSWER: "natural", Phase.CLOSE: "budget"}
            return events.get(after, "token")
        return "token"

    def feed(self, phase: Phase) -> tuple[int, bool]:
        """Feed the next token; returns its place, and whether it had been fed there before."""
        token, place = self.machine.feed()
        inside = phase is Phase.PROBE and place >= self.base
        if inside:
            source: Source = "forced" if place < self.base + self.prompt_length else "greedy"
        else:
            source = "forced" if phase is Phase.CLOSE else "sampled"
        again = not inside and (place, token) in self.fed
        self.cells[place : place + 1] = [Cell(token, source, inside)]
        if not inside:
            self.fed.add((place, token))
        return place, again


def _sampled(trajectory: Trajectory) -> Iterator[tuple[int, float | None]]:
    """The tokens that the policy drew, in order, those that an exit dropped included."""
    exit_at = next((probe.position for probe in trajectory.probes if probe.accepted), None)
    for place, (token, logprob) in enumerate(zip(trajectory.completion_ids, trajectory.logprobs, strict=True)):
        if place == exit_at:
            yield from ((dropped, None) for dropped in trajectory.dropped)
        if logprob is not None:
            yield token, logprob
