"""Models of true sizes with random weights, and a tokenizer of their vocabulary, made without a network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict
from transformers import Qwen3ForCausalLM

from stepgrpo_lab.engines.paths import data_path
from stepgrpo_lab.planning.sizes import ModelDimensions
from tools.counting import qwen3_config

DEVIATION = 0.02
"""Of the random weights, as models are initialised: all tokens stay about equally likely, and completions go on."""


def write_random_model(folder: Path, dimensions: ModelDimensions, device: str = "cpu") -> Path:
    """Write a Qwen3 in bf16 with these dimensions, and a tokenizer that knows every id of it.

    The weights are drawn tensor by tensor, so that the host needs no more memory than the written model.
    """
    folder.mkdir(parents=True)
    write_wide_tokenizer(folder, dimensions.vocabulary)
    eos = json.loads((folder / "config.json").read_text())["eos_token_id"]
    others = {"eos_token_id": eos, "dtype": "bfloat16", "architectures": ["Qwen3ForCausalLM"]}
    config = qwen3_config(dimensions, **others)
    with torch.device("meta"):
        shapes = {name: weight.shape for name, weight in Qwen3ForCausalLM(config).named_parameters()}
    generator = torch.Generator(device).manual_seed(0)
    weights = {
        name: torch.ones(shape, dtype=torch.bfloat16)
        if len(shape) == 1
        else torch.empty(shape, dtype=torch.bfloat16, device=device).normal_(0, DEVIATION, generator=generator).cpu()
        for name, shape in shapes.items()
    }
    save_torch_state_dict(weights, folder)
    config.save_pretrained(str(folder))
    return folder


def write_wide_tokenizer(folder: Path, vocabulary: int) -> None:
    """The Overthinker's tokenizer and configuration, with fillers for the ids that a larger vocabulary has beyond it.

    No text is ever encoded to a filler: no merge leads there.
    """
    source = Path(data_path("overthinker"))
    for name in ("tokenizer_config.json", "config.json", "generation_config.json", "chat_template.jinja"):
        if (source / name).is_file():
            shutil.copy(source / name, folder / name)
    tokenizer = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    known = tokenizer["model"]["vocab"]
    known |= {token["content"]: token["id"] for token in tokenizer["added_tokens"]}  # else they would move to the end
    taken = set(known.values())
    known |= {f"filler{number}": number for number in range(vocabulary) if number not in taken}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
