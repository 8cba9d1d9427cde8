"""What all widgets share: state and view stay the same, from any thread; static pages; escaping."""

from __future__ import annotations

import asyncio
import builtins
import dataclasses
import random
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from test_widgets_rollout import group_of, probe
from traitlets import TraitError

from stepgrpo_lab import widgets
from stepgrpo_lab.overthinker.verifier import LABELS
from stepgrpo_lab.viz._html import piece_text, table
from stepgrpo_lab.widgets import _page as page
from stepgrpo_lab.widgets._base import (
    FIGURES_MIME,
    FIGURES_VARIABLE,
    VIEW_MIME,
    WIDTHS,
    FigurePane,
    LabWidget,
)

WIDGETS: dict[str, Callable[[], LabWidget]] = {
    "StepInspector": widgets.StepInspector,
    "RolloutPlayer": widgets.RolloutPlayer,
    "GroupExplorer": widgets.GroupExplorer,
    "LossExplorer": widgets.LossExplorer,
    "LiveDashboard": lambda: widgets.LiveDashboard(rows=[{"step": 1, "accuracy": 0.5, "tokens": 80.0}]),
    "TradeoffExplorer": widgets.TradeoffExplorer,
    "StudyExplorer": widgets.StudyExplorer,
}
EVIL = '<img src=x onerror="alert(1)">\u202e'


def drawn(widget: LabWidget) -> list[Any]:
    """The data of the figures that stand in the view; an empty part, left by a state before, draws nothing."""
    traces = [[trace.to_plotly_json() for trace in pane.live.data] for pane in widget.view.panes]
    return [
        [{key: part for key, part in trace.items() if key != "uid" and part != {}} for trace in pane] for pane in traces
    ]


@pytest.fixture(params=sorted(WIDGETS))
def widget(request: pytest.FixtureRequest) -> LabWidget:
    return WIDGETS[request.param]()


def test_there_is_a_widget_for_every_name() -> None:
    assert sorted(WIDGETS) == widgets.__all__
    with pytest.raises(AttributeError, match="no attribute 'StepInspektor'"):
        _ = widgets.StepInspektor


def test_importing_widgets_imports_nothing_heavy() -> None:
    program = (
        "import sys; from stepgrpo_lab import widgets; [getattr(widgets, name)() for name in widgets.__all__]; "
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "trl", "ipywidgets"} & set(done.stdout.split())


def test_a_bundle_holds_a_view_and_a_static_page(widget: LabWidget) -> None:
    bundle = widget._repr_mimebundle_()
    assert bundle[VIEW_MIME]["model_id"] == widget.view.box.model_id
    assert bundle["text/plain"].startswith(type(widget).__name__)
    assert page.visible_text(widget.sentence) in bundle["text/html"]
    assert widget.body() in bundle["text/html"]
    assert "<table>" in bundle["text/html"] or "tokens" in bundle["text/html"]


def test_without_ipywidgets_a_notebook_shows_the_static_page(
    widget: LabWidget, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def no_ipywidgets(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "ipywidgets":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_ipywidgets)
    bundle = widget._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"}
    assert widget.body() in bundle["text/html"]


def test_without_anywidget_a_note_takes_the_figure_s_place(monkeypatch: pytest.MonkeyPatch) -> None:
    import plotly.graph_objects as go

    def missing(*_: Any) -> None:
        raise ImportError("Please install anywidget to use the FigureWidget class")

    monkeypatch.setattr(go, "FigureWidget", missing)
    widget = widgets.StepInspector()
    assert "needs anywidget" in widget.view.panes[0].live.value
    widget.threshold = 0.2  # and changes go on
    assert "0.20" in widget.view.readout.value


def test_unknown_state_is_refused() -> None:
    with pytest.raises(TypeError, match=r"StepInspector has no setting 'treshold'; there are .*threshold"):
        widgets.StepInspector(treshold=0.5)
    with pytest.raises(TraitError, match="threshold"):
        widgets.StepInspector(threshold=1.5)


def test_each_control_says_what_it_does(widget: LabWidget) -> None:
    for control in widget.view.controls:
        if hasattr(control, "description"):
            assert control.description or type(control).__name__ == "Play"


def test_view_and_state_follow_each_other() -> None:
    inspector = widgets.StepInspector()
    slider = next(control for control in inspector.view.controls if control.description == "threshold")
    before = drawn(inspector)
    slider.value = 0.31
    assert inspector.threshold == 0.31
    assert "0.31" in inspector.view.readout.value
    assert drawn(inspector) != before
    inspector.threshold = 0.77
    assert slider.value == 0.77
    assert [trace.y[0] for trace in inspector.view.panes[0].live.data if trace.name == "threshold"] == [0.77]


def test_a_figure_is_redrawn_in_place_while_its_traces_stay() -> None:
    inspector = widgets.StepInspector()
    live = inspector.view.panes[0].live
    inspector.threshold = 0.2
    assert inspector.view.panes[0].live is live


def test_a_figure_with_other_traces_takes_the_old_one_s_place() -> None:
    from plotly.graph_objects import Bar, Figure, Scatter

    pane = FigurePane(Figure(Scatter(x=[1], y=[2])))
    first = pane.live
    pane.show(Figure(Bar(x=[1], y=[3])))
    assert pane.live is not first
    assert pane.live.data[0].y == (3,)


def test_figures_are_as_wide_as_their_cell(widget: LabWidget) -> None:
    guard = widget.view.guard
    assert guard is not None
    for measured, wide in ((560, 560), (360, 360), (4000, WIDTHS[1]), (10, WIDTHS[0])):
        guard.width = measured
        assert [pane.live.layout.width for pane in widget.view.panes] == [wide] * len(widget.view.panes)
    guard.width = 360
    widget.refresh()
    assert all(pane.live.layout.width == 360 for pane in widget.view.panes)


def test_no_control_is_wider_than_a_narrow_cell(widget: LabWidget) -> None:
    for control in widget.view.controls:
        assert control.layout.max_width == "100%" or not str(control.layout.width or "auto").endswith(("em", "px"))


@pytest.mark.parametrize("make", [widgets.StepInspector, widgets.GroupExplorer, widgets.LossExplorer])
def test_of_a_burst_of_moves_the_newest_wins_and_is_drawn_once(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    widget = make()
    slider = next(control for control in widget.view.controls if type(control).__name__ == "FloatSlider")
    draws: list[float] = []
    show = widget.view.show
    monkeypatch.setattr(widget.view, "show", lambda: (draws.append(slider.value), show()))

    async def burst() -> None:
        for place in range(20):
            slider.value = slider.min + (slider.max - slider.min) * place / 40
        assert draws == []
        while not draws:
            await asyncio.sleep(0)

    asyncio.run(burst())
    assert draws == [slider.value]
    assert widget.view.readout.value == page.readout(widget.sentence)
    assert drawn(widget) == drawn(make(**{name: getattr(widget, name) for name in widget.trait_names(state=True)}))


def test_moves_that_never_pause_are_drawn_in_between() -> None:
    inspector = widgets.StepInspector()
    slider = next(control for control in inspector.view.controls if control.description == "threshold")
    before = inspector.view.readout.value

    async def restless() -> None:
        place = 0
        while inspector.view.readout.value == before:
            slider.value = 0.5 + (place % 40) / 100
            place += 1
            await asyncio.sleep(0.01)

    asyncio.run(restless())
    assert inspector.view.readout.value != before


def test_a_build_gets_the_figures_of_a_widget(widget: LabWidget, monkeypatch: pytest.MonkeyPatch) -> None:
    assert FIGURES_MIME not in widget._repr_mimebundle_()
    monkeypatch.setenv(FIGURES_VARIABLE, "1")
    assert len(widget._repr_mimebundle_()[FIGURES_MIME]) == len(widget.figures())


INKS = {"light": ((33, 33, 33), (255, 255, 255)), "dark": ((224, 224, 224), (17, 17, 17))}


@pytest.mark.parametrize("theme", INKS)
def test_dimmed_text_keeps_a_contrast_of_four_and_a_half(theme: str) -> None:
    ink, paper = INKS[theme]
    for selector, opacity in re.findall(r"(\.stepgrpo [^{]+)\{[^}]*?opacity: ([.\d]+)", page.STYLE):
        for background in (paper, *(mixed(rgb(tint), paper, 64 / 255) for tint in page.LABEL_COLOURS.values())):
            shown = mixed(ink, background, float(opacity) ** 2)  # a dimmed part may lie in a dimmed part
            assert contrast(shown, background) >= 4.5, selector


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[place : place + 2], 16) for place in (1, 3, 5))


def mixed(above: Sequence[float], below: Sequence[float], opacity: float) -> tuple[float, ...]:
    return tuple(opacity * top + (1 - opacity) * bottom for top, bottom in zip(above, below, strict=True))


def contrast(first: Sequence[float], second: Sequence[float]) -> float:
    """WCAG 2.2 contrast ratio of two colours."""

    def luminance(colour: Sequence[float]) -> float:
        parts = [value / 255 for value in colour]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(
    ("make", "name", "values"),
    [
        (widgets.StepInspector, "threshold", [round(0.01 * i, 2) for i in range(100)]),
        (widgets.RolloutPlayer, "frame", list(range(30))),
        (widgets.GroupExplorer, "step_beta", [0.05 * i for i in range(19)]),
        (widgets.LossExplorer, "log_ratio", [0.05 * i for i in range(-20, 20)]),
        (widgets.TradeoffExplorer, "relative", [True, False]),
        (widgets.StudyExplorer, "study", ["headline", "internalisation", "fairness"]),
    ],
    ids=["inspector", "player", "group", "loss", "tradeoff", "study"],
)
def test_threads_leave_the_view_of_the_last_state(make: Any, name: str, values: list[Any]) -> None:
    widget = make()
    control = next(
        control for control in widget.view.controls if getattr(control, "value", None) == getattr(widget, name)
    )
    assert control is not None
    failures: list[BaseException] = []
    start = threading.Barrier(4)

    def work(seed: int) -> None:
        rng = random.Random(seed)
        try:
            start.wait()
            for _ in range(12):
                setattr(widget, name, rng.choice(values))
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures
    assert widget.view.readout.value == page.readout(widget.sentence)
    assert widget.view.body.value == page.block(widget.body())
    fresh = type(widget)(**{key: getattr(widget, key) for key in widget.trait_names(state=True)})
    assert fresh.sentence == widget.sentence
    assert drawn(widget) == drawn(fresh)


def test_what_a_state_does_not_draw_goes() -> None:
    explorer = widgets.TradeoffExplorer()
    assert all("error_y" in trace for trace in drawn(explorer)[0])
    explorer.relative = True
    assert drawn(explorer) == drawn(widgets.TradeoffExplorer(relative=True))
    assert "error_y" not in drawn(explorer)[0][1]  # the baseline has no interval against itself


def test_model_output_is_escaped_everywhere() -> None:
    group = group_of([probe(2, "Wait", [0.9], answer=EVIL), probe(3, "Wait", [0.99], answer=EVIL)])
    member = group.members[0]
    text = f"a {EVIL} Wait b</think>"
    evil = dataclasses.replace(member, trajectory=dataclasses.replace(member.trajectory, text=text))
    group = dataclasses.replace(
        group,
        members=[evil, evil],
        model=EVIL,
        problem=dataclasses.replace(group.problem, id=EVIL, prompt=EVIL, answer=EVIL),
        token_text=dataclasses.replace(
            group.token_text, table=dict.fromkeys(group.token_text.table, EVIL.encode()), eos_ids=frozenset()
        ),
    )
    shown = [widgets.StepInspector([group]), widgets.GroupExplorer([group])]
    shown.append(widgets.LiveDashboard(rows=[{"step": 1, "accuracy": EVIL}]))
    for widget in shown:
        html = widget.static_html() + widget.view.body.value + widget.view.readout.value
        html += "".join(str(figure.to_plotly_json()["data"]) for figure in widget.figures())
        assert "<img" not in html
        assert "\u202e" not in html
    assert "&lt;img" in shown[0].static_html()


def test_a_table_s_cells_are_text_also_in_small_print() -> None:
    html = table("<i>", ["<u>"], [["1", f"2 [{EVIL}]"]], chosen=0, small_bounds=True)
    assert not {"<i>", "<u>", "<img", "\u202e"} & set(re.findall(r"<[iu]>|<img|\u202e", html))
    assert "<small>[&lt;img" in html and 'class="chosen"' in html


@pytest.mark.parametrize("piece", ["<b>", "&", '"', "\u202e", "\x1b"])
def test_pieces_are_escaped(piece: str) -> None:
    assert piece not in re.sub(
        r'<span class="control" title="invisible character">|</span>|&\w+;', "", piece_text(piece)
    )


def test_the_labels_of_steps_look_different_without_colour() -> None:
    styles = re.findall(r"\.stepgrpo \.(\w+) \{ background: (#\w+)40; .*border-bottom-style: (\w+)", page.STYLE)
    assert tuple(label for label, _, _ in styles) == LABELS
    assert len({line for _, _, line in styles}) == len({colour for _, colour, _ in styles}) == len(LABELS)
