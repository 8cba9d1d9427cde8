"""What the proof of a checkpoint costs: the hashes beside writing it, and how much later it counts."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
from pathlib import Path

from transformers import Qwen3Config, Qwen3ForCausalLM

from stepgrpo_lab.engines.models import load_model
from stepgrpo_lab.method.records import Trajectory
from stepgrpo_lab.training.fine_tuning import FineTuneConfig, FineTuneTrainer, Selection

from .measuring import Result, Table, figure, ratios, seconds_of


def checkpoint_proof(quick: bool) -> Result:
    """Seconds that training stands still for a checkpoint, with SHA-256 of every file and with lengths alone."""
    stands: dict[str, list[float]] = {"sizes": [], "full": []}
    counts: dict[str, list[float]] = {"sizes": [], "full": []}
    with tempfile.TemporaryDirectory(dir=Path.home()) as folder:  # /tmp may be memory, which no disk is as fast as
        trainer = trained(folder, hidden=64 if quick else 1024)
        checkpoint = Path(folder) / "checkpoint-1"
        for repetition in range(2 if quick else 13):
            for verify in ("full", "sizes") if repetition % 2 else ("sizes", "full"):
                shutil.rmtree(checkpoint, ignore_errors=True)
                os.sync()
                trainer.args.checkpoint_verify = verify
                seconds = seconds_of(lambda: trainer._save_checkpoint(trainer.model, None))
                later = seconds_of(trainer.finish_proof)
                if repetition:  # the first warms up
                    stands[verify].append(seconds)
                    counts[verify].append(seconds + later)
        megabytes = sum(path.stat().st_size for path in checkpoint.iterdir()) / 1e6
    rows = [
        [verify, f"{statistics.median(stands[verify]):.2f}", f"{statistics.median(counts[verify]):.2f}"]
        for verify in stands
    ]
    return Result(
        [
            figure(
                "checkpoint_proof",
                "training stands still for a checkpoint with its SHA-256, over one with its sizes",
                ratios(stands["full"], stands["sizes"]),
                most=1.05,
                note=f"{megabytes:,.0f} MB; syncing and hashing are done in threads while training goes on.",
            )
        ],
        [
            Table(
                f"A checkpoint of {megabytes:,.0f} MB",
                ["verify", "s that training stands still", "s until it counts"],
                rows,
            )
        ],
    )


def trained(folder: str, *, hidden: int) -> FineTuneTrainer:
    """A trainer after one step of a random model, with all the states that a checkpoint holds."""
    _, tokenizer = load_model("overthinker", device="cpu")
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=hidden // 4,
    )
    selection = Selection([Trajectory([1, 2], [3, 4], [None, None], "", 1, "early", "eos")], {})
    settings = FineTuneConfig(output_dir=folder, max_steps=1, save_strategy="no", report_to="none", use_cpu=True)
    trainer = FineTuneTrainer(Qwen3ForCausalLM(config), settings, selection, tokenizer)
    trainer.train()
    return trainer
