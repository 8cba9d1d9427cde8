"""The step inspector: a completion cut into its steps, and where an exit rule would have stopped it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from traitlets import Enum, Float, Int, Tuple

from stepgrpo_lab.method.confidence import RULES, rules_at
from stepgrpo_lab.recordings import RecordedGroup, load_recordings
from stepgrpo_lab.recordings.schema import ExitPoint
from stepgrpo_lab.viz._html import table, visible_text
from stepgrpo_lab.viz.completions import exit_scores
from stepgrpo_lab.widgets import _controls as controls
from stepgrpo_lab.widgets._base import LabWidget

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from stepgrpo_lab.method.records import Probe, Step
    from stepgrpo_lab.method.steps import Segmenter


class StepInspector(LabWidget):
    """Try exit rules on completions that were probed at every marker and never exited.

    Args:
        groups: Recorded groups; those whose probes ended thoughts are left out. By default the package's own.
        segmenter: A segmenter of your own, which cuts the text that is shown. The probes stay where they were recorded.
        state: Traits to start with.

    Attributes:
        group, member: Which completion is shown.
        threshold, confidence_rule, markers, skip_first: The exit rule, as in
            :class:`stepgrpo_lab.method.confidence.ExitRule`.
        point: Where the rule stops this completion.

    Raises:
        ValueError: No group was only watched.

    Example:
        >>> inspector = StepInspector(threshold=1.0)
        >>> inspector.point.saved
        0
    """

    group = Int(0, min=0).tag(state=True)
    member = Int(0, min=0).tag(state=True)
    threshold = Float(0.95, min=0.0, max=1.0).tag(state=True)
    confidence_rule = Enum(RULES, "geometric").tag(state=True)
    markers = Tuple().tag(state=True)
    skip_first = Int(1, min=0, max=3).tag(state=True)

    def __init__(
        self, groups: Sequence[RecordedGroup] | None = None, *, segmenter: Segmenter | None = None, **state: Any
    ) -> None:
        self.segmenter = segmenter
        given = load_recordings() if groups is None else groups
        self.groups = [group for group in given if group.watched and _probes(group)]
        if not self.groups:
            raise ValueError(
                "no group was probed without exiting; record one with recordings.making.watching(settings)"
            )
        self.words = tuple(dict.fromkeys(probe.marker for group in self.groups for probe in _probes(group)))
        self.points: list[ExitPoint] = []
        first = self.groups[min(state.get("group", 0), len(self.groups) - 1)]
        super().__init__(**{"markers": self.words, "member": first.most_probed, **state})

    @property
    def recorded(self) -> RecordedGroup:
        """The group that is shown."""
        return self.groups[min(self.group, len(self.groups) - 1)]

    @property
    def place(self) -> int:
        """The member that is shown: the last one where the group has fewer."""
        return min(self.member, len(self.recorded.members) - 1)

    @property
    def probes(self) -> list[Probe]:
        """The probes of the completion that is shown."""
        return self.recorded.members[self.place].trajectory.probes

    @property
    def point(self) -> ExitPoint:
        """Where the chosen rule stops the completion."""
        return self.points[RULES.index(self.confidence_rule)]

    def compute(self) -> None:
        self.clamp("group", len(self.groups) - 1)
        self.clamp("member", len(self.recorded.members) - 1)
        rules = rules_at(self.threshold, markers=self.markers or self.words, skip_first=self.skip_first)
        self.points = [self.recorded.exit_point(self.place, rule) for rule in rules]
        point, whole = self.point, self.recorded.members[self.place]
        verdict = "right" if point.right else "wrong"
        if point.probe is None:
            self.sentence = (
                f"{self.confidence_rule} > {self.threshold:.2f} never stops this completion: "
                f"all {whole.trajectory.tokens} tokens, {verdict}."
            )
        else:
            self.sentence = (
                f"{self.confidence_rule} > {self.threshold:.2f} stops at probe {point.probe + 1} of "
                f"{len(self.probes)}: {point.tokens} of {whole.trajectory.tokens} tokens, {point.saved} saved, "
                f"trial answer {point.answer} is {verdict} (the whole completion: "
                f"{'right' if whole.outcome.correct else 'wrong'})."
            )

    def figures(self) -> list[Figure]:
        stop = None if self.point.probe is None else self.probes[self.point.probe].position
        return [
            exit_scores(
                [probe.position for probe in self.probes],
                {
                    point.rule.confidence_rule: [point.rule.score(probe) for probe in self.probes]
                    for point in self.points
                },
                self.recorded.members[self.place].trials_right,
                chosen=self.confidence_rule,
                threshold=self.threshold,
                tokens=self.recorded.members[self.place].trajectory.tokens,
                stop=stop,
            )
        ]

    def body(self) -> str:
        problem = self.recorded.problem
        question = f"<p>{visible_text(problem.prompt)} <span class='quiet'>(gold answer {visible_text(problem.answer)})"
        rows = [
            [
                point.rule.confidence_rule,
                "never" if point.probe is None else f"probe {point.probe + 1}",
                str(point.tokens),
                str(point.saved),
                "-" if point.answer is None else point.answer,
                "right" if point.right else "wrong",
            ]
            for point in self.points
        ]
        head = ["confidence rule", "stops at", "tokens", "saved", "answer", ""]
        caption = f"Where each rule would have stopped, threshold {self.threshold:.2f}"
        return f"{question}</span></p>{self._text()}" + table(
            caption, head, rows, chosen=RULES.index(self.confidence_rule)
        )

    def _text(self) -> str:
        """The completion, step by step, the probes in their places, and what the rule cuts off in grey."""
        group, text = self.recorded, self.recorded.members[self.place].trajectory.text
        steps = group.steps(self.place, self.segmenter or self.words)
        labels: Sequence[str] = group.members[self.place].labels or []
        if len(labels) != len(steps) or self.segmenter:
            labels = ["unlabelled"] * len(steps)
        stop, shown, number, after, parts = self.point.probe, 0, 0, "", []
        for step, label in zip(steps, labels, strict=True):
            while shown < len(self.probes) and self.probes[shown].position <= (step.token_start or 0):
                parts.append(self._chip(shown))
                after = " after" if shown == stop else after
                shown += 1
            opens = self.segmenter is not None or step.marker is None or step.marker in (self.markers or self.words)
            number += opens
            parts.append(_step(step, label, f"{number} {label}" if opens else label, after))
        rest = f'<span class="{after.strip()}">{visible_text(text[steps[-1].end :])}</span>'
        return f'<pre tabindex="0" dir="ltr" aria-label="completion">{"".join(parts)}{rest}</pre>'

    def _chip(self, index: int) -> str:
        probe, right = self.probes[index], self.recorded.members[self.place].trials_right[index]
        score = self.point.rule.score(probe)
        answer = "no answer" if probe.answer is None else probe.answer
        verdict = "✓ right" if right else "✗ wrong"
        stops = index == self.point.probe
        words = f"{'■ stops here: ' if stops else ''}{answer} {verdict} {score:.2f}"
        return f'<span class="chip{" stop" if stops else ""}">{visible_text(words)}</span>'

    def controls(self) -> list[Any]:
        choices = {"every marker": self.words, **{f"only {word}": (word,) for word in self.words}}
        largest = max(len(group.members) for group in self.groups) - 1
        return [
            controls.group_menu(self, "completion of", self.groups),
            controls.slider(self, "member", "member", 0, largest, 1),
            controls.slider(self, "threshold", "threshold", 0.0, 1.0, 0.01, "exit when the score is greater"),
            controls.menu(self, "confidence_rule", "confidence rule", RULES),
            controls.menu(self, "markers", "probes at", choices),
            controls.slider(self, "skip_first", "tokens skipped", 0, 3, 1, "bare braces left out of the score"),
        ]


def _probes(group: RecordedGroup) -> list[Probe]:
    return [probe for member in group.members for probe in member.trajectory.probes]


def _step(step: Step, label: str, badge: str, after: str) -> str:
    return (
        f'<span class="step {visible_text(label)}{after}"><span class="badge">{visible_text(badge)}</span>'
        f"{visible_text(step.text)}</span>"
    )
