# ---
# jupyter:
#   stepgrpo:
#     title: Dynamic truncated rollout, phase by phase
#     minutes: 90
#     hardware: any CPU
# ---

# %% [markdown]
# ## Three questions that left no trace
#
# "Start at 8: -7 -7 +1 +6 \*7. Which digit, mod 10?" A small model answered:
#
# ```text
# <think>
# 8-7=1 1-7=4 Wait 4+1=5 5+6=1 Wait 1*7=7
# </think>
#
# \boxed{7}
# ```
#
# Every result is modulo 10, and 7 is right. But while the model was writing this, somebody interrupted it three times and
# asked for its answer. It said 5. Later it said 1. The third time it said 7, and was sent straight to the end, 99 tokens
# before it would have stopped by itself.
#
# Look for the three questions in the text. Neither they nor the two wrong answers are there, and the model never knew
# that it had been asked. How do you interrupt a model, and then take the interruption back?

# %%
import stepgrpo_lab as lab

course.drawing(
    "rollout",
    "A railway line for thoughts. At each marker, the word Wait, a siding "
    "leads to a probe. The first trial answer scores 0.41: back to the "
    "marker, and the thoughts go on. The second scores 0.98: back to the "
    "marker, and the switch leads down to a forced close and the answer. "
    "The rest of the main line is never written.",
)

# %% [markdown]
# ## Objectives
#
# After this notebook you can
#
# - name the five phases of a rollout and say what ends each;
# - drive the library's trajectory machine by hand, token by token;
# - say in how many ways thoughts and completions can end, and tell them apart;
# - count what a rollout costs, and say why half of a group is left alone;
# - write a truncated rollout yourself and put a real model behind it.

# %% [markdown]
# ## Where we are
#
# A *rollout* is how a model makes one *completion*: it samples token after token. We can cut thoughts into steps at
# markers ([02](02_semantic_steps.ipynb)) and score a trial answer ([03](03_confidence.ipynb)). Here the two meet. At
# every marker the rollout stops and asks: *would you bet on your answer now?* If so, the thoughts end there. If not,
# they go on as if nobody had asked.
#
# The idea of asking comes from **DEER** ([Yang et al., 2025](https://arxiv.org/abs/2504.15895)), which does it whenever
# the model is used. DEER needs no training, but its questions cost tokens every time. Step-GRPO
# ([Chen et al., 2026](https://arxiv.org/abs/2604.16890)) asks during training only. Its hope: a model that is stopped
# often enough learns to stop by itself.

# %% [markdown]
# ## The five phases
#
# | phase | what happens | what ends it |
# | --- | --- | --- |
# | THINK | the model samples its thoughts | a marker: PROBE · its own `</think>`: ANSWER · the think budget: CLOSE |
# | PROBE | a prompt is forced, and a trial answer is decoded greedily | confident: CLOSE · not confident: THINK |
# | CLOSE | `</think>` is forced | once it has been read: ANSWER |
# | ANSWER | the model samples its answer | the end of the sequence, or the limit: DONE |
# | DONE | nothing | |
#
# *Forced* means that the rollout puts a token there, and the model has no choice. *Greedily* means that the likeliest
# token is always taken. The [glossary](../docs/glossary.md) has these words and all the others.

# %% [markdown]
# ## One rollout by hand
#
# We play the model ourselves, with a toy vocabulary of eighteen tokens. Below are the thoughts that we shall "sample",
# the answer, and the trial answer of the one probe, each greedy token with its probability. The score is the geometric
# mean without the opening brace. Is it above 0.95?

# %% tags=["nbval-check-output"]
import math

from stepgrpo_lab.course.toys import ScriptedPolicy, drive, toy_token_text

toy = toy_token_text()
thoughts = ["2+3=5", " ", "Wait", ","]
answer = ["\\boxed", "{", "5", "}", "<eos>"]
sure = [
    ("{", 0.70),
    ("5", 0.97),
    ("}", 0.99),
    ("\n", 0.98),
    ("</think>", 0.99),
]
score = lab.confidence([probability for _, probability in sure], skip_first=1)
print(f"score {score:.3f}, exit: {score > lab.ExitRule().threshold}")

# %% [markdown]
# So the completion will have ten tokens: two of thoughts, three of the forced close, five of the answer. The marker and
# the comma after it are dropped. But the model reads more than these ten: the probe has to be read, too.

# %%
cost_guess = course.predict(
    "How many tokens does this rollout process, the ten included?",
    unit="tokens",
    low=10,
    high=40,
)
cost_guess

# %% [markdown]
# Now the machine. It makes every decision and never sees a model. Whoever drives it asks what to do with the newest
# logits (`choice`), says what was chosen (`observe`), and asks which token to feed next, and at which place (`feed`).
#
# (`near_budget_margin=0` switches off a rule that we meet below. With a limit of 40 tokens, every place would otherwise
# count as close to the end.)

# %% tags=["nbval-check-output"]

settings = lab.rollout_settings("official", near_budget_margin=0)
machine = lab.TrajectoryMachine(toy, limit=40, settings=settings)
for piece in thoughts:
    print(f"{machine.phase.name}: {machine.choice} -> {piece!r}", end="")
    machine.observe(toy.encode(piece)[0], -0.1)
    token, place = machine.feed()
    fed = toy.decode([token])
    print(f", then {machine.phase.name} feeds {fed!r} at {place}")

# %% [markdown]
# Look at the last line. Only the comma makes the marker certain, because `Wait` might have become `Waiting`. The comma
# is never fed. Instead the machine goes *back to place 2*, where `Wait` stood, and feeds the first token of the
# inducing prompt there. A function of the library does the rest:

# %% tags=["nbval-check-output", "result"]
for step in drive(machine, ScriptedPolicy(toy, answer, [sure])):
    print(f"{step.phase:<6} {step.place:>2}  {step.piece!r}")

# %% [markdown]
# Follow the places. The probe began at place 2. When it was over, the close began at place 2 again and wrote over it.
# Nothing was copied and nothing was deleted: *going back means writing at a smaller place*. The finished record says what
# was kept and what it cost.

# %% tags=["nbval-check-output", "result"]
by_hand = machine.trajectory([0])
print(repr(by_hand.text))
kept = zip(by_hand.completion_ids, by_hand.forced, strict=True)
print("forced: ", [toy.decode([token]) for token, forced in kept if forced])
print("dropped:", [toy.decode([token]) for token in by_hand.dropped])
print(f"closed: {by_hand.close}, finished: {by_hand.finish}")
cost = by_hand.cost
print(
    f"kept {cost.kept_tokens} + probe {cost.probe_tokens} "
    f"+ replayed {cost.replayed_tokens} = {cost.decoded_tokens}"
)

# %% tags=["result"]
cost_guess.compare(cost.decoded_tokens)

# %% [markdown]
# *Replayed* tokens are marker tokens that were fed in vain, here `Wait`. Remember the forced ones: the model did not
# choose them. The public code of Step-GRPO trains on them all the same: a forced `</think>` in a good completion is the
# very thing that the model is meant to pick up.

# %% [markdown]
# ### Exercise 04.1 · The exit decision (●○○, 5 minutes)
#
# A probe at place $p$ with score $s$ ends the thoughts
#
# - *early* if $s > \delta$, where $\delta$ is the threshold;
# - otherwise *near budget* if $B - p \le m$: at most a margin $m$ is left of the think budget $B$, so there is no time
#   for another step;
# - otherwise not at all.
#
# Return `"early"`, `"near_budget"` or `None`. All that training ever sees of an exit depends on these comparisons.


# %% tags=["exercise"]
def exit_reason(confidence, threshold, place, think_budget, margin):
    """ "early", "near_budget", or None for a declined probe."""
    # BEGIN SOLUTION
    # STUB: return ...  # your code here
    if confidence > threshold:
        return "early"
    return "near_budget" if think_budget - place <= margin else None
    # END SOLUTION


# %% tags=["check"]
from stepgrpo_lab.course import checks

verdict = checks.exit_reason(exit_reason)
exit_reason = verdict.solution
verdict

# %% [markdown]
# <details><summary>Hint</summary>
#
# The order of the two tests matters: a confident probe is *early* wherever it stands.
#
# </details>
#
# This is what the library does when a probe has ended, and how it puts a declined one back. `_base` is the marker's
# place, `_fed` the place that is fed next.

# %%
course.source_of(lab.TrajectoryMachine._end_probe)

# %%
course.source_of(lab.TrajectoryMachine._put_back)

# %% [markdown]
# ### Exercise 04.2 · The price of a rollout (●●○, 10 minutes)
#
# A shorter completion is only half of the bill. Compute how many tokens are processed for one completion:
#
# - the `kept` tokens;
# - for each probe, its inducing prompt (`prompt` tokens) and its trial answer. `trials` holds the trial answers'
#   lengths. The last token of a trial answer is chosen, but nobody needs what would follow it: it is never fed;
# - the `replayed` tokens.
#
# Afterwards we hold your function against every recorded completion.


# %% tags=["exercise"]
def decoded_tokens(kept, trials, prompt, replayed):
    """Tokens processed for one completion of `official`."""
    # BEGIN SOLUTION
    # STUB: return ...  # your code here
    probes = sum(prompt + trial - 1 for trial in trials)
    return kept + probes + replayed
    # END SOLUTION


# %% tags=["check"]
verdict = checks.decoded_tokens(decoded_tokens)
decoded_tokens = verdict.solution
verdict

# %% [markdown]
# <details><summary>Hint</summary>
#
# Count the PROBE lines of the rollout above: its prompt has 4 tokens, its trial answer 5.
#
# </details>

# %% tags=["nbval-check-output"]
from stepgrpo_lab.recordings import load_recordings

recorded = [
    group
    for group in load_recordings()
    if group.model == "untrained" and group.rollout == "official"
]
agree = []
for group in recorded:
    prompt = len(group.token_text.encode(group.settings.probe_prompt))
    for member in group.members:
        bill, probes = member.trajectory.cost, member.trajectory.probes
        trials = [len(probe.token_ids) for probe in probes]
        mine = decoded_tokens(
            bill.kept_tokens, trials, prompt, bill.replayed_tokens
        )
        agree.append(mine == bill.decoded_tokens)
print(f"right for {sum(agree)} of {len(agree)} recorded completions")

# %% [markdown]
# ### Exercise 04.3 · An engine (●●●, 15 minutes)
#
# Write what `drive` did for us: the loop between a machine and a policy. The policy has `sample()`, which returns a token
# and its log-probability, and `likeliest()`, which returns a token and its probability.
#
# - The machine wants a sample where its `choice` is `"sample"`, and the likeliest token where it is `"greedy"`. A greedy
#   token goes into `observe(token, None, probability)`.
# - When there is no choice to make, there is only something to feed.
# - The choice may have been the last: then the machine is `done`, and there is nothing to feed.
#
# Return `machine.trajectory([0])` at the end. An engine for a real model does nothing else. The next section runs on
# yours.


# %% tags=["exercise"]
def run_engine(machine, policy):
    """Drive a machine to its end; returns its trajectory."""
    # BEGIN SOLUTION
    # STUB: return ...  # your code here
    while not machine.done:
        if machine.choice == "sample":
            token, logprob = policy.sample()
            machine.observe(token, logprob)
        elif machine.choice == "greedy":
            token, probability = policy.likeliest()
            machine.observe(token, None, probability)
        if not machine.done:
            machine.feed()
    return machine.trajectory([0])
    # END SOLUTION


# %% tags=["check"]
verdict = checks.run_engine(run_engine)
run_engine = verdict.solution
verdict

# %% [markdown]
# <details><summary>Hint</summary>
#
# Each round of the loop has two parts: answer the choice, if there is one; then feed, unless the machine is done.
#
# </details>

# %% [markdown]
# ## Every way to end
#
# Thoughts end in one of four ways: *natural* (the model writes `</think>` itself), *early* (a confident probe), *near
# budget* (any probe shortly before the think budget), *budget* (the budget is used up). The completion ends with an
# end-of-sequence token, or at the limit. Five scripts, on your engine:


# %%
def play(samples, trials=(), limit=40, **overrides):
    """A scripted rollout."""
    settings = lab.rollout_settings(
        "official", **{"near_budget_margin": 0, **overrides}
    )
    machine = lab.TrajectoryMachine(toy, limit=limit, settings=settings)
    return run_engine(machine, ScriptedPolicy(toy, samples, trials))


# %% tags=["nbval-check-output"]
unsure = [("{", 0.7), ("6", 0.4), ("}", 0.9), ("\n", 0.9), ("</think>", 0.9)]
goes_on = [*thoughts, "so ", "2+3=5", "\n", "</think>", *answer]
endings = {
    "sure probe": play([*thoughts, *answer], [sure]),
    "unsure probe": play(goes_on, [unsure]),
    "unsure, near budget": play(
        [*thoughts, *answer], [unsure], near_budget_margin=50
    ),
    "no marker": play(["so "] * 6 + answer, think_budget=6),
    "no end": play(["so "] * 12, limit=12, think_budget=1.0),
}
for name, ending in endings.items():
    print(f"{name:<20} close {ending.close!s:<12} finish {ending.finish}")

# %% [markdown]
# Read the second line again. The probe was declined, and later the model closed its thoughts by itself. So the close is
# *natural*, although this completion had been probed.
#
# What does Step-GRPO want to see more of? Not the first line. An early close is the teacher's hand on the pupil's
# shoulder. The aim is a *natural* close that comes as soon as an early one would have, with nobody asking.
#
# Two settings bound the whole thing. `think_budget` applies to every completion, probed or not, and keeps room for an
# answer. `max_probes` bounds the cost: after ten declined probes the thoughts run on unasked.

# %% [markdown]
# ## Two presets, one machine
#
# The paper and its public code differ. `official`, the code, probes *inside* the thoughts. It throws the trial answer
# away and samples a fresh answer after the forced close. `paper` closes the thoughts *with* the probe, and an accepted
# trial answer becomes the output. The machine is the same; the settings differ.

# %% tags=["nbval-check-output"]
from dataclasses import asdict

from stepgrpo_lab.method.settings import PRESETS

official, paper = (asdict(PRESETS[name]) for name in PRESETS)
for name, value in official.items():
    if value != paper[name]:
        print(f"{name:<13} {value!r:<32} {paper[name]!r}")

# %% tags=["nbval-check-output"]
settings = lab.rollout_settings("paper", near_budget_margin=0)
machine = lab.TrajectoryMachine(toy, limit=40, settings=settings)
trial = [("5", 0.97), ("}", 0.99)]
policy = ScriptedPolicy(toy, [*thoughts, "<eos>"], [trial])
in_paper = run_engine(machine, policy)
for name, ending in (("official", by_hand), ("paper", in_paper)):
    print(f"{name:<9}{ending.text!r}")
    print(
        f"{'':<9}{sum(ending.forced)} of {ending.tokens} tokens not sampled, "
        f"{ending.cost.decoded_tokens} decoded"
    )

# %% [markdown]
# In `paper` an accepted probe costs next to nothing: what was read for it is kept. But most of these tokens were not
# sampled by the policy, and the training has to know that. That is why the record marks them.

# %% [markdown]
# ## On real trajectories
#
# The player replays the completion from the top of this page, *forward pass* by forward pass: in each pass the model
# reads one token. *event ▶* jumps to what matters. Two questions first:
#
# 1. How many passes lie between the start of the first probe and the pass that feeds `Wait` again?
# 2. It is probed three times. How many of the probes' tokens can you find in its final text?

# %%
from stepgrpo_lab.widgets import RolloutPlayer

player = RolloutPlayer(recorded, group=3, member=3)
player.to_event()
player

# %% [markdown]
# <details><summary>What we see</summary>
#
# 1. Nine, passes 15 to 23: six tokens of the inducing prompt and three of the trial answer `{5}`. Its last token,
#    `</think>`, is chosen but never fed. Pass 24 feeds `Wait` again, at place 13, where the probe had begun.
# 2. None. The probes at places 13 and 26 were declined and written over. The one at 33 was accepted, and written over
#    by the forced close. The answer in the text was sampled afterwards, in passes 66 to 70.
#
# </details>

# %% tags=["nbval-check-output"]
questioned = recorded[3].members[3].trajectory
print(questioned.text)
for probe in questioned.probes:
    print(
        f"at {probe.position}: {probe.text!r}, score "
        f"{probe.confidence:.3f}, accepted {probe.accepted}"
    )

# %% [markdown]
# ### Exercise 04.4 · The whole rollout (●●●, 25 minutes)
#
# Now without the machine: one loop in which you make every decision. A *writer* plays the model; you hand
# it all the tokens so far:
#
# | | |
# | --- | --- |
# | `writer.sample(tokens)` | the next token, drawn at random |
# | `writer.likeliest(tokens)` | the likeliest next token, and its probability |
# | `writer.markers` | the marker tokens; here each marker is one token |
# | `writer.probe_prompt`, `writer.forced_close` | lists of tokens to force |
# | `writer.close`, `writer.end` | the tokens `</think>` and end of sequence |
#
# Sample until `writer.end`. When the thoughts draw a marker, do not keep it yet: probe. A trial answer is decoded greedily
# until it holds `writer.close`. Its score is the geometric mean of its probabilities without the first token, the
# brace. Above `threshold`, drop the marker, force the close, and let the writer answer; there are no probes after
# `</think>`. Otherwise forget the probe, keep the marker and think on.
#
# Return the tokens, `"early"` or `"natural"`, and the list of scores.


# %% tags=["exercise"]
def truncated_rollout(writer, threshold):
    """The tokens, how the thoughts were closed, and the scores."""
    # BEGIN SOLUTION
    # STUB: return ...  # your code here

    def probe(context):
        trial, probabilities = [], []
        while writer.close not in trial and len(trial) < 20:
            token, probability = writer.likeliest([*context, *trial])
            trial.append(token)
            probabilities.append(probability)
        counted = probabilities[1:]
        return math.prod(counted) ** (1 / len(counted))

    tokens, close, scores = [], None, []
    while not tokens or tokens[-1] != writer.end:
        token = writer.sample(tokens)
        if close is None and token in writer.markers:
            scores.append(probe([*tokens, *writer.probe_prompt]))
            if scores[-1] > threshold:
                close = "early"
                tokens += writer.forced_close
                continue
        if close is None and token == writer.close:
            close = "natural"
        tokens.append(token)
    return tokens, close, scores
    # END SOLUTION


# %% tags=["check"]
verdict = checks.truncated_rollout(truncated_rollout)
truncated_rollout = verdict.solution
verdict

# %% [markdown]
# <details><summary>Hint</summary>
#
# Write the probe first, as a function of its own: it takes a list of tokens and returns one number. In the main loop a
# confident probe extends `tokens` by the close and goes on with `continue`, so that the marker is never appended.
#
# </details>

# %% [markdown]
# Your loop has no idea what a writer is made of. So put a neural network behind it: the Overthinker, the course's own
# model of a million parameters. It reads all tokens again for each choice, which is slow and simple; an engine keeps a
# cache (notebook 05).

# %% tags=["torch"]
import torch
from stepgrpo_lab.method.sampling import uniform

overthinker, tokenizer = lab.load_overthinker()
text = lab.TokenText.from_tokenizer(tokenizer)


@torch.no_grad()
def next_probabilities(prompt, tokens, temperature):
    """The model's distribution over the next token."""
    ids = torch.tensor([[*prompt, *tokens]])
    logits = overthinker(input_ids=ids).logits[0, -1]
    return (logits / temperature).softmax(-1)


# %% tags=["torch"]
class ModelWriter:
    """A writer with the Overthinker behind it."""

    def __init__(self, prompt):
        self.prompt, self.token_text = prompt, text
        self.markers = {*text.encode(" Wait"), *text.encode(" Alternatively")}
        self.probe_prompt = text.encode("\n**Final Answer**\n\\boxed")
        self.forced_close = text.encode("\n</think>\n\n")
        self.close, self.end = *text.encode("</think>"), min(text.eos_ids)

    def sample(self, tokens):
        """Each place has a random number of its own."""
        number = uniform(lab.SampleKey(0, "course", 0, 0), len(tokens))
        shares = next_probabilities(self.prompt, tokens, 0.6).cumsum(-1)
        return min(int((shares < number).sum()), len(shares) - 1)

    def likeliest(self, tokens):
        top = next_probabilities(self.prompt, tokens, 1.0).max(-1)
        return int(top.indices), float(top.values)


# %% [markdown]
# One problem, once with a threshold that no score exceeds, once with 0.95. Where do the two completions part?

# %% tags=["torch"]
start = recorded[3].members[3].trajectory.prompt_ids
for threshold in setup.size((1.0, 0.95), (0.95,)):
    tokens, close, scores = truncated_rollout(ModelWriter(start), threshold)
    print(f"threshold {threshold}: {len(tokens)} tokens, closed {close}")
    print(text.decode(tokens))
    print([round(score, 2) for score in scores], end="\n\n")

# %% [markdown]
# The second is the completion at the top of this page, and you have made it yourself. Up to the accepted probe the two
# agree token for token. Here the number that draws a token belongs to its *place*, so a probe cannot shift it. (Notebook
# 05 breaks that on purpose.)
#
# The library's machine makes the same decisions, for markers of several tokens, many rows at once, budgets and both
# presets. This is where a probe begins:

# %%
course.source_of(lab.TrajectoryMachine._start_probe)

# %% [markdown]
# ## What it costs
#
# The *survey* holds 400 test problems, with one completion of each by the untrained model, probed at every marker
# without ever exiting. So any threshold can be replayed on it, with the very `ExitRule` that the machine asks. At 0.95
# a completion keeps 47 tokens on average.

# %%
bill_guess = course.predict(
    "47 tokens are kept. How many are decoded for them?",
    unit="tokens",
    low=47,
    high=200,
)
bill_guess

# %% tags=["result"]
from stepgrpo_lab.recordings import load_survey
from stepgrpo_lab.recordings.measures import cost_of_rule, try_rule

survey = [group for group in load_survey() if group.model == "untrained"]
print("threshold   right   kept  probes  decoded")
for threshold in (0.0, 0.5, 0.8, 0.95, 0.99, 1.0):
    replay = try_rule(survey, lab.ExitRule(threshold))
    cost = cost_of_rule(survey, lab.ExitRule(threshold))
    print(
        f"{threshold:>9.2f} {100 * replay.right:>6.1f}% {replay.tokens:>6.1f}"
        f" {cost.probes:>7.1f} {cost.decoded_tokens:>8.1f}"
    )

# %% tags=["result"]
bill_guess.compare(cost_of_rule(survey, lab.ExitRule(0.95)).decoded_tokens)

# %% [markdown]
# A threshold of 1 never exits: it keeps everything, and pays for eight probes on top. That costs more than not asking at
# all. At 0.95 the questions are worth their price.

# %% [markdown]
# ## What can go wrong: a threshold of 0
#
# Look at the first row. With a threshold of 0 every probe exits, so every completion stops at its first marker. Nothing
# is cheaper. And it is the blind cut of notebook 01: two answers in three are wrong, because the work was not done, and
# nobody asked whether it was.
#
# In training it is worse still. Nearly all completions of a group would be wrong, a wrong completion earns nothing for
# being short, and the model learns from the few that happened to be right.

# %% [markdown]
# ## What can go wrong: everybody is stopped
#
# Step-GRPO compares the completions of one *group*, several rollouts of the same problem. What pushes the model towards
# or away from a completion is its *advantage*: its reward minus the group's mean, divided by the group's spread (in
# full in [06](06_step_aware_reward.ipynb)).
#
# Four completions of a problem were all right, and a probe closed all four after three steps.

# %%
push_guess = course.predict(
    "What is the advantage of each of the four?",
    choices=("positive", "zero", "negative"),
)
push_guess

# %% tags=["nbval-check-output", "result"]

advantages = {}
for name, steps in (("all exit", [3, 3, 3, 3]), ("half", [9, 3, 9, 3])):
    rewards = lab.step_aware_rewards([True] * 4, steps, [True] * 4)
    advantages[name] = [
        round(a, 2) + 0.0 for a in lab.group_advantages(rewards)
    ]
    print(f"{name:<9} steps {steps}, advantages {advantages[name]}")

# %% tags=["result"]
push = advantages["all exit"][0]
push_guess.compare(
    "zero" if push == 0 else "positive" if push > 0 else "negative"
)

# %% [markdown]
# <details><summary>Why?</summary>
#
# The better the exits work, the less they teach. If all completions are short, short is not special. The second line is
# the way out: half of the group was never probed, ran on to nine steps, and now there is something to be better than.
#
# </details>
#
# `probe_rate` says what share of a group is probed. The published method probes every member (a rate of 1); the course's
# own run probes half:

# %% tags=["nbval-check-output"]
print("rate 0.5 of 8:", lab.probed_members(8, 0.5))

# %% [markdown]
# What a rate of 1 costs over a whole training run was measured.
# [Notebook 08](08_reading_a_result.ipynb) asks you to guess first.

# %% [markdown]
# ## Your predictions

# %%
course.score()

# %% [markdown]
# ## Summary
#
# - A rollout is THINK, PROBE, CLOSE, ANSWER, DONE. The machine decides; an engine feeds.
# - A probe exits when its score is *greater* than the threshold, or near the think budget. Otherwise it is written over.
# - `official` drops the trial answer and samples a fresh one; `paper` keeps it.
# - The bill is kept + probe + replayed tokens. A threshold that is too low is cheap and wrong; one that is too high
#   costs more than not asking.
# - The aim is an early *natural* close. Exits teach it only in a group that also holds longer completions.

# %% [markdown]
# **Further reading.** Early exit at inference: DEER ([arXiv 2504.15895](https://arxiv.org/abs/2504.15895)). Early exits
# inside the training of another method, one chain answered at several of its places: S-GRPO
# ([arXiv 2505.07686](https://arxiv.org/abs/2505.07686)).
#
# Next: [05, backtracking](05_backtracking.ipynb). A declined probe must leave no trace. What if it does?
