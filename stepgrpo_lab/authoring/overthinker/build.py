"""Builds the Overthinker: ``stepgrpo overthinker build``.

Stage one teaches a fresh model generated traces that overthink; stage two calibrates it on its own rollouts; then it is
measured, and the figures become its model card.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from stepgrpo_lab.authoring.overthinker.card import measure_overthinker, write_card
from stepgrpo_lab.authoring.overthinker.stages import (
    BuildSettings,
    Progress,
    calibrate,
    new_model,
    new_tokenizer,
    train_on_traces,
)
from stepgrpo_lab.engines.files import read_json

WORK_FOLDER = "build"
"""Sub-folder of the output that holds resumable checkpoints; removed at the end."""


def build_overthinker(
    output: str | Path,
    settings: BuildSettings | None = None,
    *,
    card_problems: int = 1000,
    progress: Progress | None = None,
) -> Path:
    """Train, calibrate and measure an Overthinker; called again after an interruption, it goes on where it stopped.

    Args:
        output: Folder that receives weights (safetensors), tokenizer, ``card.json`` and the model card ``README.md``.
        settings: Size, lengths and seed; the defaults build the shipped model.
        card_problems: Held-out problems that the card's figures are measured on.
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
    tokenizer = new_tokenizer(settings.seed)
    model = new_model(settings, tokenizer)
    train_on_traces(model, tokenizer, settings, work / "traces", progress)
    calibrate(model, tokenizer, settings, work, progress)
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    figures = measure_overthinker(model, tokenizer, card_problems, progress=progress)
    write_card(output, settings, figures)
    shutil.rmtree(work)
    return output


def _claim(work: Path, settings: BuildSettings) -> None:
    """Remember the settings beside the checkpoints, so that a resumed build cannot mix two of them."""
    record, ours = work / "settings.json", settings.to_json()
    if record.exists() and read_json(record, lambda kept: kept, "remove that folder") != ours:
        raise ValueError(f"{work} holds checkpoints of another build: remove that folder or choose another output")
    record.write_text(json.dumps(ours, indent=1))
