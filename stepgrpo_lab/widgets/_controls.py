"""Controls bound to traits in both directions, for ipywidgets 7.7 to 8.1."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stepgrpo_lab.viz._html import plain_text

if TYPE_CHECKING:
    from stepgrpo_lab.recordings import RecordedGroup
    from stepgrpo_lab.widgets._base import LabWidget


SLIDER = "24em"
"""Width of a slider with its label and number, where the cell has room for it."""


def bind(widget: LabWidget, name: str, control: Any) -> Any:
    """Keep a control's value and a trait the same.

    Not ``traitlets.link``: that one drops a change that comes in from another thread while it is at work.
    """

    def to_trait(_: Any) -> None:
        with widget.moved():
            setattr(widget, name, control.value)

    def to_control(_: Any) -> None:
        with widget.lock:
            value = getattr(widget, name)
            if control.value != value:
                control.value = value

    control.value = getattr(widget, name)
    control.observe(to_trait, names="value")
    widget.observe(to_control, names=name)
    return control


def _options(label: str, tip: str, width: str = "auto") -> dict[str, Any]:
    from ipywidgets import Layout

    return {
        "description": label,
        "style": {"description_width": "initial"},
        "layout": Layout(width=width, max_width="100%", margin="2px 16px 2px 0"),
        **_tooltip(tip),
    }


def _tooltip(tip: str) -> dict[str, str]:
    """ipywidgets 8 renamed the argument."""
    from ipywidgets import __version__

    return {"description_tooltip" if int(__version__.partition(".")[0]) < 8 else "tooltip": tip}


def slider(widget: LabWidget, name: str, label: str, low: float, high: float, step: float, tip: str = "") -> Any:
    """A slider for a number; whole numbers where ``step`` is one."""
    import ipywidgets

    if isinstance(step, int):
        return bind(widget, name, ipywidgets.IntSlider(min=low, max=high, step=step, **_options(label, tip, SLIDER)))
    decimals = max(2, len(f"{step:f}".rstrip("0").partition(".")[2]))
    control = ipywidgets.FloatSlider(
        min=low, max=high, step=step, readout_format=f".{decimals}f", **_options(label, tip, SLIDER)
    )
    return bind(widget, name, control)


def menu(widget: LabWidget, name: str, label: str, options: Mapping[str, Any] | Sequence[Any], tip: str = "") -> Any:
    """A drop-down list: option values, or label -> value."""
    import ipywidgets

    pairs = list(options.items()) if isinstance(options, Mapping) else [(str(value), value) for value in options]
    return bind(widget, name, ipywidgets.Dropdown(options=pairs, **_options(label, tip)))


def group_menu(widget: LabWidget, label: str, groups: Sequence[RecordedGroup]) -> Any:
    """A drop-down list of recorded groups for the trait ``group``; two groups may have the same title."""
    import ipywidgets

    options = [(f"{index + 1}. {plain_text(group.title)}", index) for index, group in enumerate(groups)]
    return bind(widget, "group", ipywidgets.Dropdown(options=options, **_options(label, "")))


def check(widget: LabWidget, name: str, label: str, tip: str = "") -> Any:
    """A check box."""
    import ipywidgets

    return bind(widget, name, ipywidgets.Checkbox(indent=False, **_options(label, tip)))


def button(widget: LabWidget, label: str, act: Callable[[], None], tip: str = "") -> Any:
    """A button; ``act`` runs under the widget's lock."""
    import ipywidgets

    control = ipywidgets.Button(
        description=label, tooltip=tip, layout=ipywidgets.Layout(width="auto", margin="2px 6px 2px 0")
    )

    def clicked(_: Any) -> None:
        with widget.lock:
            act()

    control.on_click(clicked)
    return control
