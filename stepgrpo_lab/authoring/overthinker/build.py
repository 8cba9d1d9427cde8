"""Builds an Overthinker: ``stepgrpo overthinker build``.

Stage one teaches a fresh model generated traces that overthink; stage two calibrates it on its own rollouts; then it is
measured, and the figures become its model card. The settings say which of the two laboratories is built.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from stepgrpo_lab.authoring.overthinker import leaping, stages
from stepgrpo_lab.authoring.overthinker.card import measure_overthinker, write_card
from stepgrpo_lab.authoring.overthinker.leap_card import leap_figures, write_leap_card
from stepgrpo_lab.authoring.overthinker.leaping import LeapSettings
from stepgrpo_lab.authoring.overthinker.stages import BuildSettings, ModelSettings, Progress, new_model
from stepgrpo_lab.authoring.overthinker.warming import WarmUpSettings, measure_warm_up, warm_up, write_warm_up_card
from stepgrpo_lab.engines.files import read_json

BUILDS: dict[str, type[ModelSettings]] = {
    "overthinker": BuildSettings,
    "overthinker-2": LeapSettings,
    "word-problems": WarmUpSettings,
}
"""Laboratory -> the settings that build its model."""

WORK_FOLDER = "build"
"""Sub-folder of the output that holds resumable checkpoints; removed at the end."""


def build_overthinker(
    output: str | Path,
    settings: ModelSettings | None = None,
    *,
    card_problems: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train, calibrate and measure an Overthinker; called again after an interruption, it goes on where it stopped.

    Args:
        output: Folder that receives weights (safetensors), tokenizer, ``card.json`` and the model card ``README.md``.
        settings: Size, lengths and seed; the defaults build the shipped model. ``LeapSettings`` build Overthinker 2,
            ``WarmUpSettings`` an adapter for a pretrained model.
        card_problems: Held-out problems that the card's figures are measured on; by default 1000, 2000 for
            Overthinker 2, and 200 for an adapter.
        progress: Called with (stage, done, in all, loss).

    Returns:
        The output folder.

    Raises:
        ValueError: The folder holds checkpoints of a build with other settings.

    Example:
        >>> build_overthinker("my-overthinker")  # doctest: +SKIP
    """
    output, settings = Path(output), settings or BuildSettings()
    work = output / WORK_FOLDER
    work.mkdir(parents=True, exist_ok=True)
    _claim(work, settings)
    if isinstance(settings, WarmUpSettings):
        adapted = warm_up(output, work, settings, progress)
        write_warm_up_card(output, settings, measure_warm_up(*adapted, card_problems or 200, progress=progress))
    else:
        _build_from_scratch(output, settings, card_problems, progress)
    shutil.rmtree(work)
    return output


def _build_from_scratch(
    output: Path, settings: ModelSettings, card_problems: int | None, progress: Progress | None
) -> None:
    work = output / WORK_FOLDER
    steps: Any = leaping if isinstance(settings, LeapSettings) else stages
    tokenizer = steps.new_tokenizer(settings.seed)
    model = new_model(settings, tokenizer)
    steps.train_on_traces(model, tokenizer, settings, work / "traces", progress)
    steps.calibrate(model, tokenizer, settings, work, progress)
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    if isinstance(settings, LeapSettings):
        write_leap_card(output, settings, leap_figures(model, tokenizer, card_problems or 2000, progress=progress))
    else:
        write_card(output, settings, measure_overthinker(model, tokenizer, card_problems or 1000, progress=progress))


def _claim(work: Path, settings: ModelSettings) -> None:
    """Remember the settings beside the checkpoints, so that a resumed build cannot mix two of them."""
    record, ours = work / "settings.json", settings.to_json()
    if record.exists() and read_json(record, lambda kept: kept, "remove that folder") != ours:
        raise ValueError(f"{work} holds checkpoints of another build: remove that folder or choose another output")
    record.write_text(json.dumps(ours, indent=1))
