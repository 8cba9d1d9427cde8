"""Keys for the control that has the focus.

In its command mode JupyterLab takes arrows and letters for itself, also while a list or a slider of a widget has the
focus: an arrow would select another cell, and M would turn the cell into text. Elements marked with
``data-lm-suppress-shortcuts`` keep their keys. A widget made of ipywidgets alone cannot set an attribute, so a small
anywidget does it for the view around it.
"""

from __future__ import annotations

from typing import Any

_MODULE = """
const KEEP = "data-lm-suppress-shortcuts";
const FOCUSABLE = "select, input, button, [role=slider], [tabindex]";

function render({ el }) {
  let watcher;
  let waiting = requestAnimationFrame(function attach() {
    const view = el.closest(".stepgrpo-view");
    if (!view) {
      waiting = requestAnimationFrame(attach);
      return;
    }
    const mark = () => view.querySelectorAll(FOCUSABLE).forEach(part => part.setAttribute(KEEP, "true"));
    watcher = new MutationObserver(mark);
    watcher.observe(view, { childList: true, subtree: true });
    mark();
  });
  return () => {
    cancelAnimationFrame(waiting);
    watcher?.disconnect();
  };
}

export default { render };
"""


def keyboard_guard() -> Any | None:
    """A widget without an appearance that lets the controls of its view keep their keys; None without anywidget."""
    try:
        from anywidget import AnyWidget
    except ImportError:
        return None

    class KeyboardGuard(AnyWidget):
        _esm = _MODULE

    guard = KeyboardGuard()
    guard.layout.display = "none"
    return guard
