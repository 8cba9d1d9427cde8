"""The published studies: which runs each one compares, and why. ``stepgrpo reproduce NAME`` carries them out.

Runs are shared: a run that stands in two studies is done once. Nothing is chosen on test problems; what the recipe
says was chosen by the study "sweep", which sees validation problems alone.
"""

from __future__ import annotations

from dataclasses import dataclass

VALIDATION_PROBLEMS = 500
TEST_PROBLEMS = 2000


@dataclass(frozen=True)
class Row:
    """One run of a study.

    Attributes:
        method: What it was trained with; runs of the same method differ in their seed and are also shown together.
        seed: Seed of the run.
        overrides: Changes to the recipe, as for ``stepgrpo train --set``.
        budget_of: Name of the row whose decoded tokens are this row's budget; None: as many steps as the recipe says.
    """

    method: str
    seed: int = 0
    overrides: tuple[str, ...] = ()
    budget_of: str | None = None

    @property
    def name(self) -> str:
        """How tables and progress lines call it."""
        return f"{self.method}, seed {self.seed}"


@dataclass(frozen=True)
class Study:
    """Runs that answer a question together.

    Attributes:
        question: What it asks.
        rows: The runs, in the order of the table.
        split: Overthinker problems that the models are measured on.
        problems: How many of them.
        first_cut: Also measure every trained model with its thoughts cut at the first marker.
    """

    question: str
    rows: tuple[Row, ...]
    split: str = "test"
    problems: int = TEST_PROBLEMS
    first_cut: bool = False


SEEDS = (0, 1, 2)
_PLAIN = ("rollout.dynamic=false", "reward.function=correctness")
_LENGTH_PENALTY = ("rollout.dynamic=false", "reward.function=length_penalty", "reward.strength=0.4")

_step_grpo = tuple(Row("Step-GRPO", seed) for seed in SEEDS)
_every_member = tuple(Row("every member probed", seed, ("rollout.probe_rate=1",)) for seed in SEEDS)
_grpo = Row("GRPO", 0, _PLAIN, budget_of="Step-GRPO, seed 0")
_length_penalty = Row("length penalty", 0, _LENGTH_PENALTY, budget_of="Step-GRPO, seed 0")


def _setting(*overrides: str) -> Row:
    """One setting of the sweep, named after what it changes."""
    pairs = [override.split("=") for override in overrides]
    changes = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in pairs)
    return Row(changes or "the recipe", 0, overrides)


STUDIES = {
    "headline": Study(
        "Does Step-GRPO halve the completions at no loss of accuracy, and does plain GRPO?",
        (*_step_grpo, _grpo),
    ),
    "internalisation": Study(
        "Is the exit learnt, so that plain decoding stops too, when each member of a group is probed, or half?",
        (*_step_grpo, *_every_member),
    ),
    "fairness": Study(
        "Are the needed steps still needed after training: what does a cut at the first marker cost?",
        (*_step_grpo, _grpo, _length_penalty),
        first_cut=True,
    ),
    "sweep": Study(
        "Which settings does validation prefer?",
        (
            _setting(),
            _setting("optimisation.learning_rate=5e-5"),
            _setting("optimisation.learning_rate=2e-4"),
            _setting("optimisation.prompts_per_step=8"),
            _setting("optimisation.prompts_per_step=32"),
            _setting("optimisation.group_size=4"),
            _setting("optimisation.group_size=16"),
            _setting("rollout.exit_threshold=0.9"),
            _setting("rollout.exit_threshold=0.98"),
            _setting("rollout.probe_rate=0.25"),
            _setting("rollout.probe_rate=0.75"),
            _setting("rollout.probe_rate=1"),
            _setting("reward.step_beta=0.1"),
            _setting("reward.step_beta=0.9"),
            _setting("optimisation.scale_rewards=batch"),
            _setting("optimisation.scale_rewards=none"),
        ),
        split="validation",
        problems=VALIDATION_PROBLEMS,
    ),
}
