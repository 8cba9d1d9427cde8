# ---
# jupyter:
#   stepgrpo:
#     title: The full training run
#     minutes: 40
#     hardware: two CPU cores (6 minutes of training), or a GPU
#     extras: [quant]
# ---

# %% [markdown]
# ## Objectives
#
# - Read a recipe, and say what each key decides.
# - Predict what training does to length and accuracy, then measure before
#   and after, under plain decoding, with intervals.
# - Watch the training live, stop it in order, and resume it.
# - See the exit become the model's own, and know which curve shows it.
# - Export the model and load it with plain `transformers`.

# %% [markdown]
# ## Where we stand
#
# Every part is known by now. Thoughts are cut into *semantic steps* at
# markers (02). A *probe* at a marker asks for a trial answer; when it is
# confident, the rollout closes the thoughts (03, 04), and otherwise it goes
# back as if nothing had happened (05). The *step-aware relative reward*
# compares each right completion with its group (06), and GRPO turns rewards
# into an update (07). Notebook 08 told success from its imitation. Now all
# of it runs at once.
#
# The policy is the *Overthinker*, a model of a million parameters that checks
# its answers again and again. With a GPU, the same cells train Qwen3-1.7B.

# %%
from stepgrpo_lab import data_path
from stepgrpo_lab.cli.quiet import quiet
from stepgrpo_lab.run import job as run

quiet()  # other libraries report on themselves; not here
recipe = course.full_run_recipe(lab)
print(f"recipe: {recipe.name} · {recipe.description}")
print(f"trains on: {lab.device} · computes in: {recipe.model.dtype}")

# %% [markdown]
# ## The recipe, key by key
#
# A recipe is one YAML file that defines a run; a misspelt key is an error.
# First the *rollout*: how completions are sampled in training. `probe_rate`
# is the only setting of the method that differs from the published one, which
# is 1. Here half of each group is probed and the rest thinks on, so that
# short is always compared with long. Notebook 08 measured what happens
# otherwise.

# %%
keys = ["dynamic", "preset", "markers", "max_tokens", "temperature"]
keys += ["probe_rate", "exit_threshold", "think_budget", "rows"]
course.explain_recipe(recipe, "rollout", keys)

# %% [markdown]
# The *reward* says what a completion earns: `step_alpha` weighs being right
# against the format, `step_beta` is the strength of the step term.

# %%
keys = ["function", "step_alpha", "step_beta", "mean_over", "penalize_wrong"]
course.explain_recipe(recipe, "reward", keys)

# %% [markdown]
# The *optimisation* says how the weights move. An optimiser step samples
# `prompts_per_step` groups of `group_size` completions. The learning rate is
# 100 times the published one, because this model is thousands of times
# smaller; the last section shows what three times more does.

# %%
keys = ["learning_rate", "prompts_per_step", "group_size", "max_steps"]
keys += ["steps_per_rollout", "loss_type", "scale_rewards", "kl_beta"]
keys += ["epsilon", "mixed_precision", "save_every"]
course.explain_recipe(recipe, "optimisation", keys)

# %% [markdown]
# ### By hand: how much is sampled?
#
# Completions are what costs. We count them from the recipe, then look at the
# tokens that the published run really decoded, probes included
# (`data/results/headline.json`).

# %% tags=["nbval-check-output"]
from stepgrpo_lab import load_recipe
from stepgrpo_lab.experiments.record import load_record

published = load_recipe("overthinker").optimisation
completions = published.prompts_per_step * published.group_size
completions *= published.max_steps
headline = load_record("headline")
decoded = headline.runs["Step-GRPO, seed 0"].decoded_tokens
print(f"{completions} completions, {decoded} tokens decoded")
print(f"{decoded / completions:.0f} tokens for each completion")

# %% [markdown]
# The untrained model needs 132 tokens on average. The mean over the whole
# training is far below: half of the completions are closed by a probe, and
# later the model stops early by itself.

# %% [markdown]
# ## Exercise: a reward of your own
#
# A reward is a callable on one group (`GroupReward`). It gets four lists:
# `correct`, `steps`, `formatted` and `tokens`, and returns a number for each
# member. The library's own:

# %%
from stepgrpo_lab import StepAwareReward

course.source_of(StepAwareReward.__call__)

# %% [markdown]
# ### Exercise 10.1 · The shortest right answer ●●○
#
# Write a reward that looks at tokens: 1 for the shortest right completions of
# the group, 0.5 for every other right one, 0 for wrong ones. Why it matters:
# a reward that can be earned by being short and wrong will be.


# %% tags=["exercise"]
def my_reward(correct, steps, formatted, tokens):
    """One number for each member of a group."""
    # BEGIN SOLUTION
    # STUB: return None  # your code here
    pairs = list(zip(correct, tokens, strict=True))
    shortest = min((count for right, count in pairs if right), default=None)
    return [
        0.0 if not right else 1.0 if count == shortest else 0.5
        for right, count in pairs
    ]
    # END SOLUTION


# %% tags=["check"]
from stepgrpo_lab.course import checks

checks.shortest_right_reward(my_reward)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Collect the token counts of the right members only, and take their minimum.
# A group may hold no right member: give `min` a `default`.
# </details>
#
# To train with it, build the trainer yourself:
# `StepGRPOTrainer(model, args, dataset, tokenizer, group_reward=my_reward)`.

# %% [markdown]
# ## Predict
#
# Write down what you expect of the 40 steps, under plain decoding, when no
# probe helps any more. Replace None in both cells.

# %%
predicted_tokens = course.predict(
    "Which share of its tokens does the model keep after training?",
    None,
    unit="%",
)
predicted_tokens

# %%
predicted_accuracy = course.predict(
    "By how many points does its accuracy change (minus: a loss)?",
    None,
    unit="points",
)
predicted_accuracy

# %% [markdown]
# ## Before
#
# The untrained model answers every test problem, with plain decoding: no
# probe, no forced close. Brackets hold 95 % intervals over problems. All
# files of the run lie in one folder.

# %%
folder = course.new_run_folder(lab)
before = run.measure_untrained(recipe, folder)
figures = before.summary()
print(f"{figures['problems']} problems")
print(f"right:  {figures['accuracy'] * 100} %")
print(f"tokens: {figures['tokens']} per completion")
print(f"steps:  {figures['steps']} per completion")

# %% [markdown]
# ## Train
#
# The dashboard below fills while training runs. Two questions to watch it
# with:
#
# 1. *Length* has two lines, training rollouts and validation. Which is short
#    from the first step on, and which only becomes short?
# 2. *Why thoughts ended*: which share grows when the model learns to stop by
#    itself?

# %%
from stepgrpo_lab.widgets import LiveDashboard

dashboard = LiveDashboard()
dashboard

# %% [markdown]
# **Stop training** on the dashboard finishes the current step and saves;
# where there is no button, interrupt the kernel once. Here we stop it half
# way on purpose, as if the button had been pressed.

# %%
half = recipe.optimisation.max_steps // 2
result = run.train(
    None, folder, resume=True, callbacks=[dashboard.callback(half)]
)
print("finished:", result.finished)
print("saved:", [path.name for path in folder.glob("checkpoints/*")])

# %% [markdown]
# ### Resume
#
# A checkpoint holds weights, optimiser, step and random states. The run goes
# on as if it had not stopped: sampling is keyed by seed, step and place, so
# the curve has no seam. If you stop it again, run the cell again. After the
# kernel died, use the same call with the folder's name.

# %%
result = run.train(None, folder, resume=True, callbacks=[dashboard.callback()])
print("finished:", result.finished)

# %% [markdown]
# <details><summary>What we see</summary>
#
# 1. The rollouts are short at once, because probes cut them. Validation uses
#    plain decoding and becomes short while the model learns: at full size
#    from about 137 tokens to about 45 (`data/results/overthinker`).
# 2. *Closed by itself* grows and *confident probe* shrinks: the model stops
#    before a probe would have to.
#
# In the tested size there are two steps, and nothing is learnt.
# </details>
#
# The same dashboard with the published run of this recipe, at its end:

# %%
LiveDashboard.of_run(data_path("results", "overthinker"))

# %% [markdown]
# ## After
#
# The same problems, the same plain decoding. The comparison is paired: each
# problem is compared with itself, so that hard problems cancel.

# %%
from stepgrpo_lab.evaluation.results import compare

change = compare(before, result.after)
print(f"tokens:   {change.token_ratio * 100} % of those before")
print(f"accuracy: {change.accuracy_points} points")
print(f"steps:    {change.steps}")
for family, part in change.families.items():
    print(f"{family}: {part.token_ratio * 100} % of the tokens")

# %%
predicted_tokens.compare(100 * change.token_ratio.estimate)

# %%
predicted_accuracy.compare(change.accuracy_points.estimate, tolerance=0.5)

# %% [markdown]
# The published record of this recipe (`data/results/overthinker`, seed 0,
# 2000 problems), read in the same way:

# %% tags=["nbval-check-output"]
from stepgrpo_lab.run.folder import read_run

recorded = read_run(data_path("results", "overthinker"))
print(f"tokens:   {recorded.comparison.token_ratio * 100} %")
print(f"accuracy: {recorded.comparison.accuracy_points} points")

# %% [markdown]
# ### The trade-off
#
# Two questions for the explorer: is the loss of accuracy the same in both
# families of problems? Which family gives up more tokens?

# %%
from stepgrpo_lab.widgets import TradeoffExplorer

TradeoffExplorer(relative=True)  # or TradeoffExplorer.of_runs(folder)

# %% [markdown]
# <details><summary>What we see</summary>
#
# Choose the family above the figure. The loss is alike: *chain* -0.8 points
# [-1.4, -0.2], *search* -0.9 [-1.8, -0.2]. *Chain* gives up a little more:
# it keeps 32.8 % of its tokens, *search* 35.8 %.
# </details>

# %% [markdown]
# ## The completions, before and after
#
# Figures hide what changed. Read the same problem twice. The thoughts end at
# `</think>`, and the answer stands in the box.

# %%
pairs = read_run(folder).completions
for pair in pairs[:2]:
    print(pair["problem"]["prompt"], "· answer:", pair["gold"])
    for when in ("before", "after"):
        told = pair[when]
        print(f"--- {when}: {told['tokens']} tokens, {told['steps']} steps")
        print(told["text"])
    print("=" * 60)

# %% [markdown]
# ## Did the model learn the exit?
#
# The test is the distance between two curves: *plain decoding* and the
# *truncated rollout* of the same model on validation problems. At the start
# they are far apart, because only the probe stops. When they meet, probes are
# of no more use: the exit is *internalised*. Your run first, then the record.

# %%
from stepgrpo_lab.viz.curves import PANELS, learning_curves

learning_curves(read_run(folder).metrics, PANELS[:2])

# %%
learning_curves(recorded.metrics, PANELS[:2])

# %% [markdown]
# *Cut at the first marker* stays low. It says what happens when the thoughts
# of the same model are closed by force at the first marker: later steps are
# still needed, and the model keeps them.

# %% [markdown]
# ### Exercise 10.2 · Read the curve ●●○
#
# From the rows of `metrics.jsonl`, find the first validated step whose length
# is below a share of the length before training. Only some rows hold
# `"validation/tokens"`; the first of them is step 0. Why it matters: the
# right curve has to be read, not the impressive one.


# %% tags=["exercise"]
def first_step_below(rows, share):
    """Step of the first validation below share of the start, or None."""
    # BEGIN SOLUTION
    # STUB: return None  # your code here
    key = "validation/tokens"
    known = [row for row in rows if key in row]
    start = known[0][key]
    below = [row["step"] for row in known if row[key] < share * start]
    return below[0] if below else None
    # END SOLUTION


# %% tags=["check"]
checks.first_step_below(first_step_below)

# %% [markdown]
# <details><summary>Hint</summary>
#
# First keep the rows that have the key. The length before training is that of
# the first one. Then return `row["step"]`, or None when no row is below.
# </details>

# %% [markdown]
# ### Exercise 10.3 · Choose a checkpoint ●●○
#
# Among the validated steps, choose the shortest model whose validation
# accuracy is at most `most_lost` below that at step 0; of two equally short
# ones, the earlier. Why it matters: choosing on test problems would make the
# test worthless.


# %% tags=["exercise"]
def choose_checkpoint(rows, most_lost):
    """Step of the model to keep."""
    # BEGIN SOLUTION
    # STUB: return None  # your code here
    known = [row for row in rows if "validation/tokens" in row]
    least = known[0]["validation/accuracy"] - most_lost
    kept = [row for row in known if row["validation/accuracy"] >= least]
    return min(kept, key=lambda row: row["validation/tokens"])["step"]
    # END SOLUTION


# %% tags=["check"]
checks.choose_checkpoint(choose_checkpoint)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Keep the validated rows, then those that are accurate enough, then take
# `min(..., key=...)`. Python's `min` returns the first of equals.
# </details>

# %% [markdown]
# ## Save, export, load
#
# The run folder holds the trained weights. `export_model` writes a folder
# that needs nothing of this package; a LoRA adapter is merged into its base.
# Then plain `transformers` loads it, and no probe is anywhere near.

# %%
from stepgrpo_lab.run.folder import export_model
from transformers import AutoModelForCausalLM, AutoTokenizer

exported = export_model(folder, folder / "exported")
model = AutoModelForCausalLM.from_pretrained(exported).to(lab.device)
tokenizer = AutoTokenizer.from_pretrained(exported)
chat = [{"role": "user", "content": pairs[0]["problem"]["prompt"]}]
inputs = tokenizer.apply_chat_template(
    chat, add_generation_prompt=True, return_dict=True, return_tensors="pt"
).to(lab.device)
limit = recipe.rollout.max_tokens
out = model.generate(**inputs, max_new_tokens=limit, do_sample=False)
length = inputs["input_ids"].shape[1]
print(tokenizer.decode(out[0, length:]))

# %% [markdown]
# ## What can go wrong: three times the learning rate
#
# A run with 3e-4 instead of 1e-4, for 24 steps, recorded in
# `data/results/learning_rate_3e-4` with
#
#     stepgrpo train --set optimisation.learning_rate=3e-4 \
#         --set optimisation.max_steps=24 --set evaluation.every=4 \
#         --set data.counts.test=200
#
# Compare its length with the recipe's above, then look at its accuracy.

# %%
broken = read_run(data_path("results", "learning_rate_3e-4"))
learning_curves(broken.metrics, PANELS[:3])

# %% tags=["nbval-check-output"]
ours = recorded.before.problem_ids
keep = [name in broken.before.problem_ids for name in ours]
same = compare(recorded.before.subset(keep), recorded.after.subset(keep))
for name, told in (("1e-4", same), ("3e-4", broken.comparison)):
    print(f"{name}: {told.token_ratio * 100} % of the tokens, ", end="")
    print(f"{told.accuracy_points} points, {told.problems} problems")

# %% [markdown]
# It is quick: 47 tokens at step 20, where the recipe still has 74. But after
# 24 steps it has lost 4.0 points [1.5, 7.0], and the recipe after 40 steps,
# on the same 200 problems and with fewer tokens, 0.5 [0.0, 1.5]. Validation
# accuracy fell to 92 % at step 16. Who looks at the length alone sees the
# better run. So the rate was chosen by both curves, on validation problems.

# %% [markdown]
# ## With a GPU
#
# One function chooses the recipe by the hardware:

# %%
course.source_of(course.full_run_recipe)

# %% [markdown]
# With QLoRA the weights are frozen in 4 bits and a small adapter is trained
# in 32 bits. It computes in bfloat16 where the GPU really has it and in
# float16 on a T4, which only pretends (`lab.precision`). Everything else is
# as above: the same rollout, the same reward, the same run folder. Notebook
# [09](09_scaling_to_qwen3.ipynb) says what it costs. To train the Overthinker
# on a GPU all the same, use `course.full_run_recipe(lab, "overthinker")`.

# %% [markdown]
# ## Summary, and on from here
#
# - One recipe defines a run; one folder holds all that came of it.
# - At full size the Overthinker keeps 34 % of its tokens and loses about half
#   a point of accuracy (three seeds, `data/results/README.md`).
# - The evidence is plain decoding on held-out problems, not the rollout.
# - A run can be stopped in order and resumed without a seam.
# - Three times the learning rate is quicker, and costs accuracy.
#
# This is the end of the course. From here: change one key of the recipe,
# predict, and run `stepgrpo train --set KEY=VALUE`; `stepgrpo compare` holds
# it against the baselines.
