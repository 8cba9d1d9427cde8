# ---
# jupyter:
#   stepgrpo:
#     title: "The full training run: your reward in a race"
#     minutes: 55
#     hardware: two CPU cores (about 8 minutes of training)
#     extras: [quant]
# ---

# %% [markdown]
# ## Your move
#
# Here is the Overthinker, a million parameters, on a problem that it has never
# seen. Count how often it works out the same thing:

# %%
from stepgrpo_lab.recordings import load_survey

survey = [group for group in load_survey() if group.model == "untrained"]
longest = max(survey[:40], key=lambda group: group.members[0].outcome.tokens)
print(longest.problem.prompt)
print(longest.members[0].trajectory.text)

# %% [markdown]
# You know all the parts by now. So write a reward of your own, one that makes
# this model stop when it is done. In a few minutes it will have trained a
# model, and that model will race two others: one trained by Step-GRPO, one by a
# length penalty.

# %%
course.drawing(
    "race",
    "A training loop: rollout, reward, update, and back. Three rewards can "
    "be plugged in: yours, the step-aware one, and a length penalty. Below, "
    "an empty plot of right answers against tokens: the untrained model lies "
    "far to the right, and three question marks show that nobody knows yet "
    "where the trained models will land.",
)

# %% [markdown]
# ## Objectives
#
# After this notebook you can
#
# - train a model with a reward that you wrote, in three lines;
# - read a recipe, and say what each key decides;
# - watch training live, stop it cleanly, and resume it;
# - judge models by plain decoding on held-out problems, with intervals;
# - test on a real model whether a reward can be gamed;
# - export the model and load it with plain `transformers`.

# %% [markdown]
# ## Where we are
#
# Thoughts are cut into *semantic steps* at markers (02). A *probe* at a marker
# asks for a trial answer; if the model is confident, the rollout closes the
# thoughts (03, 04), and otherwise it goes back as if nobody had asked (05). The
# *step-aware relative reward* compares each right completion with its group
# (06), and GRPO turns rewards into an update (07). Notebook 08 showed how to
# tell a success from what looks like one. Now all of it runs at once.
#
# A reward is a function of one group (`GroupReward`): four lists in,
# `correct`, `steps`, `formatted` and `tokens`, and one number for each member
# out. What GRPO makes of it is the difference to the group's mean.

# %% [markdown]
# ### Exercise 10.1 · A reward of your own (●●○, 15 minutes)
#
# Anything goes: steps or tokens, a target, a rank, a bonus for the group's
# shortest. Notebook 06 gives three house rules:
#
# 1. in one group, every right answer earns more than every wrong one;
# 2. a wrong answer's reward does not depend on its length;
# 3. a right answer that is shorter in both steps and tokens than another right
#    one never earns less than that one, and at least one group must exist in
#    which it earns more.
#
# *Why it matters:* a reward that breaks a rule will be gamed. One that keeps
# them may still be a bad one. The race will say.


# %% tags=["exercise"]
def my_reward(correct, steps, formatted, tokens):
    """One number for each member of a group."""
    # BEGIN SOLUTION
    # STUB: ...  # your code here
    pairs = list(zip(correct, tokens, strict=True))
    shortest = min((count for right, count in pairs if right), default=0)
    return [
        0.5 + 0.5 * shortest / count if right else 0.0
        for right, count in pairs
    ]
    # END SOLUTION


# %% tags=["check"]
from stepgrpo_lab.course import checks

verdict = checks.own_reward(my_reward)
my_reward = verdict.solution
verdict

# %% [markdown]
# <details><summary>Hint</summary>
#
# Give wrong answers a constant, and right ones a part that is fixed and larger,
# plus a part that shrinks with length: the shortest right length over one's own
# is always in (0, 1]. A group may hold no right member: give `min` a `default`.
#
# </details>
#
# Before you spend minutes on training, see what it would push, on recorded
# groups. Choose *mine* as the method. Which members does it treat differently
# from Step-GRPO?

# %%
from stepgrpo_lab.widgets import GroupExplorer

GroupExplorer(methods={"mine": my_reward}, method="mine")

# %% [markdown]
# ## The rules of the race
#
# A run is defined by a *recipe*, one YAML file; a misspelt key is an error.
# All three start from the recipe of the Overthinker, made smaller, so that they
# see the same problems and sample equally many completions. What differs:
#
# | lane | reward | rollout |
# | --- | --- | --- |
# | yours | `my_reward` | plain sampling |
# | Step-GRPO | step-aware | truncated, half of each group probed |
# | length penalty | [Arora and Zanette](https://arxiv.org/abs/2502.04463)'s, strength 0.4 | plain sampling |

# %%
import stepgrpo_lab as lab

fast = course.fast_mode()
sizes = {
    "data.counts.train": 16 if fast else 400,
    "data.counts.validation": 6 if fast else 60,
    "data.counts.test": 12 if fast else 300,
    "optimisation.max_steps": 2 if fast else 20,
    "optimisation.prompts_per_step": 2 if fast else 8,
    "optimisation.group_size": 4 if fast else 8,
    "optimisation.rows_per_pass": 8 if fast else 32,
    "optimisation.learning_rate": 2e-4,
    "optimisation.save_every": 1 if fast else 5,
    "evaluation.every": 2 if fast else 5,
}


# %%
small = [f"{key}={value}" for key, value in sizes.items()]
plain = [*small, "rollout.dynamic=false"]
penalty = ["reward.function=length_penalty", "reward.strength=0.4"]
recipes = {
    "yours": lab.load_recipe("overthinker", plain),
    "Step-GRPO": lab.load_recipe("overthinker", small),
    "length penalty": lab.load_recipe("overthinker", [*plain, *penalty]),
}

# %% [markdown]
# What the keys mean, from the schema itself. First how completions are sampled,
# then how the weights move:

# %%
keys = ["dynamic", "preset", "markers", "max_tokens"]
keys += ["probe_rate", "exit_threshold", "think_budget"]
course.explain_recipe(recipes["Step-GRPO"], "rollout", keys)

# %%
keys = ["learning_rate", "prompts_per_step", "group_size", "max_steps"]
keys += ["loss_type", "scale_rewards", "kl_beta", "save_every"]
course.explain_recipe(recipes["Step-GRPO"], "optimisation", keys)

# %% [markdown]
# ## Place your bets
#
# Under plain decoding, on problems that nobody trained on: whose model will be
# the shortest? And whose will lose the most right answers?

# %%
shortest_guess = course.predict(
    "Whose model writes the fewest tokens?",
    choices=("yours", "Step-GRPO", "length penalty"),
)
shortest_guess

# %%
worst_guess = course.predict(
    "Whose model loses the most accuracy (or gains the least)?",
    choices=("yours", "Step-GRPO", "length penalty"),
)
worst_guess

# %% [markdown]
# ## Your lane
#
# The dashboard fills while your reward trains. **Stop training** on it finishes
# the current step and saves; where there is no button, interrupt the kernel
# once. Here we stop half way on purpose, as if the button had been pressed.
#
# While you wait: *Length* has two lines, training rollouts and validation. In
# your lane they run close together. Why must they, and why would they not in
# Step-GRPO's?

# %%
from stepgrpo_lab.widgets import LiveDashboard

dashboard = LiveDashboard()
dashboard

# %% tags=["torch"]
from stepgrpo_lab.cli.quiet import quiet

quiet()  # other libraries report on themselves; not here
folders = {
    name: course.new_run_folder(setup, name.replace(" ", "-"))
    for name in recipes
}
half_way = recipes["yours"].optimisation.max_steps // 2
result = lab.train(
    recipes["yours"],
    folders["yours"],
    reward=my_reward,
    callbacks=[dashboard.callback(half_way)],
)
print("finished:", result.finished)
print("saved:", [path.name for path in folders["yours"].glob("checkpoints/*")])

# %% [markdown]
# A checkpoint holds weights, optimiser, step and random states. Sampling is
# keyed by seed, step and place (notebook 05), so the run goes on as if it had
# not stopped, and the curve has no seam. The recipe is in the folder; your
# reward has to be passed again. If you stop it once more, run this cell again.

# %% tags=["torch"]
results = {}
results["yours"] = lab.train(
    None,
    folders["yours"],
    resume=True,
    reward=my_reward,
    callbacks=[dashboard.callback()],
)
print("finished:", results["yours"].finished)

# %% [markdown]
# <details><summary>What we see</summary>
#
# Your lane samples plainly, so its training rollouts *are* plain decoding, at a
# higher temperature. In Step-GRPO's lane half of the rollouts are cut by
# probes: they are short from the first step on, whatever the model has learnt.
#
# </details>

# %% [markdown]
# ## The other lanes

# %% tags=["torch"]
for name in ("Step-GRPO", "length penalty"):
    results[name] = lab.train(recipes[name], folders[name])
    print(name, "finished:", results[name].finished)

# %% [markdown]
# ## The finish
#
# Every model answers the same held-out problems, with no probe and no forced
# close. Changes are paired with the untrained model, problem by problem, and
# brackets hold 95 % intervals.

# %% tags=["torch", "result"]
from stepgrpo_lab.evaluation.results import compare

changes = {
    name: compare(result.before, result.after)
    for name, result in results.items()
}
for name, change in changes.items():
    print(f"{name}: {change.token_ratio * 100} % of the tokens,", end=" ")
    print(f"{change.accuracy_points} points")

# %% tags=["torch", "result"]
from stepgrpo_lab.widgets import TradeoffExplorer

finishers = {"untrained": results["yours"].before}
finishers |= {name: result.after for name, result in results.items()}
TradeoffExplorer(finishers, relative=True)

# %% tags=["torch", "result"]
kept = {name: c.token_ratio.estimate for name, c in changes.items()}
shortest_guess.compare(min(kept, key=kept.get))

# %% tags=["torch", "result"]
gained = {name: c.accuracy_points.estimate for name, c in changes.items()}
worst_guess.compare(min(gained, key=gained.get))

# %% [markdown]
# Enjoy it, and then read it as notebook 08 taught you. Where two intervals
# overlap, this race has not decided. It has one seed a lane, and the learning
# rate was tuned for nobody. The comparison that you read there takes all of
# this seriously, with several seeds and a learning rate chosen for each method;
# `stepgrpo compare` makes such a one.
#
# How the lanes got there:

# %% tags=["torch", "result"]
from stepgrpo_lab.training.metrics import run_curves
from stepgrpo_lab.viz.plots_study import VALIDATION, method_curves

keys = list(VALIDATION)
method_curves({name: run_curves(at, keys) for name, at in folders.items()})

# %% [markdown]
# ## What your model writes now
#
# Figures hide what has changed. Here is one held-out problem, before and after
# training with your reward.

# %% tags=["torch", "result"]
from stepgrpo_lab.run.folder import read_run

pair = read_run(folders["yours"]).completions[0]
print(pair["problem"]["prompt"], "· answer:", pair["gold"])
for when in ("before", "after"):
    shown = pair[when]
    print(f"--- {when}: {shown['tokens']} tokens, {shown['steps']} steps")
    print(shown["text"])

# %% [markdown]
# ## Did the exit become the model's own?
#
# In Step-GRPO's lane there is one more question. Half of its rollouts were
# stopped by probes. Does the *model* stop, or only the probe? Compare plain
# decoding with the truncated rollout of the same model. At the start they are
# far apart; where they meet, probes no longer help, and the exit is
# *internalised*.

# %% tags=["torch", "result"]
from stepgrpo_lab.viz.curves import PANELS, learning_curves

learning_curves(read_run(folders["Step-GRPO"]).metrics, PANELS[:2])

# %% [markdown]
# *Cut at the first marker* says what happens when the same model's thoughts are
# closed by force at the first marker. As long as it stays low, the later steps
# are still needed, and the model has kept them.
#
# The race is half as long as the whole recipe. Its recorded run, 40 steps of
# twice as many problems, looks like this:

# %%
LiveDashboard.of_run(lab.data_path("results", "overthinker"))

# %% [markdown]
# ### Exercise 10.2 · Choose a checkpoint (●●○, 8 minutes)
#
# `rows` is what a run's `metrics.jsonl` holds. Some rows have
# `"validation/tokens"` and `"validation/accuracy"`; the first of them is the
# model before training. Among these, choose the step of the shortest model
# whose accuracy is at most `most_lost` below that of the first; of two equally
# short ones, the earlier.
#
# *Why it matters:* validation problems are there for this. If you choose on test
# problems, you have none left to test with.


# %% tags=["exercise"]
def choose_checkpoint(rows, most_lost):
    """Step of the model to keep."""
    # BEGIN SOLUTION
    # STUB: ...  # your code here
    known = [row for row in rows if "validation/tokens" in row]
    least = known[0]["validation/accuracy"] - most_lost
    kept = [row for row in known if row["validation/accuracy"] >= least]
    return min(kept, key=lambda row: row["validation/tokens"])["step"]
    # END SOLUTION


# %% tags=["check"]
verdict = checks.choose_checkpoint(choose_checkpoint, number="10.2")
choose_checkpoint = verdict.solution
verdict

# %% [markdown]
# <details><summary>Hint</summary>
#
# Keep the validated rows, then those that are accurate enough, then take
# `min(..., key=...)`. Python's `min` returns the first of equals.
#
# </details>

# %% tags=["torch", "result"]
for name, path in folders.items():
    step = choose_checkpoint(read_run(path).metrics, 0.02)
    print(f"{name}: keep the model of step {step}")

# %% [markdown]
# ## What can go wrong: a reward that asks to be gamed
#
# Break the house rules on purpose. The *priced* reward of notebook 06 pays 1
# for a right answer and takes 0.02 for every token, from wrong answers as well.
# The toy policy learnt to guess. Will a real model?

# %%
gamed_guess = course.predict(
    "Trained with the priced reward, how many answers are right?", unit="%"
)
gamed_guess


# %%
def priced(correct, steps, formatted, tokens):
    """1 for a right answer, minus 0.02 for each token."""
    pairs = zip(correct, tokens, strict=True)
    return [float(right) - 0.02 * count for right, count in pairs]


# %% tags=["torch", "result"]
folders["priced"] = course.new_run_folder(setup, "priced")
gamed = lab.train(recipes["yours"], folders["priced"], reward=priced)
curve = run_curves(folders["priced"], ["reward", "validation/accuracy"])
panels = {
    "reward": ("Training reward", "points", 1),
    "validation/accuracy": ("Validation accuracy", "correct (%)", 100),
}
method_curves({"priced": curve}, panels)

# %% tags=["torch", "result"]
figures = gamed.after.summary()
print(f"right: {figures['accuracy'] * 100} %")
print(f"tokens: {figures['tokens']}")
gamed_guess.compare(100 * figures["accuracy"].estimate)

# %% [markdown]
# Read the two panels side by side. If the reward climbs while the accuracy falls,
# you have watched a reward being gamed. If the accuracy holds, these few steps
# were not enough to find the shortcut, and more of them would keep looking: this
# reward pays for it. The reward is what you asked for, not what you meant. That
# is why accuracy on held-out problems stands beside every length in this
# package.

# %% [markdown]
# ## Save, export, load
#
# The run folder holds the trained weights. `export_model` writes a folder that
# needs nothing of this package, and plain `transformers` loads it. No probe is
# anywhere near.

# %% tags=["torch"]
from stepgrpo_lab.run.folder import export_model
from transformers import AutoModelForCausalLM, AutoTokenizer

exported = export_model(folders["yours"], folders["yours"] / "exported")
model = AutoModelForCausalLM.from_pretrained(exported)
tokenizer = AutoTokenizer.from_pretrained(exported)
chat = [{"role": "user", "content": longest.problem.prompt}]
inputs = tokenizer.apply_chat_template(
    chat, add_generation_prompt=True, return_dict=True, return_tensors="pt"
)
out = model.generate(**inputs, max_new_tokens=256, do_sample=False)
length = inputs["input_ids"].shape[1]
print(tokenizer.decode(out[0, length:]))

# %% [markdown]
# That was the problem at the top of this page.

# %% [markdown]
# ## With a GPU
#
# The same three lines train Qwen3-1.7B. One function chooses the recipe by the
# hardware:

# %%
course.source_of(course.full_run_recipe)

# %% [markdown]
# ```python
# recipe = course.full_run_recipe(setup)
# lab.train(recipe, "runs/qwen3", reward=my_reward)
# ```
#
# With QLoRA the weights are frozen in 4 bits, and a small adapter is trained in
# 32 bits. It computes in bfloat16 where the GPU really has it, and in float16 on
# a T4, which only pretends. Notebook [09](09_scaling_to_qwen3.ipynb) says what
# it costs.

# %% [markdown]
# ## Your predictions

# %%
course.score()

# %% [markdown]
# ## Summary
#
# - A reward is a function of one group; `lab.train(recipe, folder, reward=f)`
#   trains with it.
# - One recipe defines a run, and one folder holds everything that came out of
#   it. A run can be stopped cleanly and resumed without a seam.
# - The evidence is plain decoding on held-out problems, not the rollout.
# - A reward that pays for being short and wrong asks to be earned that way.
# - One race with one seed is fun. It is not a comparison.

# %% [markdown]
# ## On from here
#
# - Change one key of a recipe, predict, and run `stepgrpo train --set KEY=VALUE`.
# - Let `stepgrpo compare` hold your idea against the baselines, with seeds.
# - Make a harder lane: *on-policy SFT*
#   ([2602.13407](https://arxiv.org/abs/2602.13407)) imitates the model's own
#   short right answers, sampled anew all the time; *GFPO*
#   ([2508.09726](https://arxiv.org/abs/2508.09726)) samples many and learns from
#   the shortest few. Can your reward say the same?
# - Words that you met: the [glossary](../docs/glossary.md). The paper:
#   [Step-GRPO](https://arxiv.org/abs/2604.16890).
#
# This is the end of the course. Thank you for predicting, and for being wrong
# now and then.
