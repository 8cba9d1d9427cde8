"""The report: its figures are the records, hostile text stays text, nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from stepgrpo_lab.evaluation.results import Evaluation
from stepgrpo_lab.evaluation.statistics import Interval
from stepgrpo_lab.method.records import Outcome
from stepgrpo_lab.run import report
from stepgrpo_lab.run.folder import read_run
from stepgrpo_lab.run.report import headline_svg, summary_markdown, write_report

HOSTILE = (
    "<script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)> Wait, </pre></script> \u202eabc\u200b"
)
METRICS = [
    {"step": 0, "validation/accuracy": 0.5, "validation/tokens": 100.0},
    {"step": 5, "reward": 0.7, "exits/natural": 0.25, "exits/early": 0.75, "probe/joint": 0.9},
    {"step": 10, "reward": 0.9, "exits/natural": 0.5, "validation/accuracy": 0.75, "validation/tokens": 40.0},
]


def evaluation(correct: list[int], tokens: list[int], **fields: Any) -> Evaluation:
    rows = [
        [Outcome(bool(c), True, steps=t // 20, tokens=t, close="natural")] for c, t in zip(correct, tokens, strict=True)
    ]
    names = [f"p{index}" for index in range(len(rows))]
    settings = {"samples": 1, "temperature": 0.6, "markers": "paper", "rollout": None}
    return Evaluation(
        names, ["chain", "pair"] * (len(rows) // 2), [None] * len(rows), rows, settings=settings, **fields
    )


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    before = evaluation([1, 0, 1, 1], [100, 80, 120, 100], trial_answers=[(0.95, True), (0.55, False)])
    after = evaluation([1, 1, 1, 0], [40, 40, 60, 60])
    (tmp_path / "evaluation_before.json").write_text(json.dumps(before.to_dict()))
    (tmp_path / "evaluation_after.json").write_text(json.dumps(after.to_dict()))
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in METRICS))
    (tmp_path / "recipe.yaml").write_text("model:\n  path: tiny-model\nnote: <b>bold</b>\n")
    found = {"text": HOSTILE, "tokens": 80, "steps": 2, "correct": False}
    problem = {"id": "<i>p1</i>", "prompt": HOSTILE, "answer": "4"}
    row = {"problem": problem, "gold": HOSTILE, "before": found, "after": {**found, "correct": True, "steps": 1}}
    (tmp_path / "completions.jsonl").write_text(json.dumps(row) + "\n")
    environment = {"versions": {"torch": "2.11"}, "seconds": {"training": 12.34}, "device": "<cpu>"}
    (tmp_path / "environment.json").write_text(json.dumps(environment))
    return tmp_path


class Page(HTMLParser):
    """The elements of a page, its scripts, and the text outside of them."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.inside: str | None = None
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        self.inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = None

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.scripts[-1] += data
        elif self.inside != "style":
            self.text += data

    @property
    def figures(self) -> dict[str, Any]:
        return json.loads(self.scripts[0])


def test_figures_hold_the_records(run_folder):
    figures = Page(write_report(run_folder)).figures
    assert set(figures) == {"tradeoff", "learning", "exits", "reliability"}
    points = {trace["name"]: (trace["x"], trace["y"]) for trace in figures["tradeoff"]["data"]}
    assert points["before"] == ([100.0], [75.0])
    assert points["after"] == ([50.0], [75.0])
    assert points["pair, before"] == ([90.0], [50.0])
    curves = {trace["name"]: (trace["x"], trace["y"]) for trace in figures["learning"]["data"]}
    assert curves["tokens, plain decoding"] == ([0, 10], [100.0, 40.0])
    assert curves["reward"] == ([5, 10], [0.7, 0.9])
    exits = {trace["name"]: trace["y"] for trace in figures["exits"]["data"]}
    assert exits == {"closed by itself": [25.0, 50.0], "confident probe": [75.0]}


def test_tables_headline_and_environment_are_on_the_page(run_folder):
    page = Page(write_report(run_folder))
    assert "On 4 problems (plain decoding, temperature 0.6, 1 sample each), tiny-model wrote 50.0 tokens" in page.text
    assert "instead of 100.0 (50 % [" in page.text
    for words in ("chain", "pair", "12.3", "2.11", "<cpu>", "note: <b>bold</b>", "1 step"):
        assert words in page.text
    headings = [attributes for tag, attributes in page.elements if tag == "th"]
    assert headings and all(attributes.get("scope") in ("row", "col") for attributes in headings)


def test_every_figure_has_a_place_with_a_text_alternative(run_folder):
    page = Page(write_report(run_folder))
    places = {a["data-figure"]: a for _, a in page.elements if "data-figure" in a}
    assert set(places) == set(page.figures)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    labels = [label for _, a in page.elements for label in (a.get("aria-labelledby") or "").split()]
    assert labels and set(labels) <= set(ids)


def test_hostile_text_stays_text(run_folder):
    page = Page(write_report(run_folder))
    assert len(page.scripts) == 3
    assert not [tag for tag, _ in page.elements if tag in ("img", "i", "iframe", "link", "object")]
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    # The problem's question, the gold answer and both completions, cut by the number of step 2 in the last two.
    assert page.text.count("<script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)>") == 4
    assert "\u202e" not in page.text and "\u200b" not in page.text
    assert page.text.count("U+202E") == page.text.count("U+200B") == 4


def test_hostile_names_cannot_leave_the_figures(run_folder):
    path = run_folder / "evaluation_before.json"
    for name in ("evaluation_before.json", "evaluation_after.json"):
        path = run_folder / name
        path.write_text(path.read_text().replace('"pair"', '"</script><img src=x onerror=alert(3)>"'))
    page = Page(write_report(run_folder))
    assert len(page.scripts) == 3 and not [tag for tag, _ in page.elements if tag == "img"]
    assert "</script><img src=x onerror=alert(3)>, after" in {t["name"] for t in page.figures["tradeoff"]["data"]}
    assert "</script><img src=x onerror=alert(3)>" in page.text


def test_nothing_is_loaded_from_elsewhere(run_folder):
    page = Page(write_report(run_folder))
    assert not [a for _, a in page.elements if {"src", "href", "srcset", "data", "action", "poster"} & set(a)]
    style = (Path(report.__file__).parents[1] / "viz" / "page" / "style.css").read_text()
    assert "url(" not in style and "@import" not in style


def test_policy_allows_the_two_scripts_and_no_others(run_folder):
    page = Page(write_report(run_folder))
    (policy,) = [a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in page.scripts[1:]]
    assert policy is not None
    assert re.findall(r"sha256-([^']+)'", policy) == hashes
    assert policy.startswith("default-src 'none';") and "http" not in policy


@pytest.mark.parametrize(
    ("name", "note", "figure"),
    [
        ("evaluation_after.json", "it needs evaluation_before.json and evaluation_after.json", "tradeoff"),
        ("metrics.jsonl", "The learning curves are left out", "learning"),
        ("completions.jsonl", "completions.jsonl is missing", None),
        ("environment.json", "environment.json is missing or names no seconds", None),
        ("recipe.yaml", "recipe.yaml is missing", None),
    ],
)
def test_a_missing_file_leaves_its_section_out_with_a_note(run_folder, name, note, figure):
    assert note not in Page(write_report(run_folder)).text
    (run_folder / name).unlink()
    page = Page(write_report(run_folder))
    assert note in page.text
    assert figure not in page.figures


def test_an_empty_folder_yields_a_report_of_notes(tmp_path):
    page = Page(write_report(tmp_path))
    assert page.figures == {}
    assert "was not measured before and after training" in page.text


def test_writing_twice_yields_the_same_bytes(run_folder):
    first = write_report(run_folder).read_bytes()
    assert write_report(run_folder).read_bytes() == first


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("metrics.jsonl", '{"step": 1}\n{"step": \n{"step": 3}\n', r"metrics\.jsonl, row 2: not valid JSON"),
        ("metrics.jsonl", "[1]\n", r"metrics\.jsonl, row 1: .*an object"),
        ("evaluation_after.json", "{}", r"evaluation_after\.json: field 'problem_ids' is missing"),
        ("recipe.yaml", "a: [", r"recipe\.yaml is not YAML"),
        ("environment.json", "[]", r"environment\.json: .*an object"),
        ("completions.jsonl", '{"problem": {}}\n', r"completions\.jsonl, row 1: field 'gold' is missing"),
    ],
)
def test_broken_files_are_named(run_folder, name, content, words):
    (run_folder / name).write_text(content)
    with pytest.raises(ValueError, match=words):
        write_report(run_folder)


def test_a_line_cut_off_by_a_kill_is_dropped(run_folder):
    path = run_folder / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 11, "rew')
    assert read_run(run_folder).metrics == METRICS


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere"):
        write_report(tmp_path / "nowhere")


def test_summary_is_a_table_with_intervals(run_folder):
    lines = summary_markdown(run_folder).splitlines()
    assert lines[:2] == ["| model | tokens | accuracy |", "| --- | --- | --- |"]
    assert lines[2].startswith("| tiny-model, before | 100.0 [") and "| 75.0 [" in lines[2]
    assert lines[3].startswith("| tiny-model, after | 50.0 [")
    assert re.match(r"\| change \| 50 % \[\d+, \d+\] \| \+0\.0 \[-\d+\.\d, \+\d+\.\d\] points \|", lines[4])
    assert "4 problems, plain decoding, temperature 0.6, 1 sample each" in lines[6]
    (run_folder / "evaluation_before.json").unlink()
    with pytest.raises(ValueError, match=r"evaluation_before\.json"):
        summary_markdown(run_folder)


def test_summary_escapes_the_name_of_the_model(run_folder):
    (run_folder / "recipe.yaml").write_text("model: 'a|b <img>'\n")
    assert "| a\\|b &lt;img&gt;, before |" in summary_markdown(run_folder)


def test_truncated_rollout_is_not_called_plain_decoding(run_folder):
    path = run_folder / "evaluation_after.json"
    data = json.loads(path.read_text())
    data["settings"]["rollout"] = {"preset": "official"}
    path.write_text(json.dumps(data))
    words = summary_markdown(run_folder)
    assert "truncated rollout, preset official" in words and "plain decoding" not in words
    picture = headline_svg(run_folder)
    assert "truncated rollout, preset official" in picture and "plain decoding" not in picture


SVG = "{http://www.w3.org/2000/svg}"


def test_picture_is_well_formed_and_says_what_it_shows(run_folder):
    (run_folder / "recipe.yaml").write_text("model: 'a<b>&c'\n")
    picture = ElementTree.fromstring(headline_svg(run_folder))
    assert picture.get("viewBox") == "0 0 960 400" and picture.get("role") == "img"
    assert [child.tag for child in picture[:3]] == [f"{SVG}title", f"{SVG}desc", f"{SVG}rect"]
    assert "a<b>&c" in (picture[0].text or "") and "50.0 tokens" in (picture[1].text or "")
    texts = [element.text for element in picture.iter(f"{SVG}text")]
    assert "before: 75.0 %, 100 tokens" in texts and "after: 75.0 %, 50 tokens" in texts
    assert "40.0" in texts and "75.0" in texts


def test_picture_places_what_it_draws_inside_itself(run_folder):
    picture = ElementTree.fromstring(headline_svg(run_folder))
    for element in picture.iter():
        for name, limit in (("x", 960), ("cx", 960), ("y", 400), ("cy", 400)):
            if element.get(name) is not None:
                assert 0 <= float(element.get(name, "")) <= limit
    markers = [element for element in picture if element.tag in (f"{SVG}circle", f"{SVG}rect")][1:]
    before, after = (float(markers[0].get("x", "")) + 5.5, float(markers[1].get("cx", "")))
    # The axis of tokens starts at 0 on the left, x = 64.
    assert (before - 64) / (after - 64) == pytest.approx(100 / 50, abs=0.01)


def test_picture_needs_something_to_draw(tmp_path):
    with pytest.raises(ValueError, match="nothing to draw"):
        headline_svg(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in METRICS))
    assert "Validation tokens over training" in headline_svg(tmp_path)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a<b", "a&lt;b"),
        ("\"'", "&quot;&#x27;"),
        ("line\n\ttab", "line\n\ttab"),
        ("é 数 😀", "é 数 😀"),
    ],
)
def test_visible_text_keeps_what_is_harmless(text, shown):
    assert report.visible_text(text) == shown


@pytest.mark.parametrize(
    "sign", ["\x00", "\x1b", "\r", "\x85", "\u200b", "\u202e", "\u2066", "\u2028", "\ufeff", "\ud800"]
)
def test_visible_text_labels_what_hides(sign):
    shown = report.visible_text(f"a{sign}b")
    assert sign not in shown and f"U+{ord(sign):04X}" in shown
    shown.encode("utf-8")


def test_changes_carry_their_sign():
    assert report.points(Interval(-1.44, -3.1, 0.3)) == "-1.4 [-3.1, +0.3]"
    assert report.ratio(Interval(0.432, 0.41, 0.46)) == "43 % [41, 46]"
