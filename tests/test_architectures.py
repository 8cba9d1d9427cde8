"""Every row of ``docs/architectures.md``: right or refused, and never silently wrong."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import transformers

from stepgrpo_lab.engines.completions import Decoding
from stepgrpo_lab.engines.lockstep import LockstepEngine
from stepgrpo_lab.engines.self_test import TESTED
from stepgrpo_lab.method.sampling import SampleKey
from stepgrpo_lab.method.settings import rollout_settings
from stepgrpo_lab.method.steps import MarkerSegmenter
from tools import architectures

PAGE = architectures.read_page(architectures.PAGE.read_text(encoding="utf-8"))
COMMON = (
    *("gemma2", "gemma3_text", "gemma4_text", "glm4_moe", "gpt2", "gpt_neo", "gpt_oss", "granite", "llama", "olmo2"),
    *(
        "llama4_text",
        "mistral",
        "mistral, no window",
        "phi3",
        "phi3, longrope",
        "qwen2",
        "qwen3",
        "qwen3_moe",
        "smollm3",
    ),
)
"""Rows of the fast tests, beside those that are refused before any forward pass."""


def marked(name: str) -> Any:
    fast = name in COMMON or "which cannot be rewound" in PAGE[name].reason or "position_ids" in PAGE[name].reason
    return pytest.param(name, marks=() if fast else pytest.mark.slow)


of_the_page = pytest.mark.skipif(
    transformers.__version__.split(".")[:2] != ["5", "23"], reason="the page is of transformers 5.23"
)


@of_the_page
@pytest.mark.parametrize("name", list(map(marked, PAGE)))
def test_a_row_is_as_the_page_says(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = architectures.outcome(name)
    said = PAGE[name].reason.partition(" (")[0]  # errors of transformers and torch may be worded in another way
    assert found.result == PAGE[name].result and found.reason.startswith(said)


class OtherSegmenter:
    """Markers in disguise: nobody knows beforehand where a step may begin."""

    def __init__(self) -> None:
        self.markers = MarkerSegmenter(["Wait"])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.markers, name)


@pytest.mark.parametrize("name", ["qwen3_5_text", "qwen3_next", "lfm2", "gemma2"])
@pytest.mark.parametrize("segmenter", [None, OtherSegmenter()])
def test_rows_that_come_and_go_leave_no_trace(name: str, segmenter: Any) -> None:
    model, limits = architectures.tiny_model(name), [5, 16, 9, 12, 3]
    prompts = [list(range(5, 5 + size)) for size in (1, 7, 2, 12, 7)]
    keys = [SampleKey(0, "test", 0, sample) for sample in range(len(prompts))]
    settings = rollout_settings("official", exit_threshold=0.9, near_budget_margin=2, markers=["Wait"])

    def completions(max_rows: int, probed: bool = True) -> list[list[int]]:
        engine = LockstepEngine(model, architectures.TEXT, max_rows=max_rows)
        decoding = Decoding(16, settings, segmenter=segmenter)
        found, _ = engine.generate(prompts, decoding, keys=keys, limits=limits, probed=[probed] * len(prompts))
        assert any(record.probes for record in found) == probed
        return [record.completion_ids for record in found]

    alone = completions(1)
    assert completions(2) == alone and completions(64) == alone


@of_the_page
def test_every_row_of_the_page_can_be_made() -> None:
    assert set(PAGE) <= {*architectures.rows()}


def test_the_engine_knows_what_the_page_calls_right() -> None:
    assert {found.result for found in PAGE.values()} == {"right", "refused"}
    kinds = [{PAGE[name].result for name in PAGE if name.split(",")[0] == kind} for kind in TESTED]
    assert TESTED and all(found == {"right"} for found in kinds)
