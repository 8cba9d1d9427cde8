# ---
# jupyter:
#   stepgrpo:
#     title: "Backtracking: why the probe must leave no trace"
#     minutes: 75
#     hardware: any CPU
# ---

# %% [markdown]
# ## Where does the brace come from?
#
# One model, one prompt, the same random numbers. Both completions were
# interrupted at each `Wait` by a probe that asked for the answer, and each time
# the question was taken back. The second rollout took it back badly.
#
# Read the two thoughts. In the second, find the closing brace that nothing has
# opened, and then look at the answer.

# %% tags=["torch"]
import stepgrpo_lab as lab
from stepgrpo_lab.cli.quiet import quiet
from stepgrpo_lab.course import leaky_rollout
from stepgrpo_lab.engines.completions import text_of

quiet()  # other libraries report on themselves; not here
overthinker, tokenizer = lab.load_overthinker()
vocabulary = text_of(tokenizer, overthinker.generation_config.eos_token_id)
problem = lab.overthinker_problems("train", 6)[5]
never_exit = {"exit_threshold": 1.0, "near_budget_margin": 0}
watched = lab.rollout_settings("official", markers="paper", **never_exit)


# %% tags=["torch"]
def complete(fault):
    """Complete the problem with the Overthinker, with a fault or without."""
    return leaky_rollout.complete_naively(
        overthinker,
        vocabulary,
        lab.encode_prompt(tokenizer, problem.prompt),
        lab.SampleKey(0, "course", 0, 5),
        limit=200,
        settings=watched,
        fault=fault,
    )


sound, leaky = complete(None), complete("cache")
print(problem.prompt)
print("---- taken back well\n" + sound.text)
print("---- taken back badly\n" + leaky.text)

# %% [markdown]
# A rollout like the second one is not garbage. It is short, it is well formed,
# and now and then it is right. Feed it to GRPO and nothing crashes; the loss
# looks as it always does. This notebook is about the few lines that prevent it.

# %%
course.drawing(
    "backtracking",
    "One row of the key-value cache, drawn four times. Thoughts fill places 9 "
    "to 12. A probe writes its question and its trial answer at places 13 to "
    "19. When it is declined, the marker Wait is written at place 13 again, "
    "and the cells behind it are hidden by the mask. As the model thinks on, "
    "it overwrites them one by one.",
)

# %% [markdown]
# ## Objectives
#
# After this notebook you can
#
# - name the three places where a probe can leave a trace;
# - write backtracking on a real KV cache, and a whole engine around it;
# - prove with one comparison that declined probes change nothing;
# - tell faults that corrupt training from those that only look like it;
# - say why the same seed gives the same completion in a batch of any size.

# %% [markdown]
# ## Where we are
#
# In [notebook 04](04_truncated_rollout.ipynb) a declined probe was put back "as
# if nobody had asked". This notebook is about keeping that promise. The
# completion that goes into training must be one that the model itself would
# have written.

# %% [markdown]
# ## What a model remembers
#
# For every token and in every layer, a causal language model computes a *key*
# and a *value*. Later tokens attend to them, so they are kept: the **KV
# cache**, one cell for each place. Each token has a **position**, by which
# attention knows the order. And a sampler draws **random numbers**. A
# [probe](../docs/glossary.md) feeds tokens, so it touches all three.

# %% [markdown]
# Going back needs neither a copy nor a second prompt. It means: *write at a
# smaller place*. Three rules follow for the token fed at place $p$:
#
# 1. it attends to the cells $0 \dots p$ and to no others;
# 2. its position is $p$ (plus the prompt's length), however many tokens were
#    fed before;
# 3. the random number that draws a token belongs to its place, not to how often
#    somebody has drawn.

# %% [markdown]
# ## Watch one go back
#
# A recorded rollout, shown right after its first probe was declined. Before you
# move the slider:
#
# 1. How many cells of the cache are struck through, and at which pass is the
#    last of them gone?
# 2. To how many cells does the token at place 15 attend, two passes later?

# %%
from stepgrpo_lab.recordings import load_recordings
from stepgrpo_lab.widgets import RolloutPlayer

recorded = [
    group
    for group in load_recordings()
    if group.model == "untrained" and group.rollout == "official"
]
RolloutPlayer(recorded, group=3, member=1, frame=24)

# %% [markdown]
# <details><summary>What we see</summary>
#
# 1. Eight. The probe wrote places 13 to 21. `Wait` has just taken place 13
#    back, so 14 to 21 are struck through. Each pass overwrites one; pass 32
#    writes place 21, and the last is gone.
# 2. To sixteen, places 0 to 15 (and the prompt): all thoughts, and nothing of
#    the probe.
#
# </details>

# %% [markdown]
# ### Exercise 05.1 · What is visible (●○○, 5 minutes)
#
# A warm-up. Many completions are decoded together, one *row* each, and every
# row stands at another place: some think, some probe. From rule 1, write the
# attention mask: for each row, a list that says for each cell from 0 to
# `width - 1` whether the token fed at the row's place may attend to it.
#
# *Why it matters:* this one comparison hides whatever a probe has left behind.


# %% tags=["exercise"]
def visible(places, width):
    """[rows][width] booleans: may the row's token see the cell?"""
    # BEGIN SOLUTION
    # STUB: ...  # your code here
    return [[cell <= place for cell in range(width)] for place in places]
    # END SOLUTION


# %% tags=["check"]
from stepgrpo_lab.course import checks

verdict = checks.visible(visible, number="05.1")
visible = verdict.solution
verdict

# %% [markdown]
# <details><summary>Hint</summary>
#
# Two comprehensions, one inside the other: over the rows' places, and over
# `range(width)`. A token sees itself.
#
# </details>

# %% [markdown]
# The library writes it in the last line of this method, in torch, for all rows
# of a batch:

# %% tags=["torch"]
from stepgrpo_lab.engines.cache import LockstepCache

course.source_of(LockstepCache.begin_step)

# %% [markdown]
# ### Exercise 05.2 · Backtracking on a real cache (●●○, 15 minutes)
#
# `cache` is a `DynamicCache` of `transformers`: it grows by one position with
# each token fed. Cut it back to its first `length` positions, feed `token`
# there, and return the logits `[vocabulary]` of what comes next. No gradient is
# needed.
#
# - `cache.get_seq_length()` says how many positions it holds, and
#   `cache.crop(-n)` drops the last `n`.
# - The model takes `input_ids` and `position_ids`, both `[1, 1]`, and returns
#   `logits` of shape `[1, 1, vocabulary]`.
# - It takes the cache by a name that has changed between versions:
#   `**{cache_argument(model): cache}` fits all of them.
#
# *Why it matters:* with these lines missing you get the brace.


# %% tags=["exercise", "torch"]
def next_logits(model, cache, length, token):
    """Logits after feeding a token behind the first `length` positions."""
    # BEGIN SOLUTION
    # STUB: import torch
    # STUB: from stepgrpo_lab.engines.cache import cache_argument
    # STUB:
    # STUB: ...  # your code here
    import torch
    from stepgrpo_lab.engines.cache import cache_argument

    surplus = cache.get_seq_length() - length
    if surplus > 0:
        cache.crop(-surplus)
    with torch.no_grad():
        output = model(
            input_ids=torch.tensor([[token]]),
            position_ids=torch.tensor([[length]]),
            use_cache=True,
            **{cache_argument(model): cache},
        )
    return output.logits[0, -1]
    # END SOLUTION


# %% tags=["check"]
verdict = checks.backtracking_cache(next_logits, number="05.2")
next_logits = verdict.solution
verdict

# %% [markdown]
# <details><summary>Hint</summary>
#
# The surplus is `cache.get_seq_length() - length`. The position of the new
# token is `length`, not the number of tokens that were ever fed. Wrap the call
# in `torch.no_grad()` and take `logits[0, -1]`.
#
# </details>

# %% [markdown]
# ## Random numbers by place
#
# Cache and positions are clean. A probe also touches random numbers, if it
# draws from the same generator as the thoughts. So the library has no
# generator. A number is *computed* from a key (seed, split, rollout, sample)
# and the token's position:

# %%
from stepgrpo_lab.method import sampling

course.source_of(sampling.uniform)

# %% [markdown]
# Two rows, two tokens each, drawn in two orders. With one generator, whoever
# draws first decides who gets which number. With numbers by place, the order
# does not matter.

# %% tags=["nbval-check-output"]
import random

from stepgrpo_lab import SampleKey

rows_first = [(row, place) for row in (0, 1) for place in (0, 1)]
places_first = [(row, place) for place in (0, 1) for row in (0, 1)]
by_generator, by_place = [], []
for order in (rows_first, places_first):
    generator = random.Random(0)
    by_generator.append({at: generator.random() for at in order})
    by_place.append(
        {
            (row, at): sampling.uniform(SampleKey(0, "course", 0, row), at)
            for row, at in order
        }
    )
print("one generator:", by_generator[0] == by_generator[1])
print("by place:     ", by_place[0] == by_place[1])

# %% [markdown]
# ### Exercise 05.3 · From a number to a token (●●○, 8 minutes)
#
# Write the draw: the first token, in the order of the vocabulary, at which the
# sum of the probabilities so far is greater than the number.
#
# *Why it matters:* with it a token is a *function* of logits and place. Same
# logits, same place, same token. That is why a declined probe can be undone
# exactly.


# %% tags=["exercise"]
def draw(number, probabilities):
    """The token that a number in [0, 1) picks."""
    # BEGIN SOLUTION
    # STUB: ...  # your code here
    total = 0.0
    for token, probability in enumerate(probabilities):
        total += probability
        if total > number:
            return token
    return len(probabilities) - 1
    # END SOLUTION


# %% tags=["check"]
verdict = checks.draw(draw, number="05.3")
draw = verdict.solution
verdict

# %% [markdown]
# <details><summary>Hint</summary>
#
# Add the probabilities up in a loop and return at the first sum that is
# *greater* than the number. With `>=` the number 0.0 would pick an impossible
# token. Rounding may leave the last sum just below 1: then it is the last
# token.
#
# </details>

# %% [markdown]
# ## An engine of your own
#
# Cache, positions and random numbers: you have written what keeps each of them
# clean. What is missing is the loop around them. Notebook 04's
# [machine](04_truncated_rollout.ipynb) decides; an *engine* does what it asks for,
# with a real model.

# %% [markdown]
# ### Exercise 05.4 · A whole engine (●●●, 25 minutes)
#
# Complete one prompt by the truncated rollout, and return the trajectory. The
# first lines make the machine and an empty cache. Then:
#
# 1. feed the prompt, token by token, with `next_logits`;
# 2. where `machine.choice` is `"sample"`, draw a token at temperature 1 with the
#    number `uniform(key, machine.position)`, and give the machine
#    `observe(token, logprob)`;
# 3. where it is `"greedy"`, take the likeliest token: `observe(token, None,
#    probability)`;
# 4. unless the machine is `done`, `machine.feed()` says which token to feed at
#    which place, counted from the end of the prompt.
#
# At the end: `machine.trajectory(prompt)`.
#
# *Why it matters:* the library's engine is this loop with many rows in it. Going
# back needs no case of its own: the place is simply smaller.


# %% tags=["exercise", "torch"]
def roll_out(model, token_text, prompt, key, limit, settings):
    """Complete one prompt by the truncated rollout."""
    from stepgrpo_lab.method.sampling import uniform
    from transformers import DynamicCache

    machine = lab.TrajectoryMachine(token_text, limit, settings, True)
    cache = DynamicCache(config=model.config)
    # BEGIN SOLUTION
    # STUB: ...  # your code here
    for place, token in enumerate(prompt):
        logits = next_logits(model, cache, place, token)
    while not machine.done:
        odds = logits.softmax(-1)
        if machine.choice == "sample":
            number = uniform(key, machine.position)
            token = draw(number, odds.tolist())
            machine.observe(token, odds[token].log().item())
        elif machine.choice == "greedy":
            token = odds.argmax().item()
            machine.observe(token, None, odds[token].item())
        if not machine.done:
            token, place = machine.feed()
            logits = next_logits(model, cache, len(prompt) + place, token)
    return machine.trajectory(prompt)
    # END SOLUTION


# %% tags=["check"]
verdict = checks.roll_out(roll_out, number="05.4")
roll_out = verdict.solution
verdict

# %% [markdown]
# <details><summary>Hint</summary>
#
# It is the loop of exercise 04.3. In every round: turn the logits into
# probabilities, answer the choice if there is one, and feed unless the machine is
# done. A forced token has no choice, so `machine.choice` is `None`, and only
# `feed()` is left to do.
#
# </details>
#
# Yours, on the model and the problem from the top of the page:

# %% tags=["torch", "nbval-check-output"]
mine = roll_out(
    overthinker,
    vocabulary,
    lab.encode_prompt(tokenizer, problem.prompt),
    lab.SampleKey(0, "course", 0, 5),
    200,
    watched,
)
print("probes declined:", len(mine.probes))
print("as the sound one:", mine.completion_ids == sound.completion_ids)

# %% [markdown]
# ## Probes that change nothing
#
# One comparison proves an engine clean. Set the threshold to 1, so that no
# probe ever exits, and complete the same prompts with and without probes. If
# *anything* leaks, some token differs somewhere.
#
# We use `tiny_policy`, a Qwen3 of two layers with random weights. It writes
# noise, but each of its tokens depends on everything that it attends to, so it
# feels every trace.

# %% tags=["torch", "nbval-check-output"]
from stepgrpo_lab.course.toys import tiny_policy

model, token_text = tiny_policy()
count, limit = (8, 24) if course.fast_mode() else (24, 40)
prompts = [[3 + sample % 8, 5, 6 + sample % 4] for sample in range(count)]
keys = [lab.SampleKey(0, "course", 0, sample) for sample in range(count)]
never = lab.rollout_settings(
    "official", markers="paper", probe_max_tokens=8, **never_exit
)
engine = lab.LockstepEngine(model, token_text)
decoding = lab.Decoding(limit, never)
probed, _ = engine.generate(prompts, decoding, keys=keys)
plain, _ = engine.generate(
    prompts, decoding, keys=keys, probed=[False] * count
)
pairs = zip(probed, plain, strict=True)
same = [one.completion_ids == other.completion_ids for one, other in pairs]
print("all the same:", all(same))
print("probes were made:", sum(len(one.probes) for one in probed) > count)

# %% [markdown]
# Token for token. This is also how the survey of
# [notebook 03](03_confidence.ipynb) could be recorded: its completions *are*
# those of plain decoding, and the probes on them come for free.

# %% [markdown]
# ## What can go wrong: three traces
#
# `complete_naively`, from the first cell, is the loop that anybody might write
# around `transformers`. It can be broken in three ways:
#
# - **cache**: after a probe nobody cuts the cache back, so later tokens attend
#   to the probe;
# - **positions**: the cache is cut, but positions count on;
# - **random numbers**: one generator draws everything, and the probe advances
#   it.

# %% tags=["torch"]
course.source_of(leaky_rollout._Context.feed)

# %% [markdown]
# Two predictions. Of the completions with at least one probe, how many differ
# from their twin without probes when the *cache* keeps the probe? And one of
# the three faults is harmless for training: which?

# %%
share_guess = course.predict(
    "Probed completions that the fault 'cache' changes?", unit="%"
)
share_guess

# %%
harmless_guess = course.predict(
    "Which fault still samples what the model itself would?",
    choices=("cache", "positions", "random numbers"),
)
harmless_guess

# %% tags=["torch", "result"]
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
print("fault           changed   largest surprise")
for fault, report in reports.items():
    changed = f"{report.changed} of {report.probed}"
    print(f"{fault or 'none':<15} {changed:<9} {report.surprise:8.4f}")

# %% tags=["torch", "result"]
report = reports["cache"]
share_guess.compare(100 * report.changed / report.probed)

# %% tags=["torch", "result"]
surprises = {name: reports[name].surprise for name in leaky_rollout.FAULTS}
harmless_guess.compare(min(surprises, key=surprises.get))

# %% [markdown]
# <details><summary>What we see</summary>
#
# The *surprise* tells the faults apart. The sampler wrote down each token's
# log-probability as it saw it. Now the model reads the finished completion, in
# which no probe appears, and says its own. With a stale cache or wrong
# positions the two differ by whole units: the sampler drew from a distribution
# that is not the policy's. GRPO assumes that
# every token was drawn from the policy.
#
# With a single generator the completion is another one, but each token was
# drawn from the right distribution. Training would be sound. What is lost is
# the comparison above, and with it the test that finds the other two.
#
# </details>

# %% [markdown]
# ## The brace, explained
#
# Back to the first completions. Which token of the leaky one surprises the
# model most, and how likely was it to the sampler, and to the model?

# %% tags=["torch", "result"]
from math import exp

import torch
from stepgrpo_lab.method.loss import completion_logprobs

with torch.no_grad():
    own = completion_logprobs(
        overthinker, leaky.prompt_ids, leaky.completion_ids
    ).tolist()
sampled = [
    (then - now, token, then, now)
    for token, then, now in zip(
        leaky.completion_ids, leaky.logprobs, own, strict=True
    )
    if then is not None
]
for _, token, then, now in sorted(sampled, reverse=True)[:3]:
    piece = vocabulary.decode([token])
    print(f"{piece!r:>8}: sampled at {exp(then):.2f},", end="")
    print(f" the model says {exp(now):.1e}")

# %% [markdown]
# The last probe had written `\boxed{7}`, and all of it stayed in the cache. To
# the sampler, another `7` with a closing brace seemed the most natural thing.
# The finished text holds no box at that point, and there the model would hardly
# ever write a brace. It answers to words that nobody can see.
#
# Notice how well the fault hides. The completion is *shorter* than the sound
# one. A dashboard would have called it progress.

# %% [markdown]
# ## The same seed, in any batch
#
# So a completion depends on its model, its prompt and its key, and not on the
# rows that it shared a batch with. We decode the same prompts with room for one
# row, for three, and for all.

# %% tags=["torch", "nbval-check-output"]
for rows in (1, 3, 64):
    small = lab.LockstepEngine(model, token_text, max_rows=rows)
    again, cost = small.generate(prompts, decoding, keys=keys)
    pairs = zip(again, probed, strict=True)
    same = all(a.completion_ids == b.completion_ids for a, b in pairs)
    print(f"{rows:>2} rows: all the same {same},", end=" ")
    print(f"{cost.decoded_tokens} tokens in {cost.forward_passes} passes")

# %% [markdown]
# "The same" is exact here, on one machine in float32. In half precision, a
# batch of another size may round a logit differently, and once in a while that
# flips a token. The *distribution* stays the same; only equality bit for bit is
# lost.

# %% [markdown]
# ## Your predictions

# %%
course.score()

# %% [markdown]
# ## Summary
#
# - A probe touches cache, positions and random numbers; a declined one must
#   leave no trace in any of them.
# - Going back is writing at a smaller place, under a mask of one comparison: no
#   copy, no second prompt.
# - With a threshold that nothing reaches, the probed completion is the plain
#   one, token for token. That test finds leaks.
# - Stale cells and wrong positions draw from a distribution that is not the
#   policy's, and the result may look like progress.
# - With random numbers by place, a completion is a function of model, prompt
#   and key.

# %% [markdown]
# **Further reading.** [DEER](https://arxiv.org/abs/2504.15895), from which the
# probe comes, asks at every "Wait" while the model is used; its script copies
# the whole cache for each probe. *Speculative decoding*
# ([2211.17192](https://arxiv.org/abs/2211.17192)) goes back all the time: a
# small model guesses tokens, and those that the large model rejects are taken
# out of the cache again. *PagedAttention*
# ([2309.06180](https://arxiv.org/abs/2309.06180)) stores the cache in pages, so
# that completions can share a beginning.
#
# Next: [06 · The step-aware relative reward](06_step_aware_reward.ipynb), which
# says what a group makes of long and short.
