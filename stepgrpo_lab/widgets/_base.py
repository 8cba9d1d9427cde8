"""What every widget shares: state in traits, a view that follows it, and a static page where nothing can run.

Only the view needs ipywidgets, so only it imports them.
"""

from __future__ import annotations

import asyncio
import html
import os
import reprlib
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from traitlets import HasTraits, Int, Unicode

from stepgrpo_lab._imports import require
from stepgrpo_lab.widgets._page import STYLE, block, readout

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 80  # a dashboard's rows would fill pages
VIEW_MIME = "application/vnd.jupyter.widget-view+json"
WIDTHS = (280, 960)
"""Narrowest and widest figure, in pixels; in between it is as wide as the cell."""
FIRST_WIDTH = 560
"""Width of a figure until its cell has been measured: JupyterLab's beside an open file browser."""
SETTLE, MOST_WAIT = 0.06, 0.25
"""Seconds without a new move after which a view is drawn, and after which it is drawn in any case."""
FIGURES_MIME = "application/vnd.stepgrpo.figures+json"
FIGURES_VARIABLE = "STEPGRPO_FIGURES"
"""Environment variable: "1" puts a widget's figures into its output, from which the builder draws pictures."""
NO_FIGURE = "The figure needs anywidget: pip install 'stepgrpo-lab[notebooks]'. Its numbers stand in the table."


class LabWidget(HasTraits):
    """A widget of the laboratory.

    Traits tagged ``state=True`` are what a user sets, from Python or with a control. Whenever one changes, from
    whichever thread, :meth:`compute` derives the rest and the view is drawn again; one lock orders all of it, so what
    stands in the end belongs to the last state.

    Subclasses define :meth:`compute`, :meth:`figures`, :meth:`body` and :meth:`controls`.

    Attributes:
        sentence: What is seen, in words.
    """

    sentence = Unicode(help="what is seen, in words")

    def __init__(self, **state: Any) -> None:
        unknown = sorted(set(state) - set(self.trait_names(state=True)))
        if unknown:
            known = ", ".join(sorted(self.trait_names(state=True)))
            raise TypeError(f"{type(self).__name__} has no setting {unknown[0]!r}; there are {known}")
        self.lock = threading.RLock()
        self._view: View | None = None
        self._moving = False
        super().__init__(**state)
        self.compute()
        self.observe(self._changed, names=sorted(self.trait_names(state=True)))

    def __setattr__(self, name: str, value: Any) -> None:
        """Set under the lock: of two threads that set a trait at once, one could find its value there and be silent."""
        with self.__dict__.get("lock", nullcontext()):
            super().__setattr__(name, value)

    def compute(self) -> None:
        """Derive everything else from the state; called under the lock."""
        raise NotImplementedError

    def figures(self) -> list[Figure]:
        """The figures of the state as it is; as many, and with as many traces, in every state."""
        return []

    def body(self) -> str:
        """What else the state shows, as HTML in which model output is escaped."""
        return ""

    def controls(self) -> list[Any]:
        """Fresh controls, bound to the traits; made with :mod:`stepgrpo_lab.widgets._controls`."""
        return []

    @property
    def view(self) -> View:
        """What a notebook shows, made when it is first asked for.

        Raises:
            ImportError: ipywidgets is not installed.
        """
        with self.lock:
            if self._view is None:
                self._view = View(self)
            return self._view

    def refresh(self) -> None:
        """Derive and draw again; after a move of a control, once the moves pause: the newest wins."""
        with self.lock:
            self.compute()
            if self._view is not None:
                (self._view.show_soon if self._moving else self._view.show)()

    @contextmanager
    def moved(self) -> Iterator[None]:
        """Around a change that comes from a control, under the lock."""
        with self.lock:
            self._moving = True
            try:
                yield
            finally:
                self._moving = False

    def clamp(self, name: str, largest: int) -> None:
        """Bring a trait that counts from 0 back into its range."""
        if getattr(self, name) > largest:
            setattr(self, name, largest)

    def _changed(self, change: Any) -> None:
        self.refresh()

    def static_html(self) -> str:
        """The state as a page without controls, for where widgets cannot run."""
        with self.lock:
            note = '<p class="quiet">A static view: here widgets cannot run.</p>'
            return STYLE + readout(self.sentence) + block(note, self.body())

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        bundle: dict[str, Any] = {"text/plain": repr(self), "text/html": self.static_html()}
        if os.environ.get(FIGURES_VARIABLE) == "1":
            bundle[FIGURES_MIME] = [figure.to_plotly_json() for figure in self.figures()]
        try:
            model_id = self.view.box.model_id
        except ImportError as error:
            bundle["text/html"] += block(f'<p class="quiet">{html.escape(str(error))}</p>')
            return bundle
        return {VIEW_MIME: {"version_major": 2, "version_minor": 0, "model_id": model_id}, **bundle}

    def __repr__(self) -> str:
        state = ", ".join(f"{name}={_repr.repr(getattr(self, name))}" for name in sorted(self.trait_names(state=True)))
        return f"{type(self).__name__}({state})"


class View:
    """The ipywidgets of one widget.

    Attributes:
        controls: The controls, in their order on the page.
        readout, body: HTML widgets with the sentence and the rest.
        panes: One pane for each figure.
        box: All of it.
    """

    def __init__(self, widget: LabWidget) -> None:
        require("a widget that moves", "ipywidgets", install="'stepgrpo-lab[notebooks]'")
        import ipywidgets

        enable_widgets_on_colab()
        self._widget = widget
        self._drawing: asyncio.TimerHandle | None = None
        self._first_move = 0.0
        self._width = FIRST_WIDTH
        self.controls = widget.controls()
        self.readout = ipywidgets.HTML()
        self.body = ipywidgets.HTML()
        self.panes = [FigurePane(figure) for figure in widget.figures()]
        row = ipywidgets.HBox(self.controls, layout=ipywidgets.Layout(flex_flow="row wrap", align_items="center"))
        parts = [ipywidgets.HTML(STYLE), row, self.readout, *(pane.box for pane in self.panes), self.body]
        self.guard = _guard()
        self.box = ipywidgets.VBox(parts if self.guard is None else [*parts, self.guard])
        self.box.add_class("stepgrpo-view")
        self._show_text()
        if self.guard is not None:
            self.guard.observe(lambda change: self.fit(change.new), names="width")

    def fit(self, width: int) -> None:
        """Make the figures as wide as the cell."""
        with self._widget.lock:
            self._width = max(WIDTHS[0], min(width, WIDTHS[1]))
            for pane in self.panes:
                pane.fit(self._width)

    def show_soon(self) -> None:
        """Draw once no more moves follow one another; at once where no event loop runs."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.show()
            return
        if self._drawing is None:
            self._first_move = loop.time()
        elif loop.time() - self._first_move < MOST_WAIT:
            self._drawing.cancel()
        else:
            return
        self._drawing = loop.call_later(SETTLE, self._settle)

    def _settle(self) -> None:
        with self._widget.lock:
            self._drawing = None
            self.show()

    def show(self) -> None:
        """Draw the widget's state as it is."""
        for pane, figure in zip(self.panes, self._widget.figures(), strict=True):
            pane.show(figure)
            pane.fit(self._width)
        self._show_text()

    def _show_text(self) -> None:
        self.body.value = block(self._widget.body())
        self.readout.value = readout(self._widget.sentence)


class FigurePane:
    """A figure that is redrawn in place.

    plotly's ``FigureWidget`` needs anywidget from plotly 6 on; without it the pane holds a note.
    """

    def __init__(self, figure: Figure) -> None:
        import ipywidgets

        self.box = ipywidgets.VBox([_live(figure)], layout=ipywidgets.Layout(max_width="100%", overflow="auto"))

    @property
    def live(self) -> Any:
        """The ``FigureWidget``, or the note in its place."""
        return self.box.children[0]

    def fit(self, width: int) -> None:
        """Make the figure that wide, in pixels."""
        if hasattr(self.live, "batch_update") and self.live.layout.width != width:
            self.live.layout.width = width

    def show(self, figure: Figure) -> None:
        """Redraw; a figure with other traces or panels takes the old one's place."""
        live = self.live
        if not hasattr(live, "batch_update"):  # the note
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
            layout["width"] = live.layout.width
            live.layout.update(layout, overwrite=True)


def _live(figure: Figure) -> Any:
    import ipywidgets
    from plotly.graph_objects import FigureWidget

    try:
        # A width of its own: before it is laid out, a cell's output has none that a figure could fill.
        return FigureWidget(figure).update_layout(width=FIRST_WIDTH)
    except ImportError:
        return ipywidgets.HTML(block(f'<p class="quiet">{NO_FIGURE}</p>'))


def _build(figure: Any) -> tuple[Any, ...]:
    """What cannot be changed in place: kinds of traces and the axes that they hang on."""
    return tuple((trace.type, getattr(trace, "xaxis", None), getattr(trace, "yaxis", None)) for trace in figure.data)


def enable_widgets_on_colab() -> None:
    """Colab loads widgets from outside Google only after this call."""
    if "google.colab" in sys.modules:
        from google.colab import output

        output.enable_custom_widget_manager()


_GUARD = """
const MARGIN = 16;
const KEEP = "data-lm-suppress-shortcuts";
const FOCUSABLE = "select, input, button, [role=slider], [tabindex]";
const ICONS = { play: "Play or pause", pause: "Play or pause", stop: "Stop", retweet: "Loop", repeat: "Loop" };

function name(view) {
  view.querySelectorAll(".jupyter-widgets").forEach(control => {
    const label = control.querySelector(":scope > .widget-label")?.textContent;
    if (label) control.querySelectorAll("[role=slider]").forEach(part => part.setAttribute("aria-label", label));
  });
  for (const [icon, label] of Object.entries(ICONS))
    view.querySelectorAll(`.widget-play .fa-${icon}`).forEach(part =>
      part.closest("button")?.setAttribute("aria-label", label));
  const words = view.querySelector(".readout")?.textContent ?? "figure";
  view.querySelectorAll(".js-plotly-plot").forEach(figure => {
    figure.setAttribute("role", "img");
    figure.setAttribute("aria-label", words);
  });
}

function render({ model, el }) {
  let watcher, sizes, pause;
  let waiting = requestAnimationFrame(function attach() {
    const view = el.closest(".stepgrpo-view");
    if (!view) {
      waiting = requestAnimationFrame(attach);
      return;
    }
    const mark = () => {
      view.querySelectorAll(FOCUSABLE).forEach(part => part.setAttribute(KEEP, "true"));
      name(view);
    };
    watcher = new MutationObserver(mark);
    watcher.observe(view, { childList: true, subtree: true });
    mark();
    sizes = new ResizeObserver(() => {
      clearTimeout(pause);
      pause = setTimeout(() => {
        const width = Math.floor(view.clientWidth) - MARGIN;
        if (width > 0 && width !== model.get("width")) {
          model.set("width", width);
          model.save_changes();
        }
      }, 100);
    });
    sizes.observe(view.parentElement ?? view);
  });
  return () => {
    cancelAnimationFrame(waiting);
    clearTimeout(pause);
    watcher?.disconnect();
    sizes?.disconnect();
  };
}

export default { render };
"""
"""What a view needs of its page. In its command mode JupyterLab takes arrows and letters for itself, also while a list
or a slider of a widget has the focus: an arrow would select another cell, and M would turn the cell into text. Elements
marked with ``data-lm-suppress-shortcuts`` keep their keys. Slider handles, the player's buttons and the figures get a
name for assistive technology, and the kernel learns how wide the cell is."""


def _guard() -> Any | None:
    """A widget without an appearance that looks after its view in the page; None without anywidget.

    A widget made of ipywidgets alone cannot set an attribute, so a small anywidget does it for the view around it.
    """
    try:
        from anywidget import AnyWidget
    except ImportError:
        return None

    class Guard(AnyWidget):
        _esm = _GUARD
        width = Int(0).tag(sync=True)

    guard = Guard()
    guard.layout.display = "none"
    return guard
