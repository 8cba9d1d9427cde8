# ---
# jupyter:
#   stepgrpo:
#     title: Overthinking, seen and measured
#     minutes: 80
#     hardware: any CPU
# ---

# %% [markdown]
# ## Two of these are wrong
#
# One problem, one model, eight completions: "Start at 8: -7 -7 +1 +6 \*7. Which digit, mod 10?" Six of the eight answers
# are right. The lengths, in tokens:

# %% tags=["nbval-check-output"]
from stepgrpo_lab.recordings import load_recordings

watched = [group for group in load_recordings() if group.watched]
group = watched[3]
lengths = [member.trajectory.tokens for member in group.members]
print(lengths)

# %%
wrong_guess = course.predict(
    "Which two of the eight are wrong?",
    choices=("the two shortest", "two of the longest", "two in between"),
)
wrong_guess

# %% [markdown]
# If you believe that a model should simply think less, you have an opinion here. If you believe that it should think more,
# you have another. Choose before you look.

# %% tags=["result"]
in_order = sorted(group.members, key=lambda member: member.trajectory.tokens)
wrong_ranks = [
    rank for rank, member in enumerate(in_order) if not member.outcome.correct
]
if wrong_ranks == [0, 1]:
    answer = "the two shortest"
elif min(wrong_ranks) >= 5:
    answer = "two of the longest"
else:
    answer = "two in between"
wrong_guess.compare(answer)

# %% tags=["result"]
for member in in_order:
    mark = "right" if member.outcome.correct else "WRONG"
    print(f"{member.trajectory.tokens:>4} tokens  {mark}")

# %% [markdown]
# <details><summary>Now that you know</summary>
#
# So shorter is not simply better. And yet one completion got it right in 67 tokens, and three took 140 for the same
# answer. The question is not *how long*. It is *which parts were needed*.
#
# </details>

# %%
import stepgrpo_lab as lab

course.drawing(
    "oracle",
    "Three completions as bars of steps. The easy one needs one step, then "
    "has one verifying and four redundant ones. The harder one needs two, the "
    "hardest four. An oracle stops each after its last needed step. A fixed "
    "cut after two steps is too late for the first and too early for the "
    "last.",
)

# %% [markdown]
# ## Objectives
#
# After this notebook you can
#
# - tell the needed, the verifying and the redundant steps of a completion apart, and write the code that does it;
# - say how much an oracle would save that stops after the last needed step;
# - show, on recorded answers, what a fixed cut costs;
# - say what a good exit must know.

# %% [markdown]
# ## Where we are
#
# A *reasoning model* writes a long chain of thought before it answers. Often the answer is there early, and the model
# checks it again and again: it **overthinks**. [Chen et al. (2024)](https://arxiv.org/abs/2412.21187) found large
# models that spend hundreds of tokens on 2+3. Step-GRPO trains a model to think in fewer steps. Before we
# shorten anything, we look at what there is to save, and at what has to stay.
#
# The model of this course is the *Overthinker*: a million parameters, trained from scratch to overthink. Its problems are
# generated, so the truth about every step is known. For a large model one would have to ask a judge.

# %% [markdown]
# ## One completion by hand
#
# "Start at 7: +5 \*3 -4. Which digit, mod 10?" All results are modulo 10, so 7+5 is 2. The model does two operations a
# step, and each "Wait" begins a new step. (Notebook [02](02_semantic_steps.ipynb) is about where steps begin.)

# %% tags=["nbval-check-output"]
thoughts = "7+5=2 2*3=6 Wait 6-4=2 Wait 7+5=2 2*3=6 Wait 6-4=2 Wait 6-4=2"
completion = f"<think>\n{thoughts}\n</think>\n\n\\boxed{{2}}"
for step in lab.MarkerSegmenter("paper").split(completion):
    print(step.index + 1, repr(step.text))

# %% [markdown]
# Each step gets one of four labels:
#
# - **needed**: every legal step up to the one that first completes a right derivation;
# - **verifying**: the first complete pass after it that reaches the answer again;
# - **redundant**: all other legal steps after that;
# - **malformed**: no legal move on this problem.
#
# Steps 1 and 2 are needed, and steps 3 and 4 verify. And step 5, which takes up the chain in the middle?

# %%
fifth_guess = course.predict(
    "What is the label of step 5?", choices=("redundant", "malformed")
)
fifth_guess

# %% tags=["nbval-check-output", "result"]
meta = {"start": 7, "operations": [["+", 5], ["*", 3], ["-", 4]]}
problem = lab.Problem("toy", "...", answer="2", family="chain", meta=meta)
labels = lab.label_steps(problem, completion)
print(labels)

# %% tags=["result"]
fifth_guess.compare(labels[4])

# %% [markdown]
# ### Exercise 01.1 · Label the steps (●●●, 25 minutes)
#
# Write the labels of a chain problem. `operations` are pairs (symbol, operand), `answer` is the right digit. Each of the
# `steps` is a list of equations `(left, symbol, operand, result)`.
#
# | rule | |
# | --- | --- |
# | a *pass* | takes the operations in order, beginning at `start` |
# | a step is *legal* | if it has one or two equations, and each of them continues the pass: `left` is the value reached, and symbol and operand are the next operation's |
# | a *slip* | a wrong `result` is legal; the pass goes on from what was written |
# | an illegal step | is *malformed*, and the pass has to begin again at `start` |
# | a pass is complete | with the last operation; it is *right* if its value is `answer`; the next step begins a new pass |
# | *needed* | all legal steps up to the one that completes the first right pass |
# | *verifying* | after that, the steps of the first pass that is complete and right |
# | *redundant* | all other legal steps |
#
# Return one label for each step.


# %% tags=["exercise"]
def label_chain(start, operations, answer, steps):
    """One label for each step of a completion."""
    # BEGIN SOLUTION
    # STUB: return ...  # your code here
    moves, place, value = [], 0, start
    for equations in steps:
        legal = 0 < len(equations) <= 2
        for left, symbol, operand, result in equations:
            wanted = operations[place] if place < len(operations) else None
            legal = legal and left == value and (symbol, operand) == wanted
            place, value = place + 1, result
        complete = legal and place == len(operations)
        moves.append((legal, complete, complete and value == answer))
        if complete or not legal:
            place, value = 0, start
    labels, solved, confirmed = [], False, False
    for index, (legal, complete, right) in enumerate(moves):
        ends = [move for move in moves[index:] if move[1] or not move[0]]
        if not legal:
            labels.append("malformed")
        elif not solved:
            labels.append("needed")
            solved = right
        elif not confirmed and ends and ends[0][2]:
            labels.append("verifying")
            confirmed = complete
        else:
            labels.append("redundant")
    return labels
    # END SOLUTION


# %% tags=["check"]
from stepgrpo_lab.course import checks

verdict = checks.label_chain(label_chain, number="01.1")
label_chain = verdict.solution
verdict

# %% [markdown]
# <details><summary>Hint</summary>
#
# Two passes over the steps. In the first, find out of each step whether it is legal, whether it completes a pass, and
# whether that pass is right. In the second, give the labels. To know whether a step verifies you have to look ahead: how
# does its pass end?
#
# </details>
#
# Your labels on recorded completions, beside those that are stored with them. The library's own rule stands below; it
# also knows the *search* problems.

# %%
import re


def parse(text):
    """A completion's steps as lists of equations; broken ones are empty."""
    steps = []
    for step in lab.MarkerSegmenter("paper").split(text):
        body = re.sub("<think>|Wait|Alternatively", "", step.text)
        found = [
            re.fullmatch(r"(\d)([-+*])(\d)=(\d)", word)
            for word in body.split()
        ]
        steps.append(
            [(int(m[1]), m[2], int(m[3]), int(m[4])) for m in found]
            if all(found)
            else []
        )
    return steps


# %% tags=["nbval-check-output"]
from stepgrpo_lab.recordings import load_survey

chains = [
    chain
    for chain in watched + load_survey()
    if chain.problem.family == "chain"
]
agree = []
for chain in chains:
    meta, answer = chain.problem.meta, int(chain.problem.answer)
    operations = [tuple(operation) for operation in meta["operations"]]
    for member in chain.members:
        steps = parse(member.trajectory.text)
        mine = label_chain(meta["start"], operations, answer, steps)
        agree.append(mine == list(member.labels))
print(f"the same labels for {sum(agree)} of {len(agree)} completions")

# %%
course.source_of(lab.label_steps)

# %% [markdown]
# ## Look at it
#
# The eight completions from the top of the page. Each bar is a completion, each piece a step, its width the step's tokens.

# %%
from stepgrpo_lab.recordings.measures import labelled_size
from stepgrpo_lab.viz.completions import labelled_completions

labelled_completions(
    {f"completion {place}": labelled_size(group, place) for place in range(8)}
)

# %% [markdown]
# Completions 1 and 7 need six steps, where others need three: their first pass slipped, and the second one found it. So a
# check can be worth its tokens. (These were recorded at temperature 1, as in training, where the model slips more often,
# and they were chosen to be looked at.)
#
# The inspector shows one of them in full, in the same colours. At each marker the model was asked for a *trial answer*,
# and then the question was undone: the completion went on as if nothing had happened. Two questions:
#
# 1. At which marker is the trial answer right for the first time? What is the label of the step before it?
# 2. Does a trial answer change after that?

# %%
from stepgrpo_lab.widgets import StepInspector

inspector = StepInspector(group=3, member=3)
inspector

# %% [markdown]
# <details><summary>What we see</summary>
#
# 1. At the third marker, right after the third and last *needed* step. The two trial answers before it, 5 and 1, are
#    wrong: the work was not done.
# 2. No. All nine trial answers from there on are 7, and nine more steps are written.
#
# </details>

# %% [markdown]
# ## The oracle
#
# An *oracle* knows the truth. Ours stops every completion after its last needed step and has it answer. No real rule
# can know that much, but the oracle says how much there is to save.

# %% [markdown]
# ### Exercise 01.2 · What the oracle saves (●●○, 12 minutes)
#
# Each of the `completions` is a triple: the `labels` of its steps, their `sizes` in tokens, and `closing`, the tokens of
# the close (`</think>`) and the answer. Return the share of *all* tokens that the oracle saves, from 0 to 1.
#
# A completion with steps of 16, 13, 13 and 12 tokens, labelled needed, needed, verifying, redundant, and 7 tokens of
# close and answer, has 61 tokens, and 36 when it is stopped. And beware of averages: the mean of the completions'
# shares is another number, and not the one that you pay for.


# %% tags=["exercise"]
def oracle_saving(completions):
    """Share of all tokens that is saved, from 0 to 1."""
    # BEGIN SOLUTION
    # STUB: return ...  # your code here
    before = after = 0
    for labels, sizes, closing in completions:
        kept = so_far = 0
        for label, size in zip(labels, sizes, strict=True):
            so_far += size
            if label == "needed":
                kept = so_far
        before += so_far + closing
        after += kept + closing
    return 1 - after / before
    # END SOLUTION


# %% tags=["check"]
verdict = checks.oracle_saving(oracle_saving, number="01.2")
oracle_saving = verdict.solution
verdict

# %% [markdown]
# <details><summary>Hint</summary>
#
# Within a completion, add up the tokens as you go, and remember the sum whenever a step is needed. Keep two totals over
# all completions, before and after, and divide only at the end.
#
# </details>

# %% [markdown]
# ## Measured on 400 problems
#
# The *survey* is a recording of one completion for each of 400 test problems, at temperature 0.6. There are two families
# of problems:
#
# - **chain**: apply four to six operations, two a step;
# - **search**: find the one of four or five candidates that gives 0, one candidate a step.

# %%
saved_guess = course.predict(
    "What percentage of its tokens would the oracle save the untrained model?",
    unit="%",
)
saved_guess

# %% tags=["nbval-check-output", "result"]
survey = [group for group in load_survey() if group.model == "untrained"]
sized = [labelled_size(group) for group in survey]
saved = oracle_saving(
    [(size.labels, size.step_tokens, size.closing_tokens) for size in sized]
)
tokens = sum(size.tokens for size in sized)
print(f"{tokens / 400:.1f} tokens, {(1 - saved) * tokens / 400:.1f} needed")

# %% tags=["result"]
saved_guess.compare(100 * saved)

# %% [markdown]
# The same from the library, with an interval and with the answers. At the place where the oracle stops, the survey has a
# trial answer:

# %% tags=["nbval-check-output", "result"]
from stepgrpo_lab.recordings.measures import measure_overthinking

measured = measure_overthinking(survey)
print(f"saved: {measured.saved * 100} % (95 % interval over problems)")
print(f"right: whole {measured.right:.2%}, oracle {measured.oracle_right:.2%}")

# %% [markdown]
# <details><summary>Better than the whole completions?</summary>
#
# One of the 400 whole completions is wrong: it ran into the limit of 256 tokens, still thinking. The oracle had stopped it
# in time.
#
# </details>
#
# By family, and by difficulty, the *level*:

# %% tags=["nbval-check-output", "result"]
kinds = sorted({(g.problem.family, g.problem.level) for g in survey})
by_kind = {
    f"{family} {level}": measure_overthinking(
        [g for g in survey if (g.problem.family, g.problem.level) == kind]
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

# %% tags=["result"]
from stepgrpo_lab.viz.completions import step_labels

step_labels({name: kind.steps for name, kind in by_kind.items()})

# %% [markdown]
# Harder problems need more: two or three steps in *chain*, more candidates in *search*. Yet the longest completions are
# not those of the hardest chains, level 3. That is how the model was made. The traces from which it learned stop
# re-checking before 22 operations; a chain of six fits in three times, a chain of five four times.
#
# So length follows habit, not need. That is what "overthinking" means here, and it is built in. The share for a large
# model is another number.

# %% [markdown]
# ## What can go wrong: just cut
#
# If so much is waste, why not cut every completion after its first step? Or after 30 tokens? No training, no
# probabilities, and only one number to choose. We need not even run the model: at every marker the survey holds the answer
# that it would have given there.
#
# (A guessed digit is right one time in ten, a guessed candidate one time in four or five.)

# %%
cut_guess = course.predict(
    "What percentage is right if all thoughts are cut after the first step?",
    unit="%",
)
cut_guess

# %% [markdown]
# ### Exercise 01.3 · The price of a cut (●●○, 15 minutes)
#
# Write the whole curve. Each completion is a dictionary:
#
# - `ends`: the tokens up to its first marker, up to its second, and so on;
# - `trials_right`: whether its trial answer at each of these markers is right;
# - `closing`: the tokens of a close and an answer;
# - `tokens` and `right`: the whole completion, and whether its own answer is right.
#
# Return one pair for each cut after 1, 2, ... `most` steps: the mean tokens, and the share of right answers. A completion
# with fewer markers than the cut ends by itself.


# %% tags=["exercise"]
def cut_curve(completions, most):
    """(mean tokens, share right) of cuts after 1 to `most` steps."""
    # BEGIN SOLUTION
    # STUB: return ...  # your code here
    curve = []
    for steps in range(1, most + 1):
        tokens = hits = 0
        for one in completions:
            if steps > len(one["ends"]):
                tokens += one["tokens"]
                hits += one["right"]
                continue
            tokens += one["ends"][steps - 1] + one["closing"]
            hits += one["trials_right"][steps - 1]
        count = len(completions)
        curve.append((tokens / count, hits / count))
    return curve
    # END SOLUTION


# %% tags=["check"]
verdict = checks.cut_curve(cut_curve, number="01.3")
cut_curve = verdict.solution
verdict

# %% [markdown]
# <details><summary>Hint</summary>
#
# Two loops: over the cuts, and over the completions. The first marker stands at index 0. `True` adds up as 1.
#
# </details>

# %% tags=["nbval-check-output", "result"]
watched_completions = []
for group, size in zip(survey, sized, strict=True):
    member = group.members[0]
    watched_completions.append(
        {
            "ends": [probe.position for probe in member.trajectory.probes],
            "trials_right": member.trials_right,
            "closing": size.closing_tokens,
            "tokens": size.tokens,
            "right": member.outcome.correct,
        }
    )
curve = cut_curve(watched_completions, 6)
for steps, (tokens, share) in enumerate(curve, start=1):
    print(f"cut after {steps} steps: {tokens:5.1f} tokens, {share:6.1%} right")

# %% tags=["result"]
cut_guess.compare(100 * curve[0][1])

# %% [markdown]
# <details><summary>Why so few?</summary>
#
# The needed steps are needed. One pass through the network cannot do their work, so an answer after the first of two or
# three steps is a guess. Only where the first candidate of a *search* is the right one is the work already done.
#
# </details>
#
# The library writes a cut as an exit rule that takes any answer (threshold 0) once a given number of steps is finished,
# or of tokens written. All cuts in one picture, with the oracle, and with a rule of another kind: stop at the first
# trial answer of which the model is confident (more than 0.95). The first of the curves is the one that you have just
# computed, with intervals.

# %% tags=["result"]
from stepgrpo_lab.recordings.measures import try_rule
from stepgrpo_lab.viz.completions import stopping_curves

cuts = [
    try_rule(survey, lab.ExitRule(0.0, min_steps=steps))
    for steps in range(1, 7)
]
budgets = [
    try_rule(survey, lab.ExitRule(0.0, min_tokens=tokens))
    for tokens in (10, 20, 30, 40, 50, 60, 70)
]
confident = try_rule(survey, lab.ExitRule(0.95))
stopping_curves(
    {"cut after 1 to 6 steps": cuts, "cut after 10 to 70 tokens": budgets},
    {
        "whole completions": (measured.tokens, measured.right),
        "oracle": (measured.oracle_tokens, measured.oracle_right),
        "confident answer": (confident.tokens, confident.right),
    },
)

# %% tags=["nbval-check-output", "result"]
safe = next(cut for cut in cuts if cut.right == 1)
print(f"cut after {safe.rule.min_steps} steps: {safe.tokens:.1f} tokens")
print(f"confident answer:  {confident.tokens:.1f}, {confident.right:.0%}")
print(f"oracle:            {measured.oracle_tokens:.1f}")

# %% [markdown]
# - At the oracle's price a fixed cut loses about one answer in ten. To lose none, it has to spare every problem as many
#   steps as the hardest one needs, and somebody has to know that number.
# - The confident answer comes within four tokens of the oracle and loses none. It asks each completion instead of treating
#   all alike.
#
# These problems differ little: they need between one and five steps. The more the needs differ, the more it pays to ask
# each one.

# %% [markdown]
# ## What can go wrong: a check that finds nothing
#
# Verifying steps look like the good ones, the steps to keep. Are they worth their tokens here? Count the completions of
# the survey that solved their problem on the first pass.

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
    for group in survey
)
print(f"right on the first pass: {first_pass} of {len(survey)}")

# %% [markdown]
# At temperature 0.6 the untrained model never slips on these problems, so a check has nothing to find. At temperature 1,
# at the top of this page, checks did find something. Whether a verifying step is worth its tokens depends on how often the
# first pass fails. Keep that in mind when you read, in notebook 08, which steps training has removed.

# %% [markdown]
# ## Your predictions

# %%
course.score()

# %% [markdown]
# ## Summary
#
# - Steps are needed, verifying, redundant or malformed. In generated problems the labels are exact.
# - An oracle that stops after the last needed step would save most of the Overthinker's tokens and lose no answer. That is
#   built into the model.
# - A fixed cut, by steps or by tokens, saves as much only at the price of wrong answers: what is needed differs from
#   problem to problem.
# - A good exit asks the completion at hand: *do you know it yet?*

# %% [markdown]
# **Further reading.** Overthinking in large models: Chen et al. (2024), "Do NOT think that much for 2+3=?"
# ([arXiv 2412.21187](https://arxiv.org/abs/2412.21187)). Fixed budgets, and why a model can be made to obey them: L1,
# which trains on a length that stands in the prompt ([arXiv 2503.04697](https://arxiv.org/abs/2503.04697)). Asking for the
# answer on the way: DEER ([arXiv 2504.15895](https://arxiv.org/abs/2504.15895)). Words: the
# [glossary](../docs/glossary.md).
#
# Next: [02, semantic steps](02_semantic_steps.ipynb), the places to ask.
