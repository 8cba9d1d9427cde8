"""Recorded groups on disk: gzipped JSON Lines, the tokens first, then one group a line."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

from stepgrpo_lab.engines.files import iterate_rows, write_atomically
from stepgrpo_lab.engines.paths import data_path
from stepgrpo_lab.method.boxes import opening_tokens
from stepgrpo_lab.method.names import shown
from stepgrpo_lab.method.records import Problem, from_json, to_json
from stepgrpo_lab.method.settings import RolloutSettings
from stepgrpo_lab.method.token_text import TokenText
from stepgrpo_lab.recordings.schema import RecordedGroup, RecordedMember

FORMAT = 1
DIGITS = 6
"""Decimals kept of probabilities and log-probabilities; the decisions taken on them are stored as they were."""


def load_recordings(path: str | Path | None = None) -> list[RecordedGroup]:
    """Read recorded groups.

    Args:
        path: A file of :func:`write_recordings`; by default the package's own, of the Overthinker before and after
            training.

    Raises:
        ValueError: The file is missing or no recording; the message names it.

    Example:
        >>> groups = load_recordings()
        >>> sorted({group.model for group in groups})
        ['trained', 'untrained']
    """
    path = data_path("trajectories", "overthinker.jsonl.gz") if path is None else Path(path)
    token_text: TokenText | None = None

    def parse(row: Any) -> RecordedGroup | None:
        nonlocal token_text
        if token_text is not None:
            return _group(row, token_text)
        token_text = _token_text(row)
        return None

    try:
        groups = list(iterate_rows(path, parse, "it is no recording; make one with `stepgrpo record`"))
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read ({error.strerror}); make a recording with `stepgrpo record`"
        ) from error
    if not any(groups):
        raise ValueError(f"{path} holds no recorded groups; make a recording with `stepgrpo record`")
    return [group for group in groups if group is not None]


def load_survey() -> list[RecordedGroup]:
    """Read the package's survey: one watched completion of each of 400 test problems, untrained and trained.

    Example:
        >>> {(group.model, len(group.members)) for group in load_survey()} == {("untrained", 1), ("trained", 1)}
        True
    """
    return load_recordings(data_path("trajectories", "survey.jsonl.gz"))


def write_recordings(groups: Sequence[RecordedGroup], path: str | Path) -> Path:
    """Write groups that share one tokenizer; the same groups give the same bytes.

    Raises:
        ValueError: There are no groups.
    """
    if not groups:
        raise ValueError("no groups to write; record at least one")
    lines = [_head(groups), *map(_row, groups)]
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=packed, mode="wb", mtime=0) as file:
        file.write(text.encode())
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, packed.getvalue())
    return path


def _head(groups: Sequence[RecordedGroup]) -> dict[str, Any]:
    """Of the tokenizer, what occurs: the bytes of each token, and the ids of the texts that were forced."""
    token_text = groups[0].token_text
    forced = {text for group in groups if group.settings for text in _forced_texts(group.settings)}
    encodings = {text: token_text.encode(text) for text in sorted(forced)}
    used = sorted({token for group in groups for token in _token_ids(group)}.union(*encodings.values()))
    return {
        "format": FORMAT,
        "tokens": {token: token_text.pieces(token).decode("utf-8", "surrogateescape") for token in used},
        "eos_ids": sorted(token_text.eos_ids),
        "close_id": token_text.close_id,
        "encodings": encodings,
    }


def _forced_texts(settings: RolloutSettings) -> list[str]:
    return [settings.probe_prompt, settings.close_text, settings.close_text[1:]]


def _token_ids(group: RecordedGroup) -> Iterable[int]:
    for member in group.members:
        trajectory = member.trajectory
        yield from (*trajectory.prompt_ids, *trajectory.completion_ids, *trajectory.dropped)
        yield from (token for probe in trajectory.probes for token in probe.token_ids)


class _Head(TypedDict):
    """The first line."""

    format: Literal[1]
    tokens: dict[str, str]
    eos_ids: list[int]
    close_id: int | None
    encodings: dict[str, list[int]]


def _token_text(data: Any) -> TokenText:
    head = from_json(_Head, data)
    table = {int(token): piece.encode("utf-8", "surrogateescape") for token, piece in head["tokens"].items()}
    encodings = head["encodings"]

    def encode(text: str) -> list[int]:
        if text not in encodings:
            raise ValueError(f"the recording has no token ids of {shown(text)}")
        return encodings[text]

    return TokenText(table, frozenset(head["eos_ids"]), head["close_id"], encode)


def _row(group: RecordedGroup) -> dict[str, Any]:
    return {
        "model": group.model,
        "rollout": group.rollout,
        "problem": to_json(group.problem),
        "settings": group.settings and dataclasses.asdict(group.settings),
        "limit": group.limit,
        "prompt_ids": group.members[0].trajectory.prompt_ids,
        "members": [_rounded(_member_row(member)) for member in group.members],
    }


def _member_row(member: RecordedMember) -> dict[str, Any]:
    row = to_json(member)
    del row["trajectory"]["prompt_ids"], row["trajectory"]["text"]
    return row


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return value


class _Trajectory(TypedDict):
    completion_ids: list[int]
    probes: list[dict[str, Any]]


class _Member(TypedDict):
    trajectory: _Trajectory


class _Row(TypedDict):
    """A group, as far as it is looked at before its members are completed."""

    model: str
    rollout: str
    problem: Problem
    settings: RolloutSettings | None
    limit: int
    prompt_ids: list[int]
    members: list[_Member]


def _group(data: Any, token_text: TokenText) -> RecordedGroup:
    row = from_json(_Row, data)
    settings = row["settings"]
    for text in _forced_texts(settings) if settings else []:
        token_text.encode(text)

    def probe(stored: dict[str, Any]) -> dict[str, Any]:
        if "opening" in stored or settings is None:
            return stored
        tokens = from_json(list[int], stored.get("token_ids"))
        pieces = [token_text.decode([token]) for token in tokens]  # a file of 0.1 does not say it
        return {**stored, "opening": opening_tokens(pieces, settings.box_opened)}

    def member(stored: _Member) -> RecordedMember:
        trajectory = {
            **stored["trajectory"],
            "prompt_ids": row["prompt_ids"],
            "text": token_text.decode(stored["trajectory"]["completion_ids"]),
            "probes": [probe(one) for one in stored["trajectory"]["probes"]],
        }
        return from_json(RecordedMember, {**stored, "trajectory": trajectory})

    if not row["members"]:
        raise ValueError("field 'members' is empty")
    return RecordedGroup(
        model=row["model"],
        rollout=row["rollout"],
        problem=row["problem"],
        members=[member(stored) for stored in row["members"]],
        settings=settings,
        limit=row["limit"],
        token_text=token_text,
    )
