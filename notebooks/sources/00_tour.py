# ---
# jupyter:
#   stepgrpo:
#     title: Tour and setup
#     minutes: 20
#     hardware: any CPU
# ---

# %% [markdown]
# ## Objectives
#
# After this notebook you can
#
# - say in five sentences what Step-GRPO does;
# - read a recorded rollout, forward pass by forward pass;
# - use predictions, exercises, hints and checks;
# - say what the course's own result is, and what it does not show.
#
# You should know PyTorch and what a language model is. Reinforcement learning
# is explained when it is needed; the [glossary](../docs/glossary.md) holds the
# words.

# %% [markdown]
# ## Where we stand
#
# A *reasoning model* thinks before it answers: its *completion* (all that it
# writes after the question) holds thoughts up to `</think>`, then the answer.
# Often it knows the answer early and checks it again and again. It
# **overthinks**, and every token costs.
#
# One can watch the model while it writes, and stop it. That works, and has to
# be done for ever. **Step-GRPO** ([arXiv
# 2604.16890](https://arxiv.org/abs/2604.16890)) stops it during *training*
# only, so that in the end the model stops by itself.

# %% [markdown]
# ## The method in one picture
#
# ```text
#  ROLLOUT: sample a group of completions for one problem
#
#   think ──── "Wait" ────► probe: "and the answer is ...?"
#     ▲                            │
#     │   not confident:           │  confident:
#     └── take it back ◄───────────┴► take it back, close the
#         and think on                thoughts, answer
#
#  REWARD: right or wrong; and among the right ones of the group,
#          fewer steps than their mean earn more
#
#  UPDATE: what earned more than the group's mean becomes likelier,
#          the close that was put there included   ──► next ROLLOUT
# ```

# %% [markdown]
# The same in five sentences:
#
# 1. Thoughts are cut into *semantic steps* at markers, words such as "Wait".
# 2. At each marker the model is *probed*: asked for a trial answer.
# 3. If it is confident, its thoughts are closed; if not, it goes back to the
#    marker, and the probe leaves no trace (*backtracking*).
# 4. A right completion earns more the fewer steps it has, compared with the
#    other right ones of its group (the *step-aware relative reward*).
# 5. Training with these rewards (GRPO, *group relative policy optimisation*)
#    teaches the model the close.

# %% [markdown]
# ## The notebooks
#
# | notebook | what it does |
# | --- | --- |
# | 00 | this tour |
# | [01](01_overthinking.ipynb) | overthinking, seen and measured |
# | [02](02_semantic_steps.ipynb) | semantic steps: where a thought turns |
# | [03](03_confidence.ipynb) | how sure is a trial answer, and is it right so often? |
# | [04](04_truncated_rollout.ipynb) | the truncated rollout, phase by phase |
# | [05](05_backtracking.ipynb) | why a probe must leave no trace |
# | [06](06_step_aware_reward.ipynb) | the step-aware relative reward |
# | [07](07_grpo.ipynb) | GRPO from scratch, and TRL's, shown equal |
# | [08](08_reading_a_result.ipynb) | reading a result, also one that failed |
# | [09](09_scaling_to_qwen3.ipynb) | scaling to Qwen3 |
# | [10](10_full_run.ipynb) | the full training run |
#
# Only 10 loads a trained model. The others use recorded completions, so every
# number is there at once and is the same for everybody.

# %% [markdown]
# ## A recorded rollout
#
# Our model is the *Overthinker*: Qwen3's architecture, a million parameters,
# trained from scratch to overthink. A *rollout* is the sampling of a
# completion. This one was stopped by a probe. It answers:

# %% tags=["nbval-check-output"]
from stepgrpo_lab.widgets import RolloutPlayer

player = RolloutPlayer(group=0, member=1, frame=25)
problem = player.recorded.problem
print(problem.prompt)
print("answer:", problem.answer)

# %% [markdown]
# Each row of the completion is computed one token at a time; such a
# computation is a *forward pass*. The player shows every one of them. Two
# questions before you play it (the buttons *event* jump to what matters):
#
# 1. At pass 25 a probe ends. What was the trial answer, and what happens to
#    its tokens in the next passes?
# 2. A second probe ends at pass 49. Why do the thoughts end there and not at
#    the first one?

# %%
player

# %% [markdown]
# <details><summary>What we see</summary>
#
# 1. The trial answer was C, with a confidence of 0.704; 0.95 must be exceeded.
#    It is taken back: its tokens stay behind for a moment, struck through,
#    hidden from all that follows, and are overwritten one by one.
# 2. Now the trial answer is B with 0.995. Between the probes the model worked
#    out candidate B, and the result was 0.
#
# </details>
#
# The figure shows all passes at once. Thoughts climb; a probe climbs on from
# its marker, and snaps back.

# %%
from stepgrpo_lab.viz.completions import forward_passes

forward_passes(player.frames, current=25)

# %% tags=["nbval-check-output"]
for frame in (25, 49):
    player.frame = frame
    print(player.sentence, end="\n\n")

# %% [markdown]
# What did it cost? By hand: 38 tokens were kept, the two probes took 8 tokens
# each, and a marker with the token after it was fed a second time. The same
# completion without probes was recorded, too: it runs on for 158 tokens.

# %% tags=["nbval-check-output"]
from stepgrpo_lab.recordings import load_recordings

cost = player.recorded.members[1].trajectory.cost
watched = [group for group in load_recordings() if group.watched]
alone = watched[0].members[1].trajectory
stopped = player.recorded.members[1].trajectory
print("by hand:", 38 + 2 * 8 + 2, "- recorded:", cost.decoded_tokens)
print("without probes:", alone.tokens)
same = alone.completion_ids[:31] == stopped.completion_ids[:31]
print("the first 31 tokens are the same:", same)

# %% [markdown]
# ## How exercises work
#
# An exercise is a function to write. The next cell, the *check*, says in green
# or red how it stands, and where to look. An unsolved exercise stops nothing:
# what follows uses the library's own version. Below each exercise is a hint;
# solutions are in the notebook of the same name in `solutions/`.
#
# Difficulty runs from ●○○ to ●●●.

# %% [markdown]
# ### Exercise 00.1 · The exit rule
#
# The probes of a completion had these confidences, in order. Write
# `first_confident(confidences, threshold)`: the place (from 0) of the first
# one that is *greater* than the threshold, or `None` if there is none. With
# this rule the rollout above was stopped.
#
# Difficulty ●○○


# %% tags=["exercise"]
def first_confident(confidences, threshold):
    """Place of the first confidence above the threshold, or None."""
    # BEGIN SOLUTION
    # STUB: return ...  # your code here
    for place, confidence in enumerate(confidences):
        if confidence > threshold:
            return place
    return None
    # END SOLUTION


# %% tags=["check"]
from stepgrpo_lab.course import checks

checks.first_confident(first_confident)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `enumerate(confidences)` gives each place with its value; return at the first
# one that fits.
#
# </details>

# %% [markdown]
# The library's version is this; `course.source_of` shows the lines that run.
# The rollout asks the same `ExitRule` while it samples. It also knows at which
# markers to probe, and after how many probes to stop asking.

# %%
from stepgrpo_lab import course
from stepgrpo_lab.method.confidence import ExitRule

course.source_of(ExitRule.first_exit)

# %% tags=["nbval-check-output"]
probes = stopped.probes
print([round(probe.confidence, 3) for probe in probes])
print("stopped by probe", ExitRule(0.95).first_exit(probes), "(from 0)")

# %% [markdown]
# ## How predictions work
#
# Before an experiment, write down what you expect, in place of `None`, and run
# the cell. To be surprised by a number that one has guessed teaches more than
# to read it.
#
# After training with Step-GRPO the model stops by itself. Of 100 tokens that
# it wrote before, how many are left?

# %%
left = course.predict("Of 100 tokens, how many are left?", None, unit="tokens")
left

# %% [markdown]
# ### Exercise 00.2 · Tokens kept
#
# `before` and `after` hold the lengths of the completions of the same
# problems. Write `kept_share(before, after)`: which per cent of *all* tokens
# is kept?
#
# Difficulty ●○○


# %% tags=["exercise"]
def kept_share(before, after):
    """Per cent of all tokens that is kept."""
    # BEGIN SOLUTION
    # STUB: return ...  # your code here
    return 100 * sum(after) / sum(before)
    # END SOLUTION


# %% tags=["check"]
checks.kept_share(kept_share)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Divide the sum of the lengths after by the sum of the lengths before.
#
# </details>

# %% [markdown]
# ## The result
#
# This is the course's own run, from `data/results/headline.json`: the
# Overthinker before and after training, on 2000 problems it had not seen, by
# plain decoding, nobody stopping it. Three *seeds* (runs that differ in
# chance alone), and one run of plain GRPO that may write as many tokens in
# training.

# %% tags=["nbval-check-output"]
from stepgrpo_lab.experiments.record import load_record

study = load_record("headline")
pooled = study.pooled["Step-GRPO"]
compared = {"Step-GRPO, all seeds": pooled}
compared |= {name: run.test for name, run in study.runs.items()}
for name, told in compared.items():
    print(
        f"{name:20} {told.token_ratio * 100} % of the tokens, "
        f"accuracy {told.accuracy_points} points"
    )

# %%
left.compare(100 * pooled.token_ratio.estimate)

# %%
from stepgrpo_lab.viz.tradeoff import tradeoff_changes

points = [
    {
        "name": name,
        "accuracy_points": told.accuracy_points,
        "token_ratio": told.token_ratio,
    }
    for name, told in compared.items()
    if name in ("Step-GRPO, all seeds", "GRPO, seed 0")
]
tradeoff_changes(points, "untrained")

# %% [markdown]
# Left is shorter, down is less accurate. Step-GRPO keeps a third of the
# tokens and loses half a point; plain GRPO, which is paid for right answers
# alone, changes next to nothing. The brackets are 95 % intervals over
# problems. The model's length over training, measured without any probe:

# %%
from stepgrpo_lab.viz.plots_study import method_curves

method_curves({name: run.curves for name, run in study.runs.items()})

# %% [markdown]
# Please read the result for what it is:
#
# - it is about a **toy**, made to overthink: two thirds of its tokens can be
#   saved by construction;
# - the paper's claim is another one: for Qwen3-8B, over six benchmarks, 32 %
#   fewer tokens and 2.2 points *more* accuracy. Nothing here confirms or
#   refutes it;
# - one setting differs from the published method: here half of each group is
#   probed, not all of it. Notebook 08 shows what that changes.

# %% [markdown]
# ## What can go wrong: confident and wrong
#
# An exit rule trusts the model's own confidence. The recorded groups hold
# completions that a probe has ended. Were they right? (These problems were
# chosen to be looked at, and sampled at temperature 1, where the model slips.
# So this is no rate to quote.)

# %% tags=["nbval-check-output"]
ended = [
    (probe.confidence, told.outcome.correct)
    for group in load_recordings()
    if (group.model, group.rollout) == ("untrained", "official")
    for told in group.members
    for probe in told.trajectory.probes
    if probe.accepted
]
wrong = [round(sure, 3) for sure, right in ended if not right]
print(f"{len(ended)} exits, {len(wrong)} of them wrong, confident by {wrong}")

# %% [markdown]
# Above 0.95, and wrong. In these completions the model slipped in a step, and
# the trial answer followed from what was written: the probe is sure of the
# *thoughts*, right or not. A re-check might have found the slip. So an exit
# rule buys its tokens with such cases; how often they occur, and how far a
# confidence can be trusted, is measured in notebook 03.

# %% [markdown]
# ## Summary
#
# - Step-GRPO probes for a trial answer at each marker, exits when confident,
#   else backtracks; the reward compares steps within a group; training makes
#   the model close its thoughts by itself.
# - Write predictions first; solve exercises against their checks; nothing
#   stops for an unsolved one.
# - The toy keeps 34 % of its tokens at a loss of half a point. It shows a
#   mechanism, not what a large model does.
#
# Next: [01 · Overthinking, seen and measured](01_overthinking.ipynb)
