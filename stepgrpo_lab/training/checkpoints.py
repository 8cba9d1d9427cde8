"""Checkpoints of a run: which one is whole, and so can be resumed from.

A process can be killed, a machine can lose power and a disk can fill up while a checkpoint is written. So before one is
loaded, its files are checked as far as their formats tell their own length, without reading what they hold.
"""

from __future__ import annotations

import json
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

TRAINER_STATE = "trainer_state.json"
"""Written last of all: a checkpoint without it was cut off."""

PICKLED_ARGUMENTS = "training_args.bin"
"""A pickle that transformers writes beside the weights and that nobody reads."""


def last_checkpoint(folder: Path, tell: Callable[[str], None] = lambda line: None) -> Path | None:
    """The newest whole checkpoint of a folder; newer ones that are not whole are told of and removed.

    Args:
        folder: Holds folders ``checkpoint-<step>``.
        tell: Receives a line for each checkpoint that is damaged (not for one that a kill cut off before its end).
    """
    found = [path for path in folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]
    for path in sorted(found, key=lambda path: int(path.name.rpartition("-")[2]), reverse=True):
        damage = checkpoint_damage(path)
        if damage is None:
            return path
        if (path / TRAINER_STATE).exists():
            tell(f"{path.name} is passed over: {damage}")
        _remove(path)
    return None


def checkpoint_damage(checkpoint: Path) -> str | None:
    """What a checkpoint lacks to be resumed from, in words; None if it is whole.

    Example:
        >>> checkpoint_damage(Path("no/such/checkpoint-4"))
        'trainer_state.json is missing'
    """
    weights = sorted(checkpoint.glob("*.safetensors"))
    generators = sorted(checkpoint.glob("rng_state*.pth"))
    states = [checkpoint / "scheduler.pt", *(generators or [checkpoint / "rng_state.pth"])]
    if not any(path.is_dir() for path in checkpoint.glob("*")):  # DeepSpeed and FSDP have folders of their own for it
        states.append(checkpoint / "optimizer.pt")
    for path in (checkpoint / TRAINER_STATE, *(weights or [checkpoint / "model.safetensors"]), *states):
        if not path.is_file():
            return f"{path.name} is missing"
    if not _is_state(checkpoint / TRAINER_STATE):
        return f"{TRAINER_STATE} is cut off"
    cut_off = [path for path in weights if not _is_whole_safetensors(path)]
    cut_off += [path for path in states if not zipfile.is_zipfile(path)]  # a zip file's directory is its end
    return f"{cut_off[0].name} is cut off" if cut_off else None


def _is_state(path: Path) -> bool:
    try:
        return "global_step" in json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, TypeError):
        return False


def _is_whole_safetensors(path: Path) -> bool:
    """Whether a file is as long as its header says: eight bytes of length, the header, the tensors."""
    try:
        with path.open("rb") as file:
            [length] = struct.unpack("<Q", file.read(8))
            if length > path.stat().st_size:
                return False
            header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        return path.stat().st_size == 8 + length + max(ends, default=0)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return False


def _remove(path: Path) -> None:
    if path.is_symlink():  # never what lies elsewhere
        path.unlink()
    else:
        shutil.rmtree(path)
