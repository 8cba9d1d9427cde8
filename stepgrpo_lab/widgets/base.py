"""What every widget shares: state in traits, a view that follows it, and a static page where nothing can run."""

from __future__ import annotations

import reprlib
import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from traitlets import HasTraits, Unicode

from stepgrpo_lab.widgets.page import STYLE, block, readout

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from stepgrpo_lab.widgets.view import View

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 80  # a dashboard's rows would fill pages
VIEW_MIME = "application/vnd.jupyter.widget-view+json"


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
        """Fresh controls, bound to the traits; made with :mod:`stepgrpo_lab.widgets.controls`."""
        return []

    @property
    def view(self) -> View:
        """What a notebook shows, made when it is first asked for.

        Raises:
            ImportError: ipywidgets is not installed.
        """
        with self.lock:
            if self._view is None:
                from stepgrpo_lab.widgets.view import View

                self._view = View(self)
            return self._view

    def refresh(self) -> None:
        """Derive and draw again."""
        with self.lock:
            self.compute()
            if self._view is not None:
                self._view.show()

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
        try:
            model_id = self.view.box.model_id
        except ImportError:
            return bundle
        return {VIEW_MIME: {"version_major": 2, "version_minor": 0, "model_id": model_id}, **bundle}

    def __repr__(self) -> str:
        state = ", ".join(f"{name}={_repr.repr(getattr(self, name))}" for name in sorted(self.trait_names(state=True)))
        return f"{type(self).__name__}({state})"
