"""Problems in JSON Lines files: read row by row, each bad row named with its remedy."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from stepgrpo_lab.method.records import Problem, to_json

Row = Mapping[str, Any]

QUESTION_FIELDS = ("prompt", "problem", "question")
"""The names under which a JSON Lines file may give the question; a row has exactly one of them."""


def iterate_problems(path: str | Path) -> Iterator[Problem]:
    """The problems of a JSON Lines file, one after the other: what is not kept takes no memory but its id.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A row is bad; the message names file, row, field and remedy. Or there are no rows.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give the path of a .jsonl file")
    row_of_id: dict[str, int] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):  # in bytes, a line ends at \n alone: strings may hold U+2028
            try:
                text = _decoded(line, number)
                if not text.strip():
                    continue
                problem = _parse_line(text, f"{path.stem}-{number}")
                first = row_of_id.setdefault(problem.id, number)
                if first != number:
                    raise ValueError(f"field 'id' is {problem.id!r}, as in row {first}; make it unique")
            except ValueError as error:
                raise ValueError(f"{path}, row {number}: {error}") from error
            yield problem
    if not row_of_id:
        raise ValueError(f"{path}: holds no problems; write one JSON object a line")


def write_problems(path: str | Path, problems: Iterable[Problem]) -> None:
    """Write problems as JSON Lines that :func:`stepgrpo_lab.load_problems` reads back unchanged."""
    with Path(path).open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(to_json(problem), ensure_ascii=False) + "\n" for problem in problems)


def _decoded(line: bytes, number: int) -> str:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text ({error.reason}); save the file as UTF-8") from error


def _parse_line(line: str, default_id: str) -> Problem:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON ({error.msg}, column {error.colno}); write one object a line") from error
    except RecursionError as error:
        raise ValueError("its JSON is nested too deeply; write {...} with the problem's fields") from error
    if not isinstance(row, dict):
        raise ValueError(f"a {type(row).__name__}, not an object; write {{...}} with the problem's fields")
    questions = [name for name in QUESTION_FIELDS if name in row]
    if len(questions) != 1:
        found = " and ".join(questions) or "none"
        raise ValueError(f"needs exactly one of the fields {', '.join(QUESTION_FIELDS)}, but has {found}")
    return Problem(
        id=text_field(row, "id") if "id" in row else default_id,
        prompt=text_field(row, questions[0]),
        answer=text_field(row, "answer"),
        family=optional_field(row, "family", str, ""),
        level=optional_field(row, "level", int, None),
        meta=optional_field(row, "meta", dict, {}),
    )


def text_field(row: Row, field: str) -> str:
    """A field that must hold text; an integer is written out, a float is not (0.1 and 0.10 would be the same)."""
    if field not in row:
        raise ValueError(f"field {field!r} is missing; add it")
    value = row[field]
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError(f"field {field!r} is a {type(value).__name__}, not text; put it in quotes")
    if not value.strip():
        raise ValueError(f"field {field!r} is empty; fill it in or delete the row")
    if any("\ud800" <= sign <= "\udfff" for sign in value):
        raise ValueError(f"field {field!r} holds half a surrogate pair, which no tokenizer can read; write it as UTF-8")
    return value


def optional_field(row: Row, field: str, kind: type, default: Any) -> Any:
    """A field that may be missing or null, but must be of its kind otherwise."""
    value = row.get(field)
    if value is None:
        return default
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"field {field!r} is a {type(value).__name__}; make it a {kind.__name__} or leave it out")
    return value
