# ---
# jupyter:
#   stepgrpo:
#     title: Confidence and calibration of the probe
#     minutes: 35
#     hardware: any CPU
# ---

# %% [markdown]
# ## Objectives
#
# - Say what a probe asks, and read the probabilities of its trial answer.
# - Compute four scores by hand: geometric and arithmetic mean, minimum, joint probability.
# - Say which tokens a preset counts, and what skipping one can do.
# - Read a reliability diagram and its calibration error.
# - Choose a threshold from a curve of accuracy against tokens.

# %% [markdown]
# ## Where we stand
#
# Notebook 02 cut thoughts into steps at markers such as "Wait". A marker is a good moment to ask: *do you know the answer
# already?* That question is the **probe**. After the thoughts so far a fixed text is forced, the *inducing prompt*, which
# makes the model write a *trial answer* at once. It is decoded *greedily*: always the likeliest token. How likely these
# tokens were says how sure the model is. This notebook asks how to turn that into one number, and whether to believe it.

# %% [markdown]
# ## One probe
#
# The *survey* holds 400 problems, with one completion of each by the model before and after training. It was probed at
# every marker, and no probe ever ended the thoughts. Here is the first probe of one completion.

# %% tags=["nbval-check-output"]
from stepgrpo_lab.recordings import load_survey

survey = load_survey()
untrained, trained = (
    [group for group in survey if group.model == name]
    for name in ("untrained", "trained")
)
group = untrained[2]
told = group.members[0].trajectory
probe = told.probes[0]
print(
    "thoughts:",
    repr(group.token_text.decode(told.completion_ids[: probe.position])),
)
print("forced:  ", repr(group.settings.probe_prompt))
print("gold:    ", group.problem.answer)
shown = zip(group.pieces(probe.token_ids), probe.probabilities, strict=True)
for piece, probability in shown:
    print(f"{piece!r:>12} {probability:.2f}")

# %% [markdown]
# Only one of the tokens is a decision: the digit. The brace before it and everything after it are form, and the model is
# sure of form whatever it thinks of the digit. Keep that in mind.

# %% [markdown]
# ## Four scores by hand
#
# A *confidence rule* turns the probabilities of the tokens into one score between 0 and 1. With four toy tokens:

# %% tags=["nbval-check-output"]
import math

toy = [0.99, 0.9, 0.8, 0.999]
joint = math.prod(toy)
by_hand = {
    "geometric": joint ** (1 / len(toy)),
    "arithmetic": sum(toy) / len(toy),
    "minimum": min(toy),
    "joint": joint,
}
for rule, score in by_hand.items():
    print(f"{rule:<10} {score:.6f}")

# %% [markdown]
# The *joint* probability is what the model really states: the probability of all these tokens in a row. The *geometric
# mean* is its root over the number of tokens. Step-GRPO exits on the geometric mean (Eq. 2 of the paper, as exp of the
# mean log-probability).
#
# Suppose an answer's joint probability is 0.80, all of it in one digit. Replace None.

# %%
from stepgrpo_lab import course

saved = course.predict(
    "Joint probability 0.80 over 5 tokens: what is the geometric mean?",
    None,
)
saved

# %%
for tokens in (1, 3, 5, 20):
    print(f"{tokens:>2} tokens: {0.80 ** (1 / tokens):.3f}")
saved.compare(round(0.80 ** (1 / 5), 3), tolerance=0.005)

# %% [markdown]
# An answer that is wrong one time in five scores 0.956 over five tokens: above the published threshold of 0.95. Over three
# tokens it stays below. Sure tokens around an unsure one lift the mean. Now the library's function:

# %%
from stepgrpo_lab.method.confidence import RULES, confidence

course.source_of(confidence)

# %% tags=["nbval-check-output"]
for rule in RULES:
    same = math.isclose(confidence(toy, rule), by_hand[rule])
    print(f"{rule:<10} library and hand agree: {same}")
print(f"first token skipped: {confidence(toy, skip_first=1):.6f}")

# %% [markdown]
# ### Exercise 03.1 · The exit score (●○○)
#
# Write the geometric mean of the probabilities without the first `skip_first`; 0.0 if none is left. It matters because
# this number alone decides where thoughts end.


# %% tags=["exercise"]
def geometric_mean(probabilities, skip_first=0):
    """Geometric mean of the tokens that count."""
    # BEGIN SOLUTION
    # STUB: return ...  # your code here
    counted = probabilities[skip_first:]
    if not counted:
        return 0.0
    return math.prod(counted) ** (1 / len(counted))
    # END SOLUTION


# %% tags=["check"]
from stepgrpo_lab.course import checks

checks.geometric_mean(geometric_mean)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Slice first, then `math.prod(counted) ** (1 / len(counted))`. The length is that of the slice.
#
# </details>

# %% [markdown]
# ## Which tokens count
#
# | | `official` (public code) | `paper` |
# | --- | --- | --- |
# | inducing prompt | ends in `\boxed`: the model writes the brace | ends in `\boxed{` |
# | trial answer ends with | `</think>`, else the score is 0 | the completed box |
# | tokens skipped | 1: the opening brace | 0 |
# | so the score covers | answer, closing brace, line break, `</think>` | answer and closing brace |
#
# Besides its score, every probe records the joint probability of *answer and closing brace* alone. For the question "how
# often are such answers right?" that is the number to use; `boxed_answer_span` finds its tokens.

# %% tags=["nbval-check-output"]
from stepgrpo_lab.method.boxes import boxed_answer_span

for group in (untrained[2], untrained[0]):
    probe = group.members[0].trajectory.probes[0]
    pieces = group.pieces(probe.token_ids)
    span = boxed_answer_span(pieces, opened=False)
    print(pieces, "counted for the joint:", pieces[slice(*span)])
    print(f"joint {probe.joint:.2f}, exit score {probe.confidence:.2f}")

# %% [markdown]
# Look at the second answer. This tokenizer has merged the brace with a letter: `{A` is *one* token. Skip it, and the
# answer itself is gone. The library's rollout therefore skips the first token only if it holds nothing but the brace. We
# come back to that.

# %% [markdown]
# ## Move the threshold
#
# The inspector shows a completion with its probes in place (✓ right, ✗ wrong). An exit rule stops at the first probe whose
# score is *greater* than the threshold. Answer before you look:
#
# 1. At 0.95 the geometric mean stops this completion with a right answer. Where does it stop at 0.80, and is the answer
#    right?
# 2. Stay at 0.80 and choose *joint* as confidence rule. Where does it stop now?

# %%
from stepgrpo_lab.widgets import StepInspector

inspector = StepInspector(group=1, member=0, threshold=0.8)
inspector

# %% tags=["nbval-check-output"]
for threshold, rule in (
    (0.95, "geometric"),
    (0.8, "geometric"),
    (0.8, "joint"),
):
    inspector.threshold, inspector.confidence_rule = threshold, rule
    print(inspector.sentence)
inspector.confidence_rule = "geometric"

# %% [markdown]
# <details><summary>What we see</summary>
#
# 1. At 0.80 it stops at the second probe of eleven, with a wrong answer: a joint probability of 0.58 scores 0.83 as a
#    geometric mean over three tokens. At 0.95 it stops at the fourth probe and is right.
# 2. At the fourth probe again, with the right answer: no wrong one before it reaches 0.80 jointly.
#
# </details>

# %% [markdown]
# ## Can a probability be believed?
#
# A model is *calibrated* if of all answers to which it gives 70 %, 70 % are right. To look, put the answers into bins by
# their stated probability; in each bin compare the mean probability with the share that is right. The *expected
# calibration error* (ECE) is the mean of these gaps, each bin weighted by its number of answers (Guo et al., 2017).

# %% tags=["nbval-check-output"]
from stepgrpo_lab.evaluation.statistics import calibration

stated = [0.2] * 80 + [0.9] * 20
right = [True] * 8 + [False] * 72 + [True] * 20
gap_low, gap_high = abs(0.2 - 8 / 80), abs(0.9 - 20 / 20)
print(f"by hand {0.8 * gap_low + 0.2 * gap_high:.3f}")
print(f"library {calibration(stated, right, bins=10).ece:.3f}")

# %% [markdown]
# ### Exercise 03.2 · Calibration error (●●○)
#
# Write the ECE from its bins. A bin is (number of answers, mean stated probability, share right). It matters because an
# exit rule stakes the answer on these probabilities.


# %% tags=["exercise"]
def calibration_error(bins):
    """Mean gap between stated and right, weighted by answers."""
    # BEGIN SOLUTION
    # STUB: return ...  # your code here
    answers = sum(count for count, _, _ in bins)
    gaps = sum(count * abs(stated - right) for count, stated, right in bins)
    return gaps / answers
    # END SOLUTION


# %% tags=["check"]
checks.calibration_error(calibration_error)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Sum `count * abs(stated - right)` over the bins, then divide by the number of all answers.
#
# </details>

# %% [markdown]
# ## The first probe of the untrained model
#
# At the first marker the model has done one step of two or more, so most trial answers are guesses. In one bin it states
# 35 % on average. Replace None.

# %%
guesses = course.predict(
    "First probes that state about 35 %: which share is right?",
    None,
    unit="%",
)
guesses

# %%
from stepgrpo_lab.recordings.measures import trial_answers
from stepgrpo_lab.viz.completions import reliability_lines

first = trial_answers(untrained, first_only=True)
for row in first.calibration().bins:
    if row.count:
        print(
            f"{row.count:>3} answers state {100 * row.confidence:4.1f} %,",
            f"{100 * row.accuracy:5.1f} % are right",
        )
reliability_lines(
    {"first probes": first.calibration()}, score="joint probability"
)

# %%
guesses.compare(round(100 * first.calibration().bins[3].accuracy, 1))

# %% [markdown]
# On the dashed line a probability is worth what it says. Nearly all answers lie in three bins: two kinds of guesses that
# say they are guesses, and answers that are sure and right. The model's [card](../data/overthinker/README.md) measures the same on 1000
# problems (ECE 0.051). The Overthinker was taught this on purpose; a large model is not calibrated by nature.
#
# Now every probe, and the trained model beside the untrained one:

# %%
sets = {
    "untrained, first": first,
    "untrained, all": trial_answers(untrained),
    "trained, first": trial_answers(trained, first_only=True),
    "trained, all": trial_answers(trained),
}
for name, trials in sets.items():
    share = 100 * sum(trials.right) / len(trials)
    print(
        f"{name:<17} {len(trials):>5} answers, {share:4.1f} % right,",
        f"ECE {trials.calibration().ece:.3f}",
    )
reliability_lines(
    {name: sets[name].calibration() for name in sets if "all" in name},
    score="joint probability",
)

# %% [markdown]
# ## Accuracy against tokens
#
# No exit rule needs calibration as such: it needs *one* threshold that tells right from wrong. So replay rules on the
# survey, at many thresholds, and look at what they cost and keep. Up and to the left is better. Replace None:

# %%
at_80 = course.predict(
    "At the threshold 0.80, which rule keeps more answers right?",
    None,
    choices=("geometric", "joint"),
)
at_80

# %%
from stepgrpo_lab.method.confidence import ExitRule
from stepgrpo_lab.recordings.measures import try_rule
from stepgrpo_lab.viz.completions import stopping_curves

thresholds = lab.size(
    (0.2, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 0.99),
    (0.5, 0.6, 0.8, 0.95, 0.99),
)
curves = {
    rule: [try_rule(untrained, ExitRule(value, rule)) for value in thresholds]
    for rule in ("geometric", "joint")
}
whole = try_rule(untrained, ExitRule(1.0))
marks = {"whole completions": (whole.tokens, whole.right)}
stopping_curves(curves, marks)

# %%
at = {rule: try_rule(untrained, ExitRule(0.8, rule)) for rule in curves}
for rule, trial in at.items():
    print(
        f"{rule:<10} {trial.tokens:5.1f} tokens,",
        f"{100 * trial.right:5.1f} % right",
    )
at_80.compare(max(at, key=lambda rule: at[rule].right))

# %% [markdown]
# Two things to see. At the *same* threshold the joint probability is far more careful. But both rules lie on nearly one
# curve: here a single token is unsure, so they order the probes almost alike, and only the *scale* of the threshold
# differs. A threshold belongs to its rule, and to the length of the answer.
#
# On this survey the geometric mean needs 0.95 to lose nothing, and then keeps 36 % of the tokens. That is the published
# threshold, on another model; the agreement is luck.

# %%
for threshold in (0.8, 0.9, 0.95, 0.99):
    trial = try_rule(untrained, ExitRule(threshold))
    share = 100 * trial.tokens / whole.tokens
    print(
        f"{threshold:.2f}: {100 * trial.right:5.1f} % right,",
        f"{share:4.1f} % of the tokens",
    )

# %% [markdown]
# ### Exercise 03.3 · Choose a threshold (●●○)
#
# Write the choice: of points (threshold, tokens, share right) the threshold with the fewest tokens among those with at
# least `least` right; `None` if there is none. It matters because this is the trade-off in one line. In earnest, choose on
# validation problems and report on others.


# %% tags=["exercise"]
def cheapest_threshold(curve, least):
    """The threshold with the fewest tokens that is right enough."""
    # BEGIN SOLUTION
    # STUB: return ...  # your code here
    enough = [point for point in curve if point[2] >= least]
    if not enough:
        return None
    return min(enough, key=lambda point: point[1])[0]
    # END SOLUTION


# %% tags=["check"]
checks.cheapest_threshold(cheapest_threshold)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Filter by the third number, then `min(..., key=...)` by the second. An empty list has no minimum.
#
# </details>

# %% [markdown]
# ## What can go wrong: a mean read as a probability
#
# The geometric mean is a score, not a probability. Read it as one, and a guess among several digits looks like a good
# bet. The same first probes, once by their joint probability, once by the geometric mean:

# %%
scores = {
    "joint": first.calibration(),
    "geometric mean": first.calibration("geometric"),
}
reliability_lines(scores, score="score of the first trial answer")

# %% [markdown]
# Hardly any first probe scores below 0.5 by the geometric mean, and those around 0.7 are right less than one time in
# three. A longer answer would look better still. That is why reliability is always measured with the joint probability here.

# %% [markdown]
# ## What can go wrong: skipping the answer
#
# The public code always skips the first token. Do that blindly with a tokenizer that writes `{A` as one token, and for
# every problem whose answer is a letter the score consists of a brace and `</think>`. Each probe records in `opening` how
# many of its leading tokens hold nothing of the answer, and `ExitRule` skips no others. Here we overwrite that number:

# %%
from dataclasses import replace

rule = ExitRule(0.95)
for name in ("ExitRule", "blind skip"):
    right = {"search": [], "chain": []}
    for group in untrained:
        member = group.members[0]
        probes = member.trajectory.probes
        if name == "blind skip":
            probes = [replace(probe, opening=1) for probe in probes]
        stop = rule.first_exit(probes)
        own = member.outcome.correct
        hit = own if stop is None else member.trials_right[stop]
        right[group.problem.family].append(hit)
    shares = ", ".join(
        f"{family} {100 * sum(hits) / len(hits):.1f} %"
        for family, hits in right.items()
    )
    print(f"{name}: right: {shares}")

# %% [markdown]
# *search* asks for a letter and loses half of its answers; *chain* asks for a digit, which is a token of its own, and
# loses nothing. Nothing crashes, and completions get shorter: from the tokens alone it looks like progress. (Qwen3's
# tokenizer merges braces as well, `{x` for one.)

# %% [markdown]
# ## What can go wrong: calibration after training
#
# Above, the ECE of all probes rose from 0.035 to 0.175 with training. Did the model become overconfident? Careful: the
# trained model stops by itself once it is done. So it is probed only where it goes on, which is where the answer is *not*
# known yet. To tell the two causes apart, take only places where both models were asked after the very same thoughts.

# %%
from stepgrpo_lab.recordings.measures import trial_answers_after_same_thoughts

pairs = trial_answers_after_same_thoughts(untrained, trained)
same = dict(zip(("untrained", "trained"), pairs, strict=True))
for name, trials in same.items():
    stated = sum(trials.stated) / len(trials)
    share = sum(trials.right) / len(trials)
    print(
        f"{name:<10} {len(trials)} probes: states {100 * stated:.1f} %,",
        f"{100 * share:.1f} % right, ECE {trials.calibration().ece:.3f}",
    )
reliability_lines(
    {name: trials.calibration() for name, trials in same.items()},
    score="joint probability",
)

# %% [markdown]
# Part of it was the place: after these thoughts the *untrained* model's error is 0.095 as well, not 0.035. The easy
# probes, those after the answer is known, are gone. The rest is the model: here it states 45 % instead of 36 %, and is
# right as rarely as before. Nothing in the reward asks for honesty at a probe. (One training run; no claim beyond it.)
#
# A threshold chosen before training is therefore not safe after it. On the trained model's survey:

# %%
whole = try_rule(trained, ExitRule(1.0))
print(f"whole: {whole.tokens:.1f} tokens, {100 * whole.right:.1f} % right")
for threshold in (0.8, 0.9, 0.95):
    trial = try_rule(trained, ExitRule(threshold))
    print(
        f"{threshold:.2f}: {trial.tokens:.1f} tokens,",
        f"{100 * trial.right:.1f} % right",
    )

# %% [markdown]
# At 0.90 the trained model loses 14 points, where the untrained one lost five. And there is little to gain: it stops by
# itself already. That is the aim of Step-GRPO: after training nobody needs to probe.

# %% [markdown]
# ## Summary
#
# - A probe forces an inducing prompt and reads the probabilities of a greedy trial answer.
# - The geometric mean is lifted by sure tokens; its threshold has a scale of its own.
# - For "how often right?" use the joint probability of answer and closing brace, in a reliability diagram.
# - Which tokens count matters: one skipped token cost half of the answers of a family.
# - Training moves both the model and the places where it is asked; compare like with like.
#
# Next: [04, the dynamic truncated rollout](04_truncated_rollout.ipynb), where these scores decide.
