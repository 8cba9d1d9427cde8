# ---
# jupyter:
#   stepgrpo:
#     title: The step-aware relative reward
#     minutes: 35
#     hardware: any CPU
# ---

# %% [markdown]
# ## Objectives
#
# - Compute the step-aware relative reward by hand, and know what each of its
#   settings does.
# - Turn the rewards of a group into advantages, and say when `step_beta` has
#   no effect at all.
# - Say why a wrong answer gets no length signal here, and see what happens
#   when it gets one.
# - Hold the reward against five others on the same group.

# %% [markdown]
# ## Where we are
#
# The rollout (notebooks 04 and 05) has written a *group*: several completions
# of one prompt. Each has been graded and its semantic steps have been counted.
# Now each completion needs a number, its *reward*, that says how good it was.
#
# Right must beat wrong. Among right answers, fewer steps must beat more steps.
# How many steps are few? The group itself says: a completion is compared with
# its own group's mean.

# %% [markdown]
# ## The equation, by hand
#
# For member *i* with correctness *c* (1 or 0), *k* steps and format *f* (1 if
# a non-empty `\boxed{}` follows the thoughts):
#
# $$\mu = \text{mean of } k_j \text{ over the members with } c_j = 1$$
#
# $$R_i = \alpha\, c_i \left(1 - \beta \tanh\frac{k_i - \mu}{\mu}\right)
# + (1 - \alpha)\, f_i$$
#
# The paper writes α and β. In code they are `step_alpha` (0.9) and `step_beta`
# (0.5), because TRL's `beta` is something else: the weight of the KL penalty.

# %% [markdown]
# Our group: five completions, three of them right. Their mean is μ = 4 steps.
# A right answer of 4 steps earns 0.9 + 0.1 = 1. What does one of 2 steps earn?
#
# Replace `None` with your guess.

# %%
from stepgrpo_lab.course import predict

saved = predict("Reward of the right answer with 2 steps?", None)
saved

# %% tags=["nbval-check-output"]
from math import tanh

correct = [True, True, True, False, False]
steps = [2, 4, 6, 3, 9]
formatted = [True] * 5

right = [k for k, c in zip(steps, correct, strict=True) if c]
mu = sum(right) / len(right)
by_hand = [
    0.9 * c * (1 - 0.5 * tanh((k - mu) / mu)) + 0.1 * f
    for c, k, f in zip(correct, steps, formatted, strict=True)
]
print("mu =", mu)
print("R  =", [round(reward, 4) for reward in by_hand])

# %%
saved.compare(by_hand[0])

# %% [markdown]
# The right answer of 6 steps still earns 0.79, far more than the wrong ones,
# which earn 0.1 for their box. Here is the reward that training uses, first
# for a group, then for one member of it:

# %%
from stepgrpo_lab import StepAwareReward, step_aware_rewards
from stepgrpo_lab.course import source_of

source_of(StepAwareReward.__call__)

# %%
source_of(StepAwareReward._outcome)

# %% tags=["nbval-check-output"]
rewards = step_aware_rewards(correct, steps, formatted)
gaps = [abs(a - b) for a, b in zip(rewards, by_hand, strict=True)]
print("library and hand agree:", max(gaps) < 1e-12)

# %% [markdown]
# ### Exercise 06.1 · The group's mean (●○○)
#
# Write the baseline μ: the mean number of steps of the **right** members. When
# nobody is right there is none; give `None` then.
#
# It matters because this one number decides what counts as long.


# %% tags=["exercise"]
def mean_steps(correct, steps):
    """Mean steps of the right members; None if nobody is right."""
    # BEGIN SOLUTION
    # STUB: ...  # your code here
    kept = [k for c, k in zip(correct, steps, strict=True) if c]
    return sum(kept) / len(kept) if kept else None
    # END SOLUTION


# %% tags=["check"]
from stepgrpo_lab.course import checks

checks.mean_steps_of_right(mean_steps)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Collect the steps where `correct` is true first. Then ask whether that list
# is empty before you divide by its length.
#
# </details>

# %% [markdown]
# ### Exercise 06.2 · One member's reward (●●○)
#
# Write the equation for one member, whose group's mean you are given (`None`
# when nobody in the group is right).

# %% tags=["exercise"]
from math import tanh


def member_reward(correct, steps, formatted, mean, alpha=0.9, beta=0.5):
    """Reward of one member: Eq. 5, with the factor of Eq. 4."""
    # BEGIN SOLUTION
    # STUB: ...  # your code here
    outcome = 0.0
    if correct:
        outcome = 1 - beta * tanh((steps - mean) / mean)
    return alpha * outcome + (1 - alpha) * bool(formatted)
    # END SOLUTION


# %% tags=["check"]
checks.member_reward(member_reward)

# %% [markdown]
# <details><summary>Hint</summary>
#
# A wrong member never looks at the mean, so it does not mind that the mean is
# `None`. The format term is outside of the bracket: a wrong answer in a box
# keeps it.
#
# </details>

# %% [markdown]
# ## What the settings do
#
# `step_alpha` shares the reward out between being right and writing a box.
# `step_beta` says how much steps matter among right answers. `tanh` keeps both
# in bounds: with the published values a right answer earns between 0.55 and
# 1.343, and a wrong one at most 0.1. So **right always beats wrong**, however
# long it is.

# %%
from stepgrpo_lab.viz.groups import step_reward_curve

step_reward_curve([0.0, 0.5, 0.9])

# %% tags=["nbval-check-output"]
crowd = [1] + [10_000] * 9  # one short member among very long ones
most = step_aware_rewards([True] * 10, crowd, [True] * 10)[0]
crowd = [10**6] + [1] * 999  # one endless member among short ones
least = step_aware_rewards([True] * 1000, crowd, [True] * 1000)[0]
print(f"a right answer earns between {least:.3f} and {most:.3f}")
for alpha in (0.9, 0.5, 0.1):
    low = step_aware_rewards(correct, steps, formatted, step_alpha=alpha)
    told = ", ".join(f"{reward:.2f}" for reward in low)
    print(f"step_alpha {alpha}: {told}")

# %% [markdown]
# At `step_alpha` 0.1 a right and a wrong answer are hardly told apart: the box
# pays for nearly everything.
#
# The package has no term of its own for truncation. A completion that hits its
# limit while thinking has no box after `</think>`, so *c* and *f* are both 0,
# and so is its reward. A recorded group shows it:

# %% tags=["nbval-check-output"]
from stepgrpo_lab import StepAwareReward
from stepgrpo_lab.method.rewards import outcome_rewards
from stepgrpo_lab.recordings import load_recordings

groups = load_recordings()
group = groups[1]
print(group.title)
paid = outcome_rewards(StepAwareReward(), group.outcomes())
print("right  box  cut off  steps  reward")
for member, reward in zip(group.outcomes(), paid, strict=True):
    flags = (member.correct, member.formatted, member.truncated)
    told = "  ".join("yes" if flag else " no" for flag in flags)
    print(f"  {told}  {member.steps:9}  {reward:6.3f}")

# %% [markdown]
# ## Whose mean?
#
# The mean is taken over the **right** members. The alternative is an ablation
# of the paper: the mean over all. In our group the wrong ones took 3 and 9
# steps, so the mean over all is 4.8 instead of 4. What does that do to the
# right answer of 4 steps?

# %%
mean_saved = predict(
    "With the mean over all members, the right answer of 4 steps earns",
    None,
    choices=("more", "the same", "less"),
)
mean_saved

# %% tags=["nbval-check-output"]
over_all = step_aware_rewards(correct, steps, formatted, mean_over="all")
print("mean over right:", [round(reward, 3) for reward in rewards])
print("mean over all:  ", [round(reward, 3) for reward in over_all])
mean_saved.compare("more" if over_all[1] > rewards[1] else "less")

# %% [markdown]
# One rambling wrong answer makes every right answer look short. A wrong answer
# can be the longest of its group (it got lost, or was cut off, as above), and
# then a mean over all says "you are short enough" where there is most to save.

# %% [markdown]
# ## From rewards to advantages
#
# GRPO does not use a reward as it is. It asks how much better a completion was
# than its own group: the *advantage*. A positive one makes the completion's
# tokens likelier, a negative one less likely. Three scalings are in use:
#
# | `scale` | advantage |
# | --- | --- |
# | `group` | (R − mean) / (std of the group + eps) |
# | `batch` | (R − mean) / (std of the whole batch + eps) |
# | `none` | R − mean |

# %% tags=["nbval-check-output"]
from statistics import fmean, stdev

from stepgrpo_lab import group_advantages

mean, std = fmean(rewards), stdev(rewards)
by_hand = [(reward - mean) / (std + 1e-4) for reward in rewards]
print("by hand:", [round(advantage, 4) for advantage in by_hand])
library = group_advantages(rewards)
print("library:", [round(advantage, 4) for advantage in library])

# %% [markdown]
# ## When `step_beta` does nothing
#
# Take a group where **everybody is right**, with 2, 3, 4, 5 and 6 steps. You
# lower `step_beta` from 0.5 to 0.05, so steps matter ten times less to the
# reward. What happens to the advantage of the shortest answer, under the usual
# scaling `group`?

# %%
beta_saved = predict(
    "step_beta 0.5 -> 0.05: the advantage of the shortest answer becomes",
    None,
    choices=("ten times smaller", "a little smaller", "larger"),
)
beta_saved

# %% tags=["nbval-check-output"]
everybody, few_to_many = [True] * 5, [2, 3, 4, 5, 6]
table = {}
for beta in (0.5, 0.05):
    paid = step_aware_rewards(
        everybody, few_to_many, everybody, step_beta=beta
    )
    table[beta] = paid
    print(f"step_beta {beta}: rewards", [round(r, 3) for r in paid])
    for scale in ("group", "batch", "none"):
        # a batch with this group and ours
        spread = stdev([*paid, *rewards])
        given = group_advantages(paid, scale=scale, batch_std=spread)
        print(f"  {scale:>5}:", [f"{a:+.3f}" for a in given])

# %%
strong, weak = (group_advantages(table[beta])[0] for beta in (0.5, 0.05))
kept = weak / strong
beta_saved.compare("ten times smaller" if kept < 0.2 else "a little smaller")

# %% [markdown]
# **Why.** Write *t* for the `tanh` term. Everybody is right, so every reward is
#
# R = m − s·t with m = 1 and s = step_alpha · step_beta,
#
# the same straight line for every member. Subtract the mean: m is gone, −s(t −
# mean t) is left. The standard deviation of R is s times that of t. Divide: s
# is gone too.
#
# $$A_i = -\frac{t_i - \bar t}{\operatorname{std}(t)}$$
#
# Neither `step_alpha` nor `step_beta` is in it. What little changed above comes
# from TRL's `eps` of 0.0001. With wrong members in the group, or with `batch`
# or `none`, the setting counts.

# %% [markdown]
# ### Exercise 06.3 · The advantage without `step_beta` (●●○)
#
# Everybody in the group is right. Compute the advantages from the steps alone,
# with the formula above (unbiased standard deviation, no eps). Give zeros when
# all have the same number of steps.

# %% tags=["exercise"]
from math import tanh
from statistics import fmean, stdev


def advantages_of_right(steps):
    """Advantages of an all-right group under group scaling, eps = 0."""
    # BEGIN SOLUTION
    # STUB: ...  # your code here
    mu = fmean(steps)
    terms = [tanh((k - mu) / mu) for k in steps]
    if len(set(terms)) == 1:
        return [0.0] * len(terms)
    center, spread = fmean(terms), stdev(terms)
    return [-(term - center) / spread for term in terms]
    # END SOLUTION


# %% tags=["check"]
checks.advantages_of_right(advantages_of_right)

# %% [markdown]
# <details><summary>Hint</summary>
#
# First the list of `tanh((k - mu) / mu)`, then its mean and its `stdev`. Mind
# the sign: fewer steps must come out positive. When all terms are equal the
# standard deviation is 0; deal with that case before you divide.
#
# </details>

# %% [markdown]
# ## Wrong answers get no length signal
#
# In the equation *c* = 0 removes the whole step term. Let the last wrong
# member take 1, 9 or 90 steps: nobody's reward moves.

# %% tags=["nbval-check-output"]
for k in (1, 9, 90):
    paid = step_aware_rewards(correct, [2, 4, 6, 3, k], formatted)
    print(f"{k:2} steps:", [round(reward, 3) for reward in paid])

# %% [markdown]
# That is on purpose. A short wrong answer is no better than a long one: it may
# have stopped before the step it needed. And a long wrong answer may have been
# the better try. What a length signal on wrong answers teaches, we measure
# below.

# %% [markdown]
# ## Five others on the same group
#
# LP is the length penalty of Arora and Zanette, SOP DAPO's soft overlong
# punishment, then Kimi k1.5's length reward, L1-Max and ShorterBetter. They
# count tokens, not steps; we give each step 500 tokens. SOP gets a limit of
# 4000 with a slope of 2000, L1 a target of 2000. All are wrapped as
# 0.9 · r + 0.1 · f, so that they differ in *r* alone.
#
# Before you look: in how many of the five does the length of a **wrong** answer
# change its reward?

# %%
wrong_saved = predict(
    "In how many of the five does a wrong answer's length count?", None
)
wrong_saved

# %%
from functools import partial

from stepgrpo_lab import OutcomeReward
from stepgrpo_lab.method import baselines
from stepgrpo_lab.method.baselines import kimi_rewards, soft_overlong_rewards

overlong = partial(soft_overlong_rewards, limit=4000, cache=2000)
methods = {
    "Step-GRPO": StepAwareReward(),
    "LP": OutcomeReward(baselines.length_penalty_rewards),
    "SOP": OutcomeReward(overlong),
    "Kimi": OutcomeReward(kimi_rewards),
    "L1-Max": OutcomeReward(partial(baselines.l1_max_rewards, target=2000)),
    "ShorterBetter": OutcomeReward(baselines.shorter_better_rewards),
}

# %% tags=["nbval-check-output"]
tokens = [500 * k for k in steps]
advantages = {}
signs = ["✓" if c else "✗" for c in correct]
columns = [f"{sign} {k} steps" for sign, k in zip(signs, steps, strict=True)]
print(" " * 14, *(f"{column:>9}" for column in columns))
for name, method in methods.items():
    paid = method(correct, steps, formatted, tokens)
    advantages[name] = group_advantages(paid)
    print(f"{name:>14}", *(f"{reward:9.3f}" for reward in paid))

# %%
from stepgrpo_lab.viz.groups import group_advantages_chart

wrong_saved.compare(sum(given[3] != given[4] for given in advantages.values()))

# %%
group_advantages_chart(advantages, columns, chosen="Step-GRPO")

# %% [markdown]
# <details><summary>What we see</summary>
#
# - Step-GRPO, LP and L1-Max leave wrong answers alone: both get the same.
# - Kimi, SOP and ShorterBetter do not: the wrong answer of 9 steps earns less
#   than that of 3. ShorterBetter tells them furthest apart, because its price
#   per token has no upper end.
# - LP and Step-GRPO rank the right answers alike. The difference is what they
#   count: a needed calculation of many tokens is one step, so Step-GRPO does
#   not charge for its length.
#
# </details>

# %% [markdown]
# ## Now you: the group explorer
#
# Recorded groups of the package's model, with every reward side by side. Two
# questions before you move anything:
#
# 1. On the first group, which member does Step-GRPO like least, and is it the
#    longest wrong one?
# 2. Choose the group *trained, plain: chain-9-8\*7\*9\*9*. Which method still
#    tells its members apart?

# %%
from stepgrpo_lab.widgets import GroupExplorer

GroupExplorer()

# %% [markdown]
# <details><summary>What we see</summary>
#
# 1. Member 7: wrong, 6 steps, no box (reward 0). The wrong answers of 9 and 12
#    steps keep 0.1 for their box, and their length costs them nothing.
# 2. None. All eight members are right with 2 steps and 34 tokens, so every
#    method gives all of them one reward: advantages are 0 and no token is
#    pushed. A group like this costs a rollout and teaches nothing.
#
# </details>

# %% [markdown]
# ## What can go wrong: a group of exits only
#
# As published, *every* member of a group is probed and may exit. On our model
# most do, at the first confident marker. What is left to compare?
#
# The recorded plain groups were probed at every marker and never stopped, so
# we can replay the exit rule on them: once on all members, once on every other
# one. How far apart are the advantages of the **right** members?

# %%
exits_saved = predict(
    "Every member may exit: in how many of the 4 groups do "
    "right answers still differ in steps?",
    None,
)
exits_saved

# %% tags=["nbval-check-output"]
from stepgrpo_lab import probed_members
from stepgrpo_lab.method.confidence import ExitRule

differing = {}
for share in (1.0, 0.5):
    print(f"share of the members that may exit: {share}")
    differing[share] = 0
    for group in groups[:4]:
        ended = group.outcomes(ExitRule(0.95), probed_members(8, share))
        paid = outcome_rewards(StepAwareReward(), ended)
        given = group_advantages(paid)
        good = [a for a, e in zip(given, ended, strict=True) if e.correct]
        counts = sorted({e.steps for e in ended if e.correct})
        differing[share] += len(counts) > 1
        print(f"  right: steps {counts}, spread {max(good) - min(good):.2f}")

# %%
exits_saved.compare(differing[1.0])

# %% [markdown]
# With every member probed, all right answers of a group have the *same* number
# of steps: μ is that number, `tanh` is 0, and what remains is right against
# wrong. The rollout is short, yet nothing says so to the model. With every
# other member probed, exits stand beside natural ends, and stopping pays.
#
# These four problems were chosen to be looked at, not counted. The training
# runs count.

# %% [markdown]
# ## A recorded real run
#
# The study `data/results/internalisation.json`: three seeds each, the recipe
# (half of each group probed) and the published setting (all of it). Means over
# the first and the last ten training steps:

# %%
from IPython.display import Markdown
from stepgrpo_lab.experiments.record import load_record
from stepgrpo_lab.experiments.tables import signals_markdown

study = load_record("internalisation")
Markdown(signals_markdown(study))

# %%
for name, compared in study.pooled.items():
    print(f"{name}: {compared.token_ratio * 100} % of the tokens")

# %% [markdown]
# Exits that are compared with exits earn an advantage near 0. The model still
# learns something from the few natural ends, but slowly: after 40 training
# steps it keeps about four fifths of its tokens, against about a third.

# %% [markdown]
# ## What can go wrong, again: punishing wrong answers for length
#
# `penalize_wrong=True` gives wrong answers the step term too. A toy shows what
# it teaches: a policy with three parameters, one for each completion it can
# write. (Notebook 07 builds its training.) The problem is hard:
#
# | completion | steps | right |
# | --- | --- | --- |
# | guess | 1 | 5 % of the time |
# | think | 4 | 30 % |
# | think long | 8 | 40 % |

# %%
guess_saved = predict(
    "With penalize_wrong, the policy ends up right how often?",
    None,
    unit="%",
)
guess_saved

# %%
from stepgrpo_lab.course.toy_policy import (
    ToyCompletion,
    ToySettings,
    toy_policies,
    train_toy_policy,
)

options = [
    ToyCompletion("guess", steps=1, tokens=4, right=0.05),
    ToyCompletion("think", steps=4, tokens=16, right=0.3),
    ToyCompletion("think long", steps=8, tokens=32, right=0.4),
]

# %%
settings = ToySettings(rollouts=100, learning_rate=8)
runs = {
    "as published": StepAwareReward(),
    "wrong penalised": StepAwareReward(penalize_wrong=True),
}
runs = {
    name: train_toy_policy(options, reward, settings)
    for name, reward in runs.items()
}
toy_policies(runs)

# %%
for name, run in runs.items():
    start, end = run.accuracy[0], run.accuracy[-1]
    print(f"{name:>15}: right {start:.1%} before, {end:.1%} after")
guess_saved.compare(100 * runs["wrong penalised"].accuracy[-1])

# %% [markdown]
# Where most answers are wrong anyway, being wrong *quickly* is the easiest way
# to a better reward. The policy learns to guess, and the reward goes up while
# the accuracy goes down. It is a toy, with probabilities that we chose; on an
# easy problem ("think" right half of the time) the same setting does no harm.
# Try it: change the numbers above.

# %% [markdown]
# ## Summary
#
# - A right answer earns more the fewer steps it took against the mean of its
#   group's right answers; it always beats a wrong one.
# - In an all-right group under `group` scaling, `step_alpha` and `step_beta`
#   cancel. Under `batch` and `none` they do not.
# - Wrong answers get no length signal; give them one, and guessing can pay.
# - A reward can only compare what a group holds: a group of exits alone says
#   nothing about exits.
#
# Next: [07 · GRPO from scratch](07_grpo.ipynb), where advantages become
# updates.
