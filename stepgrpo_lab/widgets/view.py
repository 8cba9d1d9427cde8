"""What a notebook shows of a widget: controls, a sentence, figures, and the rest of the page."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import ipywidgets

from stepgrpo_lab.widgets.keyboard import keyboard_guard
from stepgrpo_lab.widgets.page import STYLE, block, readout

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from stepgrpo_lab.widgets.base import LabWidget

WIDTH = 760
"""Width of a figure in pixels."""
NO_FIGURE = "The figure needs anywidget: pip install 'stepgrpo-lab[notebooks]'. Its numbers stand in the table."


class View:
    """The ipywidgets of one widget.

    Attributes:
        controls: The controls, in their order on the page.
        readout, body: HTML widgets with the sentence and the rest.
        panes: One pane for each figure.
        box: All of it.
    """

    def __init__(self, widget: LabWidget) -> None:
        _enable_on_colab()
        self._widget = widget
        self.controls = widget.controls()
        self.readout = ipywidgets.HTML()
        self.body = ipywidgets.HTML()
        self.panes = [FigurePane(figure) for figure in widget.figures()]
        row = ipywidgets.HBox(self.controls, layout=ipywidgets.Layout(flex_flow="row wrap", align_items="center"))
        parts = [ipywidgets.HTML(STYLE), row, self.readout, *(pane.box for pane in self.panes), self.body]
        guard = keyboard_guard()
        self.box = ipywidgets.VBox(parts if guard is None else [*parts, guard])
        self.box.add_class("stepgrpo-view")
        self._show_text()

    def show(self) -> None:
        """Draw the widget's state as it is."""
        for pane, figure in zip(self.panes, self._widget.figures(), strict=True):
            pane.show(figure)
        self._show_text()

    def _show_text(self) -> None:
        self.body.value = block(self._widget.body())
        self.readout.value = readout(self._widget.sentence)


class FigurePane:
    """A figure that is redrawn in place.

    plotly's ``FigureWidget`` needs anywidget from plotly 6 on; without it the pane holds a note.
    """

    def __init__(self, figure: Figure) -> None:
        self.box = ipywidgets.VBox([_live(figure)], layout=ipywidgets.Layout(overflow="auto"))

    @property
    def live(self) -> Any:
        """The ``FigureWidget``, or the note in its place."""
        return self.box.children[0]

    def show(self, figure: Figure) -> None:
        """Redraw; a figure with other traces or panels takes the old one's place."""
        live = self.live
        if isinstance(live, ipywidgets.HTML):
            return
        if _build(live) != _build(figure):
            self.box.children = (_live(figure),)
            live.close()
            return
        with live.batch_update():
            for trace, fresh in zip(live.data, figure.data, strict=True):
                wanted = fresh.to_plotly_json()
                gone = dict.fromkeys(set(trace.to_plotly_json()) - set(wanted) - {"uid"})
                trace.update({**gone, **wanted}, overwrite=True)
            layout = figure.layout.to_plotly_json()
            layout.pop("template", None)  # the same in all our figures
            live.layout.update(layout, overwrite=True)


def _live(figure: Figure) -> Any:
    from plotly.graph_objects import FigureWidget

    try:
        # A width of its own: before it is laid out, a cell's output has none that a figure could fill.
        return FigureWidget(figure).update_layout(width=WIDTH)
    except ImportError:
        return ipywidgets.HTML(block(f'<p class="quiet">{NO_FIGURE}</p>'))


def _build(figure: Any) -> tuple[Any, ...]:
    """What cannot be changed in place: kinds of traces and the axes that they hang on."""
    return tuple((trace.type, getattr(trace, "xaxis", None), getattr(trace, "yaxis", None)) for trace in figure.data)


def _enable_on_colab() -> None:
    """Colab loads widgets from outside Google only after this call."""
    if "google.colab" in sys.modules:
        from google.colab import output

        output.enable_custom_widget_manager()
