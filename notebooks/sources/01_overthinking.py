# ---
# jupyter:
#   stepgrpo:
#     title: Overthinking, seen and measured
#     minutes: 30
#     hardware: any CPU
# ---

# %% [markdown]
# ## Objectives
#
# After this notebook you can
#
# - tell the needed, the verifying and the redundant steps of a completion
#   apart;
# - say which share of the tokens an oracle would save that stops after the
#   last needed step;
# - show, on recorded answers, why a fixed cut is no way to get there;
# - say what a good exit must know.

# %% [markdown]
# ## Where we stand
#
# A *reasoning model* writes a long chain of thought before it answers. Often
# the answer is there early, and the model checks it again and again: it
# **overthinks**. Step-GRPO is a training that shortens the thoughts. Before we
# shorten anything, we look at what there is to save, and at what must stay.
#
# The model of this course is the *Overthinker*: a million parameters, trained
# from scratch to overthink. Its problems are generated, so the truth about
# every step is known. For a large model one would have to ask a judge.

# %% [markdown]
# ## One completion by hand
#
# "Start at 7: +5 \*3 -4. Which digit, mod 10?" All results are modulo 10, so
# 7+5 is 2. The work is done two operations a step, and each "Wait" begins a
# new step.

# %% tags=["nbval-check-output"]
from stepgrpo_lab import MarkerSegmenter

thoughts = "7+5=2 2*3=6 Wait 6-4=2 Wait 7+5=2 2*3=6 Wait 6-4=2 Wait 6-4=2"
completion = f"<think>\n{thoughts}\n</think>\n\n\\boxed{{2}}"
steps = MarkerSegmenter("paper").split(completion)
for step in steps:
    print(step.index + 1, repr(step.text))

# %% [markdown]
# Each step gets one of four labels:
#
# - **needed**: every legal step up to the one that first completes a right
#   derivation;
# - **verifying**: the first complete pass after it that reaches the answer
#   again;
# - **redundant**: all legal steps after that;
# - **malformed**: no legal move on this problem.
#
# So steps 1 and 2 are needed, and 3 and 4 verify. And step 5, which takes up
# the chain in the middle? Choose, in place of `None`.

# %%
from stepgrpo_lab import course

fifth = course.predict(
    "Which label has step 5?", None, choices=("redundant", "malformed")
)
fifth

# %% tags=["nbval-check-output"]
from stepgrpo_lab import Problem, label_steps

meta = {"start": 7, "operations": [["+", 5], ["*", 3], ["-", 4]]}
problem = Problem("toy", "...", answer="2", family="chain", meta=meta)
labels = label_steps(problem, completion)
by_hand = ["needed", "needed", "verifying", "verifying"]
print(labels)
print("steps 1 to 4 as by hand:", labels[:4] == by_hand)

# %%
fifth.compare(labels[4])

# %% [markdown]
# A new pass has to begin at the start, so step 5 is no legal move. A *wrong*
# result would be one: a slip is no malformation. This is the library's rule:

# %%
course.source_of(label_steps)

# %% [markdown]
# ## Look at it
#
# Eight completions of the untrained Overthinker for one problem, as recorded.
# Each bar is a completion, each piece a step, its width the step's tokens. (A
# *token* is the piece of text that a model writes at a time.)

# %%
from stepgrpo_lab.recordings import load_recordings
from stepgrpo_lab.recordings.measures import labelled_size
from stepgrpo_lab.viz.completions import labelled_completions

watched = [group for group in load_recordings() if group.watched]
group = watched[3]
print(group.title)
print(group.problem.prompt, "Answer:", group.problem.answer)
labelled_completions(
    {f"completion {place}": labelled_size(group, place) for place in range(8)}
)

# %% [markdown]
# Most completions need three steps, and some write twelve. Completions 1 and
# 7 need six: the first pass slipped, and the second found it. So a check can
# be worth its tokens. (Recorded at temperature 1, as in training, where
# the model slips more often, and chosen to be looked at.)
#
# The inspector shows one of them in full, in the same colours. At each marker
# the model was asked for a *trial answer*, which then was taken back: the
# completion went on as if nothing had happened. The questions:
#
# 1. At which marker is the trial answer right for the first time? Which label
#    has the step before it?
# 2. Does a trial answer change after that?
#
# Then move on to other members and groups.

# %%
from stepgrpo_lab.widgets import StepInspector

inspector = StepInspector(group=3, member=3)
inspector

# %% [markdown]
# <details><summary>What we see</summary>
#
# 1. At the third marker, right after the third and last *needed* step. The
#    two trial answers before it, 5 and 1, are wrong: the work was not done.
# 2. No. All nine trial answers from there on are 7, and nine more steps are
#    written.
#
# </details>
#
# The same in numbers:

# %% tags=["nbval-check-output"]
member = watched[3].members[3]
print(member.labels)
for probe, right in zip(
    member.trajectory.probes, member.trials_right, strict=True
):
    print(probe.step, probe.answer, "right" if right else "wrong")

# %% [markdown]
# ## The oracle
#
# An *oracle* knows the truth. Ours stops every completion after its last
# needed step and has it answer. No real rule can know that much; but it says
# what there is to save.
#
# By hand: steps of 16, 13, 13 and 12 tokens, labelled needed, needed,
# verifying, redundant; the close (`</think>`) and the answer take 7.

# %% tags=["nbval-check-output"]
whole = 16 + 13 + 13 + 12 + 7
stopped = 16 + 13 + 7
print(f"{stopped} of {whole} tokens: {1 - stopped / whole:.0%} saved")

# %% [markdown]
# ### Exercise 01.1 · Stop after the last needed step
#
# Write `stop_after_needed(labels, step_tokens, closing_tokens)`: the length in
# tokens of a completion that stops there. `labels` and `step_tokens` hold one
# entry for each step.
#
# Difficulty ●●○


# %% tags=["exercise"]
def stop_after_needed(labels, step_tokens, closing_tokens):
    """Tokens of a completion that stops after its last needed step."""
    # BEGIN SOLUTION
    # STUB: return None  # your code here
    kept, so_far = 0, 0
    for label, tokens in zip(labels, step_tokens, strict=True):
        so_far += tokens
        if label == "needed":
            kept = so_far
    return kept + closing_tokens
    # END SOLUTION


# %% tags=["check"]
from stepgrpo_lab.course import checks

checks.stop_after_needed(stop_after_needed)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Add up the tokens as you go, and remember the sum whenever a step is needed.
# What is remembered at the end, with the close and the answer, is the length.
#
# </details>

# %% [markdown]
# ### Exercise 01.2 · Share of the tokens saved
#
# Three completions have 200, 50 and 50 tokens; stopped, they have 50, 40 and
# 50. Write `pooled_saving(before, after)`: which share of *all* tokens is
# saved? The mean of the three shares would be another number, and would not
# be what one pays for.
#
# Difficulty ●○○


# %% tags=["exercise"]
def pooled_saving(before, after):
    """Share of all tokens that is saved, from 0 to 1."""
    # BEGIN SOLUTION
    # STUB: return None  # your code here
    return 1 - sum(after) / sum(before)
    # END SOLUTION


# %% tags=["check"]
checks.pooled_saving(pooled_saving)

# %% [markdown]
# <details><summary>Hint</summary>
#
# All tokens after, over all tokens before, is the share that is kept.
#
# </details>

# %% [markdown]
# ## Measured on 400 problems
#
# The *survey* is a record of one completion for each of 400 test problems,
# from the untrained model and from the trained one, at temperature 0.6. Two
# families of problems:
#
# - **chain**: apply four to six operations, two a step;
# - **search**: find the one of four or five candidates that gives 0, one
#   candidate a step.
#
# Which share of its tokens would the oracle save the untrained model?

# %%
saved = course.predict(
    "Which share of the tokens does the oracle save?", None, unit="%"
)
saved

# %% tags=["nbval-check-output"]
from stepgrpo_lab.recordings import load_survey
from stepgrpo_lab.recordings.measures import measure_overthinking

survey = load_survey()
untrained = [group for group in survey if group.model == "untrained"]
measured = measure_overthinking(untrained)
print(f"tokens: {measured.tokens:.1f}, right: {measured.right:.2%}")
print(
    f"oracle: {measured.oracle_tokens:.1f}, right: {measured.oracle_right:.2%}"
)
print(f"saved:  {measured.saved * 100} % (95 % interval over problems)")

# %%
saved.compare(100 * measured.saved.estimate)

# %% [markdown]
# Two thirds of what this model writes comes after the answer is known, and
# the trial answer at that place is right on every problem. (Of the whole
# completions one is wrong: it ran into the limit of 256 tokens, still
# thinking.) By family and difficulty, the level:

# %% tags=["nbval-check-output"]
kinds = sorted({(g.problem.family, g.problem.level) for g in untrained})
by_kind = {
    f"{family} {level}": measure_overthinking(
        [g for g in untrained if (g.problem.family, g.problem.level) == kind]
    )
    for kind in kinds
    for family, level in [kind]
}
print("          problems  tokens  oracle   saved")
for name, kind in by_kind.items():
    print(
        f"{name:9} {kind.completions:8} {kind.tokens:7.1f} "
        f"{kind.oracle_tokens:7.1f} {kind.saved.estimate:7.1%}"
    )

# %%
from stepgrpo_lab.viz.completions import step_labels

step_labels({name: kind.steps for name, kind in by_kind.items()})

# %% [markdown]
# Harder problems need more: two or three steps in *chain*, more candidates in
# *search*. Yet the longest completions are not those of the hardest chains,
# level 3. That is how the model was made: the traces it learnt from stop
# re-checking before 22 operations, and a chain of six fits in three times, a
# chain of five four times.
#
# So length follows habit, not need. That is what "overthinking" means here,
# and it is built in: the share for a large model is another number.

# %% [markdown]
# ## What can go wrong: just cut
#
# If two thirds is waste, why not cut every completion after its first step?
# Or after 30 tokens? No training, no probability, nothing to tune.
#
# We need not run the model: at every marker the survey holds the answer that
# the model would have given there.
#
# What will the accuracy be, over all 400 problems, if all thoughts are cut
# after the first step? (Guessing a digit would be right one time in ten, a
# candidate one time in four or five.)

# %%
after_cut = course.predict(
    "Right answers when all are cut after the first step?", None, unit="%"
)
after_cut

# %% [markdown]
# ### Exercise 01.3 · Accuracy of a cut
#
# `trials_right[i][j]` says whether the trial answer of completion `i` after
# step `j + 1` is right; `own_right[i]` whether its own answer at the end is.
# Write `cut_accuracy(trials_right, own_right, steps)`: the share of right
# answers if every completion is cut after `steps` steps. One that has fewer
# markers ends by itself.
#
# Difficulty ●●○


# %% tags=["exercise"]
def cut_accuracy(trials_right, own_right, steps):
    """Share of right answers, cut after so many steps."""
    # BEGIN SOLUTION
    # STUB: return None  # your code here
    right = 0
    for trials, own in zip(trials_right, own_right, strict=True):
        right += trials[steps - 1] if steps <= len(trials) else own
    return right / len(own_right)
    # END SOLUTION


# %% tags=["check"]
checks.cut_accuracy(cut_accuracy)

# %% [markdown]
# <details><summary>Hint</summary>
#
# A completion has as many trial answers as markers. Is there one after
# `steps` steps, it counts; else `own_right` does. `True` adds up as 1.
#
# </details>

# %% [markdown]
# The library writes a cut as an exit rule that takes any answer (threshold 0)
# once so many steps are finished, or so many tokens written. In the second
# case the step in which the tokens run out is finished.

# %% tags=["nbval-check-output"]
from stepgrpo_lab.method.confidence import ExitRule
from stepgrpo_lab.recordings.measures import try_rule

cuts = [try_rule(untrained, ExitRule(0.0, min_steps=n)) for n in range(1, 7)]
budgets = [
    try_rule(untrained, ExitRule(0.0, min_tokens=n))
    for n in (10, 20, 30, 40, 50, 60, 70)
]
for cut in cuts:
    print(f"{cut.rule.min_steps} steps: {cut.right:6.1%} {cut.tokens:6.1f}")
for cut in budgets:
    print(f"{cut.rule.min_tokens} tokens: {cut.right:6.1%} {cut.tokens:6.1f}")

# %%
after_cut.compare(100 * cuts[0].right)

# %% [markdown]
# The exercise's function computes the same from the recorded answers: here it
# is with the library's rule beside it, for *chain* and *search*.

# %% tags=["nbval-check-output"]
for name in ("chain", "search"):
    groups = [g for g in untrained if g.problem.family == name]
    first = [g.members[0].trials_right[0] for g in groups]
    rule = try_rule(groups, ExitRule(0.0, min_steps=1))
    print(f"{name}: {sum(first) / len(first):.1%}, rule {rule.right:.1%}")

# %% [markdown]
# Cut after the first step, *chain* is little better than guessing. The needed
# steps are needed: one pass through the network cannot do their work. Now all
# cuts in one picture, with the oracle, and with a rule of another kind: stop
# at the first trial answer of which the model is confident (more than 0.95).

# %%
from stepgrpo_lab.viz.completions import stopping_curves

confident = try_rule(untrained, ExitRule(0.95))
stopping_curves(
    {"cut after 1 to 6 steps": cuts, "cut after 10 to 70 tokens": budgets},
    {
        "whole completions": (measured.tokens, measured.right),
        "oracle": (measured.oracle_tokens, measured.oracle_right),
        "confident answer": (confident.tokens, confident.right),
    },
)

# %% tags=["nbval-check-output"]
safe = next(cut for cut in cuts if cut.right == 1)
print(f"cut after {safe.rule.min_steps} steps: {safe.tokens:.1f} tokens")
print(f"confident answer:  {confident.tokens:.1f}, {confident.right:.0%}")
print(f"oracle:            {measured.oracle_tokens:.1f}")

# %% [markdown]
# - At the oracle's price, 43 tokens, a fixed cut loses about one answer in
#   ten. To lose none it takes 62 tokens, and somebody who knows that four
#   steps are enough: one needs the hardest problem's number for all.
# - The confident answer comes within four tokens of the oracle and loses
#   none. It asks each completion instead of treating all alike.
#
# A large model meets problems whose need differs by a factor of a hundred.
# There the gap between "all alike" and "each its own" is the whole point.

# %% [markdown]
# ## The recorded real run: what training leaves
#
# The survey also holds the same 400 problems answered by the model after
# Step-GRPO, by plain decoding: nobody stops it from outside.

# %% tags=["nbval-check-output"]
trained = [group for group in survey if group.model == "trained"]
models = {
    "untrained": measured,
    "trained": measure_overthinking(trained),
}
for name, model in models.items():
    print(
        f"{name:9} {model.tokens:6.1f} tokens, right {model.right:.2%}, "
        f"an oracle would save {model.saved * 100} %"
    )
    print("         ", {k: round(v, 2) for k, v in model.steps.items()})

# %%
step_labels({name: model.steps for name, model in models.items()})

# %% [markdown]
# The trained model stops almost where the oracle does. Two things to note:
#
# - most needed steps stay, and 3 more of the 400 answers are wrong;
# - the *verifying* steps are gone, too. The paper reports for Qwen3-8B that
#   verification is kept. Had a check anything to find here? We count the
#   untrained completions that solved their problem on the first pass.

# %% tags=["nbval-check-output"]
from stepgrpo_lab.overthinker.tasks import OPERATIONS_PER_STEP


def least_steps(problem):
    """Steps of a first pass without a slip."""
    if problem.family == "chain":
        operations = len(problem.meta["operations"])
        return -(-operations // OPERATIONS_PER_STEP)
    return "ABCDE".index(problem.answer) + 1


first_pass = sum(
    group.members[0].labels.count("needed") == least_steps(group.problem)
    for group in untrained
)
print(f"right on the first pass: {first_pass} of {len(untrained)}")

# %% [markdown]
# At temperature 0.6 the untrained model never slips on these problems, so a
# check finds nothing and costs steps. Training did what pays here. On
# problems where checks pay, it may do otherwise.

# %% [markdown]
# ## Summary
#
# - Steps are needed, verifying, redundant or malformed; in generated problems
#   the labels are exact.
# - An oracle that stops after the last needed step saves the Overthinker 67 %
#   of its tokens and loses no answer. This is built into the model.
# - A fixed cut, by steps or by tokens, saves as much only at the price of
#   wrong answers: what is needed differs from problem to problem.
# - A good exit asks the completion at hand: *do you know it yet?*
#
# Next: [02 · Semantic steps](02_semantic_steps.ipynb), the places to ask.
