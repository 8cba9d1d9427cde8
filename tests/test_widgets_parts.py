"""What all widgets share: state and view stay the same, from any thread; static pages; escaping."""

from __future__ import annotations

import builtins
import dataclasses
import random
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from test_widgets_rollout import group_of, probe
from traitlets import TraitError

from stepgrpo_lab import widgets
from stepgrpo_lab.overthinker.verifier import LABELS
from stepgrpo_lab.viz._html import piece_text, table
from stepgrpo_lab.widgets import _page as page
from stepgrpo_lab.widgets._base import VIEW_MIME, FigurePane, LabWidget

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
