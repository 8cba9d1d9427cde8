# ---
# jupyter:
#   stepgrpo:
#     title: Scaling to Qwen3
#     minutes: 75
#     hardware: any CPU
# ---

# %% [markdown]
# ## Eighty gigabytes are not enough
#
# You have an A100 with 80 GB. The weights of Qwen3-8B take 15 GiB in 16 bits, a
# fifth of that. Running the model is easy. Now you want to train it with
# Step-GRPO, every weight of it.
#
# How much memory does the training need at its peak?

# %%
peak_guess = course.predict(
    "Memory of training all of Qwen3-8B, at its peak?",
    unit="GiB",
    low=0,
    high=250,
)
peak_guess

# %% [markdown]
# By the end of this notebook you can work such a number out on paper, and you
# know which of its parts can be talked down.

# %%
course.drawing(
    "memory",
    "Memory over one training step, as stacked blocks for three moments. "
    "Weights and Adam's states are there all the time. The rollout adds a "
    "key-value cache, the update adds activations, logits and gradients, the "
    "optimiser step still holds the gradients. A line across all three marks "
    "what the GPU has. All blocks are drawn the same size.",
)

# %% [markdown]
# ## Objectives
#
# After this notebook you can
#
# - choose among the recipes for Qwen3 and say what each gives up;
# - write a memory plan: what training keeps on a GPU, and when;
# - compute log-probabilities without ever holding the logits;
# - say why what trains must be kept in 32 bits;
# - fix a recipe that does not fit, and check that it then does;
# - say what changes on eight GPUs, and what limits sixty-four.

# %% [markdown]
# ## Where we are
#
# Notebooks 01 to 08 took Step-GRPO apart on the Overthinker, a model of a
# million parameters. The paper trains Qwen3-8B. The method stays the same:
# markers, probes, exits, reward, GRPO. What changes is that **memory** decides
# what you can do at all.
#
# **What was not run.** This course was made without the GPUs below. No number
# on this page was measured on one of them. They come from formulas, which tests
# hold against bytes counted on shrunken models, from two assumptions that we
# name, and from data sheets.
#
# **What was run**, on a CPU: two steps of every recipe with a shrunken, random
# Qwen3 (4-bit storage included); trainings shared by two processes; the
# Overthinker with vLLM.

# %% [markdown]
# ## From one million to eight billion
#
# The Overthinker has Qwen3's architecture, only smaller. Two numbers will
# matter most: the *layers*, and the *vocabulary* (how many different tokens
# there are).

# %% tags=["nbval-check-output"]
from stepgrpo_lab.planning.sizes import QWEN3, model_dimensions

models = {"overthinker": model_dimensions("overthinker"), **QWEN3}
print(f"{'model':16} {'parameters':>13} layers  width  vocabulary")
for name, model in models.items():
    print(
        f"{name:16} {model.parameters:13,} {model.layers:6} {model.hidden:6}"
        f" {model.vocabulary:11,}"
    )

# %% [markdown]
# ## Six recipes
#
# A *recipe* is one YAML file that defines a run. For each, the plan says whether
# it fits the machine it was written for, in GiB (2³⁰ bytes) on each GPU.
# *Rollout* is sampling, *update* is the forward and backward pass.

# %%
import stepgrpo_lab as lab
from IPython.display import Markdown
from stepgrpo_lab.planning import plan_memory
from stepgrpo_lab.planning.views import recipes_table
from stepgrpo_lab.recipes import recipe_names

names = [name for name in recipe_names() if name.startswith("qwen3")]
plans = {name: plan_memory(lab.load_recipe(name)) for name in names}
Markdown(recipes_table(list(plans.values())))

# %% [markdown]
# | recipe | what it gives up |
# | --- | --- |
# | 0.6B LoRA, T4 | a weak model, easy problems (GSM8K), 2,048 tokens |
# | 1.7B QLoRA, T4 | weights rounded to 4 bits, slower products, 2,048 tokens |
# | 4B QLoRA, L4 | the same rounding; 16 completions at a time |
# | 8B LoRA, A100 | an adapter instead of every weight; 8,192 tokens |
# | 8B full, H200 | Adam's states in 8 bits, no KL term; 8,192 tokens |
# | 8B full, 8 H100 | nothing that the paper names, but the rollout is slow |
#
# *LoRA* ([2106.09685](https://arxiv.org/abs/2106.09685)) freezes the weights
# and trains two thin matrices beside each, the *adapter*. *QLoRA*
# ([2305.14314](https://arxiv.org/abs/2305.14314)) also stores the frozen
# weights in 4 bits. *Full* trains every weight.

# %% [markdown]
# What does it take to go from the Overthinker's recipe to that of a model 1,700
# times as large? Every key that differs:

# %% tags=["nbval-check-output"]
from stepgrpo_lab.recipes.loading import recipe_differences

small = lab.load_recipe("overthinker")
t4 = lab.load_recipe("qwen3-1.7b-qlora-t4")
for key, before, after in recipe_differences(small, t4):
    new = str(after).replace("\n", " ").strip()
    print(f"{key:37} {before!s:22} {new[:38]}")

# %% [markdown]
# Three groups. **The method** hardly moves: the markers become those of the
# public code. Reward and probe rate do not appear, so they are the same. **The
# optimisation**: a pretrained model wants a ten times smaller learning rate.
# **The rest is memory** (and the data): model, data type, adapter, rows. That is
# what we now compute.

# %% [markdown]
# ## By hand, 1: weights, training, cache
#
# Three parts of the plan need nothing but a model's `config.json`.
#
# **The frozen weights.** Each layer has seven matrices: queries
# (`num_attention_heads` × `head_dim` outputs from `hidden_size` inputs), keys and
# values (`num_key_value_heads` × `head_dim` outputs each), the attention's output
# (back to `hidden_size`), and the MLP's gate, up (`intermediate_size` outputs) and
# down. In 4 bits (*NF4*) two weights share a byte; each block of 64 weights has a
# scale, its *constant*, of one byte; and each 256 constants share a number of 4
# bytes. The embedding (`vocab_size` × `hidden_size`) is not quantised: 2 bytes a
# number. The same goes for the LM head, unless the two are one
# (`tie_word_embeddings`).

# %% [markdown]
# **What trains.** An adapter of rank *r* on a matrix of (outputs, inputs) is A,
# of (r, inputs), and B, of (outputs, r). Each number that trains needs itself
# in fp32, its gradient, and Adam's two running means: 4 + 4 + 8 = 16 bytes, in
# a LoRA as in a full training. Only how many there are differs.
#
# **The cache.** While it samples, a model keeps the keys and values of every
# token so far, in every layer: the **KV cache** of notebook 05, in 16 bits.
# Several query heads share one key-value head, so only `num_key_value_heads`
# are kept.

# %% [markdown]
# Add the *logits*, one number for each token and each word of the vocabulary.
# All in all, for Qwen3-1.7B with an adapter of rank 16 on a T4: 32 completions
# of up to 2,048 tokens at once when it samples, 2 when it learns.

# %%
largest_guess = course.predict(
    "The largest component of 1.7B QLoRA on a T4?",
    choices=("weights", "KV cache", "optimiser states", "logits"),
)
largest_guess

# %% [markdown]
# ### Exercise 09.1 · A plan on paper (●●○, 20 minutes)
#
# Write the three numbers for a QLoRA run that adapts every matrix. `config` is
# a dictionary with the keys of `config.json` named above and
# `num_hidden_layers`; `rank` is the adapter's; `rows` completions are sampled
# at once, each with up to `context` tokens. Return a dictionary with
# `"weights"`, `"training"` and `"cache"`, in bytes. (Leave norms aside: they
# are a few thousand numbers.)
#
# *Why it matters:* a plan takes a second. An out-of-memory error takes an hour,
# and may come on the second day.


# %% tags=["exercise"]
def memory_plan(config, rank, rows, context):
    """Bytes of a QLoRA run's weights, training state and cache."""
    # BEGIN SOLUTION
    # STUB: ...  # your code here
    hidden, mlp = config["hidden_size"], config["intermediate_size"]
    layers, head = config["num_hidden_layers"], config["head_dim"]
    query = config["num_attention_heads"] * head
    kv = config["num_key_value_heads"] * head
    attention = [(query, hidden), (kv, hidden), (kv, hidden), (hidden, query)]
    shapes = [*attention, (mlp, hidden), (mlp, hidden), (hidden, mlp)]
    frozen = layers * sum(outputs * inputs for outputs, inputs in shapes)
    adapter = layers * rank * sum(o + i for o, i in shapes)
    tables = 1 if config["tie_word_embeddings"] else 2
    unquantised = 2 * tables * config["vocab_size"] * hidden
    constants = frozen / 64 * (1 + 4 / 256)
    return {
        "weights": frozen / 2 + constants + unquantised,
        "training": 16 * adapter,
        "cache": rows * context * 2 * layers * kv * 2,
    }
    # END SOLUTION


# %% tags=["check"]
from stepgrpo_lab.course import checks

verdict = checks.memory_plan(memory_plan, number="09.1")
memory_plan = verdict.solution
verdict

# %% [markdown]
# <details><summary>Hint</summary>
#
# Make a list of the seven `(outputs, inputs)` first; two sums over it give the
# frozen weights (products) and the adapter (sums of the sides, times the rank).
# The cache holds keys *and* values, of all layers, 2 bytes each. And `head_dim`
# stands in the config: it is not `hidden_size` divided by the heads.
#
# </details>
#
# Your plan for the models of the table, with an adapter of rank 16 and 32 rows of
# 2,624 tokens (512 of prompt, 2,048 of completion, and room for a probe):

# %%
from stepgrpo_lab.planning.sizes import kv_bytes, lora_parameters, nf4_bytes

GIB = 2**30

# %% tags=["nbval-check-output", "result"]
context = 512 + 2048 + 64
print("model            weights  training  cache (GiB)")
for name, model in QWEN3.items():
    plan = memory_plan(model.config, 16, 32, context)
    sizes = [plan[part] / GIB for part in ("weights", "training", "cache")]
    print(f"{name:16}", *(f"{size:8.2f}" for size in sizes))

# %% tags=["nbval-check-output", "result"]
model = QWEN3["Qwen/Qwen3-1.7B"]
yours = memory_plan(model.config, 16, 32, context)
in_4_bits, constants = nf4_bytes(
    list(model.linear_shapes.values()) * model.layers
)
library = {
    "weights": in_4_bits + constants + 2 * model.embedding,
    "training": 16 * sum(lora_parameters(model, 16)),
    "cache": kv_bytes(model, 32, context, 2),
}
for part, size in library.items():
    print(f"{part:8} yours {yours[part] / size:.4f} of the library's")
print(f"all weights trained: {16 * model.parameters / GIB:.1f} GiB")

# %% [markdown]
# Weights and training are fixed once the model is chosen; the cache grows with
# rows times length. Train every weight instead of an adapter, and the 16 bytes
# a number take what the last line says.

# %% [markdown]
# ## By hand, 2: activations and logits
#
# The backward pass needs what the forward pass computed. With *gradient
# checkpointing* only each layer's input is kept, and the rest is computed
# again, one layer at a time. The T4 recipe passes 2 rows of up to 512 + 2,048
# tokens at a time.
#
# The *logits* are one number for each token and each word of the vocabulary.
# In fp32, for the same two rows:

# %% tags=["nbval-check-output"]
rows, tokens = 2, 512 + 2048
checkpoints = model.layers * rows * tokens * model.hidden * 2
logits = rows * tokens * 151_936 * 4
print(f"checkpoints: {checkpoints / GIB:.2f} GiB")
print(f"logits:      {logits / GIB:.2f} GiB, and as much for their gradient")
toy = 32 * 256 * models["overthinker"].vocabulary * 4
print(f"the Overthinker's 32 rows of 256 tokens: {toy / 2**20:.0f} MiB")

# %% [markdown]
# A million-parameter model never notices its logits. Qwen3's would be larger
# than all its 4-bit weights. And yet the loss wants a single number for each
# token, the log-probability of the token that was sampled:
#
# $$\log p(y) = z_y - \log \sum_{v} e^{z_v}$$
#
# So the logits need never exist all at once. Walk over the vocabulary in
# pieces, and keep for each token a running maximum *m*, a running sum *s* of
# $e^{z - m}$, and $z_y$ when its piece comes by. When a piece raises the maximum
# to $m'$, the old sum shrinks by $e^{m - m'}$.

# %% [markdown]
# ### Exercise 09.2 · Log-probabilities without logits (●●●, 20 minutes)
#
# `hidden` is `[tokens, width]`, `head` is `[vocabulary, width]` (logits would be
# `hidden @ head.T`), `targets` is `[tokens]`. Return the targets'
# log-probabilities, `[tokens]`, and never hold more than `chunk` logits for each
# token. The vocabulary need not be a multiple of `chunk`.
#
# *Why it matters:* the same running maximum and sum are at the heart of
# FlashAttention ([2205.14135](https://arxiv.org/abs/2205.14135)).


# %% tags=["exercise", "torch"]
def chunked_logprobs(hidden, head, targets, chunk):
    """Log-probability of each target, a piece of vocabulary at a time."""
    # BEGIN SOLUTION
    # STUB: import torch
    # STUB:
    # STUB: ...  # your code here
    import torch

    top = hidden.new_full((len(hidden),), float("-inf"))
    total = torch.zeros_like(top)
    chosen = torch.zeros_like(top)
    for start in range(0, len(head), chunk):
        logits = hidden @ head[start : start + chunk].T
        higher = torch.maximum(top, logits.max(dim=1).values)
        total = total * (top - higher).exp()
        total = total + (logits - higher[:, None]).exp().sum(dim=1)
        top = higher
        place = targets - start
        inside = (place >= 0) & (place < logits.shape[1])
        rows = inside.nonzero()[:, 0]
        chosen[rows] = logits[rows, place[rows]]
    return chosen - top - total.log()
    # END SOLUTION


# %% tags=["check"]
verdict = checks.chunked_logprobs(chunked_logprobs, number="09.2")
chunked_logprobs = verdict.solution
verdict

# %% [markdown]
# <details><summary>Hint</summary>
#
# Start with a maximum of minus infinity and a sum of 0. For each piece: the new
# maximum, the old sum times `(old - new).exp()`, plus the sum of
# `(logits - new[:, None]).exp()`. A target lies in the piece if `0 <= target -
# start < piece`. At the end: chosen − maximum − log of the sum.
#
# </details>

# %% [markdown]
# TRL's *fused head* does this in tiles of 4,096 tokens × 32,768 words, and
# computes the gradient in the same way. The library plans for it:

# %% tags=["nbval-check-output"]
from stepgrpo_lab.planning.sizes import head_bytes

for rows in (1, 2, 8):
    tiled = head_bytes(model, rows * tokens, 2, trains=False)
    whole = rows * tokens * 151_936 * (4 + 4)
    print(f"{rows} rows in a pass: {tiled / GIB:.1f} GiB in tiles,", end=" ")
    print(f"{whole / GIB:5.1f} GiB whole")

# %% [markdown]
# ## The whole plan
#
# Now all of it, on a T4 with 14.56 GiB. Add the checkpoints (0.5 GiB) and the
# fused head (0.5) to your three parts, and what sampling needs besides its
# cache: the logits of one token for each of 32 rows, and the activations of the
# prompts.

# %% tags=["result"]
from stepgrpo_lab.planning.views import components_table

plan = plans["qwen3-1.7b-qlora-t4"]
Markdown(components_table(plan))

# %% tags=["result"]
part = max(plan.components, key=lambda part: part.bytes)
largest_guess.compare(part.name)

# %% tags=["result", "nbval-check-output"]
print(f"the cache: yours {yours['cache']}, library {library['cache']}")
print("peak during:", max(plan.phases, key=plan.phases.get))

# %% [markdown]
# <details><summary>What we see</summary>
#
# From supervised training one would expect the update to be the tightest moment.
# Here it is sampling. (An evaluation decodes as many rows as a rollout, but of 32
# different problems, whose prompts are read at once.)
#
# </details>
#
# Two entries are assumptions until somebody measures them: 0.6 GiB for CUDA and
# its libraries, and 5 % for memory that the allocator holds but cannot use
# (*fragmentation*).
#
# All six recipes, each as a share of its GPU. Before you look: in which of them
# is something *else* the largest?

# %% tags=["result"]
from stepgrpo_lab.planning.views import memory_chart

short = {
    "qwen3-0.6b-lora-t4": "0.6B LoRA, T4",
    "qwen3-1.7b-qlora-t4": "1.7B QLoRA, T4",
    "qwen3-4b-qlora-l4": "4B QLoRA, L4",
    "qwen3-8b-lora-a100": "8B LoRA, A100",
    "qwen3-8b-full-1xh200": "8B full, H200",
    "qwen3-8b-full-8xh100": "8B full, 8 H100",
}
memory_chart({title: plans[name] for name, title in short.items()})

# %% tags=["nbval-check-output"]
from stepgrpo_lab.planning.views import memory_by_kind

for name, title in short.items():
    kinds = memory_by_kind(plans[name])
    when, found = max(kinds.items(), key=lambda item: sum(item[1].values()))
    share = found["KV cache"] / sum(found.values())
    print(f"{title:16} peak in {when:10} cache {share:4.0%}")

# %% [markdown]
# Only on the H200 do masters, gradients and states outweigh the cache, and only
# there does the update set the peak. Everywhere else sampling decides, and with
# it the length of the completions.

# %% [markdown]
# ### Exercise 09.3 · The longest completion that fits (●●○, 8 minutes)
#
# Which of `limits` is the largest `rollout.max_tokens` with which a recipe fits
# a GPU? Return `None` if none does. `recipe` and `gpu` are names, and the limits
# need not be sorted.
#
# *Why it matters:* a reasoning model wants room, and this is what room costs.


# %% tags=["exercise"]
def longest_completion(recipe, gpu, limits):
    """The largest limit that fits, or None."""
    # BEGIN SOLUTION
    # STUB: ...  # your code here
    fitting = []
    for limit in limits:
        changed = lab.load_recipe(recipe, [f"rollout.max_tokens={limit}"])
        if plan_memory(changed, gpu=gpu).fits:
            fitting.append(limit)
    return max(fitting, default=None)
    # END SOLUTION


# %% tags=["check"]
verdict = checks.longest_completion(longest_completion, number="09.3")
longest_completion = verdict.solution
verdict

# %% [markdown]
# <details><summary>Hint</summary>
#
# `lab.load_recipe(recipe, [f"rollout.max_tokens={limit}"])` changes one key, and
# `plan_memory(changed, gpu=gpu).fits` is True or False.
#
# </details>

# %% tags=["nbval-check-output"]
limits = [512 * 2**power for power in range(6)]
for name, gpu in (("qwen3-1.7b-qlora-t4", "T4"), ("qwen3-4b-qlora-l4", "L4")):
    print(f"{name} on a {gpu}: up to {longest_completion(name, gpu, limits)}")

# %% [markdown]
# ## Why what trains is kept in 32 bits
#
# *bf16* keeps 8 significant bits. Near 0.02, its numbers are 2⁻¹³ ≈ 0.00012
# apart. Adam moves a weight by about the learning rate, 10⁻⁶ as published. Less
# than half of the distance rounds to nothing.
#
# Take weights with a standard deviation of 0.02, a usual initialisation. How
# many of them does one such update leave exactly as they were, in bf16?

# %%
unmoved_guess = course.predict(
    "Weights that an update of 1e-6 does not move, in bf16?", unit="%"
)
unmoved_guess

# %% tags=["result", "nbval-check-output"]
import random

from stepgrpo_lab.planning.rounding import round_to, unchanged_share

draw = random.Random(0)
drawn = [draw.gauss(0, 0.02) for _ in range(20_000)]
for dtype in ("float32", "bfloat16", "float16"):
    share = unchanged_share(drawn, 1e-6, dtype)
    weight = round_to(0.02, dtype)
    for _ in range(1000):
        weight = round_to(weight - 1e-6, dtype)
    print(f"{dtype:9} {share:4.0%} unmoved;", end=" ")
    print(f"0.02 after 1000 updates: {weight:.6f}")

# %% tags=["result"]
unmoved_guess.compare(100 * unchanged_share(drawn, 1e-6, "bfloat16"))

# %% [markdown]
# Training in pure bf16 would run, print a loss, and hardly train. So whatever
# trains is kept in fp32, the *masters*, and only products are computed in 16 bits
# (*mixed precision*). For 8 billion weights the masters
# take 30.5 GiB instead of 15.3. A recipe that forgets them is refused:

# %%
try:
    lab.load_recipe("qwen3-8b-full-1xh200", ["model.dtype=auto"])
except ValueError as error:
    print(error)

# %% [markdown]
# ## A T4 and its bf16
#
# `torch.cuda.is_bf16_supported()` says yes on a T4, because PyTorch can emulate
# bf16 there. The GPU has no units for it, and emulated products are slow. So the
# package asks for the compute capability instead: bf16 came with 8.0, and a T4
# has 7.5.

# %% tags=["nbval-check-output"]
from stepgrpo_lab.engines.models import native_dtype_of
from stepgrpo_lab.planning import GPUS

for gpu in GPUS.values():
    print(f"{gpu.name:5} {gpu.capability} {native_dtype_of(gpu.capability)}")

# %% [markdown]
# fp16 has more digits than bf16 but a narrow range: small gradients vanish. So
# the loss is multiplied by a large number first (*loss scaling*), and the
# gradients are divided by it before the update. And the adapter itself is fp32,
# because PyTorch's scaler refuses gradients of fp16 weights.

# %% tags=["nbval-check-output"]
gradient, scale = 1e-8, 2.0**16
print("fp16:        ", round_to(gradient, "float16"))
print("bf16:        ", f"{round_to(gradient, 'bfloat16'):.2g}")
scaled = round_to(gradient * scale, "float16")
print("fp16, scaled:", f"{scaled / scale:.2g}")
print("70,000:      ", round_to(70_000, "float16"))

# %% [markdown]
# ## Eight GPUs, and sixty-four
#
# Masters, gradients and Adam's states of all weights are 16 bytes each: 122 GiB
# for Qwen3-8B, which no H100 has. *Sharding* (FSDP2, ZeRO-3) gives each of *n*
# GPUs an n-th of every tensor; a layer is gathered when it is needed and let go
# again. The published setting, from one GPU to sixteen:

# %% tags=["nbval-check-output"]
full = lab.load_recipe("qwen3-8b-full-8xh100")
print("GPUs  evaluation  rollout  update   step  fits")
for count in (1, 2, 4, 8, 16):
    found = plan_memory(full, gpus=count)
    cells = [found.phases[phase] / GIB for phase in plan.phases]
    shown = "  ".join(f"{cell:7.1f}" for cell in cells)
    print(f"{count:4}    {shown}  {'yes' if found.fits else 'no'}")

# %% [markdown]
# The optimiser step shrinks with the number of GPUs; the rollout does not
# follow. The cache of its 16 rows and the gathered 16-bit weights (15.3 GiB) are
# not sharded.
#
# Now time. On 64 GPUs instead of 8, how many times faster is the sampling of one
# rollout, at best? It ends with its longest completion.

# %%
faster_guess = course.predict(
    "8 times the GPUs: sampling is faster by a factor of", low=0, high=10
)
faster_guess

# %% tags=["result"]
from stepgrpo_lab.planning.growth import growth_table, step_times

Markdown(growth_table(full))

# %% tags=["result"]
few, many = (step_times(full, count, mean_tokens=7000) for count in (8, 64))
sampling = [max(times.decoding, times.longest) for times in (few, many)]
faster_guess.compare(sampling[0] / sampling[1])

# %% [markdown]
# <details><summary>What we see</summary>
#
# On 8 GPUs the *cache* limits: each has 320 completions to sample and room for
# 46 at once. On 64 the *longest completion* does: 16,384 tokens, one at a time,
# take 86 s on any number of GPUs. Here truncation pays twice, because an exit
# can shorten exactly this tail.
#
# </details>
#
# These are lower bounds from data sheets. The package's own engine decodes 16
# rows at a time and needs several times as long, so a recipe may name another
# engine, which drives the same trajectories: `vllm` keeps a second copy of the
# model beside the trained one and sends it to sleep during updates;
# `vllm-server` samples on GPUs of its own. After every step both get the new
# weights, or the new adapter.

# %% [markdown]
# ## What can go wrong: the wrong machine
#
# Back to the A100. We plan the H200's recipe, full training of Qwen3-8B, on a
# single A100.

# %% tags=["result"]
from stepgrpo_lab.planning.views import verdict as fits_or_not

name = "qwen3-8b-full-1xh200"
broken = plan_memory(lab.load_recipe(name), gpu="A100")
print(fits_or_not(broken))
peak_guess.compare(broken.peak / GIB)

# %% tags=["result"]
memory_chart({"8B full, A100": broken})

# %% [markdown]
# Every moment is above the line, even evaluation: fp32 masters, a 16-bit copy of
# them, and the cache. Smaller batches would not help, since the optimiser step
# has no batch at all and does not fit either. (With Adam's states in 32 bits
# instead of this recipe's 8, it would need still more.)
#
# The plan proposes changes, mildest first. It tries what costs only time, and
# gives up a part of the method where that is not enough. Advice is a claim, so
# we test it: apply the changes and plan again.

# %% tags=["result"]
import json


def plan_after(name, plan, gpu):
    """The plan of a recipe with the changes that a plan proposes."""
    sets = [f"{c.key}={json.dumps(c.value)}" for c in plan.changes]
    return plan_memory(lab.load_recipe(name, sets), gpu=gpu)


for change in broken.changes:
    print(f"{change.key}={json.dumps(change.value)}: {change.cost}")
after = plan_after(name, broken, "A100")
print(f"before {broken.peak / GIB:.1f} GiB, after {after.peak / GIB:.1f} GiB")
print("fits:", after.fits, "- trains", f"{sum(after.setup.adapter):,} numbers")

# %% [markdown]
# It fits, and it is **another experiment**: an adapter of rank 16 is trained
# now. The advice looks at memory alone. Nobody told it that an adapter wants a
# larger learning rate (the A100's own recipe takes 10⁻⁵ and rank 64). Compare
# such a run with the published one, and you compare two things at once.

# %% [markdown]
# ## What can go wrong: memory without a warning
#
# A second failure, on the T4. Someone replaces the fused head by the textbook's
# `log_softmax` on whole logits, and raises the rows in a pass from 2 to 8 for
# speed. Each change is harmless by itself:

# %% tags=["nbval-check-output"]
capacity = plan.setup.gpu.memory
for rows in (2, 8):
    sets = [f"optimisation.rows_per_pass={rows}"]
    found = plan_memory(lab.load_recipe("qwen3-1.7b-qlora-t4", sets))
    fused = found.phases["update"]
    tiles = head_bytes(model, rows * tokens, 2, trains=False)
    whole = fused - tiles + rows * tokens * 151_936 * (4 + 4)
    for head, size in {"fused": fused, "whole logits": whole}.items():
        fits = "fits" if size <= capacity else "out of memory"
        print(f"{rows} rows, {head:12} {size / GIB:5.1f} GiB: {fits}")

# %% [markdown]
# Worse: it would not fail at once. Rows are padded to the *longest* of the
# rollout. As long as completions stay short, the run goes on; the first long one
# ends it, perhaps after hours. That is why a plan takes every completion to be
# as long as it may be.

# %% [markdown]
# ## On your own machine
#
# The same plans in a terminal, with the command that starts the run:
#
# ```bash
# stepgrpo plan --recipe qwen3-8b-lora-a100 --gpu L4
# stepgrpo train --recipe qwen3-1.7b-qlora-t4
# ```
#
# If you measure another peak than the plan's
# (`torch.cuda.max_memory_reserved()`, which leaves out CUDA itself), the two
# assumptions are the first suspects. Every table is in
# [recipes/README.md](../stepgrpo_lab/recipes/README.md).

# %% [markdown]
# ## Your predictions

# %%
course.score()

# %% [markdown]
# ## Summary
#
# - Everything that trains takes 16 bytes a number with Adam. A frozen weight
#   takes 2, or a little more than half a byte in 4 bits.
# - In this method the rollout's cache is usually the largest part, not the
#   update. It grows with rows times length.
# - The logits of a large vocabulary need never exist whole.
# - What trains is kept in fp32: in bf16 most small updates round to nothing.
# - Plan before you run, and test the advice. A recipe that fits may be another
#   experiment.

# %% [markdown]
# **Further reading.** [ZeRO](https://arxiv.org/abs/1910.02054) does this
# arithmetic for sharded training, and
# [PagedAttention](https://arxiv.org/abs/2309.06180) for the cache of a serving
# engine. [*Mixed precision training*](https://arxiv.org/abs/1710.03740)
# introduced masters and loss scaling. [Cut Your Losses in Large-Vocabulary
# Language Models](https://arxiv.org/abs/2411.09009) is your chunked head as a
# kernel.
#
# Next: [10 · The full training run](10_full_run.ipynb).
