# ---
# jupyter:
#   stepgrpo:
#     title: Reading a result
#     minutes: 70
#     hardware: any CPU
# ---

# %% [markdown]
# ## Would you publish this?
#
# Step-GRPO, three seeds, two settings. As published, *every* member of a group
# is probed; the course's recipe probes *half* of each group. These are the
# completions sampled in training, mean over seeds:

# %%
import stepgrpo_lab as lab
from stepgrpo_lab.experiments.record import load_record, mean_curves
from stepgrpo_lab.viz.plots_study import ROLLOUT, method_curves

study = load_record("internalisation")
curves = {
    {"Step-GRPO": "half probed"}.get(title, title): metrics
    for title, metrics in mean_curves(study).items()
}
method_curves(curves, ROLLOUT)

# %% [markdown]
# One setting gives short completions from the first step on, and they are right
# ever more often. The other needs the whole training to get there. It looks
# like an easy choice.
#
# Now the probes are switched off. Both models answer new problems by *plain
# decoding*, as any user would run them.

# %%
shorter_guess = course.predict(
    "Which model is shorter under plain decoding?",
    choices=("every member probed", "half probed", "no difference"),
)
shorter_guess

# %%
kept_guess = course.predict(
    "With every member probed, how many of its tokens does the model keep?",
    unit="%",
    low=0,
    high=120,
)
kept_guess

# %% [markdown]
# The answer comes when you have the tools to read it. This notebook is about
# those tools: intervals, pairs, seeds, ablations, and the question that every
# result has to survive.

# %%
course.drawing(
    "bootstrap",
    "A paired bootstrap. Six problems were measured with two models. In each "
    "of many draws six problems are picked with replacement, the same ones "
    "for both models, and the difference of the means is computed again. The "
    "middle 95 percent of these differences is the interval. Not in the "
    "draw: another seed, another model, harder problems.",
)

# %% [markdown]
# ## Objectives
#
# After this notebook you can
#
# - write a paired bootstrap, and say what its interval covers and what not;
# - say what a result allows one to claim, before you claim it;
# - read a comparison of methods, and an ablation, without being dazzled;
# - say where this miniature stands among the findings of 2026;
# - find the artefact behind a result that looks like success.

# %% [markdown]
# ## Where we are
#
# Step-GRPO is complete: steps (02), probe (03), truncated rollout (04, 05),
# reward (06) and update (07). Now there are trained models, and somebody claims
# that the method works. No model is loaded here. All figures are computed from
# records in `data/results`, made by `stepgrpo compare`, and from
# [recordings](../docs/glossary.md) of 400 problems. Every trained model in them
# was measured under plain decoding.

# %% [markdown]
# ## An interval, from scratch
#
# We measured some problems; others would have given other figures. The
# *bootstrap* ([Efron and Tibshirani,
# 1993](https://doi.org/10.1201/9780429246593)) imitates that, as drawn above:
#
# 1. draw as many problems as there are, with replacement;
# 2. compute the figure again on the drawn problems;
# 3. repeat, and keep the middle 95 % of what you got.
#
# *Paired* means that one draw serves both models.

# %% [markdown]
# ### Exercise 08.1 · A paired bootstrap (●●○, 15 minutes)
#
# `before` and `after` hold one number for each problem, in the same order.
# Return `(low, high)`, the interval of mean(`after`) − mean(`before`). The same
# `seed` must give the same interval. Plain Python and `random.Random(seed)` will
# do; NumPy is faster.
#
# *Why it matters:* every bracket in this package is made like this.


# %% tags=["exercise"]
def paired_interval(before, after, resamples=2000, seed=0):
    """95 % interval of mean(after) - mean(before)."""
    # BEGIN SOLUTION
    # STUB: ...  # your code here
    import numpy as np

    gaps = np.subtract(after, before)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(gaps), size=(resamples, len(gaps)))
    means = np.sort(gaps[drawn].mean(axis=1))
    cut = round(0.025 * resamples)
    return float(means[cut]), float(means[-cut - 1])
    # END SOLUTION


# %% tags=["check"]
from stepgrpo_lab.course import checks

verdict = checks.paired_bootstrap(paired_interval, number="08.1")
paired_interval = verdict.solution
verdict

# %% [markdown]
# <details><summary>Hint</summary>
#
# The difference of the means is the mean of the differences, so one list of
# differences is enough, and drawing from it is automatically paired.
# `rng.choices(range(n), k=n)` draws with replacement. Sort the means; with 2000
# of them, places 50 and 1949 are the ends.
#
# </details>

# %% [markdown]
# ## Why paired?
#
# Long problems are long for both models. If one draw serves both, that part of
# the chance cancels. Take the survey's 400 problems, tokens before and after
# training. How wide is the paired interval, compared with one that treats the
# two models as if they had answered different problems?

# %%
width_guess = course.predict(
    "The paired interval is",
    choices=("narrower", "about as wide", "wider"),
)
width_guess

# %% tags=["result"]
groups = {"untrained": [], "trained": []}
for group in lab.load_survey():
    groups[group.model].append(group)
before, after = (
    [group.members[0].outcome.tokens for group in recorded]
    for recorded in (groups["untrained"], groups["trained"])
)
low, high = paired_interval(before, after, 2000, 0)
zero = [0] * len(before)
alone = [paired_interval(zero, tokens, 2000, 0) for tokens in (before, after)]
apart = sum((one[1] - one[0]) ** 2 for one in alone) ** 0.5
print(f"paired: {high - low:.1f} tokens wide, apart: {apart:.1f}")
ratio = (high - low) / apart
kind = "narrower" if ratio < 0.95 else "wider" if ratio > 1.05 else ""
width_guess.compare(kind or "about as wide")

# %% [markdown]
# The library's version does the same for ratios too, and for several samples of
# each problem:

# %% tags=["nbval-check-output"]
interval = lab.paired_bootstrap(before, after)
print("differs by less than a token:", abs(interval.low - low) < 1)

# %% [markdown]
# ## What an interval allows one to say
#
# An interval that contains 0 does not show *no loss*: it may contain a loss of
# four points as well. To claim "no worse", say beforehand which loss you would
# accept at most, the *margin*, and see whether the whole interval stays above
# it.

# %% [markdown]
# ### Exercise 08.2 · What may be said (●○○, 5 minutes)
#
# Given the ends of an interval of the change in accuracy, in points, and a
# margin (a positive number), return `"no worse"` when every value in the
# interval is a smaller loss than the margin, `"worse"` when every value is a
# larger one, and `"undecided"` otherwise.
#
# *Why it matters:* with few problems, every interval contains 0.


# %% tags=["exercise"]
def what_to_say(low, high, margin):
    """What may be said of a change in accuracy."""
    # BEGIN SOLUTION
    # STUB: ...  # your code here
    if low > -margin:
        return "no worse"
    if high < -margin:
        return "worse"
    return "undecided"
    # END SOLUTION


# %% tags=["check"]
verdict = checks.verdict(what_to_say, number="08.2")
what_to_say = verdict.solution
verdict

# %% [markdown]
# <details><summary>Hint</summary>
#
# A loss of exactly the margin is the value `-margin`. Compare it with the two
# ends; 0 is not needed anywhere.
#
# </details>

# %% [markdown]
# ## The claim
#
# Three seeds of Step-GRPO, and one run of plain GRPO as a control, against the
# untrained model on the same 2000 problems. Two questions before you move
# anything:
#
# 1. Does plain GRPO make completions shorter?
# 2. For which runs does the interval of the accuracy contain 0?

# %%
from stepgrpo_lab.widgets import StudyExplorer

StudyExplorer(study="headline")

# %% tags=["result", "nbval-check-output"]
for name, run in load_record("headline").runs.items():
    points = run.test.accuracy_points
    print(f"{name}: {run.test.token_ratio * 100} % of the tokens,", end=" ")
    print(f"{points} points")
    print("  contains 0:", 0 in points, end="; with a margin of one point: ")
    print(what_to_say(points.low, points.high, 1.0))

# %% [markdown]
# Compare the seeds with each other. The interval covers the choice of
# *problems*. It does not cover the *seed* of the training: another order of
# prompts, other samples, another model. Where seeds differ by more than an
# interval is wide, one seed with a narrow interval would have looked more
# certain than it is. So seeds stand side by side.

# %% [markdown]
# ## What were the steps good for?
#
# Shorter is not yet better: *which* steps went? On generated problems a verifier
# labels each step: *needed* up to the first right derivation, *verifying* the
# first check after it, *redundant* what repeats a check.

# %%
removed_guess = course.predict(
    "Which steps does training remove (more than half of them)?",
    choices=("redundant only", "redundant and verifying", "all kinds alike"),
)
removed_guess

# %% tags=["result"]
steps = {
    model: lab.measure_overthinking(recorded).steps
    for model, recorded in groups.items()
}
left = {
    kind: steps["trained"].get(kind, 0.0) / count
    for kind, count in steps["untrained"].items()
    if count
}
for kind, share in left.items():
    print(f"{kind}: {share:.0%} are left")
gone = {kind for kind, share in left.items() if share < 0.5}
both = "redundant and verifying" if "verifying" in gone else "redundant only"
removed_guess.compare("all kinds alike" if "needed" in gone else both)

# %% tags=["result"]
from stepgrpo_lab.viz.completions import step_labels

step_labels(steps)

# %% [markdown]
# The reward pays nothing for a check, so a check has to earn its keep by making
# answers right. Whether it does depends on the model: one that is nearly always
# right loses nothing without it.
#
# The paper reports for Qwen3-8B that verification stays (22.9 % of the steps,
# against 21.7 % with a length penalty) while redundancy shrinks (10.9 %). There
# the labels come from a language model's judgement of at most 200 traces, and a
# difference of 1.2 points is within what another 200 could change. Here the
# labels are exact and the problems easier. Neither refutes the other.

# %% [markdown]
# ## Every method, at the same price
#
# A figure needs neighbours. `stepgrpo compare` gives each method several seeds,
# the same tokens to decode in training, and the best of several learning rates
# by *validation* problems.
#
# | method | in one sentence |
# | --- | --- |
# | GRPO ([2402.03300](https://arxiv.org/abs/2402.03300)) | right answers earn, whatever they cost |
# | length penalty ([2502.04463](https://arxiv.org/abs/2502.04463)) | right answers earn less, the longer they are in their group |
# | soft overlong punishment ([2503.14476](https://arxiv.org/abs/2503.14476)) | only the last stretch before the limit costs |
# | GRPO-λ ([2505.18086](https://arxiv.org/abs/2505.18086)) | the length penalty, but only in those groups of a batch that are most often right |
# | S-GRPO ([2505.07686](https://arxiv.org/abs/2505.07686)) | one chain, answered at several of its places; early right answers earn most |
# | DEER + SFT | imitate the shortest right completions that probes have cut ([DEER](https://arxiv.org/abs/2504.15895)), sampled once |
# | Step-GRPO ([2604.16890](https://arxiv.org/abs/2604.16890)) | probes cut in training, and steps are compared in the group |

# %% [markdown]
# Two more rows train nothing: *DEER at inference* probes the untrained model
# whenever it is used, and a *think budget* cuts its thoughts at a fixed place.
#
# Among the trained methods that halve the tokens, which one stays closest to
# the untrained model's accuracy, or gains most on it?

# %%
record = load_record("all")
methods = [row for row in record.rows if row.kind == "method"]
neighbour_guess = course.predict(
    "Of the methods that halve the tokens, the most accurate is",
    choices=[row.title for row in methods],
)
neighbour_guess

# %% tags=["result"]
from stepgrpo_lab.viz.tradeoff import tradeoff_changes

points = [
    {
        "name": row.title,
        "accuracy_points": row.test.accuracy_points,
        "token_ratio": row.test.token_ratio,
    }
    for row in record.rows
    if row.kind in ("untrained", "method") and row.name != "vanilla"
]
tradeoff_changes(points, "untrained")

# %% tags=["result"]
for row in methods:
    seeds = ", ".join(f"{100 * seed.accuracy:.1f}" for seed in row.seeds)
    print(f"{row.title}: {row.test.token_ratio * 100} % of the tokens,")
    print(f"  {row.test.accuracy_points} points; right by seed: {seeds}")
short = [row for row in methods if row.test.token_ratio.estimate < 0.5]
best = max(short or methods, key=lambda row: row.test.accuracy_points.estimate)
neighbour_guess.compare(best.title)

# %% [markdown]
# Before you believe a ranking, ask three questions of it.
#
# - **Could anybody have gained?** A method can only correct answers that were
#   wrong. Look at the untrained model's accuracy: where it is nearly 100 %, a
#   gain cannot appear, and its absence refutes nothing.
# - **Do the seeds agree?** Look at the last column. A mean over seeds that lie
#   ten points apart describes none of them, and a learning rate chosen on the
#   first seed flatters that seed.
# - **Is it the method, or the model?** What imitates right completions does
#   well where nearly all completions are right. The paper has DEER + SFT last.

# %% tags=["result"]
vanilla = record.row("vanilla")
print(f"untrained: {100 * vanilla.test.accuracy.estimate:.1f} % right")
for row in methods:
    accuracies = [100 * seed.accuracy for seed in row.seeds]
    print(f"{row.title}: seeds {max(accuracies) - min(accuracies):.1f} apart")

# %% [markdown]
# One mean can also hide *where* the harm is. The same rows by family of
# problems:

# %% tags=["result"]
families = [name for name in vanilla.test.parts if "," not in name]
for row in methods:
    parts = [
        f"{name} {row.test.parts[name].accuracy_points}" for name in families
    ]
    print(f"{row.title}: {' · '.join(parts)}")

# %% [markdown]
# ## The method taken apart
#
# Step-GRPO is a rollout that cuts thoughts and a reward that counts steps. An
# *ablation* takes one piece away. Which half alone makes plain decoding about as
# short as both together do?

# %%
half_guess = course.predict(
    "Which half alone is enough to get about as short?",
    choices=("the rollout", "the step reward", "each of them", "neither"),
)
half_guess

# %% tags=["result"]
ratios = {}
for row in record.rows:
    ratios[row.name] = row.test.token_ratio.estimate
    if row.name in ("step-grpo", "no-step-reward", "no-dynamic-rollout"):
        print(f"{row.title}: {row.test.token_ratio * 100} % of the tokens,")
        print(f"  {row.test.accuracy_points} points")

# %% tags=["result"]
halves = {
    "the rollout": "no-step-reward",
    "the step reward": "no-dynamic-rollout",
}
enough = [
    half
    for half, row in halves.items()
    if ratios[row] - ratios["step-grpo"] < 0.1
]
names = {0: "neither", 2: "each of them"}
half_guess.compare(names.get(len(enough)) or enough[0])

# %% [markdown]
# An ablation that leaves the result standing says: *this piece was not what did
# it, here*. (The record holds more of them; `stepgrpo compare` lists all.)
# Beside it, the paper: without the step reward its model keeps 78 %
# of the tokens, and without the rollout it loses 5.8 points. Where our rows
# differ, the reason may lie in the model or in the problems, and only more
# models can say which.

# %% [markdown]
# ## The same question where the model errs
#
# The untrained model above is always right, so nothing could gain. *Overthinker 2*
# is a second model, built so that stopping can help, hurt or be needed. It takes
# risky shortcuts, sometimes writes a right derivation and loses it again, and
# knows fairly well how sure it is. Same methods, same price, five seeds each.

# %%
second = load_record("overthinker-2")
before = second.row("vanilla").test
print(f"untrained: {before.accuracy * 100} % right, {before.tokens} tokens")
gain_guess = course.predict(
    "Trained on Overthinker 2, which is right most often?",
    choices=[row.title for row in second.trained],
)
gain_guess

# %% tags=["result"]
tradeoff_changes(
    [
        {
            "name": row.title,
            "accuracy_points": row.test.accuracy_points,
            "token_ratio": row.test.token_ratio,
        }
        for row in second.rows
        if row.name != "vanilla"
    ],
    "untrained",
)

# %% tags=["result"]
for row in second.trained:
    print(f"{row.title}: {row.test.token_ratio * 100} % of the tokens,")
    print(f"  {row.test.accuracy_points} points")
most = max(second.trained, key=lambda row: row.test.accuracy_points.estimate)
gain_guess.compare(most.title)

# %% [markdown]
# Here accuracy can rise, and the ranking turns around. Which
# differences are real? These intervals hold two rows against each other on the
# same problems, and cover the seeds of both:

# %% tags=["result"]
for pair in second.contrasts:
    print(f"{pair.after} against {pair.before}:")
    print(f"  {pair.test.token_ratio * 100} % of the tokens,", end=" ")
    print(f"{pair.test.accuracy_points} points")

# %% [markdown]
# Read them as a referee would. The shorter of two methods is not better if it is
# also less often right, and two methods at different lengths are not compared
# until somebody brings them to the same one. One laboratory said that the step
# reward alone is enough; this one says what the rollout adds. Both are
# true, each of its own model. The records' page
# ([data/results](../data/results/README.md)) goes through the paper's claims one
# by one.

# %% [markdown]
# ## What 2026 found
#
# Rollouts or rewards? The field has been asking the same.
#
# | paper | finding |
# | --- | --- |
# | On-policy SFT ([2602.13407](https://arxiv.org/abs/2602.13407)) | GRPO with a plain length limit, no KL and no group normalisation *is* filtered SFT on the model's own samples; fresh samples matter, a fixed set loses |
# | DLER ([2510.15110](https://arxiv.org/abs/2510.15110)) | truncation as the only length signal is enough, once batch-wise normalisation, a higher upper clip and dynamic sampling are in place |
# | GFPO ([2508.09726](https://arxiv.org/abs/2508.09726)) | sample more, learn from the shortest few of each group; no penalty |
# | SAS ([2604.24003](https://arxiv.org/abs/2604.24003)) | GRPO in a short context, without any length reward, compresses as much as dedicated methods |
# | ESTAR ([2602.10004](https://arxiv.org/abs/2602.10004)) | the model's own stop token takes the place of the probe |

# %% [markdown]
# Their common thread: what shortens a model is *its own short right
# completions*, fresh ones, whichever machinery selects them. Probes that cut
# are one way to get them; a reward that prefers them is another.
#
# Hold the ablation above against that. If the reward alone is enough in the
# record you see, this miniature agrees with them: among a model's own samples
# some are shorter than others, and preferring these suffices. Two caveats. Our
# DEER + SFT samples once, so it is the *fixed* set that on-policy SFT warns of.
# And nobody seems to have published what happens when the probe rate changes,
# which is where we go now.

# %% [markdown]
# ## What can go wrong: a result that looks like success
#
# Back to the first picture. The same runs during training, now on validation
# problems and under plain decoding:

# %% tags=["result"]
from stepgrpo_lab.viz.plots_study import VALIDATION

method_curves(curves, VALIDATION)

# %% tags=["result"]
kept = {}
for title, change in study.pooled.items():
    name = {"Step-GRPO": "half probed"}.get(title, title)
    kept[name] = change.token_ratio
    print(f"{name}: {change.token_ratio * 100} % of the tokens,", end=" ")
    print(f"{change.accuracy_points} points")
one, other = kept.values()
apart = one.high < other.low or other.high < one.low
shortest = min(kept, key=lambda name: kept[name].estimate)
shorter_guess.compare(shortest if apart else "no difference")

# %% tags=["result"]
every_member = kept["every member probed"]
kept_guess.compare(100 * every_member.estimate)

# %% [markdown]
# <details><summary>What we see</summary>
#
# The rollout was short because the *probe* cut it. That was so before the first
# update, when nothing had been learnt yet: look at step 1 of the first picture.
# A flat curve that starts at its goal is no learning curve.
#
# </details>
#
# Metrics of the rollout show the probe. Plain decoding shows the model.

# %% [markdown]
# ## Where the signal comes from
#
# GRPO learns from *advantages*: rewards compared inside a group. Take eight
# right completions. *Half probed*: four closed by force after 2 steps, four
# natural ones with 8. *Every member*: all closed by force, after 2 or 3.

# %% tags=["nbval-check-output"]
right = [True] * 8
cases = {"half probed": [2] * 4 + [8] * 4, "every member": [2] * 6 + [3] * 2}
for name, counts in cases.items():
    paid = lab.step_aware_rewards(right, counts, right)
    advantages = lab.group_advantages(paid)
    forced = advantages[:4] if name == "half probed" else advantages
    mean = round(sum(forced) / len(forced), 2) + 0.0
    print(f"{name}: a forced close earns {mean:+.2f} on average")

# %% [markdown]
# The advantages of a group sum to zero. Where all closes are forced, they are
# compared with each other: some exits gain, others lose, and *exiting* gains
# nothing. The model hears nothing about thinking on, because nobody did.
#
# What was recorded, step by step: how many thoughts a probe closed, in how many
# groups both kinds of close met, and the mean advantage of each kind.

# %% tags=["result"]
from stepgrpo_lab.viz.plots_study import SIGNALS

method_curves(curves, SIGNALS)

# %% tags=["result"]
from IPython.display import Markdown
from stepgrpo_lab.experiments.tables import signals_markdown

Markdown(signals_markdown(study))

# %% [markdown]
# Read the two middle columns. With half of a group probed, nearly every group
# holds both kinds, and the update says: *close*. With every member probed, the
# forced closes have almost nobody to be better than. What is learnt then comes
# from the few natural closes that are left.
#
# That is a finding about a model whose probes exit almost always. A model that
# is less sure leaves more natural completions in every group, and there the
# published setting has something to compare. So the question for any other
# model is not "half or all?" but "does every group still hold both?"

# %% [markdown]
# ### Exercise 08.3 · What a batch says about closing (●●○, 20 minutes)
#
# Compute that table's columns. Each of the `groups` is a pair: its members'
# `rewards`, and for each member whether a probe closed its thoughts (`forced`).
# Return three numbers:
#
# 1. the share of the groups in which both kinds of close occur;
# 2. the mean advantage of all forced closes;
# 3. the mean advantage of all natural ones; `None` for a kind that does not occur.
#
# The advantages are GRPO's: in each group, reward minus mean, divided by the
# unbiased standard deviation plus 0.0001; zeros where all rewards are equal.
#
# *Why it matters:* these numbers told the story before any model had been
# evaluated. You can compute them on the first batch of a run of your own.


# %% tags=["exercise"]
def closing_signal(groups):
    """Share of mixed groups, mean advantage of forced and natural."""
    # BEGIN SOLUTION
    # STUB: from statistics import fmean, stdev
    # STUB:
    # STUB: ...  # your code here
    from statistics import fmean, stdev

    mixed, kinds = 0, {True: [], False: []}
    for rewards, forced in groups:
        mixed += len(set(forced)) == 2
        mean, spread = fmean(rewards), stdev(rewards)
        for reward, was_forced in zip(rewards, forced, strict=True):
            advantage = (reward - mean) / (spread + 1e-4)
            kinds[bool(was_forced)].append(advantage)
    means = [fmean(kind) if kind else None for kind in kinds.values()]
    return mixed / len(groups), *means
    # END SOLUTION


# %% tags=["check"]
verdict = checks.closing_signal(closing_signal, number="08.3")
closing_signal = verdict.solution
verdict

# %% [markdown]
# <details><summary>Hint</summary>
#
# One loop over the groups: count those whose `forced` holds both values, compute
# the advantages, and sort them into two lists. The mean of an empty list does not
# exist: return None there, not 0, which would be a measurement.
#
# </details>
#
# Yours, on recorded rollouts in which half of each group was probed. And then
# pretend: leave out the members that were not.

# %% tags=["nbval-check-output", "result"]
from stepgrpo_lab.method.rewards import outcome_rewards

half, probed_only = [], []
for group in lab.load_recordings():
    if group.model != "untrained" or group.rollout != "official":
        continue
    for kept, batch in ((1, half), (2, probed_only)):
        members = group.members[kept - 1 :: kept]
        outcomes = [member.outcome for member in members]
        paid = outcome_rewards(lab.StepAwareReward(), outcomes)
        closed = [m.trajectory.close == "early" for m in members]
        batch.append((paid, closed))
for name, batch in {"half": half, "probed only": probed_only}.items():
    shared, forced, natural = closing_signal(batch)
    print(f"{name:11} {shared:4.0%} of the groups mixed,", end=" ")
    print(f"forced {forced:+.2f}, natural {natural or 0:+.2f}")

# %% [markdown]
# <details><summary>What we see</summary>
#
# With the other half to compare with, a forced close earns a clear plus. Among
# themselves, the very same closes earn next to nothing: the model is not told that
# closing pays. (Four groups, chosen to be looked at: a demonstration, no
# measurement. The table above has the whole training.)
#
# </details>

# %% [markdown]
# ## What would refute the claim?
#
# The claim: *after training the model stops by itself, at almost no loss, and
# the needed steps stay*. A claim that nothing could refute says nothing.
#
# | test | refuted if | where to look |
# | --- | --- | --- |
# | plain decoding | it is long without probes | above |
# | first cut | the trained model needs no later step | next cell |
# | other seeds | one seed fails | above |
# | harder problems | accuracy falls above the trained levels | next cell but one |
# | other budgets | it loses where the limit is wide, or tight | not measured |
# | another model or tokenizer | markers split otherwise | not measured |
#
# *First cut*: close the thoughts of the trained model by force at the first
# marker. If that cost nothing, the model would have moved its work into the
# first step, and the "steps" would be decoration.

# %% tags=["result"]
for name, run in load_record("fairness").runs.items():
    cuts = [f"{family} {cut} points" for family, cut in run.first_cut.items()]
    print(f"{name}: {' · '.join(cuts)}")

# %% tags=["result"]
for row in record.rows:
    if row.name in ("vanilla", "step-grpo") and row.harder:
        harder = row.harder
        print(f"{row.title}: {harder.accuracy * 100} % right,", end=" ")
        print(f"{harder.token_ratio * 100} % of the tokens")

# %% [markdown]
# If the untrained model is rarely right above its levels, then "no worse there"
# says little: there is little to lose. Whatever the table calls *not measured*
# is an open question. If you report a result, fill in these rows.

# %% [markdown]
# ## Your predictions

# %%
course.score()

# %% [markdown]
# ## Summary
#
# - The bootstrap is paired because the problems are the same. Its interval
#   covers problems, not seeds; show both.
# - "Contains 0" is not "no loss": name a margin first.
# - A ranking belongs to its model and problems. Ask who could have gained.
# - An ablation says which piece did it, here.
# - Metrics of the rollout show the probe; plain decoding shows the model.

# %% [markdown]
# **Further reading.** [On-policy SFT](https://arxiv.org/abs/2602.13407) and
# [DLER](https://arxiv.org/abs/2510.15110) are the two papers to hold against
# this one. [The Art of Efficient Reasoning](https://arxiv.org/abs/2602.20945)
# trains Qwen3 from 0.6B to 30B and asks for accuracy at several token budgets.
# [*Deep Reinforcement Learning at the Edge of the Statistical
# Precipice*](https://arxiv.org/abs/2108.13264) is the classic on few seeds.
#
# Next: [09 · Scaling to Qwen3](09_scaling_to_qwen3.ipynb).
