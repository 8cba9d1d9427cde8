"""What is compared: every row, declared. Each row is the recipe with a few keys changed, and the seeds it is run with.

The published figures are those of the Step-GRPO paper for Qwen3-8B, averaged over six benchmarks and, as far as one can
tell, one sample for each problem; they are quoted as changes against its untrained model (79.9 % right, 10149 tokens).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from stepgrpo_lab.method.names import did_you_mean, listed, shown

Kind = Literal["untrained", "method", "ablation", "setting", "proof"]
Inference = Literal["plain", "deer", "budget"]

VANILLA = "vanilla"
STEP_GRPO = "step-grpo"

QWEN3_TOKENS = 10149
"""Mean completion of the paper's untrained Qwen3-8B, in tokens."""

R1_DISTILL_TOKENS = 5000
"""Mean completion of the small R1-distilled models that L1, ThinkPrune and ShorterBetter start from: our estimate."""

SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Published:
    """What the paper reports of a method, against its untrained model; None where it reports nothing.

    Attributes:
        accuracy_points: Change of the accuracy, in points.
        token_ratio: Mean tokens over those of the untrained model.
    """

    accuracy_points: float | None = None
    token_ratio: float | None = None


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        name: Short name, for files and the command line.
        title: How tables and figures call it.
        expectation: What the paper, or the method's own, leads one to expect.
        overrides: Changes to the recipe, as for ``stepgrpo train --set``.
        published: The paper's figures.
        kind: untrained, method (with a learning rate of its own, where the plan has a grid), ablation and setting of
            Step-GRPO at its learning rate, or proof (a few steps that show that it trains).
        seeds: Seeds of its runs.
        budget_of: Name of the row whose decoded tokens, seed by seed, are this row's budget; None: the plan's budget.
        inference: How it is decoded when it is measured: plain, the truncated rollout, or with a think budget.
        source_tokens: Mean completion of the source's untrained model, where the method has constants in tokens: our
            vanilla mean over it is the recipe's ``reward.length_scale``.
    """

    name: str
    title: str
    expectation: str = ""
    overrides: tuple[str, ...] = ()
    published: Published = Published()
    kind: Kind = "setting"
    seeds: tuple[int, ...] = SEEDS[:1]
    budget_of: str | None = None
    inference: Inference = "plain"
    source_tokens: int | None = None


_untrained = partial(Row, kind="untrained")
_method = partial(Row, kind="method", seeds=SEEDS)
_ablation = partial(Row, kind="ablation", seeds=SEEDS)
_proof = partial(Row, kind="proof")


def _plain(function: str, *more: str) -> tuple[str, ...]:
    """Plain sampling with another reward."""
    return ("rollout.dynamic=false", f"reward.function={function}", *more)


VANILLA_ROW = _untrained(VANILLA, "vanilla", "The model as it is: everything else is measured against it.")

_UNTRAINED = (
    VANILLA_ROW,
    _untrained(
        "deer",
        "DEER at inference",
        "Shorter at about the same accuracy, at the price of probes whenever the model is used.",
        ("rollout.probe_rate=1", "rollout.exit_threshold=0.95"),
        inference="deer",
    ),
    _untrained(
        "think-budget",
        "think budget, a quarter of the limit",
        "Cuts needed and redundant steps alike, so accuracy falls where problems need their steps.",
        ("rollout.think_budget=0.25",),
        inference="budget",
    ),
)

_METHODS = (
    _method(
        "grpo",
        "GRPO",
        "A little more accurate and little shorter: nothing asks for fewer tokens.",
        _plain("correctness"),
        Published(1.0, 0.897),
    ),
    _method(
        "length-penalty",
        "GRPO + length penalty",
        "The shortest of all, and less accurate: a penalty on tokens cannot tell a needed check from a redundant one.",
        _plain("length_penalty"),
        Published(-1.5, 0.532),
    ),
    _method(
        "soft-overlong",
        "GRPO + soft overlong punishment",
        "Only the longest completions become shorter; the published figure for it could not be found.",
        _plain("soft_overlong"),
        source_tokens=QWEN3_TOKENS,
    ),
    _method(
        "grpo-lambda",
        "GRPO-lambda",
        "Shorter at no loss: only the groups that are solved best are penalized.",
        _plain("grpo_lambda"),
        Published(0.0, 0.629),
    ),
    _method(
        "s-grpo",
        "S-GRPO",
        "Shorter at equal or better accuracy, by its own paper: early correct exits earn most.",
        ("rollout.dynamic=false", "rollout.serial=true", "reward.function=serial_group"),
    ),
    _method(
        "deer-sft",
        "DEER + SFT",
        "The least accurate: imitating short completions does not teach when short is enough.",
        (
            "method=sft",
            "rollout.probe_rate=1",
            "rollout.exit_threshold=0.95",
            "rollout.temperature=0.6",
            "optimisation.group_size=4",
            "optimisation.prompts_per_step=32",
            "optimisation.max_steps=60",
        ),
        Published(-7.3, 0.789),
    ),
    _method(
        STEP_GRPO,
        "Step-GRPO",
        "A third fewer tokens, and the most accurate of all.",
        (),
        Published(2.2, 0.68),
    ),
)

_ABLATIONS = (
    _ablation(
        "no-step-reward",
        "without step reward",
        "Longer than the full method: the rollout alone shortens less.",
        ("reward.function=correctness",),
        Published(None, 0.782),
    ),
    _ablation(
        "no-dynamic-rollout",
        "without dynamic rollout",
        "Much less accurate: the step term alone makes the model guess.",
        ("rollout.dynamic=false",),
        Published(-5.8, None),
    ),
    _ablation(
        "mean-over-all",
        "mean over all members",
        "Wrong answers move the baseline, so the term no longer compares right answers with each other.",
        ("reward.mean_over=all",),
    ),
    _ablation(
        "close-masked",
        "forced close masked",
        "The forced close is what teaches the model to stop: without it plain decoding stays long.",
        ("rollout.train_forced_close=false",),
    ),
    _ablation(
        "every-member-probed",
        "every member probed (published)",
        "The published setting; with all members cut short a group has little left to compare with.",
        ("rollout.probe_rate=1",),
    ),
)


def _setting(name: str, title: str, expectation: str, *overrides: str) -> Row:
    return Row(name, title, expectation, overrides)


_SCALING = (
    "The recipe's group scaling makes step_beta inert where every member is right; without it its strength counts."
)
_BETA = "Without scaling, step_beta decides how much of the reward is about steps."
_THRESHOLD = "A lower threshold exits earlier and less surely."
_GROUP = "A larger group knows its mean better and leaves fewer prompts in the budget."

_SETTINGS = (
    _setting(
        "wrong-penalized",
        "wrong answers penalized",
        "Failing fast pays, so accuracy falls.",
        "reward.penalize_wrong=true",
    ),
    _setting("scale-batch", "advantages scaled by batch", _SCALING, "optimisation.scale_rewards=batch"),
    *(
        _setting(
            f"scale-none-beta-{beta}",
            f"advantages not scaled, step_beta {beta}",
            _BETA,
            "optimisation.scale_rewards=none",
            f"reward.step_beta={beta}",
        )
        for beta in (0.1, 0.5, 0.9)
    ),
    *(
        _setting(f"threshold-{value}", f"exit threshold {value}", _THRESHOLD, f"rollout.exit_threshold={value}")
        for value in (0.9, 0.98)
    ),
    *(
        _setting(f"group-size-{size}", f"groups of {size}", _GROUP, f"optimisation.group_size={size}")
        for size in (4, 16)
    ),
    _setting(
        "markers-official",
        'markers: "Wait" alone',
        "Fewer steps are seen, so fewer probes and a coarser step term.",
        "rollout.markers=official",
    ),
    _setting(
        "preset-paper",
        "preset paper",
        "An accepted probe becomes the answer; the close that is trained stands in another form.",
        "rollout.preset=paper",
    ),
)

_PROOFS = tuple(
    _proof(
        name,
        title,
        f"A few steps of {source}, to show that it trains; no figure to compare.",
        overrides,
        source_tokens=None if name == "kimi" else R1_DISTILL_TOKENS,
    )
    for name, title, source, overrides in (
        ("kimi", "GRPO + Kimi's length reward", "Kimi k1.5's reward", _plain("kimi")),
        ("l1-exact", "L1-Exact", "L1", _plain("l1_exact")),
        ("l1-max", "L1-Max", "L1", _plain("l1_max")),
        ("shorter-better", "ShorterBetter", "ShorterBetter", _plain("shorter_better")),
        ("thinkprune", "ThinkPrune", "ThinkPrune", _plain("correctness", "rollout.round_limits=[4000, 3000, 2000]")),
    )
)

ROWS: tuple[Row, ...] = (*_UNTRAINED, *_METHODS, *_ABLATIONS, *_SETTINGS, *_PROOFS)
"""The whole comparison at equal cost, in its order."""

RECIPE_ROWS: tuple[Row, ...] = (
    VANILLA_ROW,
    _method(STEP_GRPO, "Step-GRPO"),
    _method("grpo", "GRPO", overrides=_plain("correctness"), seeds=SEEDS[:1], budget_of=STEP_GRPO),
    _method(
        "length-penalty",
        "length penalty",
        overrides=_plain("length_penalty", "reward.strength=0.4"),
        seeds=SEEDS[:1],
        budget_of=STEP_GRPO,
    ),
    _ablation("every-member-probed", "every member probed", overrides=("rollout.probe_rate=1",)),
)
"""The recipe as it is shipped, with its own number of steps, and what it is held against."""


def _changed(*overrides: str, seeds: tuple[int, ...] = SEEDS[:1]) -> Row:
    """One setting of a sweep, named after what it changes."""
    pairs = [override.split("=") for override in overrides]
    title = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in pairs) or "the recipe"
    return Row(title.replace(" ", "-").replace("_", "-"), title, overrides=overrides, seeds=seeds)


SWEEP_ROWS: tuple[Row, ...] = (
    VANILLA_ROW,
    _changed(),
    *(_changed(f"optimisation.learning_rate={rate}") for rate in ("5e-5", "2e-4")),
    *(_changed(f"optimisation.prompts_per_step={count}") for count in (8, 32)),
    *(_changed(f"optimisation.group_size={size}") for size in (4, 16)),
    *(_changed(f"rollout.exit_threshold={threshold}") for threshold in (0.9, 0.98)),
    *(_changed(f"rollout.probe_rate={rate}") for rate in (0.25, 0.75, 1)),
    *(_changed(f"reward.step_beta={beta}") for beta in (0.1, 0.9)),
    *(_changed(f"optimisation.scale_rewards={scale}") for scale in ("batch", "none")),
)
"""The recipe with one setting changed at a time."""


SEEDS_2 = (0, 1, 2, 3, 4)
"""Seeds of the rows that the conclusions about Overthinker 2 rest on; the other rows have three."""


def _like(name: str, seeds: tuple[int, ...] = SEEDS_2, *overrides: str) -> Row:
    """A row of the first laboratory's comparison, with other seeds, and perhaps other settings."""
    row = next(row for row in ROWS if row.name == name)
    return replace(row, seeds=seeds, overrides=overrides or row.overrides)


ROWS_2: tuple[Row, ...] = (
    VANILLA_ROW,
    _like("deer", SEEDS[:1], "rollout.probe_rate=1"),
    _like("grpo"),
    _like(STEP_GRPO),
    _like("no-dynamic-rollout"),
    _like("every-member-probed"),
    _like("length-penalty"),
    _like("deer-sft"),
    Row(
        "on-policy-sft",
        "on-policy SFT",
        "Its authors (arXiv 2602.13407): short samples of its own, drawn anew at every step, are all that it takes.",
        _plain("imitation"),
        kind="method",
        seeds=SEEDS_2,
    ),
    _like("think-budget", SEEDS[:1]),
    Row(
        "truncation",
        "GRPO, half the token limit in training",
        "DLER (arXiv 2510.15110): a short limit shortens as well as any length reward does.",
        _plain("correctness", "rollout.round_limits=[96]"),
        kind="method",
        seeds=SEEDS,
    ),
    Row(
        "gfpo",
        "GFPO, the shorter half of a group",
        "Its authors (arXiv 2508.09726): filtering by length shortens without a length reward.",
        _plain("gfpo"),
        kind="method",
        seeds=SEEDS,
    ),
    *(_like(name, SEEDS) for name in ("soft-overlong", "grpo-lambda", "s-grpo")),
    *(_like(name, SEEDS) for name in ("no-step-reward", "mean-over-all", "close-masked")),
    replace(_like("preset-paper", SEEDS), kind="ablation"),
)
"""The comparison in the laboratory of Overthinker 2."""


def _published_but(*overrides: str) -> Row:
    """Overthinker 2's recipe as it was before the sweep: every member probed, as published, and a middling rate."""
    row = _changed(*overrides, seeds=SEEDS[:2])
    return replace(
        row,
        title="the published settings" if not overrides else row.title,
        overrides=("rollout.probe_rate=1", "optimisation.learning_rate=1e-4", *overrides),
    )


SWEEP_2_ROWS: tuple[Row, ...] = (
    VANILLA_ROW,
    _published_but(),
    *(_published_but(f"optimisation.learning_rate={rate}") for rate in ("5e-5", "2e-4", "4e-4")),
    *(_published_but(f"rollout.exit_threshold={threshold}") for threshold in (0.85, 0.9, 0.98)),
    *(_published_but(f"rollout.probe_rate={rate}") for rate in (0.25, 0.5, 0.75)),
    *(_published_but(f"reward.step_beta={beta}") for beta in (0.1, 0.9)),
    _published_but("optimisation.max_steps=64"),
)
"""The published settings of Step-GRPO in Overthinker 2 with one of them changed at a time."""


def find_rows(names: Iterable[str], rows: Sequence[Row] = ROWS) -> list[Row]:
    """The rows of these names, in the table's order; all of them for no name.

    Raises:
        ValueError: No row has such a name.

    Example:
        >>> [row.title for row in find_rows(["grpo", "vanilla"])]
        ['vanilla', 'GRPO']
    """
    wanted = set(names)
    if unknown := wanted - {row.name for row in rows}:
        known = [row.name for row in rows]
        raise ValueError(
            f"no row {shown(min(unknown))}: choose from {listed(known)} (stepgrpo compare --list shows them)"
            + did_you_mean(min(unknown), known)
        )
    return [row for row in rows if not wanted or row.name in wanted]
