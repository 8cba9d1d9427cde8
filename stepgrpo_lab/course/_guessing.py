"""The buttons and the slider with which a prediction is made; without ipywidgets there are none."""

from __future__ import annotations

import html
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepgrpo_lab.course._predictions import Prediction

KEEP, CHANGE = "Keep my guess", "Change my guess"


def view_bundle(prediction: Prediction, view: GuessView | None) -> tuple[GuessView | None, dict[str, Any]]:
    """The view of a prediction, made when it is first shown, and what a notebook needs to show it."""
    if find_spec("ipywidgets") is None:
        return None, {}
    from stepgrpo_lab.widgets._base import VIEW_MIME

    view = view or GuessView(prediction)
    return view, {VIEW_MIME: {"version_major": 2, "version_minor": 0, "model_id": view.box.model_id}}


class GuessView:
    """The ipywidgets of one prediction.

    Attributes:
        control: Buttons for words, a slider for a number with a range, else a text field.
        keep: The button that keeps the guess, and then the one that opens it again.
        said: The question, and what was understood.
        box: All of it.
    """

    def __init__(self, prediction: Prediction) -> None:
        import ipywidgets

        from stepgrpo_lab.widgets._base import enable_widgets_on_colab

        enable_widgets_on_colab()
        self._prediction = prediction
        self._quiet = False
        self.said = ipywidgets.HTML()
        self.control = self._control()
        self.keep = ipywidgets.Button(description=KEEP, icon="check", tooltip="keep this guess and go on")
        row = ipywidgets.Layout(flex_flow="row wrap", align_items="center", max_width="100%")
        self.box = ipywidgets.VBox([self.said, ipywidgets.HBox([self.control, self.keep], layout=row)])
        self.show()
        self.control.observe(self._moved, names="value")
        self.keep.on_click(self._kept)

    def _control(self) -> Any:
        import ipywidgets

        asked = self._prediction
        wide = ipywidgets.Layout(width="auto", max_width="100%")
        if asked.choices:
            return ipywidgets.ToggleButtons(
                options=list(asked.choices), value=None, layout=wide, style={"button_width": "auto"}
            )
        if asked.low is None or asked.high is None:
            return ipywidgets.Text(placeholder=f"your guess {asked.unit}".strip(), continuous_update=False)
        span = asked.high - asked.low
        whole = span >= 20 and float(asked.low).is_integer() and float(asked.high).is_integer()
        number = int if whole else float
        step = max(1, round(span / 100)) if whole else span / 100
        return (ipywidgets.IntSlider if whole else ipywidgets.FloatSlider)(
            min=number(asked.low),
            max=number(asked.high),
            value=number(asked.low + span / 2),
            step=step,
            description=asked.unit or "guess",
            layout=ipywidgets.Layout(width="22em", max_width="100%"),
        )

    def show(self) -> None:
        """Show the prediction as it is."""
        asked = self._prediction
        self._quiet = True
        try:
            if asked.choices:
                self.control.value = asked.guess
            elif isinstance(asked.guess, int | float) and hasattr(self.control, "max"):
                self.control.value = type(self.control.value)(min(max(asked.guess, self.control.min), self.control.max))
            elif asked.guess is not None:
                self.control.value = f"{asked.guess:g}" if isinstance(asked.guess, float) else str(asked.guess)
        finally:
            self._quiet = False
        self._say()

    def _say(self) -> None:
        asked = self._prediction
        lines = [f"<b>{html.escape(asked.question)}</b>"]
        if asked.guess is not None:
            guess = f"{asked.guess:.4g}" if isinstance(asked.guess, float) else str(asked.guess)
            state = "Kept" if self.control.disabled else "Your guess"
            lines.append(html.escape(f"{state}: {guess} {'' if asked.choices else asked.unit}".rstrip() + "."))
        lines += [html.escape(asked.note)] if asked.note else []
        self.said.value = f'<div aria-live="polite">{"<br>".join(lines)}</div>'

    def _moved(self, change: Any) -> None:
        if not self._quiet and change.new is not None:
            self._take(change.new)

    def _take(self, value: Any) -> None:
        # A slider shows what it means, so 0.5 on it is 0.5: only what is typed may be a fraction.
        meant = hasattr(self.control, "max") and self._prediction.unit == "%"
        self._prediction.guess = f"{value} %" if meant else value

    def _kept(self, _: Any) -> None:
        if self.control.disabled:
            self.control.disabled = False
        elif self.control.value not in (None, ""):
            self._take(self.control.value)
            self.control.disabled = self._prediction.guess is not None
        self.keep.description = CHANGE if self.control.disabled else KEEP
        self.keep.icon = "pencil" if self.control.disabled else "check"
        self._say()
