# ---
# jupyter:
#   stepgrpo:
#     title: Confidence and calibration of the probe
#     minutes: 105
#     hardware: any CPU
# ---

# %% [markdown]
# ## One chance in six
#
# "Start at 9: \*7 -8 \*7 \*9 +1 +4. Which digit, mod 10?" The model has done two of the six operations:
#
# ```text
# <think>
# 9*7=3 3-8=5
# ```
#
# Here we stop it and ask for its answer. It says **5**. It is not convinced: it gives its 5 a probability of 0.16, hardly
# more than a blind guess among ten digits. (The answer is 0.)
#
# The rule that decides whether these thoughts may end gives the very same answer a score of **0.54**. Nobody has made a
# mistake. How does one chance in six turn into more than a half? And if such a number decides when to stop thinking, how
# far can it be trusted?

# %%
import stepgrpo_lab as lab

course.drawing(
    "score",
    "Four tokens of a trial answer as bars: an opening brace at 1.00, which "
    "is left out, the answer 5 at 0.16, a closing brace and the end of "
    "thoughts at 1.00 each. Beside them a scale from 0 to 1: the joint "
    "probability of the three counted tokens is 0.16, their geometric mean "
    "0.54, and the threshold that ends the thoughts is 0.95.",
)

# %% [markdown]
# ## Objectives
#
# After this notebook you can
#
# - say what a probe asks, and compute its confidence from a model's logits, in PyTorch;
# - say why the geometric mean is a score and not a probability;
# - draw a reliability diagram and compute its calibration error;
# - choose a threshold on some problems and test it on others;
# - fit a temperature by descent, and see what it can and cannot repair;
# - recognise two ways in which a confidence goes wrong without an error message.

# %% [markdown]
# ## Where we are
#
# [Notebook 02](02_semantic_steps.ipynb) cut thoughts into steps at markers such as "Wait". At a marker an attempt is
# complete, so it is a good place to ask: *do you know the answer already?*

# %% [markdown]
# The question is called a **probe**, and it comes from **DEER** ([Yang et al.,
# 2025](https://arxiv.org/abs/2504.15895)). A fixed text, the *inducing prompt*, is forced after the thoughts so far,
# and nothing but an answer makes sense after it. The model writes this *trial answer* *greedily*: it always takes the
# likeliest token. DEER's intuition: a model that is not done yet has to guess, and a guess has low probabilities; a
# model that knows is sure. So if the trial answer is confident enough, end the thoughts. If not, take the probe back
# and go on. DEER needs no training. It asks while the model is used, every time.
#
# Step-GRPO builds the same question into training ([04](04_truncated_rollout.ipynb)).

# %% [markdown]
# ## One probe
#
# The *survey* is a recording: 400 problems, one completion of each by the model before and after training, probed at
# every marker. No probe ended anything. This is the one from the top of the page.

# %% tags=["nbval-check-output"]
from stepgrpo_lab.recordings import load_survey

survey = load_survey()
untrained, trained = (
    [group for group in survey if group.model == name]
    for name in ("untrained", "trained")
)
group = untrained[3]
trajectory = group.members[0].trajectory
probe = trajectory.probes[0]
thoughts = trajectory.completion_ids[: probe.position]
print("thoughts:", repr(group.token_text.decode(thoughts)))
print("forced:  ", repr(group.settings.probe_prompt))
print("answer:  ", group.problem.answer)
pieces = group.pieces(probe.token_ids)
for piece, probability in zip(pieces, probe.probabilities, strict=True):
    print(f"{piece!r:>12} {probability:.2f}")

# %% [markdown]
# Only one of these tokens is a decision: the digit. The brace before it and everything after it are form, and the model
# is sure of the form whatever it thinks of the digit.

# %% [markdown]
# ## From tokens to one number
#
# A *confidence rule* turns the probabilities $p_1, \dots, p_n$ of the tokens into one score between 0 and 1. Four rules:
#
# $$\text{joint} = \prod_i p_i \qquad
# \text{geometric} = \Big(\prod_i p_i\Big)^{1/n} = \exp\Big(\frac1n \sum_i \log p_i\Big)$$
#
# and the arithmetic mean and the minimum. The *joint* probability is what the model really states: that of all these
# tokens in a row. Step-GRPO exits on the *geometric mean* (Eq. 2 of [the paper](https://arxiv.org/abs/2604.16890)). There
# is a good reason: a long answer is not worse than a short one, but its joint probability is a product of more factors.
#
# Suppose an answer has a joint probability of 80 %, all of it because of one unsure digit. The four other tokens are
# certain.

# %%
five_tokens_guess = course.predict(
    "Joint probability 80 % over 5 tokens. What is the geometric mean?",
    unit="%",
    low=50,
    high=100,
)
five_tokens_guess

# %% [markdown]
# ### Exercise 03.1 · The exit score (●○○, 5 minutes)
#
# A warm-up in plain Python. Return the geometric mean of the probabilities without the first `skip_first`, and 0.0 if
# none is left. The public code leaves out one token, the opening brace.


# %% tags=["exercise"]
import math


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

verdict = checks.geometric_mean(geometric_mean)
geometric_mean = verdict.solution
verdict

# %% [markdown]
# <details><summary>Hint</summary>
#
# Slice first. The root is taken over the tokens that are left, so use the length of the slice. `math.prod` multiplies.
#
# </details>

# %% tags=["result"]
score = geometric_mean(probe.probabilities, skip_first=1)
print(f"the probe above: {score:.2f}")
for count in (1, 3, 5, 20):
    score = geometric_mean([0.80] + [1.0] * (count - 1))
    print(f"{count:>2} tokens: {score:.3f}")

# %% tags=["result"]
five_tokens = 100 * geometric_mean([0.80, 1.0, 1.0, 1.0, 1.0])
five_tokens_guess.compare(five_tokens, tolerance=1.0)

# %% [markdown]
# <details><summary>What this means for a threshold</summary>
#
# An answer that is wrong one time in five passes the published threshold of 0.95 if it is spread over five tokens, and
# fails over three.
#
# </details>
#
# **Sure tokens around an unsure one lift the mean.** A threshold means something only together with its rule and with the
# length of the answers. The library has all four rules:

# %%
course.source_of(lab.confidence)

# %% [markdown]
# ### Exercise 03.2 · Confidence from logits (●●○, 15 minutes)
#
# In a rollout nobody hands you probabilities. You have *logits*, a tensor `[positions, vocabulary]`; row `i` is what token
# `i` was chosen from, and `token_ids` says which tokens were chosen. Return the confidence, as a number:
#
# 1. turn each row into log-probabilities, at temperature 1;
# 2. pick out the chosen tokens' log-probabilities and leave out the first `skip_first`;
# 3. take $\exp$ of their mean; if no token is left, the score is 0.
#
# Why logarithms? The product of a few hundred probabilities underflows in float32. A sum of logarithms does not.


# %% tags=["exercise", "torch"]
def probe_confidence(logits, token_ids, skip_first=1):
    """Confidence of a trial answer, from the model's logits."""
    import torch

    # BEGIN SOLUTION
    # STUB: return ...  # your code here
    token_ids = torch.as_tensor(token_ids)
    logprobs = logits.float().log_softmax(dim=-1)
    chosen = logprobs.gather(-1, token_ids[:, None]).squeeze(-1)
    counted = chosen[skip_first:]
    if len(counted) == 0:
        return 0.0
    return counted.mean().exp().item()
    # END SOLUTION


# %% tags=["check"]
verdict = checks.probe_confidence_from_logits(probe_confidence, number="03.2")
probe_confidence = verdict.solution
verdict

# %% [markdown]
# <details><summary>Hint</summary>
#
# `log_softmax(dim=-1)` goes over the vocabulary. `gather(-1, token_ids[:, None])` takes one entry of each row.
#
# </details>
#
# Now on real logits. The model below is the course's own, the *Overthinker*: Qwen3's architecture with a million
# parameters. One forward pass over prompt, thoughts, inducing prompt and trial answer gives all the rows that we need.
# Does your function find what was recorded?

# %% tags=["torch"]
import torch

overthinker, _ = lab.load_overthinker()
inducing = group.token_text.encode(group.settings.probe_prompt)
for probe in trajectory.probes[:4]:
    thoughts = trajectory.completion_ids[: probe.position]
    context = [*trajectory.prompt_ids, *thoughts, *inducing]
    with torch.no_grad():
        ids = torch.tensor([[*context, *probe.token_ids]])
        logits = overthinker(input_ids=ids).logits[0]
    rows = logits[len(context) - 1 : -1]
    mine = float(probe_confidence(rows, torch.tensor(probe.token_ids)))
    print(f"{probe.answer}: yours {mine:.4f}, recorded {probe.confidence:.4f}")

# %% [markdown]
# ## Which tokens count
#
# | | `official` (public code) | `paper` |
# | --- | --- | --- |
# | inducing prompt | ends in `\boxed`: the model writes the brace | ends in `\boxed{` |
# | trial answer ends with | `</think>`, else the score is 0 | the completed box |
# | tokens left out | 1: the opening brace | 0 |
# | so the score covers | answer, closing brace, `</think>` | answer and closing brace |
#
# Besides its score, every probe records the joint probability of *answer and closing brace* alone. If you ask how often
# such answers are right, that is the number to use. `boxed_answer_span` finds its tokens:

# %% tags=["nbval-check-output"]
from stepgrpo_lab.method.boxes import boxed_answer_span

for group in (untrained[3], untrained[0]):
    probe = group.members[0].trajectory.probes[0]
    pieces = group.pieces(probe.token_ids)
    span = boxed_answer_span(pieces, opened=False)
    print(pieces, "counted for the joint:", pieces[slice(*span)])
    print(f"joint {probe.joint:.2f}, exit score {probe.confidence:.2f}")

# %% [markdown]
# Look at the second answer. This tokenizer has merged the brace with a letter: `{A` is *one* token. Leave it out, and the
# answer itself is gone. So the library leaves the first token out only if it holds nothing but the brace. We come back to
# what happens otherwise.

# %% [markdown]
# ## Move the threshold
#
# The inspector shows a completion with its probes in place (✓ right, ✗ wrong). An exit rule stops at the first probe whose
# score is *greater* than the threshold. Two questions first:
#
# 1. At 0.95 the geometric mean stops this completion with a right answer. Where does it stop at 0.80, and is the answer
#    right?
# 2. Stay at 0.80 and choose *joint* as the confidence rule. Where does it stop now?

# %%
from stepgrpo_lab.widgets import StepInspector

inspector = StepInspector(group=1, member=0, threshold=0.8)
inspector

# %% [markdown]
# <details><summary>What we see</summary>
#
# 1. At 0.80 it stops at the second probe of eleven, with a wrong answer: a joint probability of 0.58 scores 0.83 as a
#    geometric mean over three tokens. At 0.95 it stops at the fourth probe and is right.
# 2. At the fourth probe again, with the right answer: none of the wrong ones before it has a joint probability of 0.80.
#
# </details>

# %% tags=["nbval-check-output", "result"]
other = StepInspector(group=1, member=0)
for threshold, rule in (
    (0.95, "geometric"),
    (0.8, "geometric"),
    (0.8, "joint"),
):
    other.threshold, other.confidence_rule = threshold, rule
    print(other.sentence)

# %% [markdown]
# ## Can a probability be believed?
#
# A model is *calibrated* if, of all answers to which it gives 70 %, 70 % are right. One answer cannot show this, but
# many can: sort them into bins by their stated probability. In each bin $b$, with $n_b$ of the $N$ answers, compare the
# mean stated probability with the share that is right. The *expected calibration error* is the mean gap:
#
# $$\text{ECE} = \sum_b \frac{n_b}{N}\,\big|\,\text{stated}_b - \text{right}_b\,\big|$$
#
# [Guo et al. (2017)](https://arxiv.org/abs/1706.04599) made it popular by showing that deep networks are too sure of
# themselves. Large language models often know quite well what they know, as
# [Kadavath et al. (2022)](https://arxiv.org/abs/2207.05221) found by asking them.

# %% [markdown]
# ### Exercise 03.3 · A reliability diagram (●●○, 20 minutes)
#
# Write `calibration_curve(stated, right, bins=10)`. `stated` holds probabilities, `right` booleans. It returns two things:
#
# - `rows`: for each bin that holds answers, in rising order, `(mean stated, share right, number of answers)`. The bins
#   are equally wide. Each includes its lower edge and not its upper one, except the last, which includes 1;
# - `ece`: the expected calibration error.
#
# The two figures below are then drawn from your rows.


# %% tags=["exercise"]
def calibration_curve(stated, right, bins=10):
    """Rows (mean stated, share right, count), and the ECE."""
    # BEGIN SOLUTION
    # STUB: return ...  # your code here
    members = [[] for _ in range(bins)]
    edges = [edge / bins for edge in range(1, bins)]
    for probability, hit in zip(stated, right, strict=True):
        place = sum(probability >= edge for edge in edges)
        members[place].append((probability, hit))
    rows, gaps = [], 0.0
    for held in members:
        if not held:
            continue
        mean = sum(probability for probability, _ in held) / len(held)
        share = sum(hit for _, hit in held) / len(held)
        rows.append((mean, share, len(held)))
        gaps += len(held) * abs(mean - share)
    return rows, gaps / len(stated)
    # END SOLUTION


# %% tags=["check"]
verdict = checks.calibration_curve(calibration_curve, number="03.3")
calibration_curve = verdict.solution
verdict

# %% [markdown]
# <details><summary>Hint</summary>
#
# One list for each bin. The number of inner edges that a probability has reached is its bin's place; so 1.0 falls into
# the last bin without a special case. Then one pass over the lists for the rows, and the gaps on the way. The library
# does it with numpy in `stepgrpo_lab.evaluation.statistics.calibration`.
#
# </details>

# %% [markdown]
# ## The first probe of the untrained model
#
# At the first marker the model has done one step of two or more, so most of its trial answers are guesses. In one bin it
# states 35 % on average.

# %%
bin_guess = course.predict(
    "First probes that state about 35 %: what percentage is right?", unit="%"
)
bin_guess

# %% tags=["result"]
from stepgrpo_lab.evaluation.statistics import Calibration, CalibrationBin
from stepgrpo_lab.recordings.measures import trial_answers
from stepgrpo_lab.viz.completions import reliability_lines


def diagram(curves, score="joint probability"):
    """A reliability diagram of your curves."""
    drawn = {}
    for name, (rows, error) in curves.items():
        bins = [CalibrationBin(x, x, n, x, y) for x, y, n in rows]
        drawn[name] = Calibration(bins, error, sum(n for *_, n in rows))
    return reliability_lines(drawn, score=score)


first = trial_answers(untrained, first_only=True)
rows, ece = calibration_curve(first.stated, first.right)
for stated, share, count in rows:
    print(f"{count:>3} state {stated:6.1%}, {share:6.1%} are right")
diagram({"first probes": (rows, ece)})

# %% tags=["result"]
bin_guess.compare(
    next(100 * share for stated, share, _ in rows if 0.3 <= stated < 0.4)
)

# %% [markdown]
# On the dashed line a probability is worth what it says. Nearly all answers lie in three bins: two kinds of guesses that
# know they are guesses, and answers that are sure and right. The Overthinker was *taught* this when it was made
# ([its card](../data/overthinker/README.md) says how). A large model is not calibrated by nature.

# %% [markdown]
# ## Accuracy against tokens
#
# An exit rule does not need calibration as such. It needs *one* threshold that tells right from wrong. So we replay
# rules on the survey, at many thresholds, and look at what they keep and what they cost. Up and to the left is better.

# %%
rule_guess = course.predict(
    "At the threshold 0.80, which rule keeps more answers right?",
    choices=("geometric", "joint", "no difference"),
)
rule_guess

# %% tags=["result"]
from stepgrpo_lab.recordings.measures import try_rule
from stepgrpo_lab.viz.completions import stopping_curves

thresholds = setup.size(
    (0.2, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 0.99),
    (0.5, 0.6, 0.8, 0.95, 0.99),
)
curves = {
    rule: [
        try_rule(untrained, lab.ExitRule(value, rule)) for value in thresholds
    ]
    for rule in ("geometric", "joint")
}
whole = try_rule(untrained, lab.ExitRule(1.0))
marks = {"whole completions": (whole.tokens, whole.right)}
stopping_curves(curves, marks)

# %% tags=["result"]
right = {
    rule: try_rule(untrained, lab.ExitRule(0.8, rule)).right for rule in curves
}
for rule, share in right.items():
    print(f"{rule:<10} {share:6.1%} right at a threshold of 0.80")
same = right["geometric"] == right["joint"]
rule_guess.compare("no difference" if same else max(right, key=right.get))

# %% [markdown]
# <details><summary>Two things to see</summary>
#
# At the *same* threshold the joint probability is far more careful. And yet both rules lie on nearly one curve. Here a
# single token is unsure, so they put the probes in almost the same order; only the *scale* of the threshold differs.
#
# </details>

# %% [markdown]
# ### Exercise 03.4 · Choose a threshold (●●○, 10 minutes)
#
# The points of a curve are `(threshold, tokens, share right)`, in any order. Return the threshold of the point with the
# fewest tokens among those with at least `least` right, and `None` if there is no such point.
#
# If you choose and report on the same problems, you fool yourself a little. So we choose on one half of the survey and
# report on the other.


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
verdict = checks.cheapest_threshold(cheapest_threshold, number="03.4")
cheapest_threshold = verdict.solution
verdict

# %% [markdown]
# <details><summary>Hint</summary>
#
# Filter by the third number, then take the smallest by the second. An empty list has no minimum.
#
# </details>

# %%
choose_on, report_on = untrained[::2], untrained[1::2]
for rule in ("geometric", "joint"):
    points = []
    for threshold in thresholds:
        replay = try_rule(choose_on, lab.ExitRule(threshold, rule))
        points.append((threshold, replay.tokens, replay.right))
    chosen = cheapest_threshold(points, least=0.99)
    held_out = try_rule(report_on, lab.ExitRule(chosen, rule))
    share = held_out.tokens / try_rule(report_on, lab.ExitRule(1.0)).tokens
    print(
        f"{rule:<10} threshold {chosen:.2f}: {held_out.right:6.1%} right,"
        f" {share:.0%} of the tokens"
    )

# %% [markdown]
# Two different thresholds, nearly the same result. For the geometric mean the choice falls on the published 0.95,
# which was found for another model. Take the agreement as luck.

# %% [markdown]
# ## What can go wrong: a mean read as a probability
#
# The geometric mean is a score. Read it as a probability, and a guess among several digits looks like a good bet. The
# same first probes, once by their joint probability, once by the geometric mean:

# %% tags=["result"]
by_score = calibration_curve(first.scores("geometric"), first.right)
diagram(
    {"joint": (rows, ece), "geometric mean": by_score},
    score="score of the first trial answer",
)

# %% [markdown]
# Hardly any first probe scores below 0.5 by the geometric mean, and those around 0.7 are right less than one time in
# three. A longer answer would look better still. That is why reliability is always measured with the joint probability
# here.

# %% [markdown]
# ## What can go wrong: leaving out the answer
#
# The public code always leaves out the first token. Do that blindly with a tokenizer that writes `{A` as one token, and
# for every problem whose answer is a letter the score consists of a brace and `</think>`. Each probe records in `opening`
# how many of its leading tokens hold nothing of the answer, and `ExitRule` leaves out no others. Here we overwrite that
# number:

# %% tags=["nbval-check-output"]
from dataclasses import replace

rule = lab.ExitRule(0.95)
for name in ("ExitRule", "blind"):
    hits = {"search": [], "chain": []}
    for group in untrained:
        member = group.members[0]
        probes = member.trajectory.probes
        if name == "blind":
            probes = [replace(probe, opening=1) for probe in probes]
        stop = rule.first_exit(probes)
        own = member.outcome.correct
        hit = own if stop is None else member.trials_right[stop]
        hits[group.problem.family].append(hit)
    for family, right in hits.items():
        share = sum(right) / len(right)
        print(f"{name:<9} {family:<7} {share:6.1%} right")

# %% [markdown]
# *search* problems ask for a letter, and half of them are lost. *chain* problems ask for a digit, which is a token of its
# own, and lose nothing. Nothing crashes, and completions get shorter: from the tokens alone it looks like progress.
# (Qwen3's tokenizer merges braces as well, `{x` for one.)

# %% [markdown]
# ## What can go wrong: calibration after training
#
# Training changes the policy. Is its confidence still worth as much? All probes of the survey, before and after:

# %%
everywhere = {
    name: trial_answers(groups)
    for name, groups in (("untrained", untrained), ("trained", trained))
}
curves = {
    name: calibration_curve(trials.stated, trials.right)
    for name, trials in everywhere.items()
}
for name, (_, error) in curves.items():
    print(f"{name:<10} ECE {error:.3f}")
diagram(curves)

# %% [markdown]
# The error is five times as large. Did the model become overconfident? Careful. A model that has learned to stop is
# probed only where it goes on, and it goes on where it does *not* know the answer yet. The easy probes are gone.
#
# To tell the two causes apart, take only places where both models were asked after the very same thoughts:

# %%
from stepgrpo_lab.recordings.measures import trial_answers_after_same_thoughts

pairs = trial_answers_after_same_thoughts(untrained, trained)
for name, trials in zip(("untrained", "trained"), pairs, strict=True):
    stated = sum(trials.stated) / len(trials)
    share = sum(trials.right) / len(trials)
    _, error = calibration_curve(trials.stated, trials.right)
    print(
        f"{name:<10} states {stated:.1%}, {share:.1%} are right,"
        f" ECE {error:.3f}"
    )

# %% [markdown]
# Part of it was the place: after these thoughts the *untrained* model's error is almost three times its usual one. The
# rest is the model. It has become surer, and is right no more often. Nothing in the reward asks for honesty at a probe.
# (This is one training run, and a claim about no other.)
#
# So a threshold that was safe before training is not safe after it:

# %%
for name, groups in (("untrained", untrained), ("trained", trained)):
    whole = try_rule(groups, lab.ExitRule(1.0)).right
    for threshold in (0.8, 0.9, 0.95):
        lost = whole - try_rule(groups, lab.ExitRule(threshold)).right
        print(f"{name:<10} {threshold:.2f} costs {100 * lost:5.1f} points")

# %% [markdown]
# ## Can one number repair it?
#
# Guo et al. found a cure that is almost too simple: divide all logits by one number, the *temperature*, fitted on held-out
# data. A model that is too sure gets a temperature above 1, and every probability moves towards one half. For a stated
# probability $p$, with $\operatorname{logit}(p) = \log \frac{p}{1-p}$:
#
# $$p_T = \sigma\Big(\frac{\operatorname{logit}(p)}{T}\Big)$$
#
# We fit $T$ on one half of the trained model's problems and look at the other half.

# %%
repair_guess = course.predict(
    "How much of the trained model's calibration error does T remove?",
    choices=("nearly all of it", "about half", "hardly any"),
)
repair_guess

# %% [markdown]
# ### Exercise 03.5 · Temperature scaling (●●○, 20 minutes)
#
# `stated` holds probabilities, `right` booleans. Return the temperature, a number, that makes the mean log loss smallest:
# minus the logarithm of the probability $p_T$ that was given to what happened. Clamp the stated probabilities to
# $[10^{-4}, 1 - 10^{-4}]$ first, or some logits are infinite.
#
# One parameter, one loss, any optimiser of `torch.optim`. Stop when it no longer moves. $T$ has to stay positive: think of
# a parameter that cannot make it negative.


# %% tags=["exercise", "torch"]
def fit_temperature(stated, right):
    """The temperature with the smallest mean log loss."""
    import torch

    # BEGIN SOLUTION
    # STUB: return ...  # your code here
    held = torch.tensor(stated, dtype=torch.float64).clamp(1e-4, 1 - 1e-4)
    logits = held.logit()
    truth = torch.tensor(right).double()
    log_t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_t], line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        scaled = logits / log_t.exp()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            scaled, truth
        )
        loss.backward()
        return loss

    for _ in range(10):
        optimizer.step(closure)
    return log_t.exp().item()
    # END SOLUTION


# %% tags=["check"]
verdict = checks.fit_temperature(fit_temperature, number="03.5")
fit_temperature = verdict.solution
verdict

# %% [markdown]
# <details><summary>Hint</summary>
#
# Train the *logarithm* of the temperature, from 0 on. `Tensor.logit()` gives the logits, and
# `torch.nn.functional.binary_cross_entropy_with_logits(logits / T, truth)` the loss. Adam with a learning rate of 0.05
# gets there in 300 steps, LBFGS in ten.
#
# </details>

# %% tags=["result"]
fit_on, report_on = (trial_answers(trained[part::2]) for part in (0, 1))
temperature = fit_temperature(fit_on.stated, fit_on.right)
scaled = []
for stated in report_on.stated:
    held = min(max(stated, 1e-4), 1 - 1e-4)
    logit = math.log(held / (1 - held))
    scaled.append(1 / (1 + math.exp(-logit / temperature)))
repaired = {
    "trained": calibration_curve(report_on.stated, report_on.right),
    "with temperature": calibration_curve(scaled, report_on.right),
}
print(f"temperature {temperature:.2f}")
for name, (_, error) in repaired.items():
    print(f"{name:<17} ECE {error:.3f}")
diagram(repaired, score="probability")

# %% tags=["result"]
left = repaired["with temperature"][1] / repaired["trained"][1]
some = "about half" if left > 0.25 else "nearly all of it"
repair_guess.compare("hardly any" if left > 0.75 else some)

# %% [markdown]
# <details><summary>Why so little?</summary>
#
# The temperature is above 1: on the whole, the model was too sure. But one number moves all probabilities by the same
# rule, and this curve sags in the middle and is right at both ends. The model is wrong about *which* answers to doubt,
# and no scale can repair that.
#
# </details>

# %% [markdown]
# ## Your predictions

# %%
course.score()

# %% [markdown]
# ## Summary
#
# - A probe forces an inducing prompt and reads the probabilities of a greedy trial answer.
# - The geometric mean is lifted by sure tokens. Its threshold has a scale of its own.
# - To ask how often answers are right, use the joint probability of answer and closing brace, in a reliability diagram.
# - Which tokens count matters: one token too few cost half of the answers of a family.
# - Training moves both the model and the places where it is asked. Compare like with like.
# - A temperature repairs a model that is too sure everywhere, and no other.

# %% [markdown]
# **Further reading.** Where the probe comes from: DEER ([arXiv 2504.15895](https://arxiv.org/abs/2504.15895)). Calibration
# error, and how to shrink it with one number: Guo et al. ([arXiv 1706.04599](https://arxiv.org/abs/1706.04599)). What
# language models know about their own answers: Kadavath et al.
# ([arXiv 2207.05221](https://arxiv.org/abs/2207.05221)). Words: the [glossary](../docs/glossary.md).
#
# Next: [04, the dynamic truncated rollout](04_truncated_rollout.ipynb), where these scores decide.
