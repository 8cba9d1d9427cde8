# ---
# jupyter:
#   stepgrpo:
#     title: The step-aware relative reward
#     minutes: 70
#     hardware: any CPU
# ---

# %% [markdown]
# ## A reward that works too well
#
# You want short right answers. So you pay 1 point for a right answer and take
# 0.02 points for each token. Your model can do three things:
#
# | completion | steps | tokens | right |
# | --- | --- | --- | --- |
# | guess | 1 | 4 | 5 % of the time |
# | think | 4 | 16 | 30 % |
# | think long | 8 | 32 | 40 % |
#
# You train it, and the reward climbs from the first step to the last:

# %%
import stepgrpo_lab as lab
from stepgrpo_lab.course.toy_policy import (
    ToyCompletion,
    ToySettings,
    train_toy_policy,
)
from stepgrpo_lab.viz.plots_study import method_curves

options = [
    ToyCompletion("guess", steps=1, tokens=4, right=0.05),
    ToyCompletion("think", steps=4, tokens=16, right=0.3),
    ToyCompletion("think long", steps=8, tokens=32, right=0.4),
]


def priced(correct, steps, formatted, tokens):
    """1 for a right answer, minus 0.02 for each token."""
    pairs = zip(correct, tokens, strict=True)
    return [float(right) - 0.02 * count for right, count in pairs]


# %%
settings = ToySettings(rollouts=60, learning_rate=8)
run = train_toy_policy(options, priced, settings)
paid = [
    right - 0.02 * tokens
    for right, tokens in zip(run.accuracy, run.tokens, strict=True)
]
curves = {"your reward": {"reward": list(map(list, enumerate(paid)))}}
method_curves(curves, {"reward": ("Mean reward", "points", 1)})

# %% [markdown]
# Before training, the model picked each of the three equally often and was
# right 25 % of the time. And after?

# %%
accuracy_guess = course.predict(
    "How often is it right after this training?", unit="%"
)
accuracy_guess

# %% [markdown]
# You will see at the end. First comes a reward that counts length without
# being fooled by it: the heart of Step-GRPO.

# %%
course.drawing(
    "step-reward",
    "Reward against number of steps. For right answers a falling S-shaped "
    "curve passes through reward 1 at the mean number of steps of the "
    "group's right answers: fewer steps earn more, more steps earn less, "
    "within bounds. Wrong answers lie on a flat line far below: their length "
    "changes nothing.",
)

# %% [markdown]
# ## Objectives
#
# After this notebook you can
#
# - write the step-aware relative reward, and say what each setting does;
# - say who is compared with whom, and why wrong answers are left alone;
# - show when `step_beta` has no effect at all;
# - read five rival rewards, and write one of them in torch;
# - recognise a reward that will be gamed before you train with it.

# %% [markdown]
# ## Where we are
#
# The rollout ([04](04_truncated_rollout.ipynb), [05](05_backtracking.ipynb))
# has written a [group](../docs/glossary.md): several completions of one
# prompt. Each has been graded, and its semantic steps have been counted. Now
# each needs one number, its *reward*.
#
# Right must beat wrong. Among right answers, fewer steps must beat more. But
# how many steps are few? That depends on the problem, so the group itself
# answers: a completion is compared with its own group's mean.

# %% [markdown]
# ## The equation
#
# Member *i* has correctness $c_i$ (1 or 0), $k_i$ steps and format $f_i$ (1 if
# a non-empty `\boxed{}` follows the thoughts):
#
# $$\mu = \text{mean of } k_j \text{ over the members with } c_j = 1$$
#
# $$R_i = \alpha\, c_i \left(1 - \beta \tanh\frac{k_i - \mu}{\mu}\right)
# + (1 - \alpha)\, f_i$$
#
# The paper writes α and β. In code they are `step_alpha` (0.9) and `step_beta`
# (0.5), because TRL's `beta` is something else: the weight of the KL term.
#
# Take the group of the drawing: right with 2, 4 and 6 steps, wrong with 3 and
# 9, all in a box. The right answer of 4 steps earns 0.9 + 0.1 = 1. What does
# the one of 2 steps earn?

# %%
short_guess = course.predict(
    "Reward of the right answer with 2 steps?", low=0.5, high=1.5
)
short_guess

# %% [markdown]
# ### Exercise 06.1 · The rewards of a group (●●○, 15 minutes)
#
# Write the equation, for all members of one group. The three lists have one
# entry for each member; return as many rewards. Think of the group in which
# nobody is right: it has no μ, and its wrong answers still earn the format
# term.
#
# *Why it matters:* every token of every completion will be pushed by what comes
# out of these lines. From here on this notebook computes with yours.

# %% tags=["exercise"]
from math import tanh


def step_rewards(correct, steps, formatted, alpha=0.9, beta=0.5):
    """Step-aware rewards of one group."""
    # BEGIN SOLUTION
    # STUB: ...  # your code here
    counted = [k for c, k in zip(correct, steps, strict=True) if c]
    mu = sum(counted) / len(counted) if counted else None
    rewards = []
    for c, k, f in zip(correct, steps, formatted, strict=True):
        outcome = 0.0
        if c:
            outcome = 1 - beta * tanh((k - mu) / mu)
        rewards.append(alpha * outcome + (1 - alpha) * bool(f))
    return rewards
    # END SOLUTION


# %% tags=["check"]
from stepgrpo_lab.course import checks

verdict = checks.step_rewards(step_rewards, number="06.1")
step_rewards = verdict.solution
verdict

# %% [markdown]
# <details><summary>Hint</summary>
#
# First μ: collect the steps where `correct` is true, and ask whether that list
# is empty before you divide. Then one loop over the members. A wrong member
# never looks at μ. The format term stands outside the bracket: a wrong answer
# in a box keeps it.
#
# </details>
#
# Your function, on the group of the drawing:

# %% tags=["result", "nbval-check-output"]
correct = [True, True, True, False, False]
steps = [2, 4, 6, 3, 9]
formatted = [True] * 5
rewards = step_rewards(correct, steps, formatted, 0.9, 0.5)
print("R =", [round(reward, 4) for reward in rewards])
same = lab.step_aware_rewards(correct, steps, formatted)
gaps = [abs(a - b) for a, b in zip(rewards, same, strict=True)]
print("as the library:", max(gaps) < 1e-12)

# %% tags=["result"]
short_guess.compare(rewards[0])

# %% [markdown]
# Even the right answer of 6 steps earns far more than the wrong ones, which get
# 0.1 for their box. The reward that training uses:

# %%
course.source_of(lab.StepAwareReward.__call__)

# %% [markdown]
# ## What the settings do
#
# `step_alpha` shares the reward out between being right and writing a box.
# `step_beta` says how much steps matter among right answers. And `tanh` keeps
# both in bounds: however extreme the group, **right beats wrong**.

# %%
from stepgrpo_lab.viz.groups import step_reward_curve

step_reward_curve([0.0, 0.5, 0.9])

# %% tags=["nbval-check-output"]
crowd = [1] + [10_000] * 9  # one short member among very long ones
most = step_rewards([True] * 10, crowd, [True] * 10, 0.9, 0.5)[0]
crowd = [10**6] + [1] * 999  # one endless member among short ones
least = step_rewards([True] * 1000, crowd, [True] * 1000, 0.9, 0.5)[0]
print(f"a right answer earns between {least:.3f} and {most:.3f}")
for alpha in (0.9, 0.5, 0.1):
    low = step_rewards(correct, steps, formatted, alpha, 0.5)
    row = ", ".join(f"{reward:.2f}" for reward in low)
    print(f"step_alpha {alpha}: {row}")

# %% [markdown]
# At `step_alpha` 0.1 right and wrong hardly differ: the box pays for nearly
# everything.
#
# A completion that hits its limit while it is still thinking has no box after
# `</think>`, so *c* and *f* are both 0, and so is its reward. No separate term
# is needed. A recorded group has such members:

# %% tags=["nbval-check-output"]
from stepgrpo_lab.method.rewards import outcome_rewards
from stepgrpo_lab.recordings import load_recordings

group = load_recordings()[1]
members = group.outcomes()
paid = outcome_rewards(lab.StepAwareReward(), members)
print("right  box  cut off  steps  reward")
for member, reward in zip(members, paid, strict=True):
    flags = (member.correct, member.formatted, member.truncated)
    row = "  ".join("yes" if flag else " no" for flag in flags)
    print(f"  {row}  {member.steps:9}  {reward:6.3f}")

# %% [markdown]
# ## Whose mean?
#
# The mean is taken over the **right** members. The paper tries the alternative
# as an ablation: the mean over all. In our group the wrong answers took 3 and 9
# steps, so the mean over all is 4.8 instead of 4. What does that do to the
# right answer of 4 steps?

# %%
mean_guess = course.predict(
    "With the mean over all members, the right answer of 4 steps earns",
    choices=("more", "the same", "less"),
)
mean_guess

# %% tags=["result", "nbval-check-output"]
over_all = lab.step_aware_rewards(correct, steps, formatted, mean_over="all")
print("mean over right:", [round(reward, 3) for reward in rewards])
print("mean over all:  ", [round(reward, 3) for reward in over_all])
mean_guess.compare("more" if over_all[1] > rewards[1] else "less")

# %% [markdown]
# <details><summary>What we see</summary>
#
# One rambling wrong answer makes every right answer look short. A wrong answer
# is often the longest of its group, because it got lost or was cut off. A mean
# over all then says "you are short enough" exactly where there is most to save.
#
# </details>

# %% [markdown]
# ## From rewards to advantages
#
# GRPO does not use a reward as it is. It asks how much better a completion was
# than its group: the *advantage*. A positive one makes the completion's tokens
# likelier, a negative one less likely. Three scalings are in use:
#
# | `scale` | advantage | used by |
# | --- | --- | --- |
# | `group` | (R − mean) / (std of the group + eps) | GRPO, Step-GRPO |
# | `batch` | (R − mean) / (std of the whole batch + eps) | DLER |
# | `none` | R − mean | Dr. GRPO |
#
# (DLER: [2510.15110](https://arxiv.org/abs/2510.15110); Dr. GRPO:
# [2503.20783](https://arxiv.org/abs/2503.20783). Notebook 07 returns to what
# the division does.)

# %% [markdown]
# ## When `step_beta` does nothing
#
# In this group **everybody is right**, with 2, 3, 4, 5 and 6 steps. You lower
# `step_beta` from 0.5 to 0.05, so steps matter ten times less to the reward.
# Under the usual scaling `group`, what happens to the advantage of the shortest
# answer?

# %%
beta_guess = course.predict(
    "step_beta 0.5 -> 0.05: the advantage of the shortest answer becomes",
    choices=("ten times smaller", "slightly smaller", "larger"),
)
beta_guess

# %% [markdown]
# ### Exercise 06.2 · The advantage without `step_beta` (●●○, 10 minutes)
#
# First with pencil and paper. Write *t* for the `tanh` term. All are right and
# in a box, so every reward is the same straight line in *t*. Subtract the
# group's mean, divide by its standard deviation, and see what is left of α and
# β.
#
# Then write the advantages from the steps alone (unbiased standard deviation,
# no `eps`; zeros when all have the same number of steps).
#
# *Why it matters:* a setting that cannot act is worth knowing before a sweep.


# %% tags=["exercise"]
def advantages_of_right(steps):
    """Advantages of an all-right group under group scaling, eps = 0."""
    # BEGIN SOLUTION
    # STUB: from math import tanh
    # STUB: from statistics import fmean, stdev
    # STUB:
    # STUB: ...  # your code here
    from math import tanh
    from statistics import fmean, stdev

    mu = fmean(steps)
    terms = [tanh((k - mu) / mu) for k in steps]
    if len(set(terms)) == 1:
        return [0.0] * len(terms)
    center, spread = fmean(terms), stdev(terms)
    return [-(term - center) / spread for term in terms]
    # END SOLUTION


# %% tags=["check"]
verdict = checks.advantages_of_right(advantages_of_right, number="06.2")
advantages_of_right = verdict.solution
verdict

# %% [markdown]
# <details><summary>Hint</summary>
#
# R = 1 − αβ·t. Subtracting the mean leaves −αβ(t − mean t), and the standard
# deviation of R is αβ times that of t. So: the list of `tanh((k - mu) / mu)`,
# its mean, its `stdev`, and a minus sign, because fewer steps must come out
# positive.
#
# </details>
#
# The experiment, with yours in the last line:

# %% tags=["result", "nbval-check-output"]
everybody, few_to_many = [True] * 5, [2, 3, 4, 5, 6]
shortest = {}
for beta in (0.5, 0.05):
    paid = step_rewards(everybody, few_to_many, everybody, 0.9, beta)
    for scale in ("group", "none"):
        given = lab.group_advantages(paid, scale=scale)
        shortest[beta, scale] = given[0]
        print(f"step_beta {beta}, {scale}:", [f"{a:+.2f}" for a in given])
mine = advantages_of_right(few_to_many)
print("from the steps alone:", [f"{a:+.2f}" for a in mine])

# %% tags=["result"]
kept = shortest[0.05, "group"] / shortest[0.5, "group"]
beta_guess.compare("ten times smaller" if kept < 0.2 else "slightly smaller")

# %% [markdown]
# <details><summary>What we see</summary>
#
# Under `group`, neither α nor β is left in the formula; what little changes
# comes from TRL's `eps` of 0.0001. With wrong members in the group, or with
# `batch` or `none`, the setting counts.
#
# </details>

# %% [markdown]
# ## Five rivals
#
# | reward | idea |
# | --- | --- |
# | length penalty, LP ([2502.04463](https://arxiv.org/abs/2502.04463)) | a right answer loses more, the longer it is than the group's other right ones |
# | soft overlong, SOP ([DAPO](https://arxiv.org/abs/2503.14476)) | length is free until shortly before the limit, then costs up to 1 |
# | Kimi k1.5 ([2501.12599](https://arxiv.org/abs/2501.12599)) | a bonus for the group's shortest, a malus for its longest; a wrong answer gets the malus only |
# | L1-Max ([2503.04697](https://arxiv.org/abs/2503.04697)) | a right answer earns more, the further it stays below a target |
# | ShorterBetter ([2504.21370](https://arxiv.org/abs/2504.21370)) | every token away from the group's shortest right answer costs |
#
# All five count tokens, not steps. LP and SOP come back in notebook 08, each
# with models trained by it.

# %% [markdown]
# In how many of the five does the length of a **wrong** answer change its
# reward? Read the ideas again before you answer.

# %%
wrong_guess = course.predict(
    "In how many of the five does a wrong answer's length count?",
    low=0,
    high=5,
)
wrong_guess

# %%
from functools import partial

from stepgrpo_lab.method import baselines

overlong = partial(lab.soft_overlong_rewards, limit=4000, cache=2000)
l1_max = partial(baselines.l1_max_rewards, target=2000)
methods = {
    "Step-GRPO": lab.StepAwareReward(),
    "LP": lab.OutcomeReward(lab.length_penalty_rewards),
    "SOP": lab.OutcomeReward(overlong),
    "Kimi": lab.OutcomeReward(lab.kimi_rewards),
    "L1-Max": lab.OutcomeReward(l1_max),
    "ShorterBetter": lab.OutcomeReward(baselines.shorter_better_rewards),
}

# %% tags=["result", "nbval-check-output"]
tokens = [500 * k for k in steps]
advantages = {}
signs = ["✓" if c else "✗" for c in correct]
columns = [f"{sign} {k} steps" for sign, k in zip(signs, steps, strict=True)]
print(" " * 14, *(f"{column:>9}" for column in columns))
for name, method in methods.items():
    paid = method(correct, steps, formatted, tokens)
    advantages[name] = lab.group_advantages(paid)
    print(f"{name:>14}", *(f"{reward:9.3f}" for reward in paid))

# %% tags=["result"]
wrong_guess.compare(sum(given[3] != given[4] for given in advantages.values()))

# %% tags=["result"]
from stepgrpo_lab.viz.groups import group_advantages_chart

group_advantages_chart(advantages, columns, chosen="Step-GRPO")

# %% [markdown]
# <details><summary>What we see</summary>
#
# Step-GRPO, LP and L1-Max leave wrong answers alone. Kimi, SOP and
# ShorterBetter do not: there the wrong answer of 9 steps earns less than that
# of 3. LP and Step-GRPO rank the right answers alike and differ in *what* they
# count: a needed calculation of many tokens is one step, so Step-GRPO does not
# charge for its length.
#
# </details>

# %% [markdown]
# ### Exercise 06.3 · A rival in torch (●●●, 15 minutes)
#
# Write the length penalty for many groups at once, without a loop. `correct`
# (bools) and `tokens` have the shape `[groups, members]`:
#
# $$r_i = c_i \left(1 - a\; \sigma\!\left(\frac{l_i - \operatorname{mean}}
# {\operatorname{std} + 10^{-7}}\right)\right)$$
#
# Mean and *population* standard deviation are taken over the **right** members
# of each group; σ is the sigmoid. Where nobody is right, all get 0.
#
# *Why it matters:* statistics over a part of each row are everywhere in this
# field, and a mask that is forgotten in the divisor goes unnoticed.


# %% tags=["exercise", "torch"]
def length_penalty(correct, tokens, strength=0.2):
    """Rewards [groups, members] of Arora and Zanette's length penalty."""
    # BEGIN SOLUTION
    # STUB: import torch
    # STUB:
    # STUB: ...  # your code here
    import torch

    right = correct.double()
    lengths = tokens.double()
    count = right.sum(1, keepdim=True).clamp(min=1)
    mean = (right * lengths).sum(1, keepdim=True) / count
    squares = right * (lengths - mean) ** 2
    std = (squares.sum(1, keepdim=True) / count).sqrt()
    excess = (lengths - mean) / (std + 1e-7)
    return right * (1 - strength * torch.sigmoid(excess))
    # END SOLUTION


# %% tags=["check"]
verdict = checks.length_penalty(length_penalty, number="06.3")
length_penalty = verdict.solution
verdict

# %% [markdown]
# <details><summary>Hint</summary>
#
# Turn `correct` into numbers and multiply: `(right * lengths).sum(1,
# keepdim=True)` is a sum over right members only. Divide by their number, at
# least 1. Square the deviations, mask them, and divide by the same number.
# Multiply by `right` once more at the end.
#
# </details>

# %% [markdown]
# ## Now you: the group explorer
#
# Recorded groups of the package's model, with every reward side by side, and
# the priced reward from the top of this notebook among them. Before you move
# anything:
#
# 1. On the first group, which member does Step-GRPO like least, and is it the
#    longest wrong one?
# 2. Choose the method *priced*. Is the worst right answer still better than
#    every wrong one?
# 3. Choose the group *trained, plain: chain-9-8\*7\*9\*9*. Which method still
#    tells its members apart?

# %%
from stepgrpo_lab.widgets import GroupExplorer

GroupExplorer(methods={"priced": priced})

# %% [markdown]
# <details><summary>What we see</summary>
#
# 1. Member 7: wrong, 6 steps, no box (reward 0). The wrong answers of 9 and 12
#    steps keep 0.1 for their box, and their length costs them nothing.
# 2. No. A right answer of many tokens earns less than a wrong one that is
#    short: the price has no upper bound.
# 3. None. All eight members are right with the same steps and tokens, so every
#    advantage is 0 and no token is pushed. A group like this costs a rollout
#    and teaches nothing.
#
# </details>

# %% [markdown]
# ## What can go wrong: punishing wrong answers for length
#
# Back to the policy at the top, with three rewards: the priced one; Step-GRPO's
# as published; and Step-GRPO's with `penalize_wrong=True`, which gives wrong
# answers the step term too.

# %% tags=["result"]
from stepgrpo_lab.course.toy_policy import toy_policies

runs = {"priced": run}
for name, penalize in (("as published", False), ("wrong penalised", True)):
    reward = lab.StepAwareReward(penalize_wrong=penalize)
    longer = ToySettings(rollouts=100, learning_rate=8)
    runs[name] = train_toy_policy(options, reward, longer)
toy_policies(runs)

# %% tags=["result"]
for name, trained in runs.items():
    before, after = trained.accuracy[0], trained.accuracy[-1]
    print(f"{name:>15}: right {before:.1%} before, {after:.1%} after")
accuracy_guess.compare(100 * run.accuracy[-1])

# %% [markdown]
# <details><summary>What we see</summary>
#
# Where most answers are wrong anyway, being wrong *quickly* is the easiest way
# to a better reward. The policy learns to guess; the reward goes up while the
# accuracy goes down. Both failures have the same root: a wrong answer that
# gains by being short.
#
# </details>
#
# It is a toy, with probabilities that we chose. On an easy problem ("think"
# right half of the time) penalising wrong answers does no harm. Change the
# numbers and see. On real reasoning models,
# [ACOER](https://arxiv.org/abs/2606.22716) reports a collapse when wrong answers
# are penalised for length under group normalisation.

# %% [markdown]
# ## Your predictions

# %%
course.score()

# %% [markdown]
# ## Summary
#
# - A right answer earns more the fewer steps it took against the mean of its
#   group's right answers, within bounds; it always beats a wrong one.
# - In an all-right group under `group` scaling, `step_alpha` and `step_beta`
#   cancel. Under `batch` and `none` they do not.
# - Wrong answers get no length signal; give them one, and guessing can pay.
# - A rising reward proves only that the reward is rising.

# %% [markdown]
# **Further reading.** [Step-GRPO](https://arxiv.org/abs/2604.16890), equations
# 3 to 5. [Arora and Zanette](https://arxiv.org/abs/2502.04463) for the length
# penalty. [L1](https://arxiv.org/abs/2503.04697) for a length that the prompt
# asks for. [DeepSeekMath](https://arxiv.org/abs/2402.03300) for the
# group-relative advantage. Words: the [glossary](../docs/glossary.md).
#
# Next: [07 · GRPO from scratch](07_grpo.ipynb), where advantages become
# updates.
