# ---
# jupyter:
#   stepgrpo:
#     title: Semantic steps
#     minutes: 30
#     hardware: any CPU
# ---

# %% [markdown]
# ## Objectives
#
# After this notebook you can
#
# - say what a semantic step is, and count the steps of a text by hand;
# - say why steps begin at words such as "Wait" and not at sentences or lines;
# - find the tokens that belong to a marker, also while tokens stream in;
# - recognise a marker set that does not fit its model, and measure the damage;
# - explain how a model could cheat a count of markers.

# %% [markdown]
# ## Where we stand
#
# [Notebook 01](01_overthinking.ipynb) showed a model that knows its answer
# early and goes on. To stop it, two things are needed: *places* where one can
# ask "do you know it yet?", and a *unit* in which length is counted. In
# Step-GRPO both are the **semantic step**.
#
# A *completion* is all that the model writes after the question: thoughts up
# to `</think>`, then the answer. The thoughts are cut at **markers**, words
# with which the model turns to a new attempt:
#
# $$k = 1 + \text{number of markers before the first } \texttt{</think>}$$
#
# (Eq. 3 of the paper.)

# %% [markdown]
# ## Steps by hand
#
# A toy completion. How many times do its thoughts turn to a new attempt?
# The plainest count looks for the letters "Wait".

# %% tags=["nbval-check-output"]
toy = (
    "2+2=4. Wait, Waiting for the await call is none. "
    "Alternatively 4=2+2</think>The answer is 4. Wait, done."
)
print("the letters 'Wait' occur", toy.count("Wait"), "times")

# %% [markdown]
# Before you run on, write down what you expect. Replace `None` by a number:
# markers are "Wait" and "Alternatively", and $k$ is one more than their
# number.

# %%
from stepgrpo_lab import course

saved = course.predict("How many steps has the toy?", None, unit="steps")
saved

# %% tags=["nbval-check-output"]
from stepgrpo_lab import MARKER_SETS, MarkerSegmenter

print({name: MARKER_SETS[name] for name in ("official", "paper")})
print("more sets:", *list(MARKER_SETS)[2:])
steps = MarkerSegmenter("paper").split(toy)
for step in steps:
    print(step.index, step.marker, repr(step.text))

# %%
saved.compare(len(steps))

# %% [markdown]
# Three rules made the difference:
#
# - a marker is a **standalone word**: a longest run of letters, digits and
#   underscores. "Waiting" is another word, and so is "await";
# - it is **case-sensitive**: "wait" in the middle of a sentence is no turn;
# - it counts **before the first `</think>`**. After it, nothing is thought.
#
# The text before the first marker is step 0. This is the code that ran:

# %%
course.source_of(MarkerSegmenter.split)

# %% [markdown]
# The public code of Step-GRPO uses "Wait" alone (`official`); the paper speaks
# of a set (`paper`). Which one fits depends on the model, as we shall see, and
# so do the other sets, of which more below. Any list of words will do.
#
# The same count by hand, with a regular expression, agrees:

# %% tags=["nbval-check-output"]
import re

thoughts = toy.partition("</think>")[0]
words = re.findall(r"\w+", thoughts)
by_hand = 1 + sum(word in ("Wait", "Alternatively") for word in words)
print("by hand:", by_hand, "- library:", MarkerSegmenter("paper").count(toy))

# %% [markdown]
# ### Exercise 02.1 · Count the steps
#
# Write `count_steps(text, markers)`, which returns $k$. Everything that
# follows in the course rests on this number: the places of the probes, and
# the reward.
#
# Difficulty ●○○


# %% tags=["exercise"]
def count_steps(text, markers):
    """Number of semantic steps of a completion."""
    # BEGIN SOLUTION
    # STUB: return None  # your code here
    thoughts = text.partition("</think>")[0]
    words = re.findall(r"\w+", thoughts)
    return 1 + sum(word in markers for word in words)
    # END SOLUTION


# %% tags=["check"]
from stepgrpo_lab.course import checks

checks.count_steps(count_steps)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `text.partition("</think>")[0]` is the text before the close, and all of
# it where there is none. `re.findall(r"\w+", ...)` gives the words.
#
# </details>

# %% [markdown]
# ## Why not sentences or lines?
#
# Below, the same thoughts are laid out in two ways. The passage is made by
# hand, in the manner of a large model.

# %% tags=["nbval-check-output"]
laid_out = (
    "Area is 3 times 4.\n\nSo 12.\n\nHalf of it: 6.\n\n"
    "Wait, the base is 5.\n\nThen 5 times 4.\n\nSo 20. Half: 10."
)
in_one_line = laid_out.replace("\n\n", " ").replace(".", ";")


def sentences(text):
    return len(re.findall(r"[^.]+\.", text))


for name, text in {"laid out": laid_out, "one line": in_one_line}.items():
    lines = text.count("\n\n") + 1
    marked = MarkerSegmenter("paper").count(text)
    told = f"{sentences(text)} sentences, {lines} lines, {marked} steps"
    print(f"{name}: {told}")

# %% [markdown]
# Sentences and lines measure the layout, steps measure the turns. That
# matters twice:
#
# - **as places to ask**: after "So 12." the work is half done. To ask there
#   costs tokens and cannot end well. At "Wait" an attempt is complete;
# - **as a unit of length**: a model that is paid for fewer sentences can
#   write semicolons. It need not think less.
#
# The second point is not quite settled: at the end of this notebook a model
# cheats the markers, too.

# %% [markdown]
# ## Markers and tokens
#
# A model writes *tokens*, pieces of text. We use recorded completions of the
# Overthinker, the small model of this course; nothing is loaded but a file.
# Where do its steps begin?

# %% tags=["nbval-check-output"]
from stepgrpo_lab.recordings import load_survey

survey = [g for g in load_survey() if g.model == "untrained"]
first = survey[0]
pieces = first.pieces(first.members[0].trajectory.completion_ids)
print(first.problem.prompt)
print(pieces[:20])
for step in first.steps(0)[:3]:
    print(step.index, repr("".join(pieces[step.token_start : step.token_end])))

# %% [markdown]
# The marker is covered by the token `' Wait'`, with its space. When a marker
# is held back, whole tokens are. Two rules decide, in the library's
# `MarkerScanner`:
#
# - space and punctuation in front go with the marker (` Wait`, `.Wait`);
# - **content never goes**: a token such as `12 Wait` stays, for the `12`
#   belongs to the step before.
#
# A marker may also be spread over several tokens, `Wa` and `it`. So the
# search must look at text and translate back to tokens.

# %% [markdown]
# ### Exercise 02.2 · Tokens that cover a marker
#
# `pieces` are the texts of the tokens. Write
# `covering_tokens(pieces, start, end)`: the places of all tokens that hold at
# least one of the characters `start` to `end - 1` of the joined text. (The
# "content never goes" rule is not asked for.)
#
# Difficulty ●●○


# %% tags=["exercise"]
def covering_tokens(pieces, start, end):
    """Places of the tokens that hold characters start to end - 1."""
    # BEGIN SOLUTION
    # STUB: return None  # your code here
    covering, place = [], 0
    for index, piece in enumerate(pieces):
        if place < end and place + len(piece) > start:
            covering.append(index)
        place += len(piece)
    return covering
    # END SOLUTION


# %% tags=["check"]
checks.covering_tokens(covering_tokens)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Walk over the pieces and keep the character at which each begins. Two
# half-open spans `[a, b)` and `[c, d)` share a character exactly when
# `a < d` and `c < b`.
#
# </details>

# %% [markdown]
# ## While tokens arrive
#
# A rollout (the sampling of one completion) cannot wait for the end: it must
# stop *at* the marker. The scanner takes token by token. We feed it the toy
# tokens `4`, `.Wait`, `ing`, ` Wa`, `it`, `,`.
#
# When will it report the marker made of ` Wa` and `it`: with `it`, or with
# the comma after it? Replace `None` by `"with it"` or `"with the comma"`.

# %%
certain = course.predict(
    "With which token does the scanner report the marker?",
    None,
    choices=("with it", "with the comma"),
)
certain

# %% tags=["nbval-check-output"]
from stepgrpo_lab import TokenText

stream = ["4", ".Wait", "ing", " Wa", "it", ","]
text = TokenText.from_pieces(stream)
scanner = MarkerSegmenter("paper").scanner(text)
hits = [scanner.push(token) for token in range(len(stream))]
for piece, hit in zip(stream, hits, strict=True):
    print(f"{piece!r:8}", hit)

# %%
certain.compare("with the comma" if hits[4] is None else "with it")

# %% [markdown]
# `.Wait` alone looked like a marker; then came `ing`. So a marker is certain
# only when the character after it is known. The hit comes one token late,
# and says how many tokens to hold back: `held=3` are ` Wa`, `it` and the
# lookahead `,`.
#
# The scanner sees each token once, the segmenter the finished text. They must
# agree, and so must the number that was recorded when the model wrote it:

# %% tags=["nbval-check-output"]
segmenter = MarkerSegmenter("paper")
agree = 0
for group in survey:
    trajectory = group.members[0].trajectory
    scanner = segmenter.scanner(group.token_text)
    for token in trajectory.completion_ids:
        scanner.push(token)
    counts = {segmenter.count(trajectory.text), scanner.finish()}
    agree += counts == {trajectory.steps}
print(f"all three agree on {agree} of {len(survey)} completions")

# %% [markdown]
# ## Look at it
#
# The inspector shows one completion, cut into its steps. At each marker
# stands the **trial answer** that the model gave when it was asked there.
# Below, only "Wait" is a marker. Two questions first:
#
# 1. How many numbered steps does this completion have, and how many if you
#    set *probes at* to *every marker*?
# 2. The rule stops at the first trial answer that is confident enough. Where
#    does it stop in each case?

# %%
from stepgrpo_lab.widgets import StepInspector

inspector = StepInspector(member=2, markers=("Wait",))
inspector

# %% [markdown]
# <details><summary>What we see</summary>
#
# 1. Two steps with "Wait" alone, eight with every marker: this completion
#    tries many candidates, and it opens most of its steps with
#    "Alternatively".
# 2. With every marker the rule stops at probe 2, with 37 of 128 tokens, right
#    after the step that found the answer. With "Wait" alone it stops at probe
#    3, with 52: the turn at which the answer was first known went by unseen.
#
# </details>
#
# The cells below compute the same.

# %% tags=["nbval-check-output"]
for words in (("Wait",), ("Wait", "Alternatively")):
    told = StepInspector(member=2, markers=words)
    k = len(told.recorded.steps(2, words))
    print(f"{k} steps; {told.sentence}")

# %% [markdown]
# ## What can go wrong: a marker set that does not fit
#
# The problems come in two families. *chain* goes on with the same work, and
# opens its steps with "Wait". *search* turns from candidate to candidate, and
# mostly says "Alternatively".
#
# The public code looks for "Wait" alone. Which share of the turns in *search*
# does that see? Replace `None`.

# %%
seen = course.predict(
    "Share of the turns in search at which stands 'Wait'?", None, unit="%"
)
seen

# %% tags=["nbval-check-output"]
families = {
    name: [g for g in survey if g.problem.family == name]
    for name in ("chain", "search")
}


def turns(groups, markers):
    return sum(len(group.steps(0, markers)) - 1 for group in groups)


share = {
    name: 100 * turns(groups, "official") / turns(groups, "paper")
    for name, groups in families.items()
}
for name, percent in share.items():
    print(f"{name}: 'Wait' alone sees {percent:.1f} % of the turns")

# %%
seen.compare(share["search"])

# %% [markdown]
# What does it cost? We try the exit rule on the 400 recorded completions of
# test problems (the *survey*): stop at the first trial answer with a
# confidence above 0.95, asked at these markers only. And we ask how well the
# number of steps tells long completions from short ones: the correlation of
# $k$ with the length in tokens.

# %% tags=["nbval-check-output"]
from statistics import correlation

from stepgrpo_lab.method.confidence import ExitRule
from stepgrpo_lab.recordings.measures import try_rule

print("family  markers   stopped  tokens  right  k against tokens")
for name, groups in families.items():
    lengths = [group.members[0].trajectory.tokens for group in groups]
    for markers in ("paper", "official"):
        trial = try_rule(groups, ExitRule(0.95, markers=markers))
        k = [len(group.steps(0, markers)) for group in groups]
        print(
            f"{name:7} {markers:9} {trial.exits:6.1%} {trial.tokens:7.1f}"
            f" {trial.right:7.1%} {correlation(k, lengths):9.2f}"
        )

# %% [markdown]
# In *chain* nothing changes. In *search*, with "Wait" alone,
#
# - completions are 66 tokens long instead of 46, and one in twenty is never
#   stopped: at no "Wait" in it was the trial answer confident;
# - $k$ hardly says any more how long a completion is: a correlation of 0.30
#   instead of almost 1.00. A reward that counts these steps pays for chance.
#
# No answer got worse, and no error was raised. A set that does not fit is
# silent. **Look at your model's thoughts before you choose markers**, and
# watch two numbers: turns per completion, and the correlation of $k$ with
# length. The picture shows it for *search*:

# %%
from stepgrpo_lab.viz.completions import steps_against_tokens

groups = families["search"]
counts = {
    name: [len(group.steps(0, name)) for group in groups]
    for name in ("paper", "official")
}
lengths = [group.members[0].trajectory.tokens for group in groups]
steps_against_tokens(counts, lengths)

# %% [markdown]
# The extreme case is a set that never occurs, here "wait" in lower case. Then
# every $k$ is 1, no probe is made, and the step-aware reward (notebook 06)
# has nothing to compare: each right answer earns exactly the same.

# %% tags=["nbval-check-output"]
from stepgrpo_lab import step_aware_rewards
from stepgrpo_lab.recordings import load_recordings

group = next(group for group in load_recordings() if group.watched)
right = [member.outcome.correct for member in group.members]
formatted = [member.outcome.formatted for member in group.members]


def rewards(k):
    return [round(r, 2) for r in step_aware_rewards(right, k, formatted)]


for markers in ("paper", ["wait"]):
    k = [len(group.steps(place, markers)) for place in range(8)]
    print(markers, k, rewards(k), sep="\n  ")

# %% [markdown]
# ## What a person would count
#
# The rule of the paper knows words, not what they mean. A person who reads
# "8, wait, that's wrong" counts a turn, and none at the heading "Wait Time".
# `MARKER_SETS` has sets for that:
#
# - `reader`: *wait* in any case, *Hmm*, *let me check*, *But* and others,
#   where they open a clause; not in quotation or code, not as a noun. An
#   opening right after another belongs to it ("But wait");
# - `multilingual`: words of many languages. Chinese, Japanese, Thai and Korean
#   ones are found inside longer runs of characters (嗯等等);
# - `blank_lines`: no words. Each paragraph is a step.

# %% [markdown]
# Seven short passages, with the number of steps that a person sees in each.
# Both were **made up for this notebook**, by those who wrote the rules. So
# the table shows what each set looks at, not how well it does on your model.

# %%
passages = {
    "English, lower case": (
        "So 17-9=8, wait, all but 9 run away. So 9 are left. Hmm, let me "
        "check: 17-8=9. But the question says sheep, and they are.",
        4,
    ),
    "English, long": (
        "Half of 12 is 6.\n\nWait, is the base 4?\n\nYes, 3*4=12. Wait, "
        "I used that.\n\nAlternatively, count squares: 6.\n\nSo 6.",
        4,
    ),
    "queueing": (
        'The "Wait Time" column is in minutes. Average Wait is 5. Call '
        "`wg.Wait()` last.\n\nWait, no: 5 is the median.",
        2,
    ),
}

# %%
passages |= {
    "Chinese": (
        "17-9=8。嗯等等，题目说除了9只。\n\n不过，8=17-9。不对，是9。",
        4,
    ),
    "Korean": ("답은 8이다. 잠깐만, 9마리가 남는다.\n\n그래서 9.", 2),
    "layout only": ("First, 3*4=12.\n\nThen 12/2=6.\n\nSo it is 6.", 1),
    "no word for it": ("It is 8. That cannot be: 8+8 is not 17. So 9.", 2),
}

# %% tags=["nbval-check-output"]
sets = ["official", "paper", "multilingual", "reader", "blank_lines"]
print(f"{'passage':20}", *(f"{name:>12}" for name in sets), "  a person")
off = dict.fromkeys(sets, 0)
for title, (passage, by_eye) in passages.items():
    k = {name: MarkerSegmenter(name).count(passage) for name in sets}
    off = {name: off[name] + abs(k[name] - by_eye) for name in sets}
    print(f"{title:20}", *(f"{k[name]:12}" for name in sets), f"{by_eye:10}")
print(f"{'steps off, in all':20}", *(f"{off[name]:12}" for name in sets))

# %% [markdown]
# No set is right everywhere. `reader` comes nearest here, where it could
# hardly fail to, and it still misses a turn that no opening announces.
# `blank_lines` measures layout, as we saw above; it is the way out for a
# model that says none of these words, not a better count.
#
# On the Overthinker, which was trained to say "Wait" and "Alternatively" at
# the start of a step, the sets can be compared on completions that a model
# really wrote:

# %% tags=["nbval-check-output"]
for name in sets:
    counted = [
        MarkerSegmenter(name).count(g.members[0].trajectory.text)
        for g in survey
    ]
    same = sum(
        k == g.members[0].trajectory.steps
        for k, g in zip(counted, survey, strict=True)
    )
    mean = sum(counted) / len(counted)
    print(
        f"{name:12} {mean:5.2f} steps, as recorded in {same} of {len(survey)}"
    )

# %% [markdown]
# `reader` sees nothing at all here: the Overthinker writes equations without
# full stops or commas, so its "Wait" opens no clause. What fits prose does not
# fit this model, and blank lines it never writes.
#
# A run that sees no marker in its first rollout says so at once. What a run
# cannot say is whether the markers it sees are the turns of *your* model:
# read a few completions, count, and compare, as in the table.

# %% [markdown]
# ## What can go wrong: the model avoids the word
#
# The eight completions above answer one problem; together they are a *group*.
# With the paper's markers, right answers in fewer steps than the group's mean
# earn more. Training makes likelier whatever earns more, however it was
# earned. This is *reward hacking*: the number is served, not its purpose.
#
# A model could stop thinking in circles. Or it could stop *saying* "Wait".
# Do it by hand first.

# %% [markdown]
# ### Exercise 02.3 · Cheat
#
# Write `avoid_markers(text)`: the same completion, with all its equations and
# its close, that counts as a single step under the paper's markers.
#
# Difficulty ●○○


# %% tags=["exercise"]
def avoid_markers(text):
    """The same thoughts without a marker."""
    # BEGIN SOLUTION
    # STUB: return text  # your code here
    return text.replace("Wait", "Hmm").replace("Alternatively", "Or")
    # END SOLUTION


# %% tags=["check"]
checks.avoid_markers(avoid_markers)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Nothing has to be understood: `str.replace` with another word is enough.
#
# </details>

# %% [markdown]
# Member 1 of the group is right after 158 tokens and 10 steps. We let it say
# "Hmm" and leave everything else as it is.

# %% tags=["nbval-check-output"]
texts = [member.trajectory.text for member in group.members]
honest = [MarkerSegmenter("paper").count(text) for text in texts]
texts[1] = re.sub(r"\b(Wait|Alternatively)\b", "Hmm", texts[1])
cheating = [MarkerSegmenter("paper").count(text) for text in texts]
print(texts[1][:66], "...")
print("honest:  ", honest[1], "steps, reward", rewards(honest)[1])
print("cheating:", cheating[1], "step,  reward", rewards(cheating)[1])
print("best honest reward:", max(rewards(honest)))

# %% [markdown]
# The same work, as long as before, and now the best reward of the group. The
# counter cannot tell. What speaks against it in practice:
#
# - training only makes likelier what was sampled: as long as no completion
#   says "Hmm" in place of "Wait", nothing can reward it;
# - it shows: tokens per step rise, here from 16 to 158. Plot them beside the
#   number of steps.
#
# In the run of this course that did not happen. Tokens and steps of the
# trained model, on the same 400 problems:

# %% tags=["nbval-check-output"]
for model in ("untrained", "trained"):
    told = [g.members[0].trajectory for g in load_survey() if g.model == model]
    tokens = sum(t.tokens for t in told)
    steps = sum(t.steps for t in told)
    print(
        f"{model:9} {tokens / len(told):6.1f} tokens, "
        f"{steps / len(told):4.1f} steps, {tokens / steps:4.1f} tokens a step"
    )

# %% [markdown]
# Steps and tokens fall together. (Tokens a step rise a little because the
# close and the answer, the same in all completions, are now spread over fewer
# steps.)

# %% [markdown]
# ## Summary
#
# - A semantic step begins at a marker: a standalone, case-sensitive word
#   before the first `</think>`. $k = 1 + $ markers.
# - Steps follow the turns of thought, sentences and lines follow the layout.
# - On tokens, whole tokens are held back, content never, and a marker is
#   certain one token late.
# - A marker set must fit the model. "Wait" alone sees a good third of the
#   turns in *search*, and raises no error.
# - `reader` counts openings that a person would, `multilingual` other
#   languages, `blank_lines` paragraphs; none of them is right everywhere.
# - A count of words can be cheated by other words; watch tokens per step.
#
# Next: [03 · Confidence and calibration of the probe](03_confidence.ipynb)
