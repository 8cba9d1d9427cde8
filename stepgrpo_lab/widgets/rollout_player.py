"""The rollout player: one completion forward pass by forward pass, forwards and backwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from traitlets import Int

from stepgrpo_lab.method.rollout import Phase
from stepgrpo_lab.recordings import RecordedGroup, load_recordings
from stepgrpo_lab.viz._html import piece_text, visible_text
from stepgrpo_lab.viz.completions import forward_passes
from stepgrpo_lab.widgets import _controls as controls
from stepgrpo_lab.widgets._base import LabWidget

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from stepgrpo_lab.recordings.replay import Cell, Frame

_EVENTS = {
    "probe": "A marker is certain: it is held back, and a probe begins.",
    "declined": "The trial answer is not confident enough: back to the marker, as if nothing had happened.",
    "accepted": "The trial answer is confident: the thoughts end before the marker.",
    "natural": "The policy closes its thoughts by itself.",
    "budget": "The think budget is used up: the thoughts are closed by force.",
    "done": "The completion is finished.",
}


class RolloutPlayer(LabWidget):
    """Play recorded trajectories through the trajectory machine: what is fed, what it attends to, what vanishes.

    Args:
        groups: Recorded groups; by default the package's own, truncated rollouts first.
        state: Traits to start with.

    Attributes:
        group, member: Which completion is played.
        frame: Which forward pass is shown; 0 is the prompt's.
        frames: All of them.

    Raises:
        ValueError: There are no groups, or a trajectory does not replay as recorded.

    Example:
        >>> player = RolloutPlayer()
        >>> player.forward(); player.frame
        1
    """

    group = Int(0, min=0).tag(state=True)
    member = Int(0, min=0).tag(state=True)
    frame = Int(0, min=0).tag(state=True)

    def __init__(self, groups: Sequence[RecordedGroup] | None = None, **state: Any) -> None:
        if groups is None:
            groups = sorted(load_recordings(), key=lambda group: group.watched)
        if not groups:
            raise ValueError("there are no groups to play; pass at least one")
        self.groups = list(groups)
        self.frames: list[Frame] = []
        self._played: tuple[int, int] | None = None
        first = self.groups[min(state.get("group", 0), len(self.groups) - 1)]
        super().__init__(**{"member": first.first_probed, **state})

    @property
    def recorded(self) -> RecordedGroup:
        """The group that is played."""
        return self.groups[min(self.group, len(self.groups) - 1)]

    @property
    def place(self) -> int:
        """The member that is played: the last one where the group has fewer."""
        return min(self.member, len(self.recorded.members) - 1)

    @property
    def shown(self) -> int:
        """The frame that is shown: the last one where the completion has fewer."""
        return min(self.frame, len(self.frames) - 1)

    def forward(self, passes: int = 1) -> None:
        """Go on, or back where ``passes`` is negative; stays within the completion."""
        self.frame = max(0, min(len(self.frames) - 1, self.shown + passes))

    def to_event(self, direction: int = 1) -> None:
        """Jump to the next (1) or the last (-1) pass that led to more than one more token."""
        ahead = range(self.shown + direction, len(self.frames) if direction > 0 else -1, direction)
        self.frame = next(
            (index for index in ahead if self.frames[index].event != "token"),
            len(self.frames) - 1 if direction > 0 else 0,
        )

    def compute(self) -> None:
        self.clamp("group", len(self.groups) - 1)
        self.clamp("member", len(self.recorded.members) - 1)
        if self._played != (self.group, self.place):
            self.frames = self.recorded.frames(self.place)
            self._played = (self.group, self.place)
        self.clamp("frame", len(self.frames) - 1)
        frame = self.frames[self.shown]
        prompt = len(self.recorded.members[self.place].trajectory.prompt_ids)
        text = f"Pass {self.shown} of {len(self.frames) - 1}, phase {frame.phase.name}: "
        if frame.cells:
            cell = frame.cells[-1]
            text += (
                f"{self._quoted(cell.token)}{' again' if frame.again else ''} ({cell.source}) is fed at place "
                f"{len(frame.cells) - 1}, position {prompt + len(frame.cells) - 1}; it attends to the {prompt} prompt "
                f"tokens and {len(frame.cells)} places."
            )
        else:
            text += f"the {prompt} prompt tokens are in the cache, positions 0 to {prompt - 1}."
        if frame.chosen is not None:
            how = "The likeliest next token is" if frame.probe is not None else "Sampled next:"
            text += f" {how} {self._quoted(frame.chosen)}."
        self.sentence = f"{text} {_EVENTS.get(frame.event, '')}".strip() + self._verdict(frame)

    def _quoted(self, token: int) -> str:
        return '"' + self.recorded.token_text.decode([token]).replace("\n", "⏎") + '"'

    def _verdict(self, frame: Frame) -> str:
        if frame.event not in ("declined", "accepted") or frame.probe is None or self.recorded.settings is None:
            return ""
        probe = self.recorded.members[self.place].trajectory.probes[frame.probe]
        threshold = self.recorded.settings.exit_threshold
        return f" Trial answer {probe.answer}, confidence {probe.confidence:.3f}, threshold {threshold:.2f}."

    def figures(self) -> list[Figure]:
        return [forward_passes(self.frames, self.shown)]

    def body(self) -> str:
        frame = self.frames[self.shown]
        cells = [
            self._cell(cell, place, "now" if place == len(frame.cells) - 1 else "")
            for place, cell in enumerate(frame.cells)
        ]
        stale = [self._cell(cell, len(frame.cells) + place, "stale") for place, cell in enumerate(frame.stale)]
        prompt = len(self.recorded.members[self.place].trajectory.prompt_ids)
        held = "".join(f'<span class="cell held">{self._piece(token)}</span>' for token in frame.held)
        parts = [
            '<div class="tokens" role="region" tabindex="0" aria-label="cache">',
            f'<span class="cell given">prompt<small>{prompt} tokens</small></span>',
            *cells,
            *stale,
            "</div>",
            f"<p>Held back: {held}</p>" if held else "<p class='quiet'>Nothing is held back.</p>",
            "<p class='quiet'>Small numbers are places in the completion. Outlined: fed in this pass, attends to "
            "everything before it. Double border: forced. Orange: a probe's. Struck through: masked since the "
            "backtracking, overwritten next.</p>",
        ]
        question = visible_text(self.recorded.problem.prompt)
        return f"<p>{question}</p>" + "".join(parts)

    def _piece(self, token: int) -> str:
        return piece_text(self.recorded.token_text.decode([token]))

    def _cell(self, cell: Cell, place: int, extra: str) -> str:
        kinds = ["cell", cell.source, "probe" if cell.probe and self._is_probing(cell) else "", extra]
        return f'<span class="{" ".join(filter(None, kinds))}">{self._piece(cell.token)}<small>{place}</small></span>'

    def _is_probing(self, cell: Cell) -> bool:
        """Whether the probe that the cell was fed for may still vanish; in ``paper`` an accepted one stays."""
        return self.frames[self.shown].phase in (Phase.PROBE, Phase.THINK)

    def controls(self) -> list[Any]:
        import ipywidgets

        largest = max(len(group.members) for group in self.groups) - 1
        frame = controls.slider(self, "frame", "forward pass", 0, len(self.frames) - 1, 1)
        play = ipywidgets.Play(min=0, max=len(self.frames) - 1, value=self.shown, interval=400)
        ipywidgets.jslink((play, "value"), (frame, "value"))

        def fit(_: Any) -> None:
            with self.lock:
                play.max = frame.max = len(self.frames) - 1

        self.observe(fit, names=["group", "member"])
        return [
            controls.group_menu(self, "completion of", self.groups),
            controls.slider(self, "member", "member", 0, largest, 1),
            frame,
            play,
            controls.button(self, "◀ event", lambda: self.to_event(-1), "to the last probe, verdict or close"),
            controls.button(self, "◀ back", lambda: self.forward(-1), "one forward pass back"),
            controls.button(self, "forward ▶", self.forward, "one forward pass on"),
            controls.button(self, "event ▶", self.to_event, "to the next probe, verdict or close"),
        ]
