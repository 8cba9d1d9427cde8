# ---
# jupyter:
#   stepgrpo:
#     title: Reading a result
#     minutes: 40
#     hardware: any CPU
# ---

# %% [markdown]
# ## Objectives
#
# - Read a trade-off of accuracy against length, with intervals, and say what
#   an interval covers and what it does not.
# - Compute a paired bootstrap by hand, and know why it is paired.
# - Ask what the steps of a model were good for, before and after training.
# - See a result that looks like success, find the artefact, and explain it
#   from recorded advantages.
# - Say what would refute a claim.

# %% [markdown]
# ## Where we stand
#
# Step-GRPO is complete: steps (02), probe (03), truncated rollout (04, 05),
# reward (06) and update (07). Now trained models exist, and somebody claims
# that the method works. This notebook reads the claim. No model is loaded:
# all figures come from studies in `data/results`, made by
# `stepgrpo compare`, and from a survey of 400 recorded problems.
#
# *Plain decoding* means: the model alone, without probes. That is how every
# trained model is measured here.

# %% [markdown]
# ## The claim, with intervals
#
# Three seeds of Step-GRPO, and plain GRPO as a control, which may decode as
# many tokens in training. Each marker is one trained model against the
# untrained one, on the same 2000 problems. A 95 % *interval* tells how far
# the figure would move with other problems of the same kind.
#
# Two questions for the explorer:
#
# 1. Does plain GRPO make completions shorter?
# 2. For which seeds does the interval of the accuracy hold 0?

# %%
from stepgrpo_lab.widgets import StudyExplorer

StudyExplorer(study="headline")

# %% [markdown]
# <details><summary>What we see</summary>
#
# 1. No: 100.5 % [100.0, 100.9] of the tokens. Rewarding right answers alone
#    does not shorten.
# 2. Only for seed 1: -0.2 points [-0.6, 0.2]. Seeds 0 and 2 lose a little,
#    and the intervals say that it is not chance of the problems.
# </details>

# %% [markdown]
# ## By hand: a bootstrap
#
# We measured some problems; others would have given other figures. The
# *bootstrap* imitates that: draw as many problems as there are, with
# replacement, compute the figure again, and repeat. The middle 95 % of these
# figures are the interval. *Paired* means that one draw serves both models.
# Six problems, tokens before and after training:

# %% tags=["nbval-check-output"]
import random

before = [120, 140, 100, 160, 130, 110]
after = [40, 60, 35, 90, 45, 40]
rng = random.Random(0)
ratios = []
for _ in range(10_000):
    drawn = rng.choices(range(6), k=6)
    shorter = sum(after[i] for i in drawn)
    ratios.append(shorter / sum(before[i] for i in drawn))
ratios.sort()
low, high = ratios[250], ratios[-250]
print(f"ratio {sum(after) / sum(before):.2f} [{low:.2f}, {high:.2f}]")

# %% [markdown]
# The library's function, and its answer on the same six problems. It draws
# with another generator, so the last digit may differ.

# %%
from stepgrpo_lab import paired_bootstrap

course.source_of(paired_bootstrap)

# %% tags=["nbval-check-output"]
by_library = paired_bootstrap(before, after, statistic="ratio")
print(f"{by_library.estimate:.2f}")
print(abs(by_library.low - low) < 0.02, abs(by_library.high - high) < 0.02)

# %% [markdown]
# ### Exercise 08.1 · One draw ●○○
#
# Write what stands inside the loop: the ratio of the mean lengths, after over
# before, over the drawn problems. `drawn` holds places in the lists; a place
# may occur twice. Why it matters: a mean of ratios is another figure, in
# which a short problem weighs as much as a long one.


# %% tags=["exercise"]
def drawn_ratio(before, after, drawn):
    """Mean length after over mean length before, of the drawn problems."""
    # BEGIN SOLUTION
    # STUB: return None  # your code here
    return sum(after[i] for i in drawn) / sum(before[i] for i in drawn)
    # END SOLUTION


# %% tags=["check"]
from stepgrpo_lab.course import checks

checks.drawn_ratio(drawn_ratio)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Two sums over `for i in drawn`, one of `after[i]` and one of `before[i]`.
# Both have as many terms, so the ratio of sums is the ratio of means.
# </details>

# %% [markdown]
# ### Why paired?
#
# Long problems are long for both models. If one draw serves both, that part
# of the chance cancels. On the survey's 400 problems: the width of the
# interval of the saved tokens, paired, and as if two groups of problems had
# been measured.

# %%
saved_width = course.predict(
    "How does the paired interval compare with the other?",
    None,
    choices=("narrower", "as wide", "wider"),
)
saved_width

# %% tags=["nbval-check-output"]
from stepgrpo_lab.evaluation.statistics import bootstrap_mean
from stepgrpo_lab.recordings import load_survey

groups = {"untrained": [], "trained": []}
for group in load_survey():
    groups[group.model].append(group)
tokens = {
    model: [group.members[0].outcome.tokens for group in recorded]
    for model, recorded in groups.items()
}
paired = paired_bootstrap(tokens["untrained"], tokens["trained"])
alone = [bootstrap_mean(tokens[model]) for model in tokens]
apart = sum((one.high - one.low) ** 2 for one in alone) ** 0.5
print(f"paired: {paired.high - paired.low:.1f} tokens wide")
print(f"apart:  {apart:.1f} tokens wide")

# %%
saved_width.compare("narrower")

# %% [markdown]
# ## What an interval allows one to say
#
# An interval of a change that holds 0 does not show *no loss*. It may also
# hold a loss of four points. To claim "no worse", name beforehand the largest
# loss you would accept, the *margin*, and look whether the whole interval
# stays above it.

# %% [markdown]
# ### Exercise 08.2 · The verdict ●●○
#
# From the ends of an interval of the change in accuracy, in points, and a
# margin (a positive number), return `"no worse"` when every value in the
# interval is a smaller loss than the margin, `"worse"` when every value is a
# larger one, else `"undecided"`. Why it matters: with few problems
# everything "holds 0".


# %% tags=["exercise"]
def verdict(low, high, margin):
    """What may be said of a change in accuracy."""
    # BEGIN SOLUTION
    # STUB: return None  # your code here
    if low > -margin:
        return "no worse"
    if high < -margin:
        return "worse"
    return "undecided"
    # END SOLUTION


# %% tags=["check"]
checks.verdict(verdict)

# %% [markdown]
# <details><summary>Hint</summary>
#
# A loss of exactly the margin is the value `-margin`. Compare it with the two
# ends; 0 is not needed anywhere.
# </details>

# %% [markdown]
# ### Seeds
#
# The interval covers the choice of problems. It does not cover the *seed* of
# the training: another order of prompts, other samples, another model. So
# seeds stand side by side.

# %% tags=["nbval-check-output"]
from stepgrpo_lab.experiments.record import shipped_records

studies = shipped_records()
for run in studies["headline"].row("Step-GRPO").seeds:
    change = run.test
    print(f"{change.token_ratio * 100} % · {change.accuracy_points} points")

# %% [markdown]
# The seeds differ by as much as one interval is wide, or more: for the
# tokens, seed 0 and seed 2 do not even overlap. One seed with a narrow
# interval would have looked more certain than it is.

# %% [markdown]
# ## What were the steps good for?
#
# Shorter is not yet better: which steps went? On generated problems a
# verifier labels each step: *needed* up to the first right derivation,
# *verifying* the first check after it, *redundant* what repeats a check, and
# *malformed* the rest.

# %%
which_go = course.predict(
    "Which steps does training remove?",
    None,
    choices=("redundant only", "redundant and verifying", "all kinds alike"),
)
which_go

# %% tags=["nbval-check-output"]
from stepgrpo_lab.recordings.measures import measure_overthinking

steps = {}
for model, recorded in groups.items():
    told = measure_overthinking(recorded)
    steps[model] = told.steps
    shown = ", ".join(f"{told.steps[kind]:.2f} {kind}" for kind in told.steps)
    print(f"{model}: {shown}")
    print(f"  tokens after the last needed step: {told.saved * 100} %")

# %%
from stepgrpo_lab.viz.completions import step_labels

step_labels(steps)

# %%
which_go.compare("redundant and verifying")

# %% [markdown]
# Nearly all needed steps stay, and the rest goes, *the verifying steps too*.
# The reward pays nothing for a check, and this model is right without. The
# paper
# reports for Qwen3-8B, by a language model's judgement, that verification
# stays (22.9 % of the steps) and redundancy shrinks (10.9 %). Nothing here
# confirms or refutes that: these problems are easier, and the labels are
# exact.

# %% [markdown]
# ## Beside it: baselines
#
# A figure needs neighbours. A *length penalty* takes reward from long right
# answers, by tokens (strength 0.4, the same decoded tokens). Two questions:
#
# 1. Choose *search* among the problems. What does the length penalty lose?
# 2. And on *chain*?

# %%
StudyExplorer(study="fairness", pooled=True)

# %% [markdown]
# <details><summary>What we see</summary>
#
# 1. On *search* it loses 5.2 points [3.7, 6.7] and Step-GRPO 0.7 [0.3, 1.2].
# 2. On *chain* it loses nothing, 0.0 [-0.3, 0.3]. One mean over both families
#    (2.5 points lost) would have hidden where the harm is.
#
# One seed of the penalty and one strength: a hint, not a ranking.
# </details>

# %% [markdown]
# ### Every method, at the same price
#
# A ranking needs equal terms. `stepgrpo compare` gives each method three
# seeds, 400 000 tokens fed in training, and the best of three learning rates
# by *validation* problems; then 400 test problems, four samples each. DEER
# and the think budget train nothing: they cut thoughts while the model is
# used.

# %%
neighbour = course.predict(
    "About a third of the tokens: which trained method then stays closest "
    "to full accuracy?",
    None,
    choices=("Step-GRPO", "length penalty", "S-GRPO", "DEER + SFT"),
)
neighbour

# %%
from IPython.display import SVG
from stepgrpo_lab.experiments.pictures import draw_record
from stepgrpo_lab.experiments.record import load_record

record = load_record("all")
SVG(draw_record(record))

# %%
neighbour.compare("DEER + SFT")

# %% tags=["nbval-check-output"]
for row in record.rows:
    if row.kind == "method":
        seeds = " · ".join(f"{100 * seed.accuracy:.1f}" for seed in row.seeds)
        print(f"{row.title}: {row.test.token_ratio * 100} % of the tokens, ")
        print(f"  {row.test.accuracy_points} points; right by seed: {seeds}")

# %% [markdown]
# Three readings:
#
# - *Nobody gains accuracy*, and nobody can: the untrained model is right on
#   all 400 problems. The paper's +2.2 points could not appear here, so their
#   absence refutes nothing.
# - *The plain baseline wins.* DEER + SFT imitates the model's own completions
#   that a probe cut short and that were right. The paper reports 7.3 points
#   lost for it; here nearly every such completion is right, so there is
#   little bad to imitate. A method's rank belongs to its model and problems.
# - *Seeds.* S-GRPO's first seed looks harmless, and its learning rate was
#   chosen on that seed. The other two lose more than ten points each.

# %% [markdown]
# ### The method taken apart
#
# Step-GRPO is a rollout that cuts thoughts and a reward that counts steps.
# Each ablation takes one piece away, three seeds each.

# %%
half = course.predict(
    "Which half alone makes plain decoding about as short as both do?",
    None,
    choices=("the rollout", "the step reward", "neither"),
)
half

# %% tags=["nbval-check-output"]
for row in record.rows:
    if row.kind == "ablation":
        print(f"{row.title}: {row.test.token_ratio * 100} % of the tokens, ")
        print(f"  {row.test.accuracy_points} points")

# %%
half.compare("the step reward")

# %% [markdown]
# Without the step reward nothing becomes shorter, however many thoughts the
# rollout cuts. The reward alone comes to 35 %: among natural completions some
# are shorter than others, and that suffices. Masking the forced close costs
# little (39 %). The paper reports otherwise: 78 % without the reward, 5.8
# points lost without the rollout. On this model the cuts are not what
# teaches, and only the ablation could say so.

# %% [markdown]
# ## What can go wrong: a result that looks like success
#
# As published, *every* member of a group is probed; our recipe probes half.
# Somebody trains the published way, three seeds of 40 steps, and shows the
# training rollouts (mean over seeds, `data/results/internalisation.json`):

# %%
from stepgrpo_lab.experiments.record import mean_curves
from stepgrpo_lab.viz.plots_study import ROLLOUT, method_curves

study = studies["internalisation"]
curves = mean_curves(study)
method_curves(curves, ROLLOUT)

# %% [markdown]
# With every member probed the completions have fewer than 50 tokens from the
# first step on; the untrained model needs 132. The other run takes 40 steps
# to get there. And the share of right answers:


# %% tags=["nbval-check-output"]
def mean_right(curve):
    return 100 * sum(share for _, share in curve) / len(curve)


for method, metrics in curves.items():
    start, end = metrics["accuracy"][:10], metrics["accuracy"][-10:]
    print(
        f"{method}: {mean_right(start):.0f} % right in the first ten", end=""
    )
    print(f" steps, {mean_right(end):.0f} % in the last ten")

# %% [markdown]
# Short and ever more often right: this looks like success.

# %%
better = course.predict(
    "Which of the two models is shorter under plain decoding?",
    None,
    choices=("every member probed", "half probed"),
)
better

# %%
kept = course.predict(
    "Which share of its tokens does the model keep that was trained with "
    "every member probed?",
    None,
    unit="%",
)
kept

# %% [markdown]
# ### Plain decoding
#
# The same runs on validation problems, without probes, and then the test
# problems.

# %%
from stepgrpo_lab.viz.plots_study import VALIDATION

method_curves(curves, VALIDATION)

# %% tags=["nbval-check-output"]
for method, change in study.pooled.items():
    print(f"{method}: {change.token_ratio * 100} % of the tokens, ", end="")
    print(f"{change.accuracy_points} points")

# %%
better.compare("half probed")

# %%
kept.compare(100 * study.pooled["every member probed"].token_ratio.estimate)

# %% [markdown]
# The rollout was short because the *probes* cut it, not because the model
# stops. That was so before the first update: at step 1 nothing was learnt
# yet, and the curve was already low. A flat curve that starts at its goal is
# no learning curve.

# %% [markdown]
# ### By hand: where does the signal come from?
#
# GRPO learns from *advantages*: rewards compared inside a group. Take eight
# right completions. Half probed: four closed by force after 2 steps, four
# natural ones with 8. Every member probed: all closed by force, after 2 or 3.

# %% tags=["nbval-check-output"]
from stepgrpo_lab import group_advantages, step_aware_rewards

right = [True] * 8
cases = {"half probed": [2] * 4 + [8] * 4, "every member": [2] * 6 + [3] * 2}
for name, counts in cases.items():
    rewards = step_aware_rewards(right, counts, right)
    advantages = group_advantages(rewards)
    forced = advantages[:4] if name == "half probed" else advantages
    mean = round(sum(forced) / len(forced), 2) + 0.0
    print(f"{name}: a forced close earns {mean:+.2f} on average")

# %% [markdown]
# The advantages of a group sum to zero. Where all closes are forced, they are
# compared with each other: some exits gain, others lose, and *exiting* gains
# nothing. The model gets no word about thinking on, because nobody did.

# %% [markdown]
# ### What was recorded
#
# For each step of the training: how many thoughts a probe closed, in how many
# groups both kinds of close met, and the mean advantage of each kind.

# %%
from stepgrpo_lab.viz.plots_study import SIGNALS

method_curves(curves, SIGNALS)

# %%
from IPython.display import Markdown
from stepgrpo_lab.experiments.tables import signals_markdown

Markdown(signals_markdown(study))

# %% [markdown]
# With half probed, every group of the first ten steps holds both kinds, and a
# forced close earns +0.45 against -0.36. The update says: close. With every
# member probed, 92 % of the thoughts are closed by a probe, less than half of
# the groups hold both kinds, and a forced close earns +0.01. What is learnt
# comes from the few natural closes. So it is slow, not nothing: 81 % of the
# tokens, not 100.

# %% [markdown]
# ### Exercise 08.3 · Advantage by kind of close ●●○
#
# From the advantages of a batch and a list that says which closes were
# forced, return the mean advantage of the forced and of the natural ones, in
# this order; None for a kind that does not occur. Why it matters: these two
# numbers told the story before any model was evaluated.


# %% tags=["exercise"]
def advantage_by_close(advantages, forced):
    """Mean advantage of forced and of natural closes."""
    # BEGIN SOLUTION
    # STUB: return None  # your code here
    kinds = {True: [], False: []}
    for advantage, was_forced in zip(advantages, forced, strict=True):
        kinds[was_forced].append(advantage)
    means = [sum(k) / len(k) if k else None for k in kinds.values()]
    return tuple(means)
    # END SOLUTION


# %% tags=["check"]
checks.advantage_by_close(advantage_by_close)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Sort the advantages into two lists first. The mean of an empty list does not
# exist: return None there, not 0, which would be a measurement.
# </details>

# %% [markdown]
# ## What would refute the claim?
#
# The claim: *after training the model stops by itself, at almost no loss, and
# the needed steps stay*. A claim that nothing could refute says nothing.
#
# | test | refuted if | here |
# | --- | --- | --- |
# | plain decoding | long without probes | 34 % of the tokens |
# | first cut | the trained model needs no later step | next cell |
# | other seeds | one seed fails | 3 seeds, 33 to 34 % |
# | harder problems | accuracy falls above the trained levels | next but one |
# | another tokenizer, another model | markers split otherwise | not measured |
# | another judge of steps | needed steps go | exact labels only |

# %% [markdown]
# *First cut*: close the thoughts of the trained model by force at the first
# marker. If that cost nothing, the model would have moved its work into the
# first step, and the "steps" would be decoration.

# %% tags=["nbval-check-output"]
for name, run in studies["fairness"].runs.items():
    cuts = [f"{family} {cut} points" for family, cut in run.first_cut.items()]
    print(f"{name}: {' · '.join(cuts)}")

# %% [markdown]
# The cut costs at least 87 points in *chain* and 49 in *search*: the later
# steps are still needed, and the problem is not trivial.

# %% tags=["nbval-check-output"]
for row in record.rows:
    if row.name in ("vanilla", "step-grpo"):
        harder = row.harder
        print(f"{row.title}: {harder.accuracy * 100} % right, ", end="")
        print(f"{harder.token_ratio * 100} % of the tokens")

# %% [markdown]
# Above the trained levels the model is rarely right, trained or not. That it
# gets no worse says little where there is little to lose, and intervals this
# wide would hide two points. What is *not measured* in the table stands open;
# whoever reports a result should fill in these rows.

# %% [markdown]
# ## Summary
#
# - An interval over problems is not an interval over seeds; show both.
# - The bootstrap is paired because the problems are the same.
# - "Holds 0" is not "no loss": name a margin first.
# - Metrics of the rollout show the probe; plain decoding shows the model.
# - Advantages by kind of close explain why one setting learns the exit and
#   the other barely does.
#
# Next: [09 · Scaling to Qwen3](09_scaling_to_qwen3.ipynb).
