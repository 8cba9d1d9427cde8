# ---
# jupyter:
#   stepgrpo:
#     title: Tour and setup
#     minutes: 40
#     hardware: any CPU
# ---

# %% [markdown]
# ## When did it know?
#
# "Which gives 0, mod 10: A 4\*7+6, B 5+9+6, C 9\*7+2, D 0-2\*7?" A small model answered. Read on only as far as you need
# to be sure of the answer:
#
# ```text
# <think>
# A 4*7=8 8+6=4 no Alternatively B 5+9=4 4+6=0 yes Wait B 5+9=4 4+6=0 yes
# Wait B 5+9=4 4+6=0 yes Alternatively C 9*7=3 3+2=5 no Wait B 5+9=4 4+6=0
# yes Wait B 5+9=4 4+6=0 yes Alternatively D 0-2=8 8*7=6 no Alternatively
# A 5*7=5 5+6=1 no Alternatively B 5+9=4 4+6=0 yes
# </think>
#
# \boxed{B}
# ```
#
# You stopped at the second try, if not before. The model went on and found B five more times. All in all it wrote 158
# *tokens*, the pieces of text that a language model writes one at a time.

# %%
stop_guess = course.predict(
    "After how many of its 158 tokens did the model itself know the answer?",
    unit="tokens",
    low=1,
    high=158,
)
stop_guess

# %% [markdown]
# Can we look inside? We can ask. At every "Wait" and "Alternatively" the model was interrupted and made to answer at
# once. Its *trial answer* and how sure it was of it were written down, and then the interruption was undone: the
# completion above is what the model would have written anyway. Move your guess, then run the next cell.

# %% tags=["nbval-check-output", "result"]
from stepgrpo_lab.recordings import load_recordings

recorded = load_recordings()
watched = [group for group in recorded if group.watched]
group = watched[0]
alone = group.members[1]
print("place  answer  confidence")
for probe in alone.trajectory.probes:
    print(f"{probe.position:>5}  {probe.answer:>6}  {probe.confidence:>10.3f}")

# %% tags=["result"]
knows = next(
    probe.position
    for probe, right in zip(
        alone.trajectory.probes, alone.trials_right, strict=True
    )
    if right
)
stop_guess.compare(knows)

# %% [markdown]
# All the other tokens bought nothing. A model that goes on like this **overthinks**. Large reasoning models do it
# too, and there every token costs money. This course is about **Step-GRPO**
# ([Chen et al., 2026](https://arxiv.org/abs/2604.16890)), a way to train a model after which it stops by itself.

# %%
course.drawing(
    "overview",
    "Step-GRPO in three boxes with arrows in a circle. Rollout: four "
    "completions of one problem; two of them are asked at markers whether "
    "they know the answer yet, and are closed early. Reward: right "
    "completions earn more the fewer steps they took; a wrong one earns next "
    "to nothing. Update: what earned more than the group's mean becomes "
    "likelier. After training nobody asks any more.",
)

# %% [markdown]
# ## Objectives
#
# After this notebook you can
#
# - say in five sentences what Step-GRPO does;
# - read a recorded rollout, forward pass by forward pass;
# - work with the course's predictions, exercises, hints and checks;
# - say what a result on this course's model shows, and what it does not.
#
# You should know PyTorch and what a language model is. Reinforcement learning is explained where it is needed, and the
# [glossary](../docs/glossary.md) holds the words.

# %% [markdown]
# ## Five sentences
#
# 1. Thoughts are cut into *semantic steps* at *markers*, words such as "Wait".
# 2. While a group of completions is sampled for training, the model is *probed* at each marker: it has to give a trial
#    answer.
# 3. If it is confident, its thoughts are closed there. If not, it goes back to the marker and thinks on, and the probe
#    leaves no trace.
# 4. A right completion earns more the fewer steps it has, compared with the other right ones of its group. This is the
#    *step-aware relative reward*.
# 5. Training with these rewards by GRPO, *group relative policy optimisation*
#    ([Shao et al., 2024](https://arxiv.org/abs/2402.03300)), makes likelier whatever earned more than its group's mean,
#    an early close included.

# %% [markdown]
# ## Where the idea comes from
#
# Asking a model at its markers is older than Step-GRPO. **DEER** ([Yang et al., 2025](https://arxiv.org/abs/2504.15895))
# does it whenever the model is used: a confident trial answer ends the thoughts. It needs no training at all. But the
# questions cost tokens each time, and somebody has to stand beside the model and ask, for as long as it is in use.
#
# Step-GRPO asks during training only. Think of a teacher who interrupts a pupil in class, so that the pupil will hand in
# the exam in time, alone.

# %% [markdown]
# ## The notebooks
#
# | notebook | its question |
# | --- | --- |
# | 00 | this tour |
# | [01](01_overthinking.ipynb) | How much is there to save, and why not simply cut? |
# | [02](02_semantic_steps.ipynb) | What is a step? |
# | [03](03_confidence.ipynb) | How sure is a trial answer, and is it right that often? |
# | [04](04_truncated_rollout.ipynb) | How is a model stopped while it writes? |
# | [05](05_backtracking.ipynb) | Why must a probe leave no trace? |
# | [06](06_step_aware_reward.ipynb) | What earns how much? |
# | [07](07_grpo.ipynb) | How does a reward change a model? |
# | [08](08_reading_a_result.ipynb) | What does a result show, also one that failed? |
# | [09](09_scaling_to_qwen3.ipynb) | What changes with a real model? |
# | [10](10_full_run.ipynb) | Does it work? You train. |
#
# Most of them work on recordings, so their numbers are there at once and are the same for everybody. Where a model is
# loaded it is a small one, and a CPU is enough.

# %% [markdown]
# ## A rollout, pass by pass
#
# Our model is the *Overthinker*: Qwen3's architecture with a million parameters, trained from scratch to overthink. A
# *rollout* is the sampling of a completion. In each *forward pass* the model reads one token and says what may come next.
#
# The player shows every pass of another rollout of the problem above. It begins with the very same tokens, but this
# time a confident probe was allowed to stop it. Two questions before you press play (*event* jumps to what matters):
#
# 1. At pass 25 a probe ends. What was the trial answer, and what happens to its tokens in the next passes?
# 2. A second probe ends at pass 49. Why do the thoughts end there, and not at the first one?

# %%
from stepgrpo_lab.widgets import RolloutPlayer

player = RolloutPlayer(group=0, member=1, frame=0)
player

# %% [markdown]
# <details><summary>What we see</summary>
#
# 1. The trial answer was C, with a confidence of 0.704; it would have to exceed 0.95. It is taken back: its tokens stay
#    for a moment, struck through and hidden from all that follows, and are overwritten one by one.
# 2. Now the trial answer is B, with 0.995. Between the probes the model worked out candidate B, and the result was 0.
#
# </details>

# %% tags=["nbval-check-output"]
second_player = RolloutPlayer(group=0, member=1)
for frame in (25, 49):
    second_player.frame = frame
    print(second_player.sentence, end="\n\n")

# %% [markdown]
# All passes at once. Thoughts climb. A probe climbs on from its marker and snaps back:

# %%
from stepgrpo_lab.viz.completions import forward_passes

forward_passes(player.frames, current=25)

# %% [markdown]
# What did it cost? 38 tokens were kept. The two probes took 8 tokens each. And each marker was read once in vain, the
# first before it was put back, the second before it was dropped.

# %% tags=["nbval-check-output", "result"]
stopped = player.recorded.members[1].trajectory
print("by hand:", 38 + 2 * 8 + 2, "- recorded:", stopped.cost.decoded_tokens)
print("without probes:", alone.trajectory.tokens)
same = (
    alone.trajectory.completion_ids[:knows] == stopped.completion_ids[:knows]
)
print(f"the first {knows} tokens are the same:", same)

# %% [markdown]
# ## How exercises work
#
# An exercise is a function that you write. The cell below it, the *check*, tries it on many inputs, some of them random,
# and says in green or red how it stands and where to look. There is a hint, and the solutions are in the folder
# `solutions/`.
#
# Nothing stops at an unsolved exercise. Once yours is green, the notebook goes on with *your* function; until then it
# uses the library's. Difficulty runs from ●○○ to ●●●, and the minutes are for somebody who knows Python well.
# (The minutes at the top of a notebook: 200 words a minute, ten lines of code a minute, and its exercises.)

# %% [markdown]
# ### Exercise 00.1 · The exit rule (●○○, 5 minutes)
#
# The probes of a completion had these confidences, in order. Return the place (from 0) of the first one that is *greater*
# than the threshold, or `None` if there is none. This rule stopped the rollout above.


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

verdict = checks.first_confident(first_confident)
first_confident = verdict.solution
verdict

# %% [markdown]
# <details><summary>Hint</summary>
#
# `enumerate(confidences)` gives each place with its value; return at the first one that fits.
#
# </details>
#
# The library's rule is a class, `ExitRule`. In a rollout the probes come one at a time, and each gets this verdict.
# `course.source_of` shows the lines that run. (*Near budget* is a rule for the last tokens; notebook 04 has it.)

# %%
import stepgrpo_lab as lab

course.source_of(lab.ExitRule.verdict)

# %% [markdown]
# ### Exercise 00.2 · What if it had been stopped? (●●○, 15 minutes)
#
# Take recorded completions that ran to their end, and work out what a threshold *would* have made of them. Each is a
# dictionary:
#
# - `tokens`: its length, and `right`: whether its own answer is right;
# - `probes`: a list of `(place, confidence, right)`, one for each trial answer;
# - `closing`: how many tokens the close and the answer take.
#
# A completion that is stopped by a probe has the tokens up to the probe's place and `closing` more, and its answer is the
# trial answer. One that is never stopped stays as it is. Return two percentages: of all tokens, how many are kept; of
# all completions, how many are right.


# %% tags=["exercise"]
def replay_exits(completions, threshold):
    """Percentages of tokens kept and of answers right."""
    # BEGIN SOLUTION
    # STUB: return ...  # your code here
    before = after = hits = 0
    for completion in completions:
        before += completion["tokens"]
        probes = completion["probes"]
        confidences = [confidence for _, confidence, _ in probes]
        stop = first_confident(confidences, threshold)
        if stop is None:
            after += completion["tokens"]
            hits += completion["right"]
        else:
            place, _, right = probes[stop]
            after += place + completion["closing"]
            hits += right
    return 100 * after / before, 100 * hits / len(completions)
    # END SOLUTION


# %% tags=["check"]
verdict = checks.replay_exits(replay_exits, number="00.2")
replay_exits = verdict.solution
verdict

# %% [markdown]
# <details><summary>Hint</summary>
#
# Call `first_confident` with the list of confidences. Keep three sums: tokens before, tokens after, right answers. Divide
# only at the end: all tokens by all tokens.
#
# </details>
#
# Your function on 32 recorded completions of four problems. (They were chosen to be looked at, and sampled at temperature
# 1, where the model slips. So these are no rates to quote.)

# %% tags=["nbval-check-output"]
from stepgrpo_lab.recordings.measures import labelled_size

completions = []
for group in (group for group in watched if group.model == "untrained"):
    for place, member in enumerate(group.members):
        trials = zip(
            member.trajectory.probes, member.trials_right, strict=True
        )
        completions.append(
            {
                "tokens": member.trajectory.tokens,
                "right": member.outcome.correct,
                "closing": labelled_size(group, place).closing_tokens,
                "probes": [(p.position, p.confidence, ok) for p, ok in trials],
            }
        )
print("threshold   kept   right")
for threshold in (0.0, 0.6, 0.8, 0.95, 0.99, 1.0):
    kept, right = replay_exits(completions, threshold)
    print(f"{threshold:>9.2f} {kept:5.0f} % {right:5.0f} %")

# %% [markdown]
# Stop at once, and three answers in four are wrong. Never stop, and most tokens are wasted. In between lies a threshold
# that saves most of the tokens and costs hardly an answer. The whole method lives in that gap.

# %% [markdown]
# ## What training leaves
#
# The same problem once more, answered by the model after Step-GRPO. Nobody asks and nobody stops it:

# %% tags=["nbval-check-output"]
trained = next(group for group in watched if group.model == "trained")
print(trained.problem.prompt)
print(trained.members[1].trajectory.text)

# %% [markdown]
# (It slipped in the first line, where 4\*7 is 8. This time no harm was done.)
#
# One completion proves nothing. How much is left on problems that the model has never seen, and what it costs in
# accuracy, you will measure yourself in [notebook 10](10_full_run.ipynb). Whatever comes out, please read it for what it
# is:
#
# - it is about a **toy** that was made to overthink: most of its tokens can be saved by construction;
# - the paper's claim is another one. For Qwen3-8B, averaged over six benchmarks, it reports 32 % fewer tokens and 2.2
#   points *more* accuracy. Nothing here confirms or refutes it;
# - one setting differs from the published method: here half of each group is probed, not all of it. Notebook 08 shows
#   what that changes.

# %% [markdown]
# ## What can go wrong: confident and wrong
#
# An exit rule trusts the model's own confidence. Here are all recorded completions that a probe has really ended:

# %% tags=["nbval-check-output"]
ended = [
    (probe.confidence, member.outcome.correct)
    for group in recorded
    if (group.model, group.rollout) == ("untrained", "official")
    for member in group.members
    for probe in member.trajectory.probes
    if probe.accepted
]
wrong = [round(confidence, 3) for confidence, right in ended if not right]
print(f"{len(ended)} exits, {len(wrong)} of them wrong, confident by {wrong}")

# %% [markdown]
# Above 0.95, and wrong. In these completions the model slipped in a step, and the trial answer followed from what stood
# there: the probe is sure of the *thoughts*, right or not. A second look might have found the slip. So an exit rule pays
# for its tokens with such cases. How often they occur, and how far a confidence can be trusted, is the subject of
# notebook 03.

# %% [markdown]
# ## Your predictions
#
# Every notebook asks you to guess before it shows. A number that surprises you is one that you will remember. At the end
# it says how you did:

# %%
course.score()

# %% [markdown]
# ## Summary
#
# - A model overthinks when it goes on after it knows the answer. Asking for a trial answer at each marker shows when it
#   knew.
# - Step-GRPO probes during training, exits when confident, else backtracks; its reward compares steps within a group; and
#   training makes likelier whatever earned more.
# - An exit rule is one comparison. Its threshold trades tokens for right answers.
# - The toy shows a mechanism, not what a large model does.

# %% [markdown]
# **Further reading.** The method: Step-GRPO ([arXiv 2604.16890](https://arxiv.org/abs/2604.16890)). Its two parents: DEER,
# early exit while the model is used ([arXiv 2504.15895](https://arxiv.org/abs/2504.15895)), and GRPO, which compares the
# completions of a group with one another instead of training a second network to judge them
# ([arXiv 2402.03300](https://arxiv.org/abs/2402.03300)).
#
# Next: [01, overthinking, seen and measured](01_overthinking.ipynb)
