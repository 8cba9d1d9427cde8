"""Commands that are killed with SIGKILL again and again, at events drawn among all that they do to their files.

Each case is a run drawn by seed. It is done once undisturbed; then chains of kills: a run that is killed, resumed,
killed again and at last left to its end. :class:`~.runs.Run` says what must hold after each.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errands import ERRANDS, Errand
from .events import Event, Moment, Sitting, sit
from .runs import Run, draw_case, save_random_model

CHAINS, KILLS, LOOKED_AT = 3, 3, 0.25
"""Chains of each case, kills of each chain, and the share of kills whose folder other commands look at."""


@dataclass
class Tally:
    """What was killed, and what went wrong.

    Attributes:
        kills: How often.
        chains: Chains of kills that were brought to an end.
        counts: What is counted -> value -> kills of it.
        failures: What went wrong, with all that is needed to see it again.
    """

    kills: int = 0
    chains: int = 0
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    failures: list[dict[str, Any]] = field(default_factory=list)

    def add(self, sitting: Sitting, **values: str) -> None:
        """Count a kill."""
        self.kills += 1
        event = sitting.events[-1]
        counted = {**values, "before": event.kind, "torn": "a file" if sitting.torn else "nothing"}
        for name, value in counted.items():
            self.counts.setdefault(name, Counter())[value] += 1

    def record(self) -> dict[str, Any]:
        """For a JSON file."""
        counts = {name: dict(counter.most_common()) for name, counter in self.counts.items()}
        return {"kills": self.kills, "chains": self.chains, "failures": self.failures, "kills_by": counts}


def draw_moment(events: Sequence[Event], done: int, rng: random.Random) -> Moment:
    """A moment of a sitting.

    Args:
        events: Of an undisturbed one.
        done: How many of its main thread's events earlier sittings came to.
        rng: Draws: half of the moments among all events, half among their kinds, so that none is too rare.
    """
    torn = rng.choice((None, 0.0, rng.random()))
    if rng.random() < 0.5:
        left = sum(event.main for event in events) - done
        return Moment(rng.randint(1, max(12, left)), None, torn)
    kinds = Counter(event.kind for event in events[done * 2 // 3 :] or events)
    kind = rng.choice(sorted(kinds))
    return Moment(rng.randint(1, kinds[kind]), kind, torn)


def kill_chain(
    run: Run, moments: Callable[[int], Moment | None], look: Callable[[], bool] = lambda: False
) -> Iterator[tuple[Sitting, str, list[str]]]:
    """Kill a run and resume it until no moment is left, or it ends before one.

    Args:
        run: One that has not begun.
        moments: The next moment, given how many events of the main thread there have been; None lets it end.
        look: Whether other commands look at what a kill has left.

    Yields:
        Each sitting, the state that it left, and what is wrong with that.
    """
    done = 0
    while True:
        moment = moments(done)
        sitting = sit(run.command, run.folder, moment)
        found = run.faults(sitting)
        if sitting.killed and look():
            found += run.looked_at(run.folder.parent)
        yield sitting, run.state, found
        if found or not sitting.killed:
            return
        done += sum(event.main for event in sitting.events)


class Campaign:
    """Cases, one after the other, until the time is up.

    Args:
        seed: Decides every case and every moment.
        folder: Where they work.
        end: When no chain of kills is begun any more, by the monotonic clock.
        fault: Planted in the library wherever a run is resumed.
    """

    def __init__(self, seed: int, folder: Path, end: float, fault: str | None = None) -> None:
        self.seed, self.folder, self.end, self.fault = seed, folder, end, fault
        self.model = save_random_model(folder / "untrained")
        self.tally = Tally()

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self.end

    def case(self, number: int) -> None:
        """Draw a run, do it undisturbed, and kill others of the same."""
        rng = random.Random(f"{self.seed}/{number}")
        case, place = draw_case(rng), self.folder / f"case-{number}"
        place.mkdir()
        undisturbed = Run(case, self.model, place / "undisturbed", place / "undisturbed")
        whole = sit(undisturbed.command, undisturbed.folder)
        if whole.code:
            return self._failed(number, [f"undisturbed: {whole.code}: {whole.words[-1000:]}"], case=str(case))
        for chain in range(CHAINS):
            if not self.over:
                run = Run(case, self.model, place / f"chain-{chain}", undisturbed.folder, self.fault)
                self._chain(number, run, whole.events, rng)
        shutil.rmtree(place)

    def _chain(self, number: int, run: Run, events: Sequence[Event], rng: random.Random) -> None:
        moments: list[Moment] = []

        def moment(done: int) -> Moment | None:
            if len(moments) == KILLS:
                return None
            moments.append(draw_moment(events, done, rng))
            return moments[-1]

        for sitting, state, found in kill_chain(run, moment, lambda: rng.random() < LOOKED_AT):
            if sitting.killed:
                self.tally.add(sitting, **run.case.dimensions, left=state)
            if found:
                self._failed(number, found, case=str(run.case), chain=run.folder.name, moments=list(map(str, moments)))
        self.tally.chains += 1

    def errand(self, number: int, errand: Errand) -> None:
        """Do an errand undisturbed, then kill others of the same, each chain of kills in a folder of its own."""
        rng = random.Random(f"{self.seed}/{errand.name}/{number}")
        place = self.folder / f"{errand.name}-{number}"
        place.mkdir()
        whole = sit(errand.work(self.folder, place / "undisturbed"), place / "undisturbed")
        if whole.code:
            return self._failed(number, [f"undisturbed: {whole.code}: {whole.words[-1000:]}"], errand=errand.name)
        for chain in range(CHAINS):
            if not self.over:
                self._errand_chain(number, errand, place / f"chain-{chain}", whole.events, rng)
        shutil.rmtree(place)

    def _errand_chain(
        self, number: int, errand: Errand, folder: Path, events: Sequence[Event], rng: random.Random
    ) -> None:
        done = 0
        for turn in range(KILLS + 1):
            moment = draw_moment(events, done, rng) if turn < KILLS else None
            sitting = sit(errand.work(self.folder, folder), folder, moment)
            found = errand.faults(folder, folder.with_name("undisturbed"), sitting)
            if sitting.killed:
                self.tally.add(sitting, method=errand.name)
            if found:
                self._failed(number, found, errand=errand.name, chain=folder.name, moment=str(moment))
            if found or not sitting.killed:
                break
            done += sum(event.main for event in sitting.events)
        self.tally.chains += 1

    def _failed(self, number: int, found: list[str], **how: Any) -> None:
        self.tally.failures.append({"number": number, "found": found, **how})
        print(self.tally.failures[-1], flush=True)


def campaign(minutes: float, seed: int, fault: str | None = None) -> dict[str, Any]:
    """Kill for some minutes; every fifth case is an errand."""
    end = time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory() as name:
        work = Campaign(seed, Path(name), end, fault)
        number = 0
        while not work.over:
            if number % 5 == 4 and fault is None:
                work.errand(number, ERRANDS[number // 5 % len(ERRANDS)])
            else:
                work.case(number)
            number += 1
            print(f"case {number}: {work.tally.kills} kills, {len(work.tally.failures)} failures", flush=True)
    return {"cases": number, **work.tally.record()}
