"""The commands of tools/ that need no measurement: planted faults, on a toy checkout, and sizes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools.planted_faults import __main__ as command
from tools.planted_faults.catalogue import FAULTS
from tools.planted_faults.planting import Fault, OutOfDateError, find_places, find_tests, find_text, planted
from tools.sizes import Sizes, measure

CODE = "def larger(a, b):\n    return a > b\n\n\ndef smaller(a, b):\n    return a < b\n"
TEST = """from stepgrpo_lab.order import larger


def test_larger() -> None:
    assert larger(2, 1) and not larger(1, 2)
"""


def fault(name: str, text: str, replacement: str, test: str = "test_larger") -> Fault:
    return Fault(name, "an order", [(text, replacement)], [test])


TOY = [
    fault("turned", "a > b", "b > a"),
    fault("equal", "a > b", "a >= b"),
    fault("gone", "a == b", "a != b"),
    Fault("reworded", "an order", [("a == b", "a != b")], ["test_larger"], [("a > b", "b > a")]),
    fault("twice", "def ", "async def "),
    fault("untested", "a < b", "a > b", "test_smaller"),
]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name, text in (("stepgrpo_lab/__init__.py", ""), ("stepgrpo_lab/order.py", CODE), ("tests/test_it.py", TEST)):
        (tmp_path / "toy" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "toy" / name).write_text(text)
    return tmp_path / "toy"


def test_each_planted_fault_has_its_verdict(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "FAULTS", TOY)
    record = tmp_path / "record.json"
    assert command.main(["--checkout", str(checkout), "--output", str(record)]) == 1
    outcomes = {row["fault"]: row["outcome"] for row in json.loads(record.read_text())}
    assert outcomes == {
        "turned": "caught",
        "equal": "SURVIVED",
        "gone": "out of date",
        "reworded": "caught",
        "twice": "out of date",
        "untested": "out of date",
    }
    assert "2 caught" in capsys.readouterr().out
    assert command.main(["--checkout", str(checkout), "--only", "turned"]) == 0
    assert (checkout / "stepgrpo_lab" / "order.py").read_text() == CODE


def test_nothing_is_planted_where_tests_fail_anyway(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "FAULTS", TOY)
    (checkout / "tests" / "test_it.py").write_text(TEST.replace("not ", ""))
    assert command.main(["--checkout", str(checkout)]) == 2


def test_texts_and_tests_are_found_by_what_they_say(checkout: Path) -> None:
    assert find_text(checkout, "a > b").name == "order.py"
    assert find_tests(checkout, ["test_larger", "test_it.py"]) == ["tests/test_it.py::test_larger", "tests/test_it.py"]
    with pytest.raises(OutOfDateError):
        find_tests(checkout, ["test_other.py"])
    with planted(checkout, TOY[0]) as path:
        assert "b > a" in path.read_text()
    assert path.read_text() == CODE


def test_faults_have_names_of_their_own() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 30


@pytest.mark.parametrize("planted_fault", FAULTS, ids=lambda fault: fault.name)
def test_every_fault_still_has_its_place_and_its_tests(planted_fault: Fault) -> None:
    assert find_places(command.ROOT, planted_fault) and find_tests(command.ROOT, planted_fault.tests)


def test_sizes_leave_out_docstrings_and_comments(tmp_path: Path) -> None:
    head = '"""Module."""\n\n# comment\nX = 1\n"""About X."""\n\n\n'
    source = head + 'def f():\n    """Doc.\n\n    More."""\n    return """a\nb"""\n'
    sizes = Sizes()
    sizes.add(source)
    assert (sizes.lines, sizes.code, sizes.functions, sizes.documented) == (13, 4, [3], [True])
    (tmp_path / "part").mkdir()
    for path in (tmp_path / "one.py", tmp_path / "part" / "two.py"):
        path.write_text(source)
    found = measure(tmp_path)
    assert [found[str(tmp_path)].modules, found[str(tmp_path / "part")].modules] == [2, 1]
