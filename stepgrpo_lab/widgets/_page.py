"""The HTML of the widgets: one style sheet for light and dark pages, and text that a model wrote, made safe."""

from __future__ import annotations

from stepgrpo_lab.overthinker.verifier import LABELS
from stepgrpo_lab.viz._html import visible_text
from stepgrpo_lab.viz._style import INK, PALETTE

LABEL_COLOURS = dict(zip(LABELS, PALETTE, strict=False))
_UNDERLINES = dict(zip(LABELS, ("solid", "dashed", "dotted", "double", "groove"), strict=True))

_RULES = """
.stepgrpo { color: var(--jp-content-font-color1, inherit); font: 14px/1.5 system-ui, sans-serif; }
.stepgrpo p { margin: .3em 0; }
.stepgrpo .readout { border-left: 4px solid #0072B2; font-size: 15px; padding: .1em .7em; }
.stepgrpo .quiet { opacity: .85; }
.stepgrpo pre, .stepgrpo .tokens { background: rgba(127, 127, 127, .08); border: 1px solid rgba(127, 127, 127, .35);
  border-radius: 5px; color: inherit; font: 13px/2 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  margin: .4em 0; max-height: 24em; overflow: auto; overflow-wrap: anywhere; padding: .5em .8em;
  unicode-bidi: isolate; white-space: pre-wrap; word-break: normal; }
.stepgrpo .scroll { max-height: 22em; max-width: 100%; overflow: auto; }
.stepgrpo table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .4em 0; }
.stepgrpo caption { caption-side: top; opacity: .85; padding: .2em 0; text-align: left; white-space: normal; }
.stepgrpo th, .stepgrpo td { background: transparent; border-bottom: 1px solid rgba(127, 127, 127, .35); color: inherit;
  padding: .15em .8em .15em 0; text-align: left; }
.stepgrpo tr.chosen > * { background: rgba(0, 114, 178, .18); font-weight: 600; }
.stepgrpo .step { border-bottom: 3px solid; padding: .1em .1em 0; }
.stepgrpo .badge { font: 600 10.5px/1 system-ui, sans-serif; letter-spacing: .02em; margin-right: .4em;
  white-space: nowrap; }
.stepgrpo .step.after, .stepgrpo .after { background: transparent; opacity: .85; text-decoration: line-through; }
.stepgrpo .after .badge { display: inline-block; text-decoration: none; }
.stepgrpo .chip { border: 1.5px solid; border-radius: 9px; font: 600 11px/1.3 system-ui, sans-serif; margin: 0 .35em;
  padding: .05em .55em; white-space: nowrap; }
.stepgrpo .stop { background: #D55E00; border-color: #D55E00; color: #000; }
.stepgrpo .control { border: 1px dashed; border-radius: 3px; font-size: .8em; padding: 0 .2em; }
.stepgrpo .cell { border: 1px solid rgba(127, 127, 127, .45); border-radius: 3px; display: inline-block;
  line-height: 1.25; margin: 1px; min-width: 1.4em; padding: 0 .25em; text-align: center; vertical-align: top; }
.stepgrpo .cell small { display: block; font: 10px/1.2 system-ui, sans-serif; opacity: .85; }
.stepgrpo .forced { border-style: double; border-width: 3px; }
.stepgrpo .probe { background: rgba(213, 94, 0, .28); border-color: #D55E00; }
.stepgrpo .now { outline: 3px solid #0072B2; outline-offset: 0; }
.stepgrpo .stale { border-style: dotted; opacity: .85; text-decoration: line-through; }
.stepgrpo .stale small { opacity: 1; }
.stepgrpo .held { border-style: dashed; border-width: 2px; }
.stepgrpo .given { background: rgba(127, 127, 127, .22); }
.stepgrpo-view button:focus-visible, .stepgrpo-view select:focus-visible, .stepgrpo-view input:focus-visible,
.stepgrpo-view [role=slider]:focus-visible { outline: 3px solid #0072B2; outline-offset: 2px; }
.stepgrpo-view, .stepgrpo-view .widget-box { max-width: 100%; }
.stepgrpo-view .widget-dropdown > select { min-width: 0; text-overflow: ellipsis; }
.stepgrpo-view .widget-label, .stepgrpo-view .widget-readout { color: var(--jp-content-font-color1, inherit); }
"""


_INK = ", ".join(str(int(INK[place : place + 2], 16)) for place in (1, 3, 5))
FIGURE_RULE = (
    f'.js-plotly-plot text[style*="rgb({_INK})"] {{ fill: var(--jp-content-font-color1, {INK}) !important; }}\n'
)
"""A figure's ink reads on white and on black, but hardly on the grey of a dark theme: there it takes the theme's."""


def _style() -> str:
    labels = "".join(
        f".stepgrpo .{label} {{ background: {LABEL_COLOURS[label]}40; border-bottom-color: {LABEL_COLOURS[label]}; "
        f"border-bottom-style: {_UNDERLINES[label]}; }}\n"
        for label in LABELS
    )
    return f"<style>{_RULES}{labels}{FIGURE_RULE}</style>"


STYLE = _style()


def block(*parts: str) -> str:
    """HTML under the widgets' style."""
    return f'<div class="stepgrpo">{"".join(parts)}</div>'


def readout(sentence: str) -> str:
    """The sentence that says what is seen; screen readers announce its changes. Escapes it."""
    return block(f'<p class="readout" role="status" aria-live="polite">{visible_text(sentence)}</p>')
