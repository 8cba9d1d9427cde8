# ---
# jupyter:
#   stepgrpo:
#     title: "Backtracking: why the probe must leave no trace"
#     minutes: 30
#     hardware: any CPU
# ---

# %% [markdown]
# ## Objectives
#
# - Say what a probe could leave behind: keys and values, positions, random numbers.
# - Follow a probe through the cache, and see it vanish.
# - Show that probes which never exit change nothing, token for token.
# - Break that on purpose in three ways, and tell which of them corrupt training.
# - Say why the same seed gives the same completion in a batch of any size.

# %% [markdown]
# ## Where we stand
#
# In 04 a declined probe was put back "as if nobody had asked". This notebook is about these words. The completion that
# goes into the training must be one that the model itself would have written. If a probe changes what comes after it, we
# train on text that the policy never produces, and nothing crashes: the loss still falls.

# %% [markdown]
# ## What a model remembers
#
# A causal language model computes for every token a *key* and a *value* in each layer. Later tokens *attend* to them, so
# they are kept: the **KV cache**, one cell for each place. Each token also has a **position**, by which attention knows
# the order. And a sampler draws with **random numbers**. A probe feeds tokens, so it touches all three.
#
# By hand: a list is our cache, and a probe of three tokens comes and goes at place 2.

# %% tags=["nbval-check-output"]
cache = ["2+3", "=5"]
for place, piece in [
    (2, " Wait"),
    (2, "**"),
    (3, "{"),
    (4, "5"),
    (2, " Wait"),
    (3, " so"),
]:
    cache[place : place + 1] = [piece]
    print(
        f"fed at {place}: sees {cache[: place + 1]}",
        f"hidden {cache[place + 1 :]}" if cache[place + 1 :] else "",
    )

# %% [markdown]
# Nothing is deleted and nothing is copied. Going back means: *write at a smaller place*. What lies behind it stays, hidden
# by the attention mask, until it is overwritten. Three rules follow for the token fed at place *p*:
#
# 1. it attends to the cells 0 to *p* and to no others;
# 2. its position is *p* (plus the prompt's length), however many tokens were fed before;
# 3. the random number that draws a token belongs to its place, not to how often somebody has drawn.

# %% [markdown]
# ## The player
#
# The real thing: a recorded rollout, shown right after its first probe was declined. Answer before you look:
#
# 1. How many cells of the cache are struck through, and when is the last of them gone?
# 2. To how many cells does the token at place 15 attend, two passes later?

# %%
from stepgrpo_lab.recordings import load_recordings
from stepgrpo_lab.widgets import RolloutPlayer

recorded = [
    group
    for group in load_recordings()
    if group.model == "untrained" and group.rollout == "official"
]
player = RolloutPlayer(recorded, group=3, member=1, frame=24)
player

# %% tags=["nbval-check-output"]
for frame in (14, 23, 24, 26, 31, 32):
    shown = player.frames[frame]
    text = recorded[3].token_text.decode([shown.cells[-1].token])
    print(
        f"pass {frame} ({shown.phase.name}): {text!r} sees",
        f"{len(shown.cells)} places, {len(shown.stale)} hidden",
    )

# %% [markdown]
# <details><summary>What we see</summary>
#
# 1. Eight. The probe wrote places 13 to 21; `Wait` has just taken place 13 back, 14 to 21 are struck through. Each pass
#    overwrites one; pass 32 writes place 21, and the last is gone.
# 2. To sixteen, places 0 to 15 (and the prompt): all thoughts, nothing of the probe.
#
# </details>

# %% [markdown]
# ### Exercise 05.1 · Where a probe writes (●○○)
#
# Write the places that are fed for one declined probe, the marker's return included. `base` is the marker's place,
# `prompt` and `trial` are the lengths of inducing prompt and trial answer. It matters because an engine does nothing else
# to go back.


# %% tags=["exercise"]
def places_of_probe(base, prompt, trial):
    """Places fed for a declined probe, then the marker's."""
    # BEGIN SOLUTION
    # STUB: return ...  # your code here
    return [*range(base, base + prompt + trial - 1), base]
    # END SOLUTION


# %% tags=["check"]
from stepgrpo_lab.course import checks

checks.places_of_probe(places_of_probe)

# %% [markdown]
# <details><summary>Hint</summary>
#
# In the player: a prompt of 6 and a trial answer of 4 wrote the places 13 to 21, then 13 again. The last token of the
# trial answer is never fed.
#
# </details>

# %% [markdown]
# ## The mask
#
# Many completions are decoded together, one *row* each, and every row stands at another place. Some think, some probe.
# One comparison gives the mask of them all. The library's source:

# %%
from stepgrpo_lab import course
from stepgrpo_lab.engines.cache import LockstepCache

course.source_of(LockstepCache.begin_step)

# %% [markdown]
# ### Exercise 05.2 · What is visible (●●○)
#
# Write the same in plain Python: for each row, a list that says for each cell from 0 to `width - 1` whether the token fed
# at the row's place may attend to it. It matters because this comparison alone hides what a probe left behind.


# %% tags=["exercise"]
def visible(places, width):
    """[rows][width] booleans: may the row's token see the cell?"""
    # BEGIN SOLUTION
    # STUB: return ...  # your code here
    return [[cell <= place for cell in range(width)] for place in places]
    # END SOLUTION


# %% tags=["check"]
checks.visible(visible)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Two comprehensions, one in the other: over the rows' places, and over `range(width)`. A token sees itself.
#
# </details>

# %% tags=["nbval-check-output"]
import torch

cells = LockstepCache(layers=1, slots=3, reach=64)
mask = cells.begin_step(torch.tensor([2, 0, 3]), width=4)
for row in mask[:, 0, 0, :4].int().tolist():
    print(row)

# %% [markdown]
# ## Probes that change nothing
#
# A model is needed that can be run here. `tiny_policy` is a Qwen3 of two layers with *random* weights. What it writes is
# noise, but every token depends on everything that it attends to. So it feels every trace. With a threshold of 1 no probe
# ever exits. We complete the same prompts with and without probes.

# %%
from stepgrpo_lab import Decoding, LockstepEngine, SampleKey, rollout_settings
from stepgrpo_lab.course.toys import tiny_policy

model, token_text = tiny_policy()
count, limit = lab.size((24, 40), (8, 24))
prompts = [[3 + sample % 8, 5, 6 + sample % 4] for sample in range(count)]
keys = [SampleKey(0, "course", 0, sample) for sample in range(count)]
never = rollout_settings(
    "official",
    markers="paper",
    exit_threshold=1.0,
    near_budget_margin=0,
    probe_max_tokens=8,
)

# %% tags=["nbval-check-output"]
engine = LockstepEngine(model, token_text)
decoding = Decoding(limit, never)
asked, _ = engine.generate(prompts, decoding, keys=keys)
plain, _ = engine.generate(
    prompts, decoding, keys=keys, probed=[False] * count
)
same = [
    a.completion_ids == b.completion_ids
    for a, b in zip(asked, plain, strict=True)
]
print(
    "all the same:",
    all(same),
    "- probes were made:",
    sum(len(told.probes) for told in asked) > count,
)

# %% [markdown]
# Token for token. This is also how the survey of notebook 03 could be recorded: its completions *are* those of plain
# decoding, and the probes on them come for free. The library's tests hold this for both presets.

# %% [markdown]
# ## What can go wrong: three traces
#
# `complete_naively` is the loop that one might write around `transformers`: a cache that grows, one row at a time. Without
# a fault it gives the engine's tokens. It can be broken in three ways:
#
# - **cache**: after a probe nobody crops the cache, so later tokens attend to the probe;
# - **positions**: the cache is cropped, but positions count on;
# - **random numbers**: one generator draws everything, and the probe advances it.

# %%
from stepgrpo_lab.course import leaky_rollout

course.source_of(leaky_rollout._Context.feed)

# %% [markdown]
# Two predictions. Of the completions with at least one probe, how many differ from their twin without probes when the
# *cache* keeps the probe? And one of the three faults is harmless for training: which? Replace None.

# %%
share = course.predict(
    "Share of probed completions that the fault 'cache' changes?",
    None,
    unit="%",
)
harmless = course.predict(
    "Which fault still samples what the model itself would?",
    None,
    choices=leaky_rollout.FAULTS,
)

# %%
reports = {
    fault: leaky_rollout.measure_fault(
        model,
        token_text,
        prompts,
        keys,
        limit=limit,
        settings=never,
        fault=fault,
    )
    for fault in (None, *leaky_rollout.FAULTS)
}
print("fault           changed  largest surprise")
for fault, told in reports.items():
    print(
        f"{fault or 'none':<15} {told.changed} of {told.probed:<4}"
        f" {told.surprise:8.4f}"
    )

# %%
told = reports["cache"]
share.compare(round(100 * told.changed / told.probed, 1))

# %%
sound = [
    name for name in leaky_rollout.FAULTS if reports[name].surprise < 1e-3
]
harmless.compare(sound[0])

# %% [markdown]
# The *surprise* tells them apart. Every sampled token was recorded with its log-probability, as the sampler saw it. Now
# the model reads the finished completion, in which no probe appears, and says its own. With a stale cache or wrong
# positions the two differ by up to several units: the sampler drew from a distribution that is not the policy's. GRPO
# takes every token for a draw of the policy. A difference of 3 in the logarithm means that it was 20 times likelier, or
# less likely, than it should have been.
#
# With one generator the completion is another one, but each token was drawn from the right distribution. Training would
# be sound. What is lost is the comparison above, and with it the test that finds the other two.

# %%
after_probe = [
    told.tokens - told.probes[0].position if told.probes else 0
    for told in asked
]
index = after_probe.index(max(after_probe))
for fault in (None, "cache"):
    told = leaky_rollout.complete_naively(
        model,
        token_text,
        prompts[index],
        keys[index],
        limit=limit,
        settings=never,
        fault=fault,
    )
    print(f"{fault or 'none'}: {told.text!r}")
print("first probe at token", told.probes[0].position)

# %% [markdown]
# Up to the first probe, its marker and the token after that both are the same. Then the second one goes its own way: it
# answers to words that nobody can see.

# %% [markdown]
# ## Random numbers by place
#
# The library has no generator. A number is *computed* from a key (seed, split, rollout, sample) and the token's position.

# %%
from stepgrpo_lab.method import sampling

course.source_of(sampling.uniform)

# %% [markdown]
# By hand: two rows, two tokens each. With one generator, who draws first decides who gets which number, so the batch's
# order matters. With numbers by place it does not.

# %% tags=["nbval-check-output"]
import random

together, one_by_one = random.Random(0), random.Random(0)
lockstep = [(row, place) for place in (0, 1) for row in (0, 1)]
first = {at: together.random() for at in lockstep}
second = {at: one_by_one.random() for at in sorted(lockstep)}
print("one generator:", first == second)
by_place = {at: sampling.uniform(keys[at[0]], at[1]) for at in lockstep}
again = {at: sampling.uniform(keys[at[0]], at[1]) for at in sorted(lockstep)}
print("by place:     ", by_place == again)

# %% [markdown]
# ### Exercise 05.3 · From a number to a token (●●○)
#
# Write the draw: the first token, in the order of the vocabulary, at which the sum of the probabilities is greater than
# the number. It matters because with it a token is a *function* of logits and place. Same logits, same place, same token:
# that is why a declined probe can be undone exactly.


# %% tags=["exercise"]
def draw(number, probabilities):
    """The token that a number in [0, 1) picks."""
    # BEGIN SOLUTION
    # STUB: return ...  # your code here
    total = 0.0
    for token, probability in enumerate(probabilities):
        total += probability
        if total > number:
            return token
    return len(probabilities) - 1
    # END SOLUTION


# %% tags=["check"]
checks.draw(draw)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Add the probabilities up in a loop and return at the first sum that is *greater* than the number. With `>=` the number
# 0.0 would pick an impossible token.
#
# </details>

# %% [markdown]
# ## Same seed, any batch
#
# So a completion depends on its model, prompt and key, and not on the rows that it shared the batch with. Decode the same
# prompts with room for one row, for three, and for all. Tokens decoded are the same; forward passes are not.

# %% tags=["nbval-check-output"]
for rows in (1, 3, 64):
    apart, cost = LockstepEngine(model, token_text, max_rows=rows).generate(
        prompts, decoding, keys=keys
    )
    equal = [
        a.completion_ids == b.completion_ids
        for a, b in zip(apart, asked, strict=True)
    ]
    print(
        f"{rows:>2} rows: all the same {all(equal)},",
        f"{cost.decoded_tokens} tokens in {cost.forward_passes} passes",
    )

# %% [markdown]
# "The same" is exact here, on one machine in float32. In half precision another batch may round a logit differently, and
# once in a while that flips a token. The *distribution* stays the same; only bit-for-bit equality is lost.

# %% [markdown]
# ## Summary
#
# - A probe touches cache, positions and random numbers; a declined one must leave no trace in any of them.
# - Going back is writing at a smaller place, with a mask of one comparison: no copy, no new prefill.
# - With an unreachable threshold the probed completion is the plain one, token for token: a test that finds leaks.
# - Stale cells and wrong positions make the sampler draw from a distribution that is not the policy's.
# - Random numbers by place make a completion a function of model, prompt and key.
#
# Next: [06, the step-aware relative reward](06_step_aware_reward.ipynb): what a group makes of long and short.
