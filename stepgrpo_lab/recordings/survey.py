"""Record a survey: one watched completion of each of many problems, to be counted rather than looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from stepgrpo_lab.engines.models import load_model
from stepgrpo_lab.evaluation.evaluating import EVALUATION_SAMPLING
from stepgrpo_lab.evaluation.grading import Grader
from stepgrpo_lab.method.presets import RolloutSettings, rollout_settings
from stepgrpo_lab.overthinker import overthinker_problems
from stepgrpo_lab.recordings.files import write_recordings
from stepgrpo_lab.recordings.making import record_groups, watching
from stepgrpo_lab.recordings.schema import RecordedGroup


def record_survey(
    models: Mapping[str, str | Path],
    output: str | Path,
    *,
    problems: int = 400,
    settings: RolloutSettings | None = None,
    limit: int = 256,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
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
    """
    watched = watching(settings or rollout_settings("official", markers="paper"))
    groups: list[RecordedGroup] = []
    with Grader() as grader:
        for name, path in models.items():
            model, tokenizer = load_model(path, device="cpu")
            groups += record_groups(
                model,
                tokenizer,
                overthinker_problems("test", problems),
                name=name,
                rollout="plain",
                settings=watched,
                grader=grader,
                group_size=1,
                limit=limit,
                seed=seed,
                sampling=EVALUATION_SAMPLING,
                keep_logprobs=False,
            )
            if progress:
                progress(f"{name}: {problems} completions")
    return write_recordings(groups, output)
