# ---
# jupyter:
#   stepgrpo:
#     title: Scaling to Qwen3
#     minutes: 40
#     hardware: any CPU
# ---

# %% [markdown]
# ## Objectives
#
# After this notebook you can
#
# - choose among the recipes for Qwen3 and say what each gives up;
# - work out by hand what a training run keeps in a GPU's memory, and when;
# - say why some weights must be kept in 32 bits;
# - mend a recipe that does not fit, and check that it does then;
# - say what changes on eight GPUs, and what limits sixty-four.

# %% [markdown]
# ## Where we stand
#
# Notebooks 01 to 08 took Step-GRPO apart on the Overthinker, a model of a
# million parameters. The paper trains Qwen3-8B. The method stays the same:
# markers, probes, exits, reward, GRPO. What changes is that **memory**
# decides what you can do at all.
#
# **What was not run.** This course was made without the GPUs below. No
# number on this page is a measurement on one of them. All are arithmetic:
# formulas that tests hold against bytes counted on shrunken
# models on a CPU, two assumptions that we name, and data sheets.
#
# **What was run**, on a CPU: two steps of every recipe with a shrunken,
# random Qwen3 (4-bit storage included); trainings shared by two
# processes; the Overthinker with vLLM. The tests repeat it.

# %% [markdown]
# ## From one million to eight billion
#
# The Overthinker has the same architecture as Qwen3, only smaller. Two of its
# numbers will matter most: the *vocabulary* (how many different tokens there
# are) and the *layers*.

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
# A *recipe* is one YAML file that defines a run. The plan of each says
# whether it fits the machine it was written for, here in GiB (2³⁰ bytes) on
# each GPU. *Rollout* is sampling, *update* is the forward and backward pass.

# %%
from IPython.display import Markdown
from stepgrpo_lab import load_recipe
from stepgrpo_lab.planning import plan_memory
from stepgrpo_lab.planning.views import recipes_table
from stepgrpo_lab.recipes import recipe_names

names = [name for name in recipe_names() if name.startswith("qwen3")]
plans = {name: plan_memory(load_recipe(name)) for name in names}
Markdown(recipes_table(list(plans.values())))

# %% [markdown]
# | recipe | what it gives up |
# | --- | --- |
# | 0.6B LoRA, T4 | a weak model, easy problems (GSM8K), 2,048 tokens |
# | 1.7B QLoRA, T4 | rounded 4-bit weights, slower products, 2,048 tokens |
# | 4B QLoRA, L4 | the same rounding; 16 completions at a time |
# | 8B LoRA, A100 | an adapter instead of every weight; 8,192 tokens |
# | 8B full, H200 | Adam's states in 8 bits, no KL term; 8,192 tokens |
# | 8B full, 8 H100 | nothing that the paper names, but the rollout is slow |
#
# *LoRA* freezes the weights and trains two thin matrices beside each, the
# *adapter*. *QLoRA* also stores the frozen weights in 4 bits. *Full* trains
# every weight.

# %% [markdown]
# ## What changes in a recipe
#
# Qwen3-1.7B has 1,700 times as many parameters as the Overthinker. How many of
# the settings of its recipe differ? Replace `None`.

# %%
from stepgrpo_lab import course

saved = course.predict("How many keys differ?", None, unit="keys")
saved

# %% tags=["nbval-check-output"]
from stepgrpo_lab.recipes.loading import recipe_differences

small = load_recipe("overthinker")
t4 = load_recipe("qwen3-1.7b-qlora-t4")
changed = recipe_differences(small, t4)
for key, before, after in changed:
    told = str(after).replace("\n", " ").strip()
    print(f"{key:37} {before!s:22} {told[:38]}")

# %%
saved.compare(len(changed))

# %% [markdown]
# Read the list in three parts.
#
# - **The method** hardly moves: markers from the paper's set to the public
#   code's (*Wait* alone, `None` is the preset's value). Reward and share of
#   probed members do not appear, so they are the same.
# - **The optimisation**: a pretrained model wants a ten times smaller
#   learning rate.
# - **The rest is memory**: model, data type, adapter, rows. (The data follow
#   the model.)
#
# The suffix asks for `\boxed{}`, for the reward's format term needs it.

# %% [markdown]
# ## Memory by hand, 1: the frozen weights
#
# Qwen3-1.7B in 4 bits (*NF4*). Each layer has seven matrices. Two weights
# share a byte; each block of 64 weights has a scale, its *constant*, of one
# byte, and each 256 constants share a number of 4 bytes. The embedding is
# not quantised: 2 bytes each.

# %% tags=["nbval-check-output"]
GIB = 2**30
hidden, mlp, layers, heads, kv_heads, head_dim = 2048, 6144, 28, 16, 8, 128
query, kv = heads * head_dim, kv_heads * head_dim
layer = 2 * hidden * query + 2 * hidden * kv + 3 * hidden * mlp
weights = layers * layer / 2
constants = layers * layer / 64 * (1 + 4 / 256)
embedding = 151_936 * hidden * 2
print(f"one layer:  {layer:,} weights")
print(f"4 bits:     {weights / GIB:.2f} GiB")
print(f"constants:  {constants / GIB:.3f} GiB")
print(f"embedding:  {embedding / GIB:.2f} GiB")
print(f"in 16 bits: {2 * layers * layer / GIB:.2f} GiB for the layers")

# %% [markdown]
# The library's formula, and whether the hand agrees. The small rest is a
# table of 1,092 bytes that each matrix keeps for itself.

# %%
from stepgrpo_lab.planning.sizes import nf4_bytes

course.source_of(nf4_bytes)

# %% tags=["nbval-check-output"]
model = QWEN3["Qwen/Qwen3-1.7B"]
shapes = list(model.linear_shapes.values()) * model.layers
in_4_bits, scales = nf4_bytes(shapes)
print("weights:  ", int(weights), in_4_bits)
print("constants:", int(constants), scales, "off by", scales - int(constants))
print("tables:   ", 7 * layers * 1092)

# %% [markdown]
# ## Memory by hand, 2: what trains
#
# An adapter of rank *r* on a matrix of (outputs, inputs) is A, of (r,
# inputs), and B, of (outputs, r). Everything that trains needs
#
# - the numbers themselves, in fp32: 4 bytes;
# - a gradient for each: 4 bytes;
# - Adam's two running means: 8 bytes.
#
# So 16 bytes for each trained number, in a LoRA as in a full training. Only
# how many there are differs.

# %% tags=["nbval-check-output"]
from stepgrpo_lab.planning.sizes import lora_parameters

rank = 16
sides = 2 * (hidden + query) + 2 * (hidden + kv) + 3 * (hidden + mlp)
adapter = layers * rank * sides
print(f"by hand: {adapter:,}, library: {sum(lora_parameters(model, rank)):,}")
for what, count in {"adapter": adapter, "all": model.parameters}.items():
    size = 16 * count / GIB
    print(f"train {what:8} {count:13,} x 16 bytes = {size:5.2f} GiB")

# %% [markdown]
# ### Exercise 09.1 · The cache of one token
#
# While it samples, a model keeps the *keys* and *values* of every token so
# far, in every layer: the **KV cache**. Write
# `cache_bytes_per_token(config, width)`; `config` is a dictionary with the
# keys of a model's `config.json` (`num_hidden_layers`,
# `num_attention_heads`, `num_key_value_heads`, `head_dim`, `hidden_size`) and
# `width` the bytes of a number.
#
# Difficulty ●○○


# %% tags=["exercise"]
def cache_bytes_per_token(config, width):
    """Bytes that the KV cache takes for one token."""
    # BEGIN SOLUTION
    # STUB: return None  # your code here
    kv_width = config["num_key_value_heads"] * config["head_dim"]
    return 2 * config["num_hidden_layers"] * kv_width * width
    # END SOLUTION


# %% tags=["check"]
from stepgrpo_lab.course import checks

checks.cache_bytes_per_token(cache_bytes_per_token)

# %% [markdown]
# <details><summary>Hint</summary>
#
# In Qwen3 several query heads share one key-value head, so only
# `num_key_value_heads` of them are kept. Each is `head_dim` numbers wide.
# Keys *and* values: twice.
#
# </details>

# %% [markdown]
# ### Exercise 09.2 · The size of an adapter
#
# Write `adapter_size(shapes, layers, rank)`: how many numbers a LoRA trains
# that adapts every matrix. `shapes` maps the name of each of a layer's
# matrices to `(outputs, inputs)`.
#
# Difficulty ●○○


# %% tags=["exercise"]
def adapter_size(shapes, layers, rank):
    """Numbers in an adapter on all matrices of all layers."""
    # BEGIN SOLUTION
    # STUB: return None  # your code here
    sides = sum(outputs + inputs for outputs, inputs in shapes.values())
    return layers * rank * sides
    # END SOLUTION


# %% tags=["check"]
checks.adapter_size(adapter_size)

# %% [markdown]
# <details><summary>Hint</summary>
#
# For one matrix: `rank * inputs` for A and `outputs * rank` for B. Sum over
# the matrices, times the layers.
#
# </details>

# %% [markdown]
# ## Memory by hand, 3: activations and logits
#
# The backward pass needs what the forward pass computed. With *gradient
# checkpointing* only each layer's input is kept, and the rest is computed
# again, one layer at a time. The T4 recipe passes 2 rows of up to 512 + 2,048
# tokens.
#
# The *logits* are one number for each token and each word of the vocabulary.
# In fp32, for the same two rows:

# %% tags=["nbval-check-output"]
rows, tokens = 2, 512 + 2048
checkpoints = layers * rows * tokens * hidden * 2
logits = rows * tokens * 151_936 * 4
print(f"checkpoints: {checkpoints / GIB:.2f} GiB")
print(f"logits:      {logits / GIB:.2f} GiB, and as much for their gradient")
toy = 32 * 256 * models["overthinker"].vocabulary * 4
print(f"the Overthinker's 32 rows of 256 tokens: {toy / 2**20:.0f} MiB")

# %% [markdown]
# A million-parameter model never notices its logits. For Qwen3 they would be
# larger than all its 4-bit weights. They need never exist at once: the loss
# wants one logprob for each token. TRL's *fused head* computes them in tiles
# of 4,096 tokens × 32,768 words and adds up. The library plans for that:

# %%
from stepgrpo_lab.planning.sizes import head_bytes, kv_bytes

course.source_of(head_bytes)

# %% tags=["nbval-check-output"]
for rows in (1, 2, 8):
    tiled = head_bytes(model, rows * tokens, 2, trains=False)
    whole = rows * tokens * 151_936 * (4 + 4)
    told = f"{tiled / GIB:.1f} GiB in tiles, {whole / GIB:5.1f} GiB whole"
    print(f"{rows} rows in a pass: {told}")

# %% [markdown]
# ## The whole plan
#
# Now all of it, on a T4 with 14.56 GiB. You know the weights (1.3 GiB), what
# trains (0.3), checkpoints (0.5) and the fused head (0.5). What is left
# is what sampling needs for its 32 rows: logits of one token each, prompts,
# and the cache. Which component is the largest? And at which moment is memory
# highest?

# %%
largest = course.predict(
    "The largest component of 1.7B QLoRA on a T4?",
    None,
    choices=("weights", "KV cache", "optimiser states", "logits"),
)
largest

# %%
moment = course.predict(
    "The moment at which memory is highest?",
    None,
    choices=("evaluation", "rollout", "update", "step"),
)
moment

# %%
from stepgrpo_lab.planning.views import components_table

plan = plans["qwen3-1.7b-qlora-t4"]
Markdown(components_table(plan))

# %%
part = max(plan.components, key=lambda part: part.bytes)
largest.compare(part.name)

# %%
moment.compare(max(plan.phases, key=plan.phases.get))

# %% [markdown]
# Not the update, as one would guess from supervised training: **the
# rollout**, or rather the evaluation before it. Both decode 32 rows, but an
# evaluation's rows are 32 different problems whose prompts are read at once;
# a rollout's are 4 problems with 8 completions each.
#
# The cache by hand, and the library's:

# %% tags=["nbval-check-output"]
per_token = 2 * layers * kv * 2
context = 512 + 2048 + 64  # prompt, completion, room for a probe
cache = 32 * context * per_token
print(f"{per_token / 1024:.0f} KiB for each token")
print(f"by hand {cache}, library {kv_bytes(model, 32, context, 2)}")
print(f"{cache / GIB:.2f} GiB")

# %% [markdown]
# Two entries are assumptions until somebody measures them: 0.6 GiB for CUDA
# and its libraries, and 5 % for memory that the allocator holds but cannot
# use (*fragmentation*).
#
# All six recipes, each as a share of its GPU. Two questions first:
#
# 1. In which recipes is the cache more than half of the highest bar?
# 2. For which recipe is the update the highest moment?

# %%
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

# %% [markdown]
# <details><summary>What we see</summary>
#
# 1. In the three small ones and in the 8B LoRA (and, by a little, on the
#    eight H100). Only on the H200 do masters, gradients and states outweigh
#    it.
# 2. Only on the H200: gradients of all weights come on top there.
#
# </details>

# %% tags=["nbval-check-output"]
from stepgrpo_lab.planning.views import memory_by_kind

for name, title in short.items():
    kinds = memory_by_kind(plans[name])
    when, found = max(kinds.items(), key=lambda item: sum(item[1].values()))
    share = found["KV cache"] / sum(found.values())
    print(f"{title:16} highest in {when:10} cache {share:4.0%}")

# %% [markdown]
# ## Longer completions
#
# Reasoning models want room. We double the limit of the T4 recipe and plan
# again; nothing else changes.

# %% tags=["nbval-check-output"]
name = "qwen3-1.7b-qlora-t4"
print("tokens   cache  highest  fits")
for limit in (512, 1024, 2048, 4096, 8192):
    longer = load_recipe(name, [f"rollout.max_tokens={limit}"])
    found = plan_memory(longer)
    held = memory_by_kind(found)["rollout"]["KV cache"] / GIB
    fits = "yes" if found.fits else "no"
    print(f"{limit:6} {held:7.1f} {found.peak / GIB:8.1f}  {fits}")

# %% [markdown]
# ### Exercise 09.3 · The longest completion that fits
#
# Write `longest_completion(recipe, gpu, limits)`: the largest of `limits` as
# `rollout.max_tokens` with which a recipe fits a GPU, or `None` if none does.
# `recipe` and `gpu` are names; `load_recipe` and `plan_memory` do the work.
#
# Difficulty ●●○


# %% tags=["exercise"]
def longest_completion(recipe, gpu, limits):
    """The largest limit that fits, or None."""
    # BEGIN SOLUTION
    # STUB: return None  # your code here
    fitting = []
    for limit in limits:
        changed = load_recipe(recipe, [f"rollout.max_tokens={limit}"])
        if plan_memory(changed, gpu=gpu).fits:
            fitting.append(limit)
    return max(fitting, default=None)
    # END SOLUTION


# %% tags=["check"]
checks.longest_completion(longest_completion)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `load_recipe(recipe, [f"rollout.max_tokens={limit}"])` changes one key;
# `plan_memory(changed, gpu=gpu).fits` is True or False. The limits need not
# be sorted.
#
# </details>

# %% [markdown]
# ## Precision: why masters are kept in 32 bits
#
# *bf16* keeps 8 significant bits. Between 2⁻⁶ and 2⁻⁵, where 0.02 lies, its
# numbers are 2⁻¹³ ≈ 0.00012 apart. Adam moves a weight by about the learning
# rate, 10⁻⁶ as published. Less than half of the distance rounds to nothing.
#
# Take weights with a standard deviation of 0.02, a usual initialisation.
# Which share of them does one such update leave exactly as it was, in bf16?

# %%
lost = course.predict(
    "Share of the weights that 1e-6 does not move?", None, unit="%"
)
lost

# %% tags=["nbval-check-output"]
from stepgrpo_lab.planning.rounding import round_to

for dtype in ("float32", "bfloat16", "float16"):
    weight = round_to(0.02, dtype)
    for _ in range(1000):
        weight = round_to(weight - 1e-6, dtype)
    print(f"{dtype:9} 0.02 after 1000 updates of 1e-6: {weight:.6f}")

# %% tags=["nbval-check-output"]
import random

from stepgrpo_lab.planning.rounding import unchanged_share

draw = random.Random(0)
drawn = [draw.gauss(0, 0.02) for _ in range(20_000)]
for dtype in ("float32", "bfloat16", "float16"):
    share = unchanged_share(drawn, 1e-6, dtype)
    print(f"{dtype:9} {share:.0%} unmoved")

# %%
lost.compare(100 * unchanged_share(drawn, 1e-6, "bfloat16"))

# %% [markdown]
# Training in pure bf16 would run, print a loss, and leave most weights where
# they were. So whatever trains is kept in fp32, the *masters*, and only products are
# computed in 16 bits (*mixed precision*). For 8 billion weights the masters
# cost 30.5 GiB instead of 15.3. A recipe that forgets them is refused:

# %%
try:
    load_recipe("qwen3-8b-full-1xh200", ["model.dtype=auto"])
except ValueError as error:
    print(error)

# %% [markdown]
# ## Precision: a T4 and its bf16
#
# `torch.cuda.is_bf16_supported()` says yes on a T4, for PyTorch can emulate
# bf16 there. The GPU has no units for it: those came with compute capability
# 8.0, and a T4 has 7.5. Emulated products are slow. So the package asks for
# the capability:

# %%
from stepgrpo_lab.engines.models import native_dtype_of

course.source_of(native_dtype_of)

# %% tags=["nbval-check-output"]
from stepgrpo_lab.planning import GPUS

for gpu in GPUS.values():
    print(f"{gpu.name:5} {gpu.capability} {native_dtype_of(gpu.capability)}")
claimed = load_recipe(name, ["optimisation.mixed_precision=bf16"])
print(plan_memory(claimed).notes[0])

# %% [markdown]
# fp16 has more digits than bf16 but a narrow range. Small gradients vanish:
#
# - so the loss is multiplied by a large number first (*loss scaling*), and
#   the gradients are divided by it before the update;
# - so the adapter itself is fp32. PyTorch's scaler even refuses gradients of
#   fp16 weights.

# %% tags=["nbval-check-output"]
gradient, scale = 1e-8, 2.0**16
print("fp16:        ", round_to(gradient, "float16"))
print("bf16:        ", f"{round_to(gradient, 'bfloat16'):.2g}")
scaled = round_to(gradient * scale, "float16")
print("fp16, scaled:", f"{scaled / scale:.2g}")
print("70,000:      ", round_to(70_000, "float16"))

# %% [markdown]
# ## Eight GPUs
#
# Masters, gradients and Adam's states of all weights are 16 bytes each:
# 122 GiB for Qwen3-8B, which no H100 has. *Sharding* (FSDP2, ZeRO-3) gives
# each GPU an n-th of every tensor; a layer is gathered when it is needed and
# let go again. The published setting, from one GPU to sixteen:

# %% tags=["nbval-check-output"]
print("GPUs  evaluation  rollout  update   step  fits")
for count in (1, 2, 4, 8, 16):
    full = load_recipe("qwen3-8b-full-8xh100")
    found = plan_memory(full, gpus=count)
    cells = [found.phases[p] / GIB for p in plan.phases]
    told = "  ".join(f"{cell:7.1f}" for cell in cells)
    print(f"{count:4}    {told}  {'yes' if found.fits else 'no'}")

# %% [markdown]
# The optimiser step shrinks with the number of GPUs; the rollout does not
# follow. The cache of its 16 rows and the gathered 16-bit weights (15.3 GiB)
# are not sharded. And the evaluation before training holds all masters.
#
# Now time. On 64 GPUs instead of 8, how many times faster is the sampling of
# one rollout, at best? It ends with its longest completion.

# %%
faster = course.predict("8 times the GPUs: sampling is faster by", None)
faster

# %%
from stepgrpo_lab.planning.growth import growth_table, step_times

full = load_recipe("qwen3-8b-full-8xh100")
Markdown(growth_table(full))

# %%
few, many = (step_times(full, n, mean_tokens=7000) for n in (8, 64))
sampling = [max(times.decoding, times.longest) for times in (few, many)]
faster.compare(sampling[0] / sampling[1])

# %% [markdown]
# On 8 GPUs the *cache* limits: each has 320 completions to sample and room
# for 46 at once. On 64 the *longest completion* does: 16,384 tokens, one
# after the other, take 86 s on any number of GPUs. Here truncation pays
# twice, for an exit can shorten just this tail.
#
# And at 64, gathering weights between nodes takes almost as long as
# computing: then each node keeps a whole set of shards.
#
# These are lower bounds from data sheets; nothing was measured. The package's
# own engine decodes 16 rows at a time and needs several times as long. So a
# recipe may name another engine, which drives the same trajectories:

# %% tags=["nbval-check-output"]
for engine in ("lockstep", "vllm", "vllm-server"):
    sampled = load_recipe("qwen3-8b-lora-a100", [f"rollout.engine={engine}"])
    found = plan_memory(sampled)
    told = [f"{p} {found.phases[p] / GIB:.1f}" for p in ("rollout", "update")]
    print(f"{engine:12} {', '.join(told)} GiB")

# %% [markdown]
# `vllm` keeps a second copy of the model beside the trained one and sends it
# to sleep during updates; `vllm-server` samples on GPUs of its own. After
# every step either gets the new weights, or the new adapter.

# %% [markdown]
# ## What can go wrong: the wrong machine
#
# You have one A100 with 80 GB. The weights of Qwen3-8B take 15.3 GiB in 16
# bits. So why not train all of them? We plan the H200's recipe on an A100.

# %%
from stepgrpo_lab.planning.views import verdict

name = "qwen3-8b-full-1xh200"
broken = plan_memory(load_recipe(name), gpu="A100")
print(verdict(broken))
memory_chart({"8B full, A100": broken})

# %% [markdown]
# Every moment is above the line. Even evaluation is: fp32 masters, a 16-bit
# copy of them, and the cache. Smaller batches would not help, since in the
# optimiser step there is no batch at all and it does not fit either.
#
# The plan proposes changes, mildest first: it tries what costs only time, and
# gives up a part of the method where that is not enough.

# %% tags=["nbval-check-output"]
import json

for change in broken.changes:
    print(f"{change.key}={json.dumps(change.value)}: {change.cost}")

# %% [markdown]
# Advice is a claim, so we test it: apply the changes and plan again.

# %% tags=["nbval-check-output"]


def mended(name, plan, gpu):
    """The plan of a recipe with the changes that a plan proposes."""
    sets = [f"{c.key}={json.dumps(c.value)}" for c in plan.changes]
    return plan_memory(load_recipe(name, sets), gpu=gpu)


after = mended(name, broken, "A100")
print(f"before {broken.peak / GIB:.1f} GiB, after {after.peak / GIB:.1f} GiB")
print("fits:", after.fits, "- trains", f"{sum(after.setup.adapter):,}")

# %% [markdown]
# It fits, and it is **another experiment**: an adapter of rank 16 is trained
# now. The advice mends memory alone. Nobody told it that an adapter wants a
# larger learning rate (the A100's own recipe takes 10⁻⁵ and rank 64). Compare
# such a run with the published one, and you compare two things at once.

# %% [markdown]
# ## What can go wrong: memory without a warning
#
# A second failure, on the T4. Someone replaces the fused head by the
# textbook's `log_softmax` on whole logits, and raises the rows in a pass from
# 2 to 8 for speed. Whole logits are counted once, with their gradient, in
# fp32. Each change is harmless alone:

# %% tags=["nbval-check-output"]
capacity = plan.setup.gpu.memory
for rows in (2, 8):
    sets = [f"optimisation.rows_per_pass={rows}"]
    found = plan_memory(load_recipe("qwen3-1.7b-qlora-t4", sets))
    fused = found.phases["update"]
    tiles = head_bytes(model, rows * tokens, 2, trains=False)
    whole = fused - tiles + rows * tokens * 151_936 * (4 + 4)
    for head, size in {"fused": fused, "whole logits": whole}.items():
        fits = "fits" if size <= capacity else "out of memory"
        print(f"{rows} rows, {head:12} {size / GIB:5.1f} GiB: {fits}")

# %% [markdown]
# Worse: it would not fail at once. Rows are padded to the *longest* of the
# rollout. As long as completions stay short, the run goes on; the first long
# one ends it, perhaps after hours. That is why a plan takes every completion
# to be as long as it may be.
#
# Too long a limit breaks the rollout in the same way. Here the advice costs
# time alone:

# %% tags=["nbval-check-output"]
name = "qwen3-1.7b-qlora-t4"
greedy = load_recipe(name, ["rollout.max_tokens=8192"])
too_long = plan_memory(greedy)
print(f"{too_long.peak / GIB:.1f} GiB, fits: {too_long.fits}")
for change in too_long.changes:
    print(f"{change.key}={change.value}: {change.cost}")
sets = ["rollout.max_tokens=8192"]
sets += [f"{c.key}={json.dumps(c.value)}" for c in too_long.changes]
after = plan_memory(load_recipe(name, sets))
print(f"{after.peak / GIB:.1f} GiB, fits: {after.fits}")

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
# assumptions are the first suspects. The page [recipes/README.md](../stepgrpo_lab/recipes/README.md) holds every
# table.

# %% [markdown]
# ## Summary
#
# - Everything that trains takes 16 bytes a number with Adam; a frozen weight
#   takes 2, or a little more than half a byte in 4 bits.
# - In this method the cache of the rollout is usually the largest, not the
#   update. It grows with rows times length.
# - Logits of 151,936 words must not exist whole; the fused head sees to it.
# - What trains is kept in fp32: in bf16 an update of 10⁻⁶ leaves about 98 %
#   of the weights as they were. A T4 computes in fp16.
# - Plan before you run, and test the advice. A recipe that fits may be
#   another experiment.
#
# Next: [10 · The full training run](10_full_run.ipynb).
