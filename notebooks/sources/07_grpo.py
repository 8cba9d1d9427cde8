# ---
# jupyter:
#   stepgrpo:
#     title: GRPO from scratch, and TRL's
#     minutes: 45
#     hardware: any CPU
# ---

# %% [markdown]
# ## Objectives
#
# - Build GRPO piece by piece: policy gradient, group baseline, importance
#   ratio, clip, KL penalty, mask.
# - Say what the loss types grpo, bnpo, dr_grpo and dapo do to one token.
# - See that the loss written here is TRL's, on the same batch, gradient
#   included.
# - Train a policy of three parameters in a second, and break it twice.

# %% [markdown]
# ## Where we are
#
# Notebook 06 ended with one number for each completion, its *advantage*: how
# much better its reward is than its group's mean. Now the model must learn from
# it. GRPO (*group relative policy optimisation*, DeepSeekMath, arXiv
# 2402.03300) is a recipe for that update. We start with a policy small enough
# to do by hand, and end at the trainer that Step-GRPO really uses.

# %% [markdown]
# ## The policy gradient, by hand
#
# Our policy has three parameters, its *logits*. The softmax turns them into
# probabilities of writing one of three completions. To make completion *i*
# likelier, climb the slope of its log-probability:
#
# $$\frac{\partial \log p_i}{\partial z_j} = [i = j] - p_j$$
#
# REINFORCE (Williams, 1992) climbs it in proportion to the reward: sample a
# completion, then step by reward times slope.
#
# Rewards are 1.2 (right, short), 1.0 (right) and 0.1 (wrong, but in a box). We
# happen to sample the wrong one. What does the step do to it?

# %%
from stepgrpo_lab.course import predict

plain_saved = predict(
    "Stepping by its reward of 0.1 makes the wrong completion",
    None,
    choices=("likelier", "less likely"),
)
plain_saved

# %% tags=["nbval-check-output"]
from stepgrpo_lab.course.toy_policy import softmax

rewards = [1.2, 1.0, 0.1]
logits = [0.0, 0.0, 0.0]
p = softmax(logits)
sampled = 2
slope = [(j == sampled) - p[j] for j in range(3)]
step = [rewards[sampled] * s for s in slope]
after = softmax([z + s for z, s in zip(logits, step, strict=True)])
print("before:", [round(x, 3) for x in p])
print("after: ", [round(x, 3) for x in after])
plain_saved.compare("likelier" if after[2] > p[2] else "less likely")

# %% [markdown]
# ## The group baseline
#
# Every positive reward pulls its completion up; only on average, over many
# samples, does the better one win. So subtract what was to be expected. PPO
# trains a second network to guess that. GRPO samples a *group* and takes its
# mean; then it divides by the group's standard deviation:

# %% tags=["nbval-check-output"]
from statistics import fmean, stdev

from stepgrpo_lab import group_advantages

mean, std = fmean(rewards), stdev(rewards)
by_hand = [(reward - mean) / (std + 1e-4) for reward in rewards]
print("by hand:", [round(a, 3) for a in by_hand])
print("library:", [round(a, 3) for a in group_advantages(rewards)])
step = [by_hand[2] * s for s in slope]
after = softmax([z + s for z, s in zip(logits, step, strict=True)])
print("the wrong completion:", round(p[2], 3), "->", round(after[2], 3))

# %% [markdown]
# ### Exercise 07.1 · Advantages (●○○)
#
# Write the group-relative advantage: reward minus mean, divided by the unbiased
# standard deviation plus `eps`. Where all rewards are equal there is nothing
# to learn: give zeros.

# %% tags=["exercise"]
from statistics import fmean, stdev


def advantages(rewards, eps=1e-4):
    """Group-relative advantages of one group."""
    # BEGIN SOLUTION
    # STUB: ...  # your code here
    if len(set(rewards)) == 1:
        return [0.0] * len(rewards)
    mean, std = fmean(rewards), stdev(rewards)
    return [(reward - mean) / (std + eps) for reward in rewards]
    # END SOLUTION


# %% tags=["check"]
from stepgrpo_lab.course import checks

checks.group_relative_advantages(advantages)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `statistics.stdev` is the unbiased one. Add `eps` to it, not to the
# difference.
#
# </details>

# %% [markdown]
# ## The importance ratio
#
# Sampling is slow, so one rollout often serves several updates. After the first
# one the policy is no longer the one that sampled. The *importance ratio*
# corrects for that, token by token:
#
# $$r = \frac{p_\text{now}(\text{token})}{p_\text{sampled}(\text{token})}
# = e^{\log p_\text{now} - \log p_\text{sampled}}$$
#
# In the first update r is 1, and the slope of *r · A* by the log-probability
# is the advantage *A* itself: the policy gradient again.

# %% [markdown]
# ## The clip
#
# If r runs far from 1, a few samples would drag the policy anywhere. PPO's
# *clip* takes the smaller of the free and the clipped product:
#
# $$\min\big(r A,\ \text{clip}(r, 1 - \varepsilon, 1 + \varepsilon)\, A\big)$$
#
# A token of a **bad** completion (A = −1) has become likelier since it was
# sampled: r = 1.5. With ε = 0.2, does the clip stop its pull?

# %%
clip_saved = predict(
    "A = -1, ratio 1.5: does the clip stop the pull?",
    None,
    choices=("yes", "no"),
)
clip_saved

# %% tags=["nbval-check-output"]
from math import log

from stepgrpo_lab.method.loss import LossSettings
from stepgrpo_lab.method.token_loss import token_loss

print("    A  ratio  by hand  library   pull")
for A in (1.0, -1.0):
    for r in (0.5, 0.9, 1.0, 1.1, 1.5):
        by_hand = min(r * A, min(max(r, 0.8), 1.2) * A)
        token = token_loss(log(r), A, LossSettings(), old_logprob=0.0)
        numbers = (by_hand, token.surrogate, 0.0 - token.gradient)
        told = "".join(f"{number:+9.2f}" for number in numbers)
        print(f"{A:+5.0f} {r:6.1f}{told}")
clip_saved.compare("yes" if token.clipped else "no")

# %% [markdown]
# *Pull* is minus the slope of the loss: positive makes the token likelier. The
# clip stops what has gone far enough **in the direction of its pull** (A = 1
# and r = 1.5; A = −1 and r = 0.5). What has gone astray is pulled back, however
# far it is.

# %%
from stepgrpo_lab.course import source_of

source_of(token_loss)

# %% [markdown]
# ### Exercise 07.2 · The clipped surrogate (●●○)
#
# Write it from two log-probabilities and an advantage, with a lower and an
# upper bound of their own (DAPO uses 0.2 and 0.28: rare good tokens may rise
# further).

# %% tags=["exercise"]
from math import exp


def surrogate(logprob, old_logprob, advantage, low=0.2, high=0.28):
    """The clipped surrogate of one token; larger is better."""
    # BEGIN SOLUTION
    # STUB: ...  # your code here
    ratio = exp(logprob - old_logprob)
    clipped = min(max(ratio, 1 - low), 1 + high)
    return min(ratio * advantage, clipped * advantage)
    # END SOLUTION


# %% tags=["check"]
checks.clipped_surrogate(surrogate)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Three lines: ratio, clipped ratio, and the smaller of the two *products*. The
# smaller ratio is something else where the advantage is negative.
#
# </details>

# %% [markdown]
# ## The KL penalty
#
# A penalty can hold the policy near a *reference*, usually the model before
# training. The KL divergence says how far apart two distributions are; only the
# sampled token is known, so it is estimated. With d = log p_ref − log p:
#
# - k1 = −d has the right mean, but is often negative;
# - **k3** = eᵈ − d − 1 has the same mean and is never negative.

# %% tags=["nbval-check-output"]
now, reference = [0.6, 0.3, 0.1], [0.3, 0.3, 0.4]
exact = sum(q * log(q / ref) for q, ref in zip(now, reference, strict=True))
gaps = [log(ref / q) for q, ref in zip(now, reference, strict=True)]
k1 = [-gap for gap in gaps]
k3 = [
    token_loss(log(q), 0.0, LossSettings(), reference_logprob=log(ref)).kl
    for q, ref in zip(now, reference, strict=True)
]
print("k1 of each token:", [round(value, 3) for value in k1])
print("k3 of each token:", [round(value, 3) for value in k3])
for name, values in (("k1", k1), ("k3", k3)):
    mean = sum(q * value for q, value in zip(now, values, strict=True))
    print(f"mean {name} {mean:.4f}, exact KL {exact:.4f}")

# %% [markdown]
# ### Exercise 07.3 · k3 (●○○)
#
# Write the estimate for one token, from its two log-probabilities. (The recipe
# of this package leaves the penalty out; the paper's script uses a weight of
# 0.01.)

# %% tags=["exercise"]


def k3_estimate(logprob, reference_logprob):
    """k3 estimate of KL(policy || reference) at one token."""
    # BEGIN SOLUTION
    # STUB: ...  # your code here
    gap = reference_logprob - logprob
    return exp(gap) - gap - 1
    # END SOLUTION


# %% tags=["check"]
checks.k3_estimate(k3_estimate)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Mind the direction: the gap is reference minus policy. Where both agree the
# estimate is 0.
#
# </details>

# %% [markdown]
# ## The mask, and forced closes
#
# Not every token was sampled. The truncated rollout *forces* `</think>` when a
# probe was confident. As published, that token trains like the others: its
# positive advantage is to teach the model to stop (notebook 08 takes it
# away). Nobody sampled it, so there is no old log-probability; it takes the
# policy's own, and its ratio is **exactly 1**. The ablation masks it: weight 0.

# %% tags=["nbval-check-output"]
from stepgrpo_lab.method.loss import token_weights

forced = token_loss(log(0.02), 0.8, LossSettings(), old_logprob=None)
print("ratio", forced.ratio, "pull", 0.0 - forced.gradient)
sampled, close = True, False  # does it train?
mask = [[sampled, sampled, close, sampled]]
print("weights with the close masked:", token_weights(mask, LossSettings()))

# %% [markdown]
# ## Now you: the loss explorer
#
# A recorded completion around its forced close. Two questions before you move
# anything:
#
# 1. Press *later update*. With advantage 1 some tokens have no pull. Which are
#    they, and which are they with advantage −1?
# 2. Back to *first update*: which tokens lose their pull when *forced tokens
#    train* is switched off?

# %%
from stepgrpo_lab.widgets import LossExplorer

LossExplorer()

# %%
explorer = LossExplorer()
pieces, kinds = explorer.pieces, explorer.forced
forced = [i + 1 for i, is_forced in enumerate(kinds) if is_forced]
print("tokens", dict(enumerate(pieces, start=1)), "forced:", forced)
explorer.later_update()
for advantage in (1.0, -1.0):
    explorer.advantage = advantage
    stopped = [i + 1 for i, pull in enumerate(explorer.pulls) if pull == 0]
    print(f"later update, advantage {advantage:+.0f}: no pull on", stopped)
trained, masked = LossExplorer(), LossExplorer(train_forced=False)
stopped = [i + 1 for i, pull in enumerate(masked.pulls) if pull == 0]
grown = masked.pulls[0] / trained.pulls[0]
print("first update, forced masked: no pull on", stopped)
print(f"and token 1 is pulled {grown:.3f} times as hard")

# %% [markdown]
# <details><summary>What we see</summary>
#
# 1. With advantage 1 the tokens that have become likelier by more than a fifth:
#    6, 7 and 8. With advantage −1 those that have become less likely by more
#    than a fifth: 1 and 2.
# 2. The forced ones: 4, 5 and 6, the close with its line breaks. The others'
#    pulls grow a little, because dapo divides by the tokens that train, and
#    these are fewer now.
#
# </details>

# %% [markdown]
# ## Loss types: how much does one token count?
#
# The tokens' losses must become one number. TRL knows these four ways, among
# others:
#
# | loss type | a token of completion *i* weighs |
# | --- | --- |
# | grpo | 1 / (completions · tokens of *i*) |
# | bnpo | 1 / (all tokens of this batch) |
# | dapo | 1 / (all tokens of the whole generation batch) |
# | dr_grpo | 1 / (completions · longest length allowed) |
#
# In a recorded group two wrong answers have 53 and 188 tokens and the same
# negative advantage. Under grpo, how hard is a token of the long one pushed,
# compared with a token of the short one?

# %%
weight_saved = predict(
    "grpo: push on a token of the long wrong answer, of the short one's",
    None,
    unit="%",
)
weight_saved

# %% tags=["nbval-check-output"]
from stepgrpo_lab import StepAwareReward
from stepgrpo_lab.method.loss import LOSS_TYPES
from stepgrpo_lab.method.rewards import outcome_rewards
from stepgrpo_lab.method.token_loss import token_push
from stepgrpo_lab.recordings import load_recordings

group = load_recordings()[4]
ends = group.outcomes()
given = group_advantages(outcome_rewards(StepAwareReward(), ends))
masks = [[True] * end.tokens for end in ends]
share = {}
for loss_type in LOSS_TYPES:
    kind = LossSettings(loss_type, max_completion_length=group.limit)
    push = token_push(given, masks, kind)
    short, long = push[5], push[6]
    share[loss_type] = 100 * long[0] / short[0]
    totals = f"{sum(short):+.3f} and {sum(long):+.3f}"
    print(f"{loss_type:>7}: {share[loss_type]:5.1f} %, in total {totals}")

# %%
weight_saved.compare(share["grpo"])

# %% [markdown]
# Under grpo a long wrong answer is punished as much *in total* as a short one,
# so each of its tokens much less: rambling dilutes the punishment (Dr. GRPO,
# arXiv 2503.20783). The other three treat every token alike. TRL's default is
# dapo, and so is ours.

# %% [markdown]
# ### Exercise 07.4 · Token weights (●●○)
#
# Write the weight of one token of each completion, for "grpo", "dapo" and
# "dr_grpo", from the completions' lengths. All tokens train, and the batch is
# the whole generation batch.


# %% tags=["exercise"]
def weights(lengths, loss_type, longest=256):
    """Weight of a token of each completion: one number each."""
    # BEGIN SOLUTION
    # STUB: ...  # your code here
    divisors = {
        "grpo": [len(lengths) * length for length in lengths],
        "dapo": [sum(lengths)] * len(lengths),
        "dr_grpo": [len(lengths) * longest] * len(lengths),
    }
    return [1 / divisor for divisor in divisors[loss_type]]
    # END SOLUTION


# %% tags=["check"]
checks.loss_type_weights(weights)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Only grpo looks at a completion's own length. For dapo all weights are equal,
# and so they are for dr_grpo, whose divisor does not depend on the lengths.
#
# </details>

# %% [markdown]
# ## The same loss in torch
#
# So far: plain numbers. For a model the same lines run on tensors, so that the
# gradient flows on from the log-probabilities into the weights.

# %%
from stepgrpo_lab.method import loss as torch_loss

source_of(torch_loss.policy_loss)

# %%
source_of(torch_loss.surrogate)

# %% [markdown]
# ## And TRL's, on the same batch
#
# The model: a Qwen3 of 31,000 random weights, made here. The batch: the
# recorded group above, forced closes included. We compute loss and gradient
# twice, once as shown, once with TRL's `GRPOTrainer` (its own forward pass, its
# padding, its loss), for each loss type.

# %%
from stepgrpo_lab import data_path
from stepgrpo_lab.authoring.overthinker.stages import BuildSettings, new_model
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(data_path("overthinker"))
tiny = BuildSettings(
    hidden_size=32,
    layers=2,
    heads=2,
    key_value_heads=1,
    head_dim=16,
    intermediate_size=64,
)
model = new_model(tiny, tokenizer)
print(sum(weight.numel() for weight in model.parameters()), "weights")

# %% [markdown]
# On the first update every ratio is 1. So we take one step of gradient descent
# with a large learning rate, and compare on the second update, where ratios
# have moved and the clip has work to do.

# %%
import torch

batch = torch_loss.LossBatch(
    prompt_ids=[m.trajectory.prompt_ids for m in group.members],
    completion_ids=[m.trajectory.completion_ids for m in group.members],
    masks=masks,
    advantages=given,
)
sampled = torch_loss.batch_logprobs(model, batch)
torch_loss.policy_loss(model, batch, LossSettings()).backward()
with torch.no_grad():
    for weight in model.parameters():
        weight -= 0.5 * weight.grad
model.zero_grad()
moved = torch_loss.batch_logprobs(model, batch)

# %%
from dataclasses import replace

old = [  # a forced token has none: its ratio is 1
    [None if f else o for f, o in zip(m.trajectory.forced, row, strict=True)]
    for m, row in zip(group.members, sampled, strict=True)
]
second = replace(batch, old_logprobs=old, reference_logprobs=sampled)
ratios = [
    torch.tensor(b).sub(torch.tensor(a)).exp()
    for a, b in zip(sampled, moved, strict=True)
]
ratios = torch.cat(ratios)
outside = ((ratios < 0.8) | (ratios > 1.28)).float().mean().item()
print(f"ratios {ratios.min():.2f} to {ratios.max():.2f}")
print(f"{outside:.0%} of the tokens outside of the clip")

# %%
from stepgrpo_lab.training.trl_loss import compare_with_trl

compared = {}
for loss_type in LOSS_TYPES:
    for kl_weight in lab.size((0.0, 0.05), (0.05,)):
        kind = LossSettings(
            loss_type,
            epsilon_high=0.28,
            kl_weight=kl_weight,
            max_completion_length=group.limit,
        )
        result = compare_with_trl(model, tokenizer, second, kind)
        compared[loss_type, kl_weight] = result
        gap = result.gradient_gap / result.gradient_norm
        print(f"{loss_type:>7}, KL weight {kl_weight}: ours {result.ours:.6f}")
        print(f"{'TRL ':>26} {result.trl:.6f}, gradients off by {gap:.0e}")

# %% tags=["nbval-check-output"]
print("equal:", all(result.equal for result in compared.values()))

# %% [markdown]
# Loss and gradient agree to the precision of 32-bit numbers. What you have
# built by hand is what trains the model.

# %% [markdown]
# ## The whole update on one page
#
# That was the last part. Here is one update of Step-GRPO, whole: sample groups
# by the truncated rollout, grade, reward, take one step along the gradient.
# TRL's trainer computes the same loss and gradient on the same completions; a
# test holds it.

# %%
from stepgrpo_lab import step_grpo_update

source_of(step_grpo_update)

# %% [markdown]
# Run it on the embedded model: two problems, four completions of each.

# %%
import torch
from stepgrpo_lab import (
    Decoding,
    Grader,
    load_overthinker,
    overthinker_problems,
    rollout_settings,
)
from stepgrpo_lab.engines.lockstep import rollout_sampler

# %%
policy, tokenizer = load_overthinker()
optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-4, weight_decay=0.0)
decoding = Decoding(256, rollout_settings("official", markers="paper"))
sample = rollout_sampler(policy, tokenizer, decoding)
with Grader() as grader:
    for _ in range(lab.size(3, 1)):
        figures = step_grpo_update(
            policy,
            optimizer,
            overthinker_problems("train", 2),
            sample,
            grader.grade,
            group_size=4,
        )
        print({name: round(value, 3) for name, value in figures.items()})

# %% [markdown]
# ## Train it
#
# Back to three parameters, now with the whole loop: sample groups, reward
# them, advantages, update. (The completion is chosen by its first token; the
# rest follows.)

# %%
from stepgrpo_lab.course import toy_policy
from stepgrpo_lab.course.toy_policy import ToyCompletion, ToySettings

source_of(toy_policy.train_toy_policy)

# %% [markdown]
# | completion | steps | right |
# | --- | --- | --- |
# | guess | 1 | 30 % of the time |
# | think | 4 | 90 % |
# | think long | 8 | 95 % |
#
# Which completion does the step-aware reward end at?

# %%
toy_saved = predict(
    "The step-aware reward ends at",
    None,
    choices=("guess", "think", "think long"),
)
toy_saved

# %%
from stepgrpo_lab import OutcomeReward
from stepgrpo_lab.course.toy_policy import toy_policies

options = [
    ToyCompletion("guess", steps=1, tokens=4, right=0.3),
    ToyCompletion("think", steps=4, tokens=16, right=0.9),
    ToyCompletion("think long", steps=8, tokens=32, right=0.95),
]
settings = ToySettings(rollouts=100, learning_rate=5)
train = toy_policy.train_toy_policy
runs = {
    "step-aware reward": train(options, StepAwareReward(), settings),
    "right or wrong": train(options, OutcomeReward(), settings),
}
toy_policies(runs)

# %%
for name, run in runs.items():
    accuracy, tokens = run.accuracy[-1], run.tokens[-1]
    print(f"{name:>17}: right {accuracy:.1%}, {tokens:.1f} tokens")
ends = runs["step-aware reward"].probabilities[-1]
toy_saved.compare(options[ends.index(max(ends))].name)

# %% [markdown]
# Both learn not to guess. Right or wrong alone leads slowly to "think long",
# which is right five points more often. The step-aware reward gives up these
# points for half of the tokens: the reward made that choice, and you should
# know it.

# %% [markdown]
# ## What can go wrong: too many updates on old samples
#
# Samples are dear, so why not take 50 updates from each rollout? We do, with
# one group of 8 per rollout, once with the clip and once without, for several
# seeds. A run has *collapsed* when it ends at guessing (right less than half
# of the time).

# %%
collapse_saved = predict(
    "Without the clip, which share of the runs collapses?", None, unit="%"
)
collapse_saved

# %%
free = LossSettings(epsilon_low=1.0, epsilon_high=1e9)
seeds = range(lab.size(20, 8))
collapsed = {}
for name, kind in (("with clip", LossSettings()), ("without", free)):
    often = ToySettings(
        loss=kind, rollouts=40, groups=1, updates=50, learning_rate=5
    )
    ends = [
        train(options, StepAwareReward(), replace(often, seed=seed))
        for seed in seeds
    ]
    collapsed[name] = fmean(run.accuracy[-1] < 0.5 for run in ends)
    print(f"{name:>9}: {collapsed[name]:.0%} of {len(ends)} runs collapsed")
collapse_saved.compare(100 * collapsed["without"])

# %% [markdown]
# A lucky short guess has the best reward of its group. One update on it is a
# nudge; fifty make guessing nearly certain, and what is never sampled again
# can never be learnt again. The clip ends the pull once the ratio has left
# [0.8, 1.2]; the recipe goes further and updates once per rollout.

# %% [markdown]
# ## What can go wrong, again: a loss type that likes long mistakes
#
# Three completions: a right one of 16 tokens (right 80 % of the time), and two
# that are always wrong, of 4 and 40 tokens. The reward is right or wrong. How
# long are the *wrong* choices after training? (At the start: 22 tokens.)

# %%
mistakes = [
    ToyCompletion("wrong, short", steps=1, tokens=4, right=0.0),
    ToyCompletion("right", steps=4, tokens=16, right=0.8),
    ToyCompletion("wrong, long", steps=10, tokens=40, right=0.0),
]
for loss_type, rate in (("grpo", 4), ("dapo", 6), ("dr_grpo", 12)):
    kind = LossSettings(loss_type, max_completion_length=40)
    run = train(
        mistakes,
        OutcomeReward(),
        ToySettings(loss=kind, rollouts=60, learning_rate=rate),
    )
    short, _, long = run.probabilities[-1]
    length = (4 * short + 40 * long) / (short + long)
    print(f"{loss_type:>7}: {short + long:.1%} mistakes, {length:.0f} tokens")

# %% [markdown]
# All three learn to choose the right one. But grpo's remaining mistakes have
# become longer: the long one is pushed down less. Whoever then looks at the mean length of wrong
# answers might think that the model has learnt to think harder. Its loss has
# an opinion about length that nobody asked for.
#
# (Learning rates differ because the weights have different sizes.)

# %% [markdown]
# ## A recorded real run
#
# The headline's first run, `data/results/overthinker`: dapo, one update per
# rollout, no KL penalty. What does the *loss* say about its progress?

# %%
from stepgrpo_lab.training.metrics import read_metrics

folder = data_path("results", "overthinker")
rows = read_metrics(folder / "metrics.jsonl")
losses = {row["step"]: row["loss"] for row in rows if "loss" in row}
key = "validation/tokens"
lengths = {row["step"]: row[key] for row in rows if key in row}
for step, length in lengths.items():
    near = [losses[s] for s in losses if step - 10 < s <= step]
    loss = f"mean loss {fmean(near):+.3f}" if near else "before training"
    print(f"step {step:2}: {length:5.1f} tokens, {loss}")

# %% [markdown]
# Tokens fall by two thirds, and the loss tells nothing of it. At a ratio of 1
# the loss is minus the mean advantage over the tokens: it says whether the long
# completions were the bad ones, not how good the model is. Watch reward,
# accuracy and length instead.

# %% [markdown]
# ## Summary
#
# - GRPO is the policy gradient with a group's mean as the baseline, a ratio
#   for old samples, and a clip that ends a pull once it has gone far enough.
# - A forced token has ratio 1 and trains, unless it is masked.
# - The loss type decides how much a token of a long completion counts.
# - Our loss and TRL's agree on the same batch, gradient included.
# - The value of the loss is no measure of progress.
#
# Next: [08 · Reading a result](08_reading_a_result.ipynb).
