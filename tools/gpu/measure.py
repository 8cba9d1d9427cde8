"""Recipes measured on a GPU: a rollout and two updates each, with random weights of the true sizes.

    python -m tools.gpu.measure                  # all cases, one after the other
    python -m tools.gpu.measure qlora-1.7b       # one

For each case a record with peak memory by phase beside ``stepgrpo plan``, tokens per second and seconds by phase goes
to ``data/results/gpu``, and a table of all records beside them. No network is needed; the largest model takes 16 GB of
disk and of host memory. A random model does not stop by itself, so that every completion is as long as it may be, as
the plan assumes; it writes no markers either, so that nothing is probed.
"""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from stepgrpo_lab.engines.paths import data_path
from stepgrpo_lab.evaluation.grading import Grader
from stepgrpo_lab.overthinker.tasks import overthinker_problems
from stepgrpo_lab.planning import plan_memory
from stepgrpo_lab.planning._memory import GIB, find_gpu
from stepgrpo_lab.planning.sizes import QWEN3, ModelDimensions
from stepgrpo_lab.recipes import Recipe, load_recipe
from stepgrpo_lab.recipes._building import recipe_config, recipe_lora, recipe_model
from stepgrpo_lab.run.folder import system
from stepgrpo_lab.training import StepGRPOTrainer, problems_dataset
from tools.gpu.random_models import write_random_model

PROMPT_TOKENS = 64
"""No prompt of the Overthinker's problems is longer."""


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        recipe: A shipped recipe.
        gpu: The machine whose memory is allowed, and whose plan is compared; on a larger one the rest is locked away.
        overrides: Changes beyond those of size, such as what ``stepgrpo plan`` advises for that machine.
    """

    recipe: str
    gpu: str
    overrides: tuple[str, ...] = ()


HALF = ("model.dtype=float16", "optimisation.mixed_precision=fp16")  # what a T4 computes in, on any GPU
CASES = {
    "qlora-1.7b": Case("qwen3-1.7b-qlora-t4", "T4", HALF),
    "qlora-4b": Case("qwen3-4b-qlora-l4", "T4", HALF),
    "lora-8b": Case("qwen3-8b-lora-a100", "A100"),
    "full-8b": Case("qwen3-8b-full-1xh200", "H200"),
}


def case_recipe(case: Case, folder: str | Path = "unused", *extra: str) -> Recipe:
    """The case's recipe, cut to one rollout that two updates share; changed as the plan advises if it does not fit."""
    overrides = [*case.overrides, *extra, "optimisation.max_steps=2", "optimisation.save_every=2"]
    plain = load_recipe(case.recipe, overrides)
    overrides += [f"{change.key}={change.value}" for change in plan_memory(plain, gpu=case.gpu).changes]
    changed = load_recipe(case.recipe, overrides)
    prompts = max(1, changed.rollout.rows // (2 * changed.optimisation.group_size))
    overrides += [f"optimisation.prompts_per_step={prompts}", "optimisation.steps_per_rollout=2"]
    return load_recipe(case.recipe, [*overrides, f"model.path={folder}"])


class Meter(TrainerCallback):
    """The highest memory of each phase: until the rollout ends, until each gradient is there, until each step is done.

    Args:
        cuda: ``torch.cuda``, or something that answers as it does.
    """

    def __init__(self, cuda: Any) -> None:
        self.cuda = cuda
        self.peaks: dict[str, dict[str, int]] = {}

    def mark(self, phase: str) -> None:
        """A phase has ended; the next one begins."""
        self.cuda.synchronize()
        free, total = self.cuda.mem_get_info()
        now = {
            "allocated": self.cuda.max_memory_allocated(),
            "reserved": self.cuda.max_memory_reserved(),
            "device": total - free,
        }
        before = self.peaks.get(phase, {})
        self.peaks[phase] = {name: max(value, before.get(name, 0)) for name, value in now.items()}
        self.cuda.reset_peak_memory_stats()

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self.mark("update")

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.mark("step")


def by_position(correct: Any, steps: Any, formatted: Any, tokens: Any) -> list[float]:
    """A random model is never right: without this no group would have an advantage."""
    return [float(position) for position in range(len(correct))]


def measure(recipe: Recipe, meter: Meter) -> dict[str, Any]:
    """Train the recipe's two steps on its (random) model.

    Returns:
        Peaks by phase in bytes, seconds by phase, and the tokens of the rollout.
    """
    counted: list[Any] = []
    model, tokenizer = recipe_model(recipe)
    problems = overthinker_problems("train", 2 * recipe.optimisation.prompts_per_step)
    with tempfile.TemporaryDirectory() as folder, Grader() as grader:
        config = recipe_config(recipe, folder)
        config.save_strategy = "no"
        trainer = StepGRPOTrainer(
            model,
            config,
            problems_dataset(problems),
            tokenizer,
            group_reward=by_position,
            grader=grader,
            peft_config=recipe_lora(recipe.model.lora),
            callbacks=[meter],
        )
        sample = trainer.rollout_func

        def watched(prompts: Any, trainer: Any) -> Any:
            meter.cuda.reset_peak_memory_stats()
            outputs = sample(prompts, trainer)
            meter.mark("rollout")
            counted.extend(outputs["step_trajectory"])
            return outputs

        trainer.rollout_func = watched
        trainer.train()
        losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    decoded = sum(row.cost.decoded_tokens for row in counted)
    seconds = dict(trainer.seconds)
    return {
        "completions": len(counted),
        "longest": max(row.tokens for row in counted),
        "decoded_tokens": decoded,
        "tokens_per_second": {
            "rollout": decoded / seconds["rollout"],
            "update": sum(row.tokens + len(row.prompt_ids) for row in counted) / seconds["update"],
        },
        "seconds": seconds,
        "losses": losses,
        "peaks": meter.peaks,
    }


def measure_case(name: str, case: Case, output: Path, dimensions: ModelDimensions, *extra: str, cuda: Any) -> Path:
    """Make the model, measure, and write the record; running out of memory is a result too."""
    scratch = Path(tempfile.mkdtemp(prefix="stepgrpo-gpu-"))
    device = cuda.get_device_properties(0)
    allowed = min(find_gpu(case.gpu).memory, device.total_memory)
    try:
        folder = write_random_model(scratch / "model", dimensions, cuda.build_device)
        recipe = case_recipe(case, folder, *extra)
        cuda.empty_cache()
        cuda.set_per_process_memory_fraction(allowed / device.total_memory)
        plan = plan_memory(recipe, gpu=case.gpu, prompt_tokens=PROMPT_TOKENS)
        record: dict[str, Any] = {
            "case": name,
            "recipe": asdict(recipe) | {"name": case.recipe},
            "gpu": {"name": device.name, "memory": device.total_memory, "allowed": allowed},
            **system(),
            "plan": {"gpu": case.gpu, "phases": plan.phases},
        }
        record["recipe"]["model"]["path"] = "random weights"
        try:
            record |= measure(recipe, Meter(cuda))
        except torch.OutOfMemoryError as error:
            record["out_of_memory"] = str(error).splitlines()[0]
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"{name}.json"
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return path


def table(folder: Path) -> str:
    """The records of a folder as a Markdown table, in GiB and tokens per second."""
    lines = [
        "| case | GPU | allowed | rollout, measured / plan | update | step | tokens/s, rollout | update |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        cells = [record["case"], record["gpu"]["name"], _gib(record["gpu"]["allowed"])]
        if "out_of_memory" in record:
            cells += ["out of memory", "", "", "", ""]
        else:
            planned, peaks, speed = record["plan"]["phases"], record["peaks"], record["tokens_per_second"]
            cells += [f"{_gib(peaks[phase]['reserved'])} / {_gib(planned[phase])}" for phase in peaks]
            cells += [f"{speed['rollout']:.0f}", f"{speed['update']:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _gib(size: int) -> str:
    return f"{size / GIB:.1f}"


class Cuda:
    """``torch.cuda``, and where random weights are drawn."""

    build_device = "cuda"

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cuda, name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the cases that were asked for; exit code 2 without a CUDA device."""
    parser = argparse.ArgumentParser(prog="python -m tools.gpu.measure", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"{', '.join(CASES)} (default: all)")
    parser.add_argument("--output", type=Path, default=Path(data_path("results")) / "gpu", help="default: %(default)s")
    parser.add_argument("--max-tokens", type=int, help="shorter completions than the recipe's, to save time")
    options = parser.parse_args(arguments)
    unknown = set(options.cases) - set(CASES)
    if unknown:
        parser.error(f"no case {min(unknown)!r}: the cases are {', '.join(CASES)}")
    if not torch.cuda.is_available():
        print("no CUDA device here: these figures are measured on a GPU or not at all", file=sys.stderr)
        return 2
    shorter = [] if options.max_tokens is None else [f"rollout.max_tokens={options.max_tokens}"]
    for name in options.cases or CASES:
        case = CASES[name]
        dimensions = QWEN3[load_recipe(case.recipe).model.path]
        print("written:", measure_case(name, case, options.output, dimensions, *shorter, cuda=Cuda()), flush=True)
        gc.collect()
    text = table(options.output)
    (options.output / "README.md").write_text("# Recipes measured on a GPU\n\n" + text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
