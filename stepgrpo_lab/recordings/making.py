"""Record groups of trajectories: the package's own, a survey to be counted rather than looked at, or any model's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from stepgrpo_lab.engines.completions import Decoding, RolloutEngine
from stepgrpo_lab.engines.models import load_model
from stepgrpo_lab.engines.tokenizers import encode_prompt
from stepgrpo_lab.evaluation.evaluating import EVALUATION_SAMPLING, outcomes
from stepgrpo_lab.evaluation.grading import Grader
from stepgrpo_lab.method.records import Problem, StepLabel, Trajectory
from stepgrpo_lab.method.sampling import SampleKey, Sampling
from stepgrpo_lab.method.settings import RolloutSettings, probed_members, rollout_settings
from stepgrpo_lab.method.token_text import TokenText
from stepgrpo_lab.overthinker import label_steps, overthinker_problems
from stepgrpo_lab.recordings._files import DIGITS, write_recordings
from stepgrpo_lab.recordings.schema import RecordedGroup, RecordedMember

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CANDIDATES = 48
"""Test problems among which the recorded ones are chosen."""


OpenEngine = Callable[["str | Path"], AbstractContextManager["RolloutEngine | None"]]
"""Opens an engine for the model at some path; None lets the model sample for itself."""


def _own_engine(path: str | Path) -> AbstractContextManager[RolloutEngine | None]:
    return nullcontext()


def watching(settings: RolloutSettings) -> RolloutSettings:
    """The same probes, but none ever ends the thoughts: the completion is token for token the one without probes.

    Example:
        >>> watching(rollout_settings("official")).exit_threshold
        1.0
    """
    return dataclasses.replace(
        settings,
        exit_threshold=1.0,
        max_probes=10_000,
        think_budget=1.0,
        near_budget_margin=0,
        probe_rate=1.0,
        stop_decided=False,
    )


def record_groups(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    *,
    name: str,
    rollout: str,
    settings: RolloutSettings | None,
    grader: Grader,
    group_size: int = 8,
    limit: int = 256,
    seed: int = 0,
    sampling: Sampling | None = None,
    keep_logprobs: bool = True,
    engine: RolloutEngine | None = None,
) -> list[RecordedGroup]:
    """Sample and grade one group for each problem.

    Args:
        model, tokenizer: The policy.
        problems: The problems; steps are labelled where their family has a verifier.
        name, rollout: How the policy and the rollout are called in menus.
        settings: The rollout; None decodes plainly, without probes.
        grader: Judges final and trial answers.
        group_size: Completions of each problem; ``settings.probe_rate`` of them are probed.
        limit: Completion limit in tokens.
        seed: Seed of the completions; the same for every rollout, so that groups can be compared token by token.
        sampling: How tokens are drawn; by default as in training, at temperature 1.
        keep_logprobs: Also record every token's log-probability under the policy.
        engine: Samples with the same weights in place of the model.
    """
    from stepgrpo_lab.engines.lockstep import LockstepEngine

    engine = engine or LockstepEngine(model, tokenizer)
    members = probed_members(group_size, settings.probe_rate) if settings else [False] * group_size
    trajectories, _ = engine.generate(
        [encode_prompt(tokenizer, problem.prompt) for problem in problems for _ in range(group_size)],
        Decoding(limit, settings, sampling or Sampling()),
        keys=[
            SampleKey(seed, f"recording of {problem.id}", 0, member)
            for problem in problems
            for member in range(group_size)
        ],
        probed=members * len(problems),
    )
    logprobs = [_policy_logprobs(model, trajectory) for trajectory in trajectories] if keep_logprobs else None
    groups = []
    for index, problem in enumerate(problems):
        rows = slice(index * group_size, (index + 1) * group_size)
        groups.append(
            record_group(
                trajectories[rows],
                problem,
                engine.token_text,
                model=name,
                rollout=rollout,
                settings=settings,
                limit=limit,
                grader=grader,
                policy_logprobs=logprobs[rows] if logprobs else None,
            )
        )
    return groups


def record_group(
    trajectories: Sequence[Trajectory],
    problem: Problem,
    token_text: TokenText,
    *,
    model: str,
    rollout: str,
    settings: RolloutSettings | None,
    limit: int,
    grader: Grader,
    policy_logprobs: Sequence[list[float]] | None = None,
) -> RecordedGroup:
    """Make a group of trajectories that were sampled already, with any engine.

    Args:
        trajectories: The completions of one prompt.
        problem: Its problem.
        token_text: Text of the tokens.
        model, rollout: How the policy and the rollout are called in menus.
        settings, limit: As the engine had them.
        grader: Judges final and trial answers.
        policy_logprobs: Log-probability of every token under the policy, if known.
    """
    graded = outcomes(trajectories, [problem.answer] * len(trajectories), grader)
    members = []
    for place, (trajectory, outcome) in enumerate(zip(trajectories, graded, strict=True)):
        trials = [probe.answer for probe in trajectory.probes]
        members.append(
            RecordedMember(
                trajectory=trajectory,
                outcome=outcome,
                trials_right=grader.grade(trials, [problem.answer] * len(trials)),
                labels=_labels(problem, trajectory.text),
                policy_logprobs=policy_logprobs[place] if policy_logprobs else None,
            )
        )
    return RecordedGroup(model, rollout, problem, members, settings, limit, token_text)


def record_trajectories(
    models: Mapping[str, str | Path],
    output: str | Path,
    *,
    settings: RolloutSettings | None = None,
    per_family: int = 2,
    group_size: int = 8,
    limit: int = 256,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
    opened: OpenEngine | None = None,
    laboratory: str = "overthinker",
) -> Path:
    """Write the package's recorded trajectories: for each model and problem a watched and two truncated groups.

    The problems are chosen on the first model's groups, to be looked at and not to be counted: of each family one whose
    group has right and wrong members, if there is any, and then those with the most different numbers of steps.

    Args:
        models: Name -> path of a model, the first being the untrained one.
        output: File to write, ``.jsonl.gz``.
        settings: The truncated rollout of training (preset ``official``); the ``paper`` groups take over its exit
            threshold and rate.
        per_family: Problems of each family.
        group_size, limit, seed: As in :func:`record_groups`.
        progress: Receives one line about each set of groups.
        opened: The engine of each model; by default a lockstep engine.
        laboratory: Whose test problems are recorded.
    """
    official = settings or rollout_settings("official", markers="paper")
    shared = {name: getattr(official, name) for name in ("exit_threshold", "probe_rate", "near_budget_margin")}
    kinds = {
        "plain": watching(official),
        "official": official,
        "paper": rollout_settings("paper", **shared),
    }
    problems: list[Problem] = []
    groups: list[RecordedGroup] = []
    with Grader() as grader:
        for name, path in models.items():
            model, tokenizer = load_model(path, device="cpu")
            with (opened or _own_engine)(path) as engine:
                for rollout, chosen_settings in kinds.items():
                    made = record_groups(
                        model,
                        tokenizer,
                        problems or overthinker_problems("test", CANDIDATES, laboratory=laboratory),
                        name=name,
                        rollout=rollout,
                        settings=chosen_settings,
                        grader=grader,
                        group_size=group_size,
                        limit=limit,
                        seed=seed,
                        engine=engine,
                    )
                    if not problems:
                        made = _informative(made, per_family)
                        problems = [group.problem for group in made]
                    groups += made
                    if progress:
                        progress(f"{name}, {rollout}: {len(made)} groups of {group_size}")
    return write_recordings(groups, output)


def record_survey(
    models: Mapping[str, str | Path],
    output: str | Path,
    *,
    problems: int = 400,
    settings: RolloutSettings | None = None,
    limit: int = 256,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
    opened: OpenEngine | None = None,
    laboratory: str = "overthinker",
) -> Path:
    """Write one completion of each problem for each model, sampled as in evaluation.

    At every marker a probe is made and none ever ends the thoughts, so each completion is the one of plain decoding,
    and every exit rule can be replayed on it.

    Args:
        models: Name -> path of a model.
        output: File to write, ``.jsonl.gz``.
        problems: How many problems, the first ones of the split "test".
        settings: The probes (preset ``official``).
        limit: Completion limit in tokens.
        seed: Seed of the completions.
        progress: Receives one line about each model.
        opened, laboratory: As in :func:`record_trajectories`.
    """
    watched = watching(settings or rollout_settings("official", markers="paper"))
    groups: list[RecordedGroup] = []
    with Grader() as grader:
        for name, path in models.items():
            model, tokenizer = load_model(path, device="cpu")
            with (opened or _own_engine)(path) as engine:
                groups += record_groups(
                    model,
                    tokenizer,
                    overthinker_problems("test", problems, laboratory=laboratory),
                    name=name,
                    rollout="plain",
                    settings=watched,
                    grader=grader,
                    group_size=1,
                    limit=limit,
                    seed=seed,
                    sampling=EVALUATION_SAMPLING,
                    keep_logprobs=False,
                    engine=engine,
                )
            if progress:
                progress(f"{name}: {problems} completions")
    return write_recordings(groups, output)


def _informative(groups: Sequence[RecordedGroup], per_family: int) -> list[RecordedGroup]:
    """Of each family the groups with the most to look at."""

    def interest(group: RecordedGroup) -> tuple[bool, int]:
        right = sum(member.outcome.correct for member in group.members)
        return 0 < right < len(group.members), len({member.outcome.steps for member in group.members})

    chosen: list[RecordedGroup] = []
    for family in dict.fromkeys(group.problem.family for group in groups):
        ranked = sorted((group for group in groups if group.problem.family == family), key=interest, reverse=True)
        mixed, rest = ranked[:1], sorted(ranked[1:], key=lambda group: interest(group)[1], reverse=True)
        chosen += [*mixed, *rest[: per_family - 1]]
    return chosen


def _labels(problem: Problem, text: str) -> list[StepLabel] | None:
    try:
        return label_steps(problem, text)
    except ValueError:  # a family without a verifier
        return None


def _policy_logprobs(model: PreTrainedModel, trajectory: Trajectory) -> list[float]:
    """Log-probability of every completion token, forced ones too, in one pass at temperature 1."""
    import torch

    ids = torch.tensor([[*trajectory.prompt_ids, *trajectory.completion_ids]], device=model.device)
    with torch.no_grad():
        logits = model(ids).logits[0, len(trajectory.prompt_ids) - 1 : -1].double()
    chosen = ids[0, len(trajectory.prompt_ids) :, None]
    picked = logits.log_softmax(-1).gather(-1, chosen)[:, 0]
    return [round(value, DIGITS) for value in picked.tolist()]
