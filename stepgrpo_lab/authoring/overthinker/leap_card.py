"""The card of Overthinker 2: its gates, its figures, and the fingerprint of its weights."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from stepgrpo_lab.authoring.overthinker.card import (
    RELIABILITY,
    RELIABILITY_TITLE,
    Gate,
    draw_reliability,
    labelled_examples,
    render_example,
)
from stepgrpo_lab.authoring.overthinker.gates import leap_gates, measure_gates
from stepgrpo_lab.authoring.overthinker.leaping import COMPLETION_LIMIT, LeapSettings
from stepgrpo_lab.authoring.overthinker.stages import Progress
from stepgrpo_lab.engines.paths import data_path
from stepgrpo_lab.evaluation._tables import markdown_table
from stepgrpo_lab.overthinker.tasks import overthinker_problems

WEIGHTS = "model.safetensors"

FROZEN = "9f19a65ce3367325951347dd1ddf268b20646d049dd74a4a48048df1ca8a74f8"
"""Fingerprint of the weights that every measurement in this laboratory refers to. It was written here before any
Step-GRPO run was measured: no method's result is a reason to build them anew, and neither is a gate that they miss.
"""


def fingerprint(folder: Path) -> str:
    """SHA-256 of a model folder's weights."""
    return hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()


def untrained_leaps() -> dict[str, float]:
    """Share of right equations by their width, from the card of the embedded model."""
    return json.loads(data_path("overthinker-2", "card.json").read_text(encoding="utf-8"))["figures"]["leaps"]


def leap_figures(
    model: Any, tokenizer: Any, count: int, *, seed: int = 0, progress: Progress | None = None
) -> dict[str, Any]:
    """The card's figures: the gates' measurement, and one labelled completion of each family."""
    figures = measure_gates(model, tokenizer, count, seed=seed, progress=progress)
    problems = overthinker_problems("gates", count, seed=seed, laboratory="overthinker-2")
    figures["examples"] = labelled_examples(problems, figures.pop("texts"))
    return json.loads(json.dumps(figures, default=dataclasses.asdict))


def write_leap_card(folder: Path, settings: LeapSettings, figures: dict[str, Any]) -> None:
    """Write ``card.json``, the readable card and its picture.

    The card of the *frozen* weights, and no other, says so.
    """
    weights = fingerprint(folder)
    card = {
        "weights": weights,
        "frozen": weights == FROZEN,
        "settings": settings.to_json(),
        "figures": figures,
    }
    (folder / "card.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(render_leap_card(card), encoding="utf-8")
    picture = draw_reliability(figures["reliability"]["official"], RELIABILITY_TITLE)
    (folder / RELIABILITY).write_text(picture, encoding="utf-8")


def gates_table(gates: list[Gate]) -> str:
    """The gates as a Markdown table."""
    rows = [[gate.asks, gate.measured, "passed" if gate.passed else "**failed**"] for gate in gates]
    return markdown_table(["gate", "measured", ""], rows)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _level_row(row: dict[str, Any]) -> list[str]:
    shares = [_percent(row[name]) for name in ("accuracy", "first_right", "cut_accuracy", "flips")]
    return [
        f"{row['family']} {row['level']}",
        str(row["problems"]),
        f"{row['tokens']:.0f}",
        f"{row['steps']:.1f}",
        *shares,
    ]


def _measured_row(name: str, summary: dict[str, Any]) -> list[str]:
    return [
        name,
        _percent(summary["accuracy"]["estimate"]),
        *(f"{summary[key]['estimate']:.1f}" for key in ("tokens", "steps")),
    ]


def render_leap_card(card: dict[str, Any]) -> str:
    """The model card as Markdown, from the contents of ``card.json``."""
    figures = card["figures"]
    gates = leap_gates(figures["gated"])
    missed = sum(not gate.passed for gate in gates)
    head = [
        "level",
        "problems",
        "tokens",
        "steps",
        "accuracy",
        "first derivation right",
        "cut at the first marker",
        "flips",
    ]
    measured = [("plain decoding", figures["plain"]), ("cut at the first marker", figures["cut"])]
    measured += [(f"truncated rollout, `{preset}`", summary) for preset, summary in figures["deer"].items()]
    return CARD.format(
        state=f"{len(gates) - missed} of {len(gates)} gates hold. "
        + ("These weights are frozen." if card["frozen"] else "These are not the frozen weights."),
        weights=card["weights"],
        problems=figures["problems"],
        limit=COMPLETION_LIMIT,
        gates=gates_table(gates),
        measured=markdown_table(["measured", "accuracy", "tokens", "steps"], [_measured_row(*row) for row in measured]),
        levels=markdown_table(head, [_level_row(row) for row in figures["levels"]]),
        leaps=", ".join(f"{width}: {_percent(share)}" for width, share in figures["leaps"].items()),
        examples="\n".join(map(render_example, figures["examples"])),
        reliability=RELIABILITY,
    )


CARD = """---
license: apache-2.0
---
# Overthinker 2

A `Qwen3ForCausalLM` of a million parameters, trained from scratch to solve generated problems quickly first and
carefully afterwards. {state}

Weights (SHA-256 of `model.safetensors`): `{weights}`

- **chain**: apply groups of operations to a digit, modulo 10. A *quick* derivation takes a group in one equation
  (`7+7*7=8`), a *careful* one writes every operation (`7+7=4 4*7=8`). One step is one derivation, and the natural
  answer follows the last one.
- **search**: find the candidate that gives 0. One step tries one candidate, quickly or carefully; a winner that fails
  its re-check sends the search on.

Quick derivations err where the network's depth ends, so a re-check is another method, not a second throw of the same
dice. The trial answer at a marker is taught the truth, on the model's own completions.

*Frozen* weights were declared as such before any Step-GRPO run on them was measured: whatever a method achieves, they
are not built again.

Built by `stepgrpo overthinker build --laboratory overthinker-2`, measured again by `stepgrpo overthinker gates`;
`card.json` holds the settings and every figure. Load it with `stepgrpo_lab.load_overthinker("overthinker-2")`.

## Gates

On {problems} problems of the split "gates", temperature 0.6, top-p 0.95, top-k 20, at most {limit} tokens, threshold
0.95.

{gates}

## Measured

{measured}

By family and level, plain decoding unless the column says otherwise:

{levels}

Equations that are right, by the operations they take at once: {leaps}.

## Trial answers

![Share right against stated probability]({reliability})

## Examples

{examples}

## Limits

It has seen only these two kinds of problem, in one wording. Nothing measured on it is evidence about a large model; it
shows mechanisms.
"""
