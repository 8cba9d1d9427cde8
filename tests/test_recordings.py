"""Recorded groups: exit rules tried afterwards, files that keep every decision, and the package's own set."""

from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from test_replay import DECLINED_THEN_ACCEPTED, DECLINED_TWICE, LIMIT, OFFICIAL
from test_rollout import TEXT
from tiny import save_tiny, tiny_model, tiny_tokenizer

from stepgrpo_lab.cli import main
from stepgrpo_lab.engines.completions import Decoding
from stepgrpo_lab.engines.lockstep import LockstepEngine
from stepgrpo_lab.engines.paths import data_path
from stepgrpo_lab.engines.tokenizers import encode_prompt
from stepgrpo_lab.evaluation.grading import Grader
from stepgrpo_lab.method.confidence import ExitRule, rules_at
from stepgrpo_lab.method.records import Probe, Problem, Trajectory
from stepgrpo_lab.method.rollout import rollout_settings
from stepgrpo_lab.method.sampling import SampleKey
from stepgrpo_lab.overthinker import load_overthinker
from stepgrpo_lab.overthinker.tasks import overthinker_problems
from stepgrpo_lab.recordings import RecordedGroup, load_recordings, load_survey, making, write_recordings
from stepgrpo_lab.recordings.making import record_group, record_groups, record_survey, record_trajectories, watching
from stepgrpo_lab.recordings.schema import exit_point

PROBLEM = Problem("seven", "3+4?", "7")
RECORDED = load_recordings()


def probe(position: int, marker: str, probabilities: list[float], *, closed: bool = True) -> Probe:
    return Probe(position, 1, marker, [0] * len(probabilities), probabilities, "", "7", closed, 0.0, 0.0, False)


PROBES = [
    probe(10, "Wait", [0.99, 0.6]),  # geometric 0.771, arithmetic 0.795, minimum 0.6, joint 0.594
    probe(20, "Alternatively", [0.9, 0.9]),  # 0.9 by every mean, joint 0.81
    probe(30, "Wait", [0.99, 0.99], closed=False),
    probe(40, "Wait", [0.96, 0.96]),
]


@pytest.mark.parametrize(
    ("rule", "stops"),
    [
        (ExitRule(0.78, "geometric"), 1),
        (ExitRule(0.78, "arithmetic"), 0),
        (ExitRule(0.89, "minimum"), 1),
        (ExitRule(0.89, "joint"), 3),
        (ExitRule(0.9, "minimum"), 3),  # strictly greater: 0.9 does not exit at 0.9
        (ExitRule(0.89, "minimum", "official"), 3),  # no probe at "Alternatively", and an unfinished one scores 0
        (ExitRule(0.97), None),
        (ExitRule(0.5, "geometric", skip_first=1), 0),
    ],
)
def test_the_first_score_above_the_threshold_stops(rule: ExitRule, stops: int | None) -> None:
    assert rule.first_exit(PROBES) == stops


def test_an_exit_point_counts_tokens_and_truth() -> None:
    whole = {"tokens": 60, "closing_tokens": 8, "answer": "9", "right": False}
    stopped = exit_point(ExitRule(0.85), PROBES, [False, True, True, True], **whole)
    assert (stopped.probe, stopped.tokens, stopped.saved, stopped.right) == (1, 28, 32, True)
    never = exit_point(ExitRule(1.0), PROBES, [True] * 4, **whole)
    assert (never.probe, never.tokens, never.saved, never.answer, never.right) == (None, 60, 0, "9", False)
    assert [rule.confidence_rule for rule in rules_at(0.9)] == ["geometric", "arithmetic", "minimum", "joint"]


def test_bad_rules_are_named() -> None:
    with pytest.raises(ValueError, match=r"threshold is 1\.5"):
        ExitRule(1.5)
    with pytest.raises(ValueError, match="unknown confidence rule 'mean'"):
        ExitRule(0.5, "mean")
    with pytest.raises(ValueError, match="unknown marker set 'none'"):
        ExitRule(0.5, markers="none")
    with pytest.raises(ValueError, match="4 probes but 1 verdicts"):
        exit_point(ExitRule(), PROBES, [True], tokens=60, closing_tokens=8, answer=None, right=False)


@pytest.fixture
def grader() -> Grader:
    with Grader() as grader:
        yield grader


def recorded(grader: Grader, *trajectories: Trajectory) -> RecordedGroup:
    return record_group(
        trajectories, PROBLEM, TEXT, model="toy", rollout="official", settings=OFFICIAL, limit=LIMIT, grader=grader
    )


def test_a_group_of_one_s_own(grader: Grader) -> None:
    group = recorded(grader, DECLINED_TWICE)
    assert group.watched
    [member] = group.members
    assert member.outcome.correct
    assert member.trials_right == [True, True]
    assert member.labels is None  # nobody can label this family
    steps = group.steps(0, "official")
    assert [(step.token_start, step.token_end) for step in steps] == [(0, 1), (1, 4), (4, 8)]
    point = group.exit_point(0, ExitRule(0.5, skip_first=1))
    assert (point.probe, point.tokens) == (0, 1 + DECLINED_TWICE.tokens - 8)
    assert [frame.event for frame in group.frames(0)].count("declined") == 2


def test_exit_rules_are_refused_where_probes_were_acted_upon(grader: Grader) -> None:
    group = recorded(grader, DECLINED_THEN_ACCEPTED)
    assert not group.watched
    with pytest.raises(ValueError, match="only watched"):
        group.exit_point(0, ExitRule())


def test_a_file_keeps_every_decision(grader: Grader, tmp_path: Path) -> None:
    groups = [recorded(grader, DECLINED_THEN_ACCEPTED, DECLINED_TWICE)]
    path = write_recordings(groups, tmp_path / "new" / "toy.jsonl.gz")
    [again] = load_recordings(path)
    rounded = [dataclasses.replace(member.trajectory, probes=[]) for member in again.members]
    assert rounded == [dataclasses.replace(member.trajectory, probes=[]) for member in groups[0].members]
    assert [member.outcome for member in again.members] == [member.outcome for member in groups[0].members]
    assert (again.problem, again.settings, again.limit) == (PROBLEM, OFFICIAL, LIMIT)
    found = [probe for member in again.members for probe in member.trajectory.probes]
    assert [probe.confidence for probe in found] == pytest.approx(
        [probe.confidence for member in groups[0].members for probe in member.trajectory.probes], abs=1e-6
    )
    assert again.frames(0) == groups[0].frames(0)
    assert again.pieces([1, 2]) == ["b ", "Wait"]
    assert write_recordings([again], tmp_path / "again.gz").read_bytes() == path.read_bytes()


def test_broken_files_are_named(tmp_path: Path) -> None:
    for content in (b"no gzip", gzip.compress(b""), gzip.compress(b'{"format": 99}\n'), gzip.compress(b"[]\n")):
        path = tmp_path / "broken.gz"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"broken\.gz.*stepgrpo record"):
            load_recordings(path)
    with pytest.raises(ValueError, match="no groups to write"):
        write_recordings([], tmp_path / "none.gz")


def test_a_watched_completion_is_the_one_without_probes(grader: Grader) -> None:
    problems = overthinker_problems("test", 2)
    settings = watching(rollout_settings("official", markers=list("abcdefghij0123456789")))
    options = {"name": "tiny", "grader": grader, "group_size": 2, "limit": 32}
    made = record_groups(tiny_model(), tiny_tokenizer(), problems, rollout="a", settings=settings, **options)
    plain = record_groups(tiny_model(), tiny_tokenizer(), problems[::-1], rollout="b", settings=None, **options)
    assert sum(len(member.trajectory.probes) for group in made for member in group.members) > 0
    for group, same in zip(made, plain[::-1], strict=True):
        for one, other in zip(group.members, same.members, strict=True):
            assert one.trajectory.completion_ids == other.trajectory.completion_ids
            assert one.policy_logprobs == pytest.approx(one.trajectory.logprobs, abs=1e-4)


def test_the_command_writes_models_by_kinds_of_rollout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "CANDIDATES", 2)
    folder = save_tiny(tmp_path / "tiny")
    output = tmp_path / "out.jsonl.gz"
    assert main(["record", str(folder), "--untrained", str(folder), "--output", str(output)]) == 0
    assert "written" in capsys.readouterr().out
    groups = load_recordings(output)
    assert {(group.model, group.rollout) for group in groups} == {
        (model, rollout) for model in ("untrained", "trained") for rollout in ("plain", "official", "paper")
    }
    assert {len(group.members) for group in groups} == {8}


def test_recording_twice_gives_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "CANDIDATES", 4)
    folder = save_tiny(tmp_path / "tiny")
    options = {"per_family": 1, "group_size": 2, "limit": 24}
    files = [record_trajectories({"tiny": folder}, tmp_path / name, **options) for name in ("one.gz", "two.gz")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("place", range(4))
def test_an_exit_rule_on_a_plain_group_gives_the_truncated_one(place: int) -> None:
    """The same seeds: with the rule of that rollout, steps and closes are those that were recorded there."""
    plain, truncated = RECORDED[place], RECORDED[place + 4]
    assert plain.problem == truncated.problem and truncated.rollout == "official"
    found = plain.outcomes(ExitRule(0.95), [member.trajectory.probed for member in truncated.members])
    recorded = truncated.outcomes()
    assert [(one.steps, one.close) for one in found] == [(one.steps, one.close) for one in recorded]
    assert [one.formatted for one in found] == [one.formatted for one in recorded]
    assert plain.outcomes() == [member.outcome for member in plain.members]
    assert plain.outcomes(ExitRule(1.0)) == plain.outcomes()
    with pytest.raises(ValueError, match="probed has 1 entries but the group 8 members"):
        plain.outcomes(ExitRule(), [True])


@pytest.mark.parametrize("groups", [RECORDED, load_survey()], ids=["recordings", "survey"])
def test_the_exit_rule_finds_every_recorded_score_and_verdict_again(groups: list[RecordedGroup]) -> None:
    for group in groups:
        assert group.settings is not None
        rule = group.settings.exit_rule(group.limit)
        for member in group.members:
            probes = member.trajectory.probes
            assert [rule.score(probe) for probe in probes] == pytest.approx([p.confidence for p in probes], abs=1e-5)
            assert [rule.verdict(probe) is not None for probe in probes] == [p.accepted for p in probes]
            assert rule.asked(probes) == list(range(len(probes)))


@pytest.mark.parametrize("preset", ["official", "paper"])
@pytest.mark.parametrize(
    "overrides",
    [
        {"exit_threshold": 0.9},
        {"exit_threshold": 0.7, "confidence_rule": "joint"},
        {"skip_first": 0},
        {"skip_first": 2, "confidence_rule": "minimum"},
        {"exit_threshold": 0.999, "max_probes": 2},
        {"exit_threshold": 1.0, "near_budget_margin": 0.6},
    ],
    ids=str,
)
def test_a_replay_stops_where_the_machine_stops(preset: str, overrides: dict[str, Any]) -> None:
    settings = rollout_settings(preset, markers="paper", **overrides)
    model, tokenizer = load_overthinker()
    problems = overthinker_problems("test", 8)
    prompts = [encode_prompt(tokenizer, problem.prompt) for problem in problems]
    keys = [SampleKey(0, "replay", 0, sample) for sample in range(len(problems))]
    engine = LockstepEngine(model, tokenizer)
    watched, _ = engine.generate(prompts, Decoding(256, making.watching(settings)), keys=keys)
    stopped, _ = engine.generate(prompts, Decoding(256, settings), keys=keys)
    rule = settings.exit_rule(256)
    for free, real in zip(watched, stopped, strict=True):
        accepted = [index for index, probe in enumerate(real.probes) if probe.accepted]
        assert rule.first_exit(free.probes) == (accepted[0] if accepted else None)
        assert len(rule.asked(free.probes)) == len(real.probes)
    assert any(trajectory.close in ("early", "near_budget") for trajectory in stopped) or settings.max_probes == 2


def test_a_recording_of_0_1_is_completed_from_its_tokens(tmp_path: Path) -> None:
    head, *rows = gzip.decompress(data_path("trajectories", "overthinker.jsonl.gz").read_bytes()).splitlines()
    old = [json.loads(row) for row in rows[:2]]
    for member in (member for row in old for member in row["members"]):
        for probe in member["trajectory"]["probes"]:
            probe.pop("opening", None)
    path = tmp_path / "old.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n".join([head, *(json.dumps(row).encode() for row in old)])))
    assert [group.members for group in load_recordings(path)] == [group.members for group in RECORDED[:2]]


@pytest.mark.parametrize("group", RECORDED, ids=lambda group: group.title)
def test_every_shipped_trajectory_replays(group: RecordedGroup) -> None:
    for index, member in enumerate(group.members):
        assert len(group.frames(index)) > member.trajectory.tokens - 1
        assert member.labels is not None
        assert len(member.labels) == len(group.steps(index))
        assert len(member.policy_logprobs or []) == member.trajectory.tokens


def test_a_group_is_printed_in_a_few_lines_and_named_in_words() -> None:
    for record in (RECORDED[0], RECORDED[0].members[0], RECORDED[0].members[0].trajectory):
        assert type(record).__name__ in repr(record) and len(repr(record)) < 1500
    for group in RECORDED:
        assert group.problem.id not in group.title and group.problem.prompt[:12] in group.title


def test_the_shipped_set_is_what_the_widgets_need() -> None:
    assert sum(path.stat().st_size for path in Path("data/trajectories").glob("*")) < 500_000
    for model in ("untrained", "trained"):
        groups = [group for group in RECORDED if group.model == model]
        assert {group.rollout for group in groups} == {"plain", "official", "paper"}
        assert all(group.watched for group in groups if group.rollout == "plain" and group.model == "untrained")
    closes = {member.trajectory.close for group in RECORDED for member in group.members}
    assert {"natural", "early"} <= closes


def test_the_shipped_survey_is_counted_on_the_same_problems_before_and_after_training() -> None:
    survey = {model: [group for group in load_survey() if group.model == model] for model in ("untrained", "trained")}
    untrained, trained = survey["untrained"], survey["trained"]
    assert [group.problem for group in untrained] == [group.problem for group in trained]
    assert len(untrained) == 400
    for group in untrained + trained:
        [member] = group.members
        assert not any(probe.accepted for probe in member.trajectory.probes) and member.labels is not None
        assert len(member.trials_right) == len(member.trajectory.probes)
    tokens = {model: sum(group.members[0].trajectory.tokens for group in groups) for model, groups in survey.items()}
    assert tokens["trained"] < 0.5 * tokens["untrained"]


def test_a_survey_of_one_model_can_be_recorded(tmp_path: Path) -> None:
    found: list[str] = []
    path = record_survey({"own": "overthinker"}, tmp_path / "survey.jsonl.gz", problems=2, progress=found.append)
    recorded = load_recordings(path)
    shipped = [group for group in load_survey() if group.model == "untrained"][:2]
    assert [group.members[0].trajectory.text for group in recorded] == [g.members[0].trajectory.text for g in shipped]
    assert found == ["own: 2 completions"]
