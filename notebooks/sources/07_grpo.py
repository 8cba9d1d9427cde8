# ---
# jupyter:
#   stepgrpo:
#     title: GRPO from scratch, and TRL's
#     minutes: 100
#     hardware: any CPU
# ---

# %% [markdown]
# ## Two runs, two loss curves
#
# The same model, the same problems, the same code. One setting differs (and B
# was stopped earlier). Here are the losses of two training runs, step by step.
# You may keep one of the two models. Which?

# %%
import stepgrpo_lab as lab
from stepgrpo_lab.training.metrics import run_curves
from stepgrpo_lab.viz.plots_study import method_curves

folders = {
    "run A": lab.data_path("results", "overthinker"),
    "run B": lab.data_path("results", "learning_rate_3e-4"),
}
curves = {
    name: run_curves(folder, ["loss", "reward", "validation/accuracy"])
    for name, folder in folders.items()
}
method_curves(curves, {"loss": ("Training loss", "loss", 1)})

# %%
keep_guess = course.predict(
    "Which model would you keep?", choices=("run A", "run B")
)
keep_guess

# %% [markdown]
# If you have trained classifiers, you have an opinion. Hold on to it. By the
# end of this notebook you will have written that loss yourself, and you will
# know what it measures.

# %%
course.drawing(
    "grpo",
    "One prompt, four completions of different lengths with their rewards. "
    "The mean reward of the group is subtracted and the result divided by "
    "the standard deviation: two completions get a positive advantage and "
    "two a negative one. Every token of a completion is pushed up or down by "
    "its completion's advantage; a forced close is pushed like the others.",
)

# %% [markdown]
# ## Objectives
#
# After this notebook you can
#
# - read the whole GRPO objective and say what each piece protects against;
# - write it in torch, with autograd, and show that it is TRL's loss;
# - write the training loop around it, and train a model with it;
# - say which groups and which tokens the loss favours without being asked;
# - say why its value is no measure of progress.

# %% [markdown]
# ## The whole objective
#
# [Notebook 06](06_step_aware_reward.ipynb) ended with one number for each
# completion, its [advantage](../docs/glossary.md): how much better its reward
# is than its group's mean. *Group relative policy optimisation* (GRPO,
# [DeepSeekMath](https://arxiv.org/abs/2402.03300)) turns it into an update. For
# a group of $G$ completions $o_1 \dots o_G$ with rewards $R_i$, it maximises
#
# $$\frac1G \sum_{i=1}^{G} \frac{1}{|o_i|} \sum_{t=1}^{|o_i|}
# \Big[\min\big(r_{i,t} A_i,\ \operatorname{clip}(r_{i,t},\,
# 1 - \varepsilon_\text{low},\, 1 + \varepsilon_\text{high})\, A_i\big)
# - \beta\, \mathrm{KL}_{i,t}\Big]$$
#
# $$A_i = \frac{R_i - \operatorname{mean}(R)}{\operatorname{std}(R) +
# \epsilon} \qquad r_{i,t} = \frac{\pi_\text{now}(o_{i,t})}
# {\pi_\text{sampled}(o_{i,t})}$$

# %% [markdown]
# Five pieces, and we take them one at a time:
#
# | piece | what it is for |
# | --- | --- |
# | $A_i$ | push up what beat its group, push down what did not |
# | division by the std | a common scale for every group |
# | $r_{i,t}$ | correct for samples that an older policy drew |
# | min and clip | stop pushing what has moved far enough |
# | KL | stay near a reference model |
#
# The sums in front are a sixth piece: how much one token counts.

# %% [markdown]
# ## A push without a baseline
#
# The smallest policy there is: three logits, whose softmax says how likely
# each of three completions is. REINFORCE
# ([Williams, 1992](https://doi.org/10.1007/BF00992696)) samples one and climbs
# its log-probability, in proportion to its reward.
#
# The rewards are 1.2 (right and short), 1.0 (right) and 0.1 (wrong, but in a
# box). We happen to sample the wrong one. After the step, it is

# %%
wrong_guess = course.predict(
    "After a step with reward 0.1, the wrong completion is",
    choices=("likelier", "less likely"),
)
wrong_guess

# %% tags=["torch"]
import torch

rewards = torch.tensor([1.2, 1.0, 0.1])
sampled = 2


def after_one_step(push):
    """Probabilities after one step that pushes the sampled completion."""
    logits = torch.zeros(3, requires_grad=True)
    (push * logits.log_softmax(0)[sampled]).backward()
    return (logits + logits.grad).detach().softmax(0)


# %% tags=["torch", "result", "nbval-check-output"]
after = after_one_step(rewards[sampled])
print([round(p, 3) for p in after.tolist()])
wrong_guess.compare("likelier" if after[sampled] > 1 / 3 else "less likely")

# %% [markdown]
# <details><summary>What we see</summary>
#
# Likelier. Every positive reward pulls its completion up, a wrong one too. Only
# on average, over many samples, does the better one win.
#
# </details>
#
# So subtract what was to be expected. PPO
# ([1707.06347](https://arxiv.org/abs/1707.06347)) trains a second network, a
# *critic*, to guess that. GRPO needs none: it samples a group and takes the
# group's mean.

# %% tags=["torch", "nbval-check-output"]
advantages = lab.group_advantages(rewards.tolist())
after = after_one_step(advantages[sampled])
print("advantages:", [round(a, 3) for a in advantages])
print("after the step:", [round(p, 3) for p in after.tolist()])

# %% [markdown]
# ## What the division does
#
# The mean makes the push fair inside a group. The division by the standard
# deviation decides how groups compare with *each other*. Take right-or-wrong
# rewards and two problems, eight completions each: on the medium one four are
# right, on the hard one only one is. Call the sum of $|A_i|$ the group's
# *total push*.
#
# Without the division, the hard group's total push is 44 % of the medium
# group's. And with it?

# %%
push_guess = course.predict(
    "With the division: the hard group's push, in % of the medium group's?",
    unit="%",
    low=0,
    high=150,
)
push_guess

# %% tags=["result", "nbval-check-output"]
push = {}
print("right of 8   undivided   divided by the std")
for right in (1, 2, 4, 6, 7):
    outcome = [1.0] * right + [0.0] * (8 - right)
    for scale in ("none", "group"):
        given = lab.group_advantages(outcome, scale=scale)
        push[right, scale] = sum(map(abs, given))
    print(f"{right:10} {push[right, 'none']:11.2f}", end="")
    print(f" {push[right, 'group']:20.2f}")

# %% tags=["result"]
push_guess.compare(100 * push[1, "group"] / push[4, "group"])

# %% [markdown]
# <details><summary>What we see</summary>
#
# The more a group agrees, the smaller its standard deviation, and the more the
# division magnifies what is left. So very easy and very hard problems weigh
# more than the outcome alone would give them. *Dr. GRPO*
# ([2503.20783](https://arxiv.org/abs/2503.20783)) calls it a difficulty bias
# and leaves the division out. Step-GRPO keeps it, and notebook 06 showed a side
# effect: in a group that is all right, it cancels `step_beta`.
#
# </details>

# %% [markdown]
# ### Exercise 07.1 · Advantages of a batch (●●○, 8 minutes)
#
# Write $A_i$ in torch, for many groups at once and without a loop: `rewards`
# has the shape `[groups, members]`, and so has what you return. Take the
# unbiased standard deviation and add `eps` to it. Where all rewards of a group
# are equal there is nothing to learn: give zeros.
#
# *Why it matters:* a wrong axis here compares completions of different
# problems, and nothing crashes.


# %% tags=["exercise", "torch"]
def group_advantages(rewards, eps=1e-4):
    """Group-relative advantages, [groups, members]."""
    # BEGIN SOLUTION
    # STUB: import torch
    # STUB:
    # STUB: ...  # your code here
    import torch

    rewards = torch.as_tensor(rewards)
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    spread = rewards.std(dim=1, keepdim=True)
    same = (rewards == rewards[:, :1]).all(dim=1, keepdim=True)
    return torch.where(same, 0.0, centred / (spread + eps))
    # END SOLUTION


# %% tags=["check"]
from stepgrpo_lab.course import checks

verdict = checks.group_advantages(group_advantages, number="07.1")
group_advantages = verdict.solution
verdict

# %% [markdown]
# <details><summary>Hint</summary>
#
# `mean(dim=1, keepdim=True)` keeps the shape that broadcasting needs.
# `torch.std` is unbiased by default. The mean of equal numbers may differ from
# them in the last bit, so ask for equality before you divide.
#
# </details>

# %% [markdown]
# ## The ratio and the clip
#
# Sampling is slow, so one rollout may serve several updates. After the first,
# the policy is no longer the one that sampled; the *importance ratio* $r$
# corrects for it, token by token. If $r$ runs far from 1, a few samples could
# drag the policy anywhere. So PPO takes the smaller of the free and the
# clipped product:
#
# $$\min\big(r A,\ \operatorname{clip}(r, 1 - \varepsilon_\text{low}, 1 +
# \varepsilon_\text{high})\, A\big)$$
#
# A token of a **bad** completion ($A = -1$) has become likelier since it was
# sampled: $r = 1.5$. Both bounds are 0.2. Does the clip stop the push?

# %%
clip_guess = course.predict(
    "A = -1 and r = 1.5: does the clip stop the push?", choices=("yes", "no")
)
clip_guess

# %% [markdown]
# ### Exercise 07.2 · The clipped surrogate (●○○, 5 minutes)
#
# A warm-up: write it for one token, from two log-probabilities and an
# advantage. The bounds may differ (DAPO,
# [2503.14476](https://arxiv.org/abs/2503.14476), takes 0.2 and 0.28, so that a
# rare good token may rise further).
#
# *Why it matters:* without the clip a few lucky samples can carry the policy
# away. The end of this notebook shows it.

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
verdict = checks.clipped_surrogate(surrogate, number="07.2")
surrogate = verdict.solution
verdict

# %% [markdown]
# <details><summary>Hint</summary>
#
# Three lines: the ratio, the clipped ratio, and the smaller of the two
# *products*. The smaller ratio is something else where the advantage is
# negative.
#
# </details>

# %% [markdown]
# Your function, on a grid. The *push* is its slope by the log-probability:
# positive makes the token likelier.

# %% tags=["result", "nbval-check-output"]
from math import log

push = {}
print("    A   ratio   surrogate    push")
for A in (1.0, -1.0):
    for r in (0.5, 0.9, 1.1, 1.5):
        values = [surrogate(log(r) + d, 0.0, A, 0.2, 0.2) for d in (0, 1e-6)]
        push[A, r] = (values[1] - values[0]) / 1e-6 + 0.0
        print(f"{A:+5.0f} {r:7.1f} {values[0]:+11.2f} {push[A, r]:+7.2f}")
clip_guess.compare("yes" if abs(push[-1.0, 1.5]) < 0.01 else "no")

# %% [markdown]
# <details><summary>What we see</summary>
#
# The clip stops a token that has moved far enough **in the direction of its
# push**: $A = 1$ at $r = 1.5$, and $A = -1$ at $r = 0.5$. A token that has
# moved the wrong way is pushed back, however far it is.
#
# </details>

# %% [markdown]
# ## Staying near a reference
#
# The KL divergence says how far two distributions are apart. Only the sampled
# token is known, so it is estimated from that. With
# $d = \log \pi_\text{ref} - \log \pi_\text{now}$ there are two candidates:
#
# $$k_1 = -d \qquad\qquad k_3 = e^{d} - d - 1$$
#
# Both have the KL as their mean ([Schulman,
# 2020](http://joschu.net/blog/kl-approx.html)). Look at three tokens:

# %% tags=["torch", "nbval-check-output"]
now, reference = torch.tensor([[0.6, 0.3, 0.1], [0.3, 0.3, 0.4]])
d = reference.log() - now.log()
k1, k3 = -d, d.exp() - d - 1
print("k1:", [round(k, 3) for k in k1.tolist()])
print("k3:", [round(k, 3) for k in k3.tolist()])
print(f"means: k1 {(now * k1).sum():.4f}, k3 {(now * k3).sum():.4f}")

# %% [markdown]
# $k_1$ is often negative, which would *reward* drifting away on that token.
# $k_3$ never is, so GRPO uses it. The recipe for the Overthinker leaves the
# penalty out; the paper's script gives it a weight of 0.01.

# %% [markdown]
# ## Forced tokens
#
# The [truncated rollout](04_truncated_rollout.ipynb) *forces* `</think>` when
# a probe is confident. As published, that token trains like any other: with a
# positive advantage it teaches the model to stop. But nobody sampled it, so no
# old log-probability exists. It takes the policy's own, and its ratio is
# exactly 1.
#
# Below is a recorded completion around its forced close. Before you move
# anything:
#
# 1. Press *later update*. With advantage 1, which tokens are no longer pushed?
#    And with advantage −1?
# 2. Back at *first update*, switch off *forced tokens train*. Which tokens
#    lose their push, and what happens to the others'?

# %%
from stepgrpo_lab.widgets import LossExplorer

LossExplorer()

# %% [markdown]
# <details><summary>What we see</summary>
#
# 1. With advantage 1, the tokens that have become likelier by more than a
#    fifth; with −1, those that have become less likely by more than a fifth.
# 2. The forced ones. The others are pushed a little harder, because the loss
#    is divided by the number of tokens that train, and these are fewer now.
#
# </details>

# %% [markdown]
# ## How much does one token count?
#
# The losses of all tokens must become one number. TRL knows several ways:
#
# | loss type | weight of a token of completion $i$ |
# | --- | --- |
# | `grpo` | 1 / (completions × tokens of $i$) |
# | `dapo` | 1 / (all tokens of the batch) |
# | `dr_grpo` | 1 / (completions × longest length allowed) |
#
# In a recorded group, two wrong answers have 53 and 188 tokens and the same
# negative advantage. Under `grpo`, how hard is one token of the long answer
# pushed down, compared with one token of the short answer?

# %%
token_guess = course.predict(
    "Push on a token of the long wrong answer, in % of the short one's?",
    unit="%",
    low=0,
    high=200,
)
token_guess

# %% tags=["result", "nbval-check-output"]
from stepgrpo_lab import LossSettings, StepAwareReward
from stepgrpo_lab.method.rewards import outcome_rewards
from stepgrpo_lab.method.token_loss import token_push
from stepgrpo_lab.recordings import load_recordings

group = load_recordings()[4]
outcomes = group.outcomes()
paid = outcome_rewards(StepAwareReward(), outcomes)
advantages = lab.group_advantages(paid)
masks = [[True] * outcome.tokens for outcome in outcomes]
share = {}
for loss_type in ("grpo", "dapo", "dr_grpo"):
    kind = LossSettings(loss_type, max_completion_length=group.limit)
    push = token_push(advantages, masks, kind)
    short, long = push[5], push[6]
    share[loss_type] = 100 * long[0] / short[0]
    print(f"{loss_type:>7}: {share[loss_type]:5.1f} % a token;", end="")
    print(f" in total {sum(short):+.3f} and {sum(long):+.3f}")

# %% tags=["result"]
diluted = share["grpo"]
token_guess.compare(diluted)

# %% [markdown]
# <details><summary>What we see</summary>
#
# Under `grpo` a rambling wrong answer is punished no more *in total* than a
# short one, so each of its tokens is punished less: rambling dilutes the
# punishment. That is Dr. GRPO's other point. The two other types treat every
# token alike. TRL's default is `dapo`, and so is ours. DeepSeekMath's own is
# `grpo`.
#
# </details>

# %% [markdown]
# ### Exercise 07.3 · The whole objective, in torch (●●●, 25 minutes)
#
# All the pieces at once, for a batch of padded completions. `logprobs`,
# `old_logprobs`, `reference` and `mask` have the shape `[completions, tokens]`,
# `advantages` has `[completions]`. A token's loss is minus its clipped
# surrogate plus `kl_weight` times its $k_3$. Make one number of them by
# `loss_type`, as in the table above; `longest` is the longest length allowed.
# Autograd does the rest.
#
# `mask` is true where a token trains. Elsewhere stands padding, which must reach
# neither the loss nor its gradient. Where `kl_weight` is 0, `reference` may be
# `None`.
#
# *Why it matters:* every other line of the method exists to fill in the arguments
# of this function. Yours will be held against TRL's, and then it will train.


# %% tags=["exercise", "torch"]
def grpo_loss(
    logprobs,
    old_logprobs,
    advantages,
    mask,
    low=0.2,
    high=0.2,
    reference=None,
    kl_weight=0.0,
    loss_type="dapo",
    longest=256,
):
    """GRPO's loss of a batch: a number with a gradient."""
    # BEGIN SOLUTION
    # STUB: import torch
    # STUB:
    # STUB: ...  # your code here
    import torch

    mask = mask.bool()
    ratio = torch.where(mask, logprobs - old_logprobs, 0.0).exp()
    push = advantages[:, None]
    clipped = ratio.clamp(1 - low, 1 + high)
    losses = -torch.minimum(ratio * push, clipped * push)
    if kl_weight:
        d = torch.where(mask, reference - logprobs, 0.0)
        losses = losses + kl_weight * (d.exp() - d - 1)
    losses = torch.where(mask, losses, 0.0)
    if loss_type == "grpo":
        return (losses.sum(dim=1) / mask.sum(dim=1)).mean()
    if loss_type == "dr_grpo":
        return losses.sum() / (len(losses) * longest)
    return losses.sum() / mask.sum()
    # END SOLUTION


# %% tags=["check"]
verdict = checks.grpo_loss(grpo_loss, number="07.3")
grpo_loss = verdict.solution
verdict

# %% [markdown]
# <details><summary>Hint</summary>
#
# First a tensor with every token's loss: the exercise above, with
# `torch.minimum` and `clamp`, and `advantages[:, None]` to give every token its
# completion's advantage. Mind the sign: an optimiser minimises. Then take the
# masked tokens out with `torch.where`, and only then sum. Divide by what
# trains, not by the size of the tensor.
#
# </details>

# %% [markdown]
# ## Yours against TRL's
#
# A fair fight needs a batch on which everything happens at once. The model: a
# Qwen3 with 31,000 random weights. The batch: the recorded group from above,
# forced closes included. One large step first, so that ratios move away from 1
# and the clip has work to do.

# %% tags=["torch"]
from stepgrpo_lab.authoring.overthinker.stages import BuildSettings, new_model
from stepgrpo_lab.method.loss import LossBatch, batch_logprobs, policy_loss
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(lab.data_path("overthinker"))
sizes = {"hidden_size": 32, "intermediate_size": 64, "head_dim": 16}
tiny = BuildSettings(layers=2, heads=2, key_value_heads=1, **sizes)
model = new_model(tiny, tokenizer)
trajectories = [member.trajectory for member in group.members]
batch = LossBatch(
    prompt_ids=[trajectory.prompt_ids for trajectory in trajectories],
    completion_ids=[trajectory.completion_ids for trajectory in trajectories],
    masks=masks,
    advantages=advantages,
)

# %% tags=["torch"]
before = batch_logprobs(model, batch)
policy_loss(model, batch, LossSettings()).backward()
with torch.no_grad():
    for weight in model.parameters():
        weight -= 0.5 * weight.grad

# %% [markdown]
# Now your loss, and TRL's `GRPOTrainer` with its own forward pass, padding and
# loss, for every loss type, with a KL term and without. (The reference is made up:
# the first policy's log-probabilities minus 0.3.) A forced token has no old
# log-probability (`None`), so it gets the policy's own.

# %% tags=["torch"]
import dataclasses
from copy import deepcopy

from stepgrpo_lab.method.loss import completion_logprobs
from stepgrpo_lab.training.trl_loss import trl_policy_loss
from torch.nn.utils.rnn import pad_sequence

is_forced = [torch.tensor(t.forced) for t in trajectories]
trains = [torch.tensor(mask) for mask in masks]
sampled = [torch.tensor(row) for row in before]
old_logprobs = [
    [None if skip else old for skip, old in zip(t.forced, row, strict=True)]
    for t, row in zip(trajectories, before, strict=True)
]
references = [torch.tensor(row) - 0.3 for row in before]
second = dataclasses.replace(
    batch,
    old_logprobs=old_logprobs,
    reference_logprobs=[row.tolist() for row in references],
)


# %% tags=["torch"]
def your_loss(model, settings):
    """Your loss on the batch, padded."""
    own = [
        completion_logprobs(model, t.prompt_ids, t.completion_ids)
        for t in trajectories
    ]
    filled = [
        torch.where(forced, now.detach(), then)
        for forced, now, then in zip(is_forced, own, sampled, strict=True)
    ]
    rows = (own, filled, trains, references)
    new, old, mask, far = (pad_sequence(row, batch_first=True) for row in rows)
    bounds = (settings.epsilon_low, settings.epsilon_high)
    kind = (settings.loss_type, settings.max_completion_length)
    given = torch.tensor(advantages)
    return grpo_loss(
        new, old, given, mask, *bounds, far, settings.kl_weight, *kind
    )


# %% tags=["torch", "result"]
for kind, low, high, kl_weight in (
    ("dapo", 0.2, 0.28, 0.0),
    ("grpo", 0.05, 0.1, 0.04),
    ("dr_grpo", 0.2, 0.2, 0.5),
):
    mine, theirs = deepcopy(model), deepcopy(model)
    settings = LossSettings(
        kind, low, high, kl_weight=kl_weight, max_completion_length=group.limit
    )
    losses = [
        your_loss(mine, settings),
        trl_policy_loss(theirs, tokenizer, second, settings),
    ]
    for loss in losses:
        loss.backward()
    pairs = zip(mine.parameters(), theirs.parameters(), strict=True)
    gap = max((a.grad - b.grad).abs().max().item() for a, b in pairs)
    print(f"{kind:7}: yours {losses[0].item():.6f}, TRL", end=" ")
    print(f"{losses[1].item():.6f}, gradients differ by {gap:.0e}")

# %% [markdown]
# Equal to the precision of 32-bit numbers, gradient included. Here is how the
# library writes what you have just written:

# %%
from stepgrpo_lab.method import loss as library_loss

course.source_of(library_loss.surrogate)

# %% [markdown]
# ## The loop
#
# Three pieces are done: advantages, surrogate, loss. The last one puts them to
# work. The policy is small enough to watch: a few logits, one for each
# completion that it can write. Each completion counts as a single token.
#
# | completion | steps | right |
# | --- | --- | --- |
# | guess | 1 | 30 % of the time |
# | think | 4 | 90 % |
# | think long | 8 | 95 % |

# %% tags=["torch"]
STEPS, RIGHT = torch.tensor([1, 4, 8]), torch.tensor([0.3, 0.9, 0.95])
NAMES = ("guess", "think", "think long")


reward = lab.StepAwareReward()


def rollout(policy, groups=4, size=8):
    """Sample groups: choices and rewards, both [groups, members]."""
    odds = policy.detach().softmax(0).expand(groups, -1)
    choices = torch.multinomial(odds, size, replacement=True)
    right = torch.rand(groups, size) < RIGHT[choices]
    paid = [
        reward(group_right, group_steps, [True] * size, [1] * size)
        for group_right, group_steps in zip(
            right.tolist(), STEPS[choices].tolist(), strict=True
        )
    ]
    return choices, torch.tensor(paid)


# %%
end_guess = course.predict(
    "Where does the step-aware reward lead the policy?",
    choices=("guess", "think", "think long"),
)
end_guess

# %% [markdown]
# ### Exercise 07.4 · The training loop (●●●, 20 minutes)
#
# Repeat `steps` times: call `rollout(policy)`, turn rewards into advantages,
# and take `updates` steps of plain SGD on your loss. `policy` is a
# `torch.nn.Parameter` of logits, `[completions]`; change it in place. The
# first update of a rollout has ratio 1, the second has not: the old
# log-probabilities stay those of the rollout.
#
# *Why it matters:* everything larger in this package, TRL's trainer included,
# is this loop with a language model in it.


# %% tags=["exercise", "torch"]
def train(policy, rollout, steps, updates=2, learning_rate=1.0):
    """Train a policy of logits with GRPO, in place."""
    # BEGIN SOLUTION
    # STUB: import torch
    # STUB:
    # STUB: ...  # your code here
    import torch

    optimizer = torch.optim.SGD([policy], lr=learning_rate)
    for _ in range(steps):
        choices, rewards = rollout(policy)
        advantages = group_advantages(rewards).flatten()
        taken = choices.flatten()[:, None]
        mask = torch.ones_like(taken, dtype=torch.bool)
        old = policy.detach().log_softmax(-1)[taken]
        for _ in range(updates):
            logprobs = policy.log_softmax(-1)[taken]
            loss = grpo_loss(logprobs, old, advantages, mask)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    # END SOLUTION


# %% tags=["check"]
verdict = checks.training_loop(train, number="07.4")
train = verdict.solution
verdict

# %% [markdown]
# <details><summary>Hint</summary>
#
# `policy.log_softmax(-1)[choices]` has the shape of `choices`. Your loss wants
# `[completions, tokens]`: flatten the groups and let every completion be one
# token, `choices.flatten()[:, None]`. Take the old log-probabilities once per
# rollout, detached; take the new ones inside the loop over the updates.
#
# </details>

# %% tags=["torch", "result"]
torch.manual_seed(0)
policy = torch.nn.Parameter(torch.zeros(3))
for _ in range(4):
    odds = zip(NAMES, policy.softmax(0).tolist(), strict=True)
    print({name: round(p, 3) for name, p in odds})
    train(policy, rollout, steps=10, learning_rate=0.5)
end_guess.compare(NAMES[policy.argmax()])

# %% [markdown]
# Your loop has trained its first policy.
#
# <details><summary>What we see</summary>
#
# It ends at "think", although "think long" is right more often. The step-aware
# reward gave these points up for half of the steps. The reward made that
# choice, and you should know it.
#
# </details>
#
# With a language model in the place of three logits, the same update takes a
# page. A test holds it against TRL's trainer, on the same completions:

# %%
course.source_of(lab.step_grpo_update)

# %% [markdown]
# It runs here too, on the Overthinker's million parameters: a few updates, four
# problems each, four completions of each.

# %% tags=["torch"]
from stepgrpo_lab.cli.quiet import quiet
from stepgrpo_lab.engines.lockstep import rollout_sampler

quiet()  # other libraries report on themselves; not here
overthinker, tokenizer = lab.load_overthinker()

# %% tags=["torch"]
adam = torch.optim.AdamW(overthinker.parameters(), lr=1e-4, weight_decay=0.0)
settings = lab.rollout_settings("official", markers="paper")
sample = rollout_sampler(overthinker, tokenizer, lab.Decoding(256, settings))
updates = 1 if course.fast_mode() else 6
problems = lab.overthinker_problems("train", 4 * updates)
with lab.Grader() as grader:
    for start in range(0, len(problems), 4):
        figures = lab.step_grpo_update(
            overthinker,
            adam,
            problems[start : start + 4],
            sample,
            grader.grade,
            group_size=4,
        )
        print({name: round(value, 3) for name, value in figures.items()})

# %% [markdown]
# ## What can go wrong: too many updates on old samples
#
# Sampling is expensive, so why not take 50 updates from each rollout instead
# of two? The same toy, with one group of eight per rollout, with and without
# the clip, for several seeds. A run has *collapsed* when it ends up guessing
# (right less than half of the time). How many of the runs without the clip
# collapse?

# %%
collapse_guess = course.predict(
    "Without the clip, how many of the runs collapse?",
    unit="%",
    low=0,
    high=100,
)
collapse_guess

# %%
from dataclasses import replace

from stepgrpo_lab.course.toy_policy import (
    ToyCompletion,
    ToySettings,
    train_toy_policy,
)

options = [
    ToyCompletion("guess", steps=1, tokens=4, right=0.3),
    ToyCompletion("think", steps=4, tokens=16, right=0.9),
    ToyCompletion("think long", steps=8, tokens=32, right=0.95),
]
many = ToySettings(rollouts=40, groups=1, updates=50, learning_rate=5)
losses = {
    "with the clip": LossSettings(),
    "without it": LossSettings(epsilon_low=1.0, epsilon_high=1e9),
}

# %% tags=["result"]
collapsed = {}
for name, kind in losses.items():
    runs = [
        train_toy_policy(
            options, StepAwareReward(), replace(many, loss=kind, seed=seed)
        )
        for seed in range(8 if course.fast_mode() else 20)
    ]
    failed = sum(run.accuracy[-1] < 0.5 for run in runs)
    collapsed[name] = 100 * failed / len(runs)
    print(f"{name:>13}: {failed} of {len(runs)} runs collapsed")
unclipped = collapsed["without it"]
collapse_guess.compare(unclipped)

# %% [markdown]
# <details><summary>What we see</summary>
#
# A lucky short guess has the best reward of its group. One update on it is a
# nudge. Fifty make guessing nearly certain, and what is never sampled again
# can never be learnt again. The clip ends the push once the ratio has left its
# bounds. The recipe goes further and updates once per rollout.
#
# </details>

# %% [markdown]
# ## The two runs again
#
# Back to the curves at the top. Both runs updated once per rollout and had no
# KL term, so every ratio was 1. Put $r = 1$ into the `dapo` loss, and all that
# is left is the advantages, averaged over the *tokens*:
#
# $$\text{loss} = -\frac{\sum_i |o_i|\, A_i}{\sum_i |o_i|}
# = -\frac{\operatorname{cov}(|o|, A)}{\operatorname{mean}(|o|)}$$
#
# The second step holds because the advantages of a group sum to zero. So the
# loss is a *covariance*: it says whether the long completions of a group were
# the bad ones. By hand, on the recorded group:

# %% tags=["torch", "nbval-check-output"]
lengths = torch.tensor([float(outcome.tokens) for outcome in outcomes])
centred = torch.tensor(advantages)
covariance = ((lengths - lengths.mean()) * centred).mean()
print(f"by hand: {-(lengths * centred).sum() / lengths.sum():.4f}")
print(f"minus covariance over mean: {-covariance / lengths.mean():.4f}")

# %% [markdown]
# A loss that falls to zero therefore says that length and advantage have
# little to do with each other any more: the members of a group have become
# alike, or the long ones are no longer worse. It says nothing about how good
# they are. For that, look at the reward and at held-out problems:

# %% tags=["result"]
panels = {
    "reward": ("Training reward", "mean reward", 1),
    "validation/accuracy": ("Validation accuracy", "correct (%)", 100),
}
method_curves(curves, panels)

# %% tags=["result"]
last = {
    name: sum(value for _, value in curve["reward"][-10:]) / 10
    for name, curve in curves.items()
}
keep_guess.compare(max(last, key=last.get))

# %% [markdown]
# <details><summary>What we see</summary>
#
# Run B has three times the learning rate. Its loss falls sooner and further
# while its reward goes down. If you watch the loss, you keep the wrong model.
# Watch reward, accuracy and length instead, under plain decoding and on
# problems that were not trained on.
#
# </details>

# %% [markdown]
# ## Your predictions

# %%
course.score()

# %% [markdown]
# ## Summary
#
# - GRPO is the policy gradient with a group's mean as its baseline, a ratio
#   for old samples, and a clip that ends a push that has gone far enough.
# - Dividing by the standard deviation gives very easy and very hard groups
#   more weight; dividing by a completion's own length spares rambling.
# - A forced token has ratio 1, and trains unless it is masked.
# - Your loss and TRL's agree, gradient included.
# - At ratio 1 the loss is a covariance of length and advantage. It is no
#   measure of progress.

# %% [markdown]
# **Further reading.**
# [DeepSeekMath](https://arxiv.org/abs/2402.03300), section 4, introduces GRPO.
# [Dr. GRPO](https://arxiv.org/abs/2503.20783) takes its two divisions apart.
# [DAPO](https://arxiv.org/abs/2503.14476) gives the token mean and the higher
# upper clip. [DLER](https://arxiv.org/abs/2510.15110) shows how far a plain
# length limit goes once these details are right; notebook 08 comes back to it.
# Unfamiliar word? The [glossary](../docs/glossary.md) has it.
#
# Next: [08 · Reading a result](08_reading_a_result.ipynb).
