# ---
# jupyter:
#   stepgrpo:
#     title: Dynamic truncated rollout, phase by phase
#     minutes: 35
#     hardware: any CPU
# ---

# %% [markdown]
# ## Objectives
#
# - Name the five phases of a rollout and say what ends each.
# - Drive the trajectory machine by hand, token by token.
# - Tell an early, a natural, a budget and a limit end apart.
# - Say where the presets `official` and `paper` differ.
# - Count what a rollout costs, and say why half of a group is left alone.

# %% [markdown]
# ## Where we stand
#
# A *rollout* is what a model does to make one *completion*: it samples token after token. We cut the thoughts into
# steps at markers (02) and we can score a trial answer (03). Now the two meet. At every marker the rollout stops to
# ask: *would you bet on your answer now?* If so, the thoughts end there. If not, they go on as if nobody had asked.

# %% [markdown]
# ## The five phases
#
# | phase | what happens | what ends it |
# | --- | --- | --- |
# | THINK | the model samples its thoughts | a marker: PROBE; its own `</think>`: ANSWER; the think budget: CLOSE |
# | PROBE | a prompt is forced, the trial answer is decoded greedily | confident: CLOSE; not confident: THINK |
# | CLOSE | `</think>` is forced | it has been fed: ANSWER |
# | ANSWER | the model samples its answer | end of sequence, or the limit: DONE |
# | DONE | nothing | |
#
# *Forced* means: put there by the rollout, not chosen by the model. *Greedily* means: always the likeliest token.

# %% [markdown]
# ## By hand: one rollout with known tokens
#
# A toy vocabulary of eighteen tokens is enough. We play the model. These will be our samples and our trial answer,
# each greedy token with its probability. The official score is the geometric mean without the opening brace. Will it
# exceed 0.95?

# %% tags=["nbval-check-output"]
from stepgrpo_lab import ExitRule, confidence
from stepgrpo_lab.course.toys import ScriptedPolicy, drive, toy_token_text

toy = toy_token_text()
thoughts = ["2+3=5", " ", "Wait", ","]
answer = ["\\boxed", "{", "5", "}", "<eos>"]
trial = [
    ("{", 0.70),
    ("5", 0.97),
    ("}", 0.99),
    ("\n", 0.98),
    ("</think>", 0.99),
]
score = confidence([p for _, p in trial], skip_first=1)
print(f"score {score:.3f}: exit is {score > ExitRule().threshold}")

# %% [markdown]
# The completion will be ten tokens long: two of thoughts, three of the forced close, five of answer. The marker and
# the comma after it are dropped. But the machine feeds more than that to the model: the probe costs tokens too.
#
# Replace None by your prediction.

# %%
from stepgrpo_lab import course

saved = course.predict(
    "How many tokens does this rollout cost, the ten kept ones included?",
    None,
    unit="tokens",
)
saved

# %% [markdown]
# Now the machine. It owns every decision and never sees a model. Whoever drives it asks what to do with the newest
# logits (`choice`), tells it what was chosen (`observe`), and asks which token to feed next, at which place (`feed`).
# We set `near_budget_margin=0`: a limit of 40 tokens is so short that every place would count as near the budget.

# %% tags=["nbval-check-output"]
from stepgrpo_lab import TrajectoryMachine, rollout_settings

settings = rollout_settings("official", near_budget_margin=0)
machine = TrajectoryMachine(toy, limit=40, settings=settings)
for piece in thoughts:
    print(f"{machine.phase.name}: {machine.choice} -> {piece!r}", end="")
    machine.observe(toy.encode(piece)[0], -0.1)
    token, place = machine.feed()
    fed = toy.decode([token])
    print(f", then {machine.phase.name} feeds {fed!r} at {place}")

# %% [markdown]
# Look at the last line. Only the comma makes the marker certain: `Wait` might have become `Waiting`. It is never fed.
# Instead the machine goes *back to place 2*, where `Wait` stood, and feeds the first token of the inducing prompt
# there. A function of the library does the rest.

# %% tags=["nbval-check-output"]
rest = drive(machine, ScriptedPolicy(toy, answer, [trial]))
for fed in rest:
    print(f"{fed.phase:<6} {fed.place:>2}  {fed.piece!r}")

# %% [markdown]
# Eight tokens were fed at places 2 to 9 for the probe, and then written over from place 2 on by the close. The finished
# record tells what was kept and what it cost. A log-probability of `None` marks a forced token.

# %% tags=["nbval-check-output"]
told = machine.trajectory([0])
print(repr(told.text))
kept = zip(told.completion_ids, told.forced, strict=True)
print("forced:", [toy.decode([token]) for token, forced in kept if forced])
print("dropped:", [toy.decode([token]) for token in told.dropped])
cost = told.cost
print(f"close {told.close}, finish {told.finish}, {told.steps} step")
print(
    f"kept {cost.kept_tokens} + probe {cost.probe_tokens} "
    f"+ replayed {cost.replayed_tokens} = {cost.decoded_tokens}"
)

# %%
saved.compare(cost.decoded_tokens)

# %% [markdown]
# *Kept* is the completion. *Probe* is the inducing prompt (4) and the trial answer without its last token (4): that
# one is chosen, but nobody needs the logits after it, so it is never fed. *Replayed* is the `Wait` that had been fed in
# vain. The library agrees with the hand about the score:

# %% tags=["nbval-check-output"]
probe = told.probes[0]
print(f"library {probe.confidence:.6f}, by hand {score:.6f}")
print(f"answer {probe.answer}, accepted {probe.accepted}")

# %% [markdown]
# ## The library's source
#
# This is all that happens when a probe ends, and when a declined one is put back. `_base` is the place of the marker,
# `_fed` the place of the next token to feed. Going back is nothing but a smaller number.

# %%
course.source_of(TrajectoryMachine._end_probe)

# %%
course.source_of(TrajectoryMachine._put_back)

# %% [markdown]
# ### Exercise 04.1 · The exit decision (●○○)
#
# Write the decision of a probe: the reason why the thoughts are closed, `"early"` or `"near_budget"`, or `None` when
# the probe is declined. A probe at most `margin` tokens before the think budget exits whatever its score. It matters
# because everything the training sees of the exit depends on this comparison.


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

checks.exit_reason(exit_reason)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Two comparisons, in this order: the score against the threshold, and `think_budget - place` against the margin. In
# the source above, look for `>` and for `<=`.
#
# </details>

# %% [markdown]
# ## Every way to end
#
# Thoughts end in one of four ways: *natural* (the model writes `</think>` itself), *early* (a confident probe), *near
# budget* (any probe shortly before the think budget), *budget* (the budget is used up). The completion ends with an
# end-of-sequence token or at the limit. Five scripts, one for each.


# %%
def run(samples, trials=(), limit=40, **overrides):
    chosen = rollout_settings(
        "official", **{"near_budget_margin": 0, **overrides}
    )
    machine = TrajectoryMachine(toy, limit=limit, settings=chosen)
    drive(machine, ScriptedPolicy(toy, samples, trials))
    return machine.trajectory([0])


# %% tags=["nbval-check-output"]
unsure = [("{", 0.7), ("6", 0.4), ("}", 0.9), ("\n", 0.9), ("</think>", 0.9)]
goes_on = [*thoughts, "so ", "2+3=5", "\n", "</think>", *answer]
ends = {
    "sure probe": run([*thoughts, *answer], [trial]),
    "unsure probe": run(goes_on, [unsure]),
    "unsure, near budget": run(
        [*thoughts, *answer], [unsure], near_budget_margin=50
    ),
    "no marker": run(["so "] * 6 + answer, think_budget=6),
    "no end": run(["so "] * 12, limit=12, think_budget=1.0),
}
for name, end in ends.items():
    print(f"{name:<20} close {end.close!s:<12} finish {end.finish}")

# %% [markdown]
# Read the second line again: the probe was declined, and the model closed its thoughts by itself later. So the close is
# *natural*, although the completion had been probed. Only the first of the five is what Step-GRPO wants to teach.
#
# `think_budget` binds every member, probed or not: it keeps room for an answer. `max_probes` bounds the cost: after
# ten declined probes the thoughts run on without further ones.

# %% [markdown]
# ## Two presets, one machine
#
# The paper and its public code differ. `official` (the code) probes *inside* the thoughts, throws the trial answer away
# and samples a fresh answer after the forced close. `paper` closes the thoughts *with* the probe; an accepted trial
# answer becomes the output. The machine is the same, the settings differ.

# %% tags=["nbval-check-output"]
from dataclasses import asdict

from stepgrpo_lab.method.settings import PRESETS

official, paper = (asdict(PRESETS[name]) for name in PRESETS)
for name, value in official.items():
    if value != paper[name]:
        print(f"{name:<13} {value!r:<32} {paper[name]!r}")

# %% tags=["nbval-check-output"]
chosen = rollout_settings("paper", near_budget_margin=0)
machine = TrajectoryMachine(toy, limit=40, settings=chosen)
drive(
    machine,
    ScriptedPolicy(toy, [*thoughts, "<eos>"], [[("5", 0.97), ("}", 0.99)]]),
)
in_paper = machine.trajectory([0])
for name, end in (("official", told), ("paper", in_paper)):
    print(f"{name:<9}{end.text!r}")
    print(
        f"{'':<9}{sum(end.forced)} of {end.tokens} tokens not sampled, "
        f"{end.cost.decoded_tokens} decoded"
    )

# %% [markdown]
# In `paper` an accepted probe costs next to nothing: what was fed for it is kept, only `Wait` was fed in vain. But these
# tokens were not sampled by the policy. That is why the record marks them: training needs to know.

# %% [markdown]
# ## On real trajectories
#
# The player replays recorded rollouts of the Overthinker forward pass by forward pass. Use *event ▶* to jump. Answer
# before you look:
#
# 1. How many forward passes lie between the start of the first probe and the pass that feeds `Wait` again?
# 2. The completion below is probed three times. How many of the probes' tokens can you find in its final text?

# %%
from stepgrpo_lab.recordings import load_recordings
from stepgrpo_lab.widgets import RolloutPlayer

recorded = [
    group
    for group in load_recordings()
    if group.model == "untrained" and group.rollout != "plain"
]
player = RolloutPlayer(recorded, group=3, member=1)
player.to_event()
player

# %% [markdown]
# <details><summary>What we see</summary>
#
# 1. Nine, passes 15 to 23: six tokens of the inducing prompt and three of the trial answer `{5}`. Its last token,
#    `</think>`, is chosen but never fed. Pass 24 feeds `Wait` again, at place 13, where the probe had begun.
# 2. None. The probes at places 13 and 26 were declined and written over. The one at 33 was accepted, and written over by
#    the forced close. The answer in the text was sampled afterwards, in passes 66 to 70.
#
# </details>

# %%
member = recorded[3].members[1].trajectory
print(member.text)
for probe in member.probes:
    print(
        f"at {probe.position}: {probe.text!r}, score "
        f"{probe.confidence:.3f}, accepted {probe.accepted}"
    )

# %% [markdown]
# ## What it costs
#
# One *forward pass* feeds one token to every row of the batch. So the number of tokens fed for a completion is its share
# of the work. Below: the recorded members of the untrained model that were probed, and those that were not.


# %%
from itertools import product
from statistics import fmean

print("preset    probed  kept  probe  replayed  decoded")
for preset, probed in product(("official", "paper"), (True, False)):
    costs = [
        told.trajectory.cost
        for group in recorded
        for told in group.members
        if group.rollout == preset and told.trajectory.probed == probed
    ]
    line = f"{preset:<9} {probed!s:<6}"
    for kind in ("kept", "probe", "replayed", "decoded"):
        line += (
            f"{fmean(getattr(cost, f'{kind}_tokens') for cost in costs):7.1f}"
        )
    print(line)

# %% [markdown]
# ### Exercise 04.2 · The price of a rollout (●●○)
#
# Write the number of tokens fed for one completion. You get the kept tokens, the length of every trial answer, the
# length of the inducing prompt, and the number of tokens fed a second time. It matters because "shorter completions" is
# only half of the bill.


# %% tags=["exercise"]
def decoded_tokens(kept, trials, prompt, replayed):
    """Tokens fed for one completion of `official`."""
    # BEGIN SOLUTION
    # STUB: return ...  # your code here
    probes = sum(prompt + trial - 1 for trial in trials)
    return kept + probes + replayed
    # END SOLUTION


# %% tags=["check"]
checks.decoded_tokens(decoded_tokens)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Every probe feeds its whole inducing prompt, and its trial answer but for the last token. Look at the toy rollout: 4
# and 5 tokens made 8.
#
# </details>

# %% [markdown]
# ## What can go wrong: a threshold of 0
#
# With a threshold of 0 every probe exits, so every completion stops at its first marker. That is as short as it gets.
# The *survey* holds 400 test problems, one completion of each, probed at every marker without ever exiting. So we can
# replay any threshold on it, with the `ExitRule` that the machine itself asks.
#
# The untrained model is right on 99.8 % of them when it may think to the end. Replace None.

# %%
wrong = course.predict(
    "Which share is right if each completion stops at the first marker?",
    None,
    unit="%",
)
wrong

# %%
from stepgrpo_lab.recordings import load_survey
from stepgrpo_lab.recordings.measures import cost_of_rule, try_rule

survey = [group for group in load_survey() if group.model == "untrained"]
lines = ["threshold  right   kept  probes  decoded"]
for threshold in (0.0, 0.5, 0.8, 0.95, 0.99, 1.0):
    trial = try_rule(survey, ExitRule(threshold))
    cost = cost_of_rule(survey, ExitRule(threshold))
    lines.append(
        f"{threshold:>9.2f} {100 * trial.right:>5.1f}% {trial.tokens:>6.1f}"
        f" {cost.probes:>7.1f} {cost.decoded_tokens:>8.1f}"
    )
print("\n".join(lines))

# %%
wrong.compare(round(100 * try_rule(survey, ExitRule(0.0)).right, 1))

# %% [markdown]
# The cheapest rollout gets two thirds of the answers wrong: at the first marker the needed steps are not done yet, and a
# threshold of 0 does not ask. A group of such completions is mostly wrong, and a wrong completion earns no reward for
# being short.
#
# The other end is bad as well: a threshold of 1 never exits, keeps everything, and pays for eight probes on top. In
# between, 0.95 keeps 36 % of the tokens at no loss here, and decodes 75 tokens for completions of 47.

# %% [markdown]
# ## Why half of a group stays natural
#
# Step-GRPO compares the completions of one *group*: several rollouts of one problem. What a completion is pushed by is
# its *advantage*: its reward minus the group's mean, divided by the group's spread. If all members exit at the same
# step, there is nothing to compare. `probe_rate` says which share of a group is probed.

# %% tags=["nbval-check-output"]
from stepgrpo_lab import group_advantages, probed_members, step_aware_rewards

print("rate 0.5 of 8:", probed_members(8, 0.5))
for name, steps in (("all exit", [3, 3, 3, 3]), ("half", [9, 3, 9, 3])):
    rewards = step_aware_rewards([True] * 4, steps, [True] * 4)
    pushes = [round(push, 2) + 0.0 for push in group_advantages(rewards)]
    print(f"{name:<9} steps {steps}, advantages {pushes}")

# %% [markdown]
# The published method probes every member. Our records hold three training runs of 40 steps each way
# (`data/results/internalisation.json`). With half of each group probed, plain decoding keeps 34 % of its tokens after
# training. Replace None: what is kept when *every* member is probed?

# %%
every = course.predict(
    "Which share of the tokens is kept when every member is probed?",
    None,
    unit="%",
)
every

# %%
from IPython.display import Markdown, display
from stepgrpo_lab.experiments.record import load_record
from stepgrpo_lab.experiments.tables import signals_markdown

study = load_record("internalisation")
display(Markdown(signals_markdown(study)))
kept = study.pooled["every member probed"].token_ratio * 100
print("kept, 95 % interval:", kept)
every.compare(round(kept.estimate, 1))

# %% [markdown]
# With every member probed, 92 % of the completions of the first ten steps are closed by a probe, and a forced close
# earns an advantage of about nothing: exits are compared with exits. With half of the group left alone, the same close
# earns +0.45. So the rollout is short either way, and the model learns to be short several times faster. This is a
# result on a toy model, not on the paper's.

# %% [markdown]
# ### Exercise 04.3 · An engine (●●●)
#
# Write the loop that drives a machine. `policy.sample()` gives a token and its log-probability, `policy.likeliest()` a
# token and its probability. Drive until `machine.done`, then return `machine.trajectory([0])`. It matters because this is
# all that an engine for a real model does; notebook 05 puts a model behind it.


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
checks.run_engine(run_engine)

# %% [markdown]
# <details><summary>Hint</summary>
#
# In each round: if there is a `choice`, answer it with `observe`; a greedy one takes `(token, None, probability)`. Then,
# unless the machine is done, call `feed()`. The choice may have been the last.
#
# </details>

# %% [markdown]
# ## Summary
#
# - A rollout is THINK, PROBE, CLOSE, ANSWER, DONE; the machine decides, an engine feeds.
# - A probe exits when its score is *greater* than the threshold, or near the think budget; otherwise it is put back.
# - `official` drops the trial answer and samples a fresh one, `paper` keeps it.
# - The bill is kept + probe + replayed tokens; a threshold that is too low is cheap and wrong.
# - Exits teach only where a group also holds natural ends: hence `probe_rate`.
#
# Next: [05, backtracking](05_backtracking.ipynb). A declined probe must leave no trace. What if it does?
