# ---
# jupyter:
#   stepgrpo:
#     title: Semantic steps
#     minutes: 95
#     hardware: any CPU
# ---

# %% [markdown]
# ## The same thoughts, at two prices
#
# Two completions of one problem, with the same equations, the same right answer, and 158 tokens each. They begin:
#
# ```text
# A 4*7=8 8+6=4 no Alternatively B 5+9=4 4+6=0 yes Wait B 5+9=4 4+6=0 yes ...
# A 4*7=8 8+6=4 no Hmm B 5+9=4 4+6=0 yes Hmm B 5+9=4 4+6=0 yes ...
# ```
#
# Step-GRPO pays a right completion more the fewer *steps* it has. The first one earns 0.77. The second earns 1.29, more
# than one that solved the same problem in 38 tokens.
#
# Nine words make the difference. What is a step, that a model can shed nine of them without thinking any less? And why
# count steps at all?

# %%
import stepgrpo_lab as lab

course.drawing(
    "steps",
    "Above: thoughts as a band of text, cut before the words Alternatively "
    "and Wait into three steps; the answer after the close is no step. "
    "Below: tokens arrive one at a time. The token .Wait looked like a "
    "marker, but with the next token it became Waiting. Then come the tokens "
    "Wa and it, and the question is when this marker is certain.",
)

# %% [markdown]
# ## Objectives
#
# After this notebook you can
#
# - say what a semantic step is, and count the steps of a text;
# - say why steps begin at words such as "Wait" and not at sentences or lines;
# - find the tokens of a marker, also while they are still arriving;
# - recognise a set of markers that does not fit its model, and measure the damage;
# - explain how a model could cheat a count of markers.

# %% [markdown]
# ## Where we are
#
# [Notebook 01](01_overthinking.ipynb) showed a model that knows its answer early and goes on. To stop it, two things are
# needed: *places* where one can ask "do you know it yet?", and a *unit* in which length is counted. In Step-GRPO both are
# the **semantic step**.
#
# A *completion* is everything that the model writes after the question: thoughts up to `</think>`, then the answer.
# Thoughts are cut at **markers**, words with which the model turns to a new attempt.

# %% [markdown]
# The number of steps is
#
# $$k = 1 + \text{number of markers before the first } \texttt{</think>}$$
#
# (Eq. 3 of [the paper](https://arxiv.org/abs/2604.16890)). Three rules make it exact:
#
# - a marker is a **standalone word**: a longest run of letters, digits and underscores;
# - it is **case-sensitive**: "wait" in the middle of a sentence is no turn;
# - it counts **before the first `</think>`**: what follows is the answer, not a thought.

# %% [markdown]
# ## Count one yourself
#
# The markers are "Wait" and "Alternatively".

# %% tags=["nbval-check-output"]
toy = (
    "2+2=4.Wait, Waiting for the await call is none. wait! "
    "Alternatively (Wait) 4=2+2</think>The answer is 4. Wait, done."
)
print(toy)
print("the letters 'Wait' occur", toy.count("Wait"), "times")

# %%
steps_guess = course.predict(
    "How many steps does this text have?", unit="steps", low=1, high=8
)
steps_guess

# %% [markdown]
# ### Exercise 02.1 · Count the steps (●○○, 8 minutes)
#
# Return $k$ for a text and a collection of markers. A text without a `</think>` is all thoughts.
#
# The places of all probes and every reward of the course rest on this number.


# %% tags=["exercise"]
import re


def count_steps(text, markers):
    """Number of semantic steps of a completion."""
    # BEGIN SOLUTION
    # STUB: return ...  # your code here
    thoughts = text.partition("</think>")[0]
    words = re.findall(r"\w+", thoughts)
    return 1 + sum(word in markers for word in words)
    # END SOLUTION


# %% tags=["check"]
from stepgrpo_lab.course import checks

verdict = checks.count_steps(count_steps)
count_steps = verdict.solution
verdict

# %% [markdown]
# <details><summary>Hint</summary>
#
# First throw away what follows the close; `str.partition` does it even if there is none. In a regular expression, `\w+`
# is a longest run of letters, digits and underscores.
#
# </details>

# %% tags=["nbval-check-output", "result"]
print("your count:", count_steps(toy, ("Wait", "Alternatively")))
for step in lab.MarkerSegmenter("paper").split(toy):
    print(step.index, step.marker, repr(step.text))

# %% tags=["result"]
steps_guess.compare(count_steps(toy, ("Wait", "Alternatively")), tolerance=0)

# %% [markdown]
# The text before the first marker is step 0, and a step may be very short. This is the library's code:

# %%
course.source_of(lab.MarkerSegmenter.split)

# %% [markdown]
# The public code of Step-GRPO uses "Wait" alone (the set `official`). The paper speaks of a set of words (`paper`), as
# **DEER** does ([Yang et al., 2025](https://arxiv.org/abs/2504.15895)), the early exit from which Step-GRPO comes. DEER
# looks for words at which a model turns to another line of thought, because there the previous one is complete. Which set
# fits depends on the model, as we shall see. Any list of words will do.

# %% tags=["nbval-check-output"]
print({name: lab.MARKER_SETS[name] for name in ("official", "paper")})
print("more sets:", *list(lab.MARKER_SETS)[2:])

# %% [markdown]
# ## Why not sentences or lines?
#
# The same thoughts, laid out in two ways. (The passage was made by hand, in the manner of a large model.)

# %% tags=["nbval-check-output"]
laid_out = (
    "Area is 3 times 4.\n\nSo 12.\n\nHalf of it: 6.\n\n"
    "Wait, the base is 5.\n\nThen 5 times 4.\n\nSo 20. Half: 10."
)
in_one_line = laid_out.replace("\n\n", " ").replace(".", ";")
for name, text in {"laid out": laid_out, "one line": in_one_line}.items():
    sentences = len(re.findall(r"[^.]+\.", text))
    lines = text.count("\n\n") + 1
    steps = count_steps(text, ("Wait", "Alternatively"))
    print(f"{name}: {sentences} sentences, {lines} lines, {steps} steps")

# %% [markdown]
# Sentences and lines measure the layout; steps measure the turns. That matters twice:
#
# - **as places to ask.** After "So 12." the work is half done. Asking there costs tokens and cannot end well. At "Wait"
#   an attempt is complete;
# - **as a unit of length.** A model that is paid for fewer sentences can write semicolons. It need not think less.
#
# The second point is not quite settled, as the top of this page shows. We come back to it.

# %% [markdown]
# ## Markers and tokens
#
# A model writes *tokens*, pieces of text. We use recorded completions of the course's own small model, the Overthinker.
# Where do its steps begin?

# %% tags=["nbval-check-output"]
from stepgrpo_lab.recordings import load_survey

survey = [group for group in load_survey() if group.model == "untrained"]
first = survey[0]
pieces = first.pieces(first.members[0].trajectory.completion_ids)
print(first.problem.prompt)
print(pieces[:20])
for step in first.steps(0)[:3]:
    print(step.index, repr("".join(pieces[step.token_start : step.token_end])))

# %% [markdown]
# Here the token `' Wait'` holds the marker, and a space. When a marker is *held back*, so that the model can be asked in
# its place, whole tokens are held back. Two rules decide which, in the library's `MarkerScanner`:
#
# - space and punctuation in front go with the marker (` Wait`, `.Wait`);
# - **content never goes**: a token such as `12 Wait` stays, because the `12` belongs to the step before.
#
# And a marker may be spread over several tokens, `Wa` and `it`. Then all of them go.

# %% [markdown]
# ## While tokens arrive
#
# A rollout, the sampling of one completion, cannot wait for the end: it has to stop *at* the marker. So a scanner takes
# one token at a time. It gets the tokens `4`, `.Wait`, `ing`, ` Wa`, `it`, `,`.

# %%
certain_guess = course.predict(
    "With which token does it report the marker made of ' Wa' and 'it'?",
    choices=("with ' Wa'", "with 'it'", "with the comma"),
)
certain_guess

# %% tags=["nbval-check-output", "result"]
stream = ["4", ".Wait", "ing", " Wa", "it", ","]
scanner = lab.MarkerSegmenter("paper").scanner(
    lab.TokenText.from_pieces(stream)
)
hits = [scanner.push(token) for token in range(len(stream))]
for piece, hit in zip(stream, hits, strict=True):
    print(f"{piece!r:8}", hit)

# %% tags=["result"]
words = {3: "with ' Wa'", 4: "with 'it'", 5: "with the comma"}
certain_guess.compare(words[next(i for i, hit in enumerate(hits) if hit)])

# %% [markdown]
# <details><summary>Why then?</summary>
#
# `.Wait` alone looked like a marker. Then came `ing`. A marker is certain only once the character after it is known, so
# the hit may come one token late. It also says how many tokens to hold back: `held=3` are ` Wa`, `it` and the *lookahead*
# `,`.
#
# </details>

# %% [markdown]
# ### Exercise 02.2 · A scanner (●●●, 30 minutes)
#
# Write what stands between the model and every probe of this course. `scan(pieces, markers)` goes over the texts of the
# tokens once, from left to right. For each token it returns `(marker, held)` if this token makes a marker certain, and
# `None` if not. A marker is *certain* once nothing that may follow can make another word of it.

# %% [markdown]
# - A marker may be spread over several tokens, and it may end inside one. No token makes two markers certain.
# - `held` says how many of the newest tokens to hold back: every token that holds a part of the marker, and all after it.
# - A token with content (a letter, digit or underscore) *before* the marker stays, and is not counted. Space and signs
#   do not make it stay.
# - `</think>` is always a token of its own. After it there are no markers.

# %% [markdown]
# The stream above gives `("Wait", 3)` at its last token and `None` before. `["12 Wait", "!"]` gives `None` and
# `("Wait", 1)`: only the exclamation mark is held back.
#
# A rollout calls this for every token of thousands of completions. So do not go back over the text: remember no more of
# it than you need.


# %% tags=["exercise"]
def scan(pieces, markers):
    """For each token, (marker, tokens to hold back), or None."""
    # BEGIN SOLUTION
    # STUB: return ...  # your code here
    hits, word, held, closed = [], "", 0, False
    for piece in pieces:
        hit, content = None, False
        held += 1
        closed = closed or piece == "</think>"
        for character in piece:
            if character.isalnum() or character == "_":
                if not word:
                    held = 0 if content else 1
                word += character
                content = True
            else:
                if word in markers and not closed:
                    hit = (word, held)
                word = ""
        hits.append(hit)
    return hits
    # END SOLUTION


# %% tags=["check"]
verdict = checks.scan_markers(scan, number="02.2")
scan = verdict.solution
verdict

# %% [markdown]
# <details><summary>Hint</summary>
#
# Three things are enough to remember: the word that has begun and not ended, how many tokens there are since it began, and
# whether the thoughts are closed. Go over the characters of each token: one that belongs to a word makes the word longer,
# any other ends it. When a word begins, ask whether its token already held content.
#
# </details>
#
# The scanner sees each token once, the segmenter the finished text. They have to agree, also with the number that was
# recorded when the model wrote it. Yours included:

# %% tags=["nbval-check-output"]
segmenter = lab.MarkerSegmenter("paper")
agree, put_back = 0, 0
for group in survey:
    trajectory = group.members[0].trajectory
    pieces = group.pieces(trajectory.completion_ids)
    hits = [hit for hit in scan(pieces, ("Wait", "Alternatively")) if hit]
    put_back += sum(held for _, held in hits)
    agree += ({1 + len(hits), segmenter.count(trajectory.text)}) == {
        trajectory.steps
    }
print(f"all three agree on {agree} of {len(survey)} completions")
print(f"{put_back} tokens were held back, to be put back or dropped")

# %% [markdown]
# ## Look at it
#
# The inspector shows one completion, cut into its steps. At each marker stands the *trial answer* that the model gave when
# it was asked there. Below, only "Wait" is a marker. Two questions first:
#
# 1. How many numbered steps does this completion have, and how many if you set *probes at* to *every marker*?
# 2. The rule stops at the first trial answer that is confident enough. Where does it stop in each case?

# %%
from stepgrpo_lab.widgets import StepInspector

inspector = StepInspector(member=2, markers=("Wait",))
inspector

# %% [markdown]
# <details><summary>What we see</summary>
#
# 1. Two steps with "Wait" alone, eight with every marker. This completion tries many candidates, and it opens most of its
#    steps with "Alternatively".
# 2. With every marker the rule stops at probe 2, with 37 of 128 tokens, right after the step that found the answer. With
#    "Wait" alone it stops later, with 52 tokens: at the place where the answer was first known, nobody asked.
#
# </details>

# %% tags=["nbval-check-output"]
for words in (("Wait",), ("Wait", "Alternatively")):
    other = StepInspector(member=2, markers=words)
    k = len(other.recorded.steps(2, words))
    print(f"{k} steps; {other.sentence}")

# %% [markdown]
# ## What can go wrong: a marker set that does not fit
#
# The problems come in two families. *chain* works through a row of operations and opens its steps with "Wait". *search*
# turns from candidate to candidate, and mostly says "Alternatively". The public code looks for "Wait" alone.

# %%
seen_guess = course.predict(
    "What percentage of the turns in search does 'Wait' alone see?", unit="%"
)
seen_guess

# %% tags=["nbval-check-output", "result"]
families = {
    name: [group for group in survey if group.problem.family == name]
    for name in ("chain", "search")
}


def turns(groups, markers):
    """Markers in all completions."""
    return sum(len(group.steps(0, markers)) - 1 for group in groups)


seen = {
    name: 100 * turns(groups, "official") / turns(groups, "paper")
    for name, groups in families.items()
}
for name, percent in seen.items():
    print(f"{name}: 'Wait' alone sees {percent:.1f} % of the turns")

# %% tags=["result"]
seen_guess.compare(seen["search"])

# %% [markdown]
# What does that cost? We try an exit rule on the 400 recorded completions of test problems (the *survey*): stop at the
# first trial answer with a confidence above 0.95, asked at these markers only. And we see how well the number of steps
# tells long completions from short ones: the correlation of $k$ with the length in tokens.

# %% tags=["nbval-check-output"]
from statistics import correlation

from stepgrpo_lab.recordings.measures import try_rule

print("family  markers   stopped  tokens  right  k against tokens")
for name, groups in families.items():
    lengths = [group.members[0].trajectory.tokens for group in groups]
    for markers in ("paper", "official"):
        trial = try_rule(groups, lab.ExitRule(0.95, markers=markers))
        k = [len(group.steps(0, markers)) for group in groups]
        print(
            f"{name:7} {markers:9} {trial.exits:6.1%} {trial.tokens:7.1f}"
            f" {trial.right:7.1%} {correlation(k, lengths):9.2f}"
        )

# %% [markdown]
# In *chain* nothing changes. In *search*, with "Wait" alone,
#
# - completions are 66 tokens long instead of 46, and one in twenty is never stopped: at no "Wait" in it was the trial
#   answer confident;
# - $k$ says hardly anything about the length of a completion. The correlation is 0.30 instead of almost 1.00, so a reward
#   that counts these steps pays for chance.
#
# No answer got worse, and no error was raised. A set that does not fit is silent. **Read your model's thoughts before you
# choose markers**, and watch two numbers: turns per completion, and the correlation of $k$ with length. The picture shows
# it for *search*:

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
# The extreme case is a set that never occurs, here "wait" in lower case. Then every $k$ is 1, no probe is made, and the
# step-aware reward ([06](06_step_aware_reward.ipynb)) has nothing to compare. Eight completions of one problem, a *group*,
# with their rewards:

# %% tags=["nbval-check-output"]
from stepgrpo_lab.recordings import load_recordings

group = next(group for group in load_recordings() if group.watched)
right = [member.outcome.correct for member in group.members]
formatted = [member.outcome.formatted for member in group.members]


def rewards(k):
    """Step-aware rewards of the group, for these numbers of steps."""
    return [round(r, 2) for r in lab.step_aware_rewards(right, k, formatted)]


for markers in ("paper", ["wait"]):
    k = [len(group.steps(place, markers)) for place in range(8)]
    print(markers, k, rewards(k), sep="\n  ")

# %% [markdown]
# ## What a person would count
#
# The paper's rule knows words, not what they mean. A person who reads "8, wait, that's wrong" counts a turn, and none at
# the heading "Wait Time". `MARKER_SETS` has sets for that:
#
# - `reader`: *wait* in any case, *Hmm*, *let me check*, *But* and others, where they open a clause; not in quotations or
#   code, and not as nouns. An opening right after another belongs to it ("But wait");
# - `multilingual`: words of many languages. Chinese, Japanese, Thai and Korean ones are found inside longer runs of
#   characters (嗯等等);
# - `blank_lines`: no words. Each paragraph is a step.
#
# Or you write your own.

# %% [markdown]
# ### Exercise 02.3 · A reader's eye (●●○, 20 minutes)
#
# Write a splitter for prose. `split_turns(text, openings)` cuts the thoughts into steps and returns their texts. A new
# step begins at an *opening*: one of the words `openings` (given in lower case, matched in any case) that opens a
# **clause**. Joined again, the steps are the thoughts: the text before the first `</think>`. As in the paper's rule, the
# text before the first opening is a step, even if it is empty.

# %% [markdown]
# - A clause begins with the text, and after any of `.` `,` `;` `:` `!` `?` and a line break, with nothing but spaces
#   between.
# - What stands inside `"quotation marks"` or between backticks opens nothing. (If they are never closed, they reach to the
#   end.)
# - An opening right after another belongs to it: "Hmm, wait, ..." is one turn, unless another word stands between.


# %% tags=["exercise"]
from itertools import pairwise


def split_turns(text, openings):
    """The thoughts, cut before each opening."""
    # BEGIN SOLUTION
    # STUB: return [text]  # your code here
    thoughts = text.partition("</think>")[0]
    cuts, opens, fresh, quote = [0], True, False, ""
    for match in re.finditer(r"\w+|[^\w ]", thoughts):
        part = match[0]
        if quote:
            quote = "" if part == quote else quote
        elif part in ('"', "`"):
            quote, opens = part, False
        elif part in (".", ",", ";", ":", "!", "?", "\n"):
            opens = True
        elif opens and part.lower() in openings:
            if not fresh:
                cuts.append(match.start())
            opens, fresh = False, True
        else:
            opens = False
            fresh = fresh and not part[0].isalnum()
    cuts.append(len(thoughts))
    return [thoughts[a:b] for a, b in pairwise(cuts)]
    # END SOLUTION


# %% tags=["check"]
verdict = checks.split_turns(split_turns, number="02.3")
split_turns = verdict.solution
verdict

# %% [markdown]
# <details><summary>Hint</summary>
#
# `re.finditer(r"\w+|[^\w ]", thoughts)` gives words and signs, one at a time, and leaves out the spaces. Walk over
# them and remember three things: whether a clause could begin here, whether the last turn has no other word yet, and which
# quotation is open.
#
# </details>
#
# Two lines make a segmenter of it. The library can now count, scan and train with yours; `split` alone is enough.

# %%
OPENINGS = {"wait", "hmm", "but", "alternatively", "actually"}


class Yours(lab.Segmenter):
    """Steps as you cut them."""

    def split(self, text):
        steps, place = [], 0
        for part in split_turns(text, OPENINGS):
            end = place + len(part)
            steps.append(lab.Step(len(steps), None, part, place, end))
            place = end
        return steps


# %% [markdown]
# Seven short passages, each with the number of steps that a person sees in it. Passages and numbers were **made up for
# this notebook**, by the authors of the rules. So the table shows what each set looks at, not how well it does on your
# model. The last column but one is yours: add openings to the set above, and see whether you can beat `reader`.

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
segmenters = {name: lab.MarkerSegmenter(name) for name in sets}
segmenters["yours"] = Yours()
print(f"{'passage':20}", *(f"{name:>12}" for name in segmenters), "a person")
off = dict.fromkeys(segmenters, 0)
for title, (passage, by_eye) in passages.items():
    k = {name: by.count(passage) for name, by in segmenters.items()}
    off = {name: off[name] + abs(k[name] - by_eye) for name in k}
    print(f"{title:20}", *(f"{count:12}" for count in k.values()), by_eye)
print(f"{'steps off, in all':20}", *(f"{count:12}" for count in off.values()))

# %% [markdown]
# No set is right everywhere. `reader` comes nearest, on passages where it could hardly fail to, and it still misses a turn
# that no opening announces. `blank_lines` measures layout. It is the way out for a model that says none of these words,
# not a better count.
#
# And on completions that a model really wrote? The Overthinker was trained to say "Wait" and "Alternatively" at the start
# of a step:

# %% tags=["nbval-check-output"]
for name, segmenter in segmenters.items():
    recorded = [group.members[0].trajectory for group in survey]
    counted = [segmenter.count(trajectory.text) for trajectory in recorded]
    same = sum(
        k == trajectory.steps
        for k, trajectory in zip(counted, recorded, strict=True)
    )
    mean = sum(counted) / len(counted)
    print(
        f"{name:12} {mean:5.2f} steps, as recorded in {same} of {len(survey)}"
    )

# %% [markdown]
# `reader` sees nothing at all, and the rule that you wrote sees nothing either. The Overthinker writes equations without
# full stops or commas, so its "Wait" opens no clause. What fits prose does not fit this model, and it never writes a blank
# line.
#
# A training run that sees no marker in its first rollout says so at once. It cannot say whether the markers that it does
# see are the turns of *your* model. Read a few completions, count, and compare.

# %% [markdown]
# ## What can go wrong: the model avoids the word
#
# Back to the top of the page. With the paper's markers, right answers in fewer steps than the group's mean earn more, and
# training makes likelier whatever earns more, however it was earned. When a number is served instead of its purpose, that
# is *reward hacking*, well known long before language models
# ([Amodei et al., 2016](https://arxiv.org/abs/1606.06565)).
#
# A model could stop thinking in circles. Or it could stop *saying* "Wait". Do it for the model first.

# %% [markdown]
# ### Exercise 02.4 · Cheat (●○○, 5 minutes)
#
# Return the same completion, with all its equations and its close, in a form that counts as a single step under the
# paper's markers. No equation may get lost.


# %% tags=["exercise"]
def avoid_markers(text):
    """The same thoughts without a marker."""
    # BEGIN SOLUTION
    # STUB: return text  # your code here
    return text.replace("Wait", "Hmm").replace("Alternatively", "Or")
    # END SOLUTION


# %% tags=["check"]
verdict = checks.avoid_markers(avoid_markers, number="02.4")
avoid_markers = verdict.solution
verdict

# %% [markdown]
# <details><summary>Hint</summary>
#
# Nothing has to be understood: `str.replace` with another word is enough.
#
# </details>
#
# Your cheat, applied to member 1 of the group above:

# %% tags=["nbval-check-output"]
texts = [member.trajectory.text for member in group.members]
honest = [lab.MarkerSegmenter("paper").count(text) for text in texts]
texts[1] = avoid_markers(texts[1])
cheating = [lab.MarkerSegmenter("paper").count(text) for text in texts]
print(texts[1][8:70], "...")
print("honest:  ", honest[1], "steps, reward", rewards(honest)[1])
print("cheating:", cheating[1], "step,  reward", rewards(cheating)[1])
print(
    "next best:", max(r for r in rewards(cheating)[2:] + rewards(cheating)[:1])
)

# %% [markdown]
# The same work, as long as before, and the best reward of the group. The counter cannot tell. Two things work against it
# in practice:
#
# - training only makes likelier what was sampled. As long as no completion says "Hmm" in place of "Wait", nothing can
#   reward it;
# - it shows: tokens per step rise, here from 16 to 158. Plot them beside the number of steps.
#
# Did it happen in the course's own run? Tokens per step of the untrained and the trained model, on the same 400 problems:

# %% tags=["nbval-check-output"]
for model in ("untrained", "trained"):
    written = [
        group.members[0].trajectory
        for group in load_survey()
        if group.model == model
    ]
    tokens = sum(trajectory.tokens for trajectory in written)
    steps = sum(trajectory.steps for trajectory in written)
    print(f"{model:9} {tokens / steps:4.1f} tokens a step")

# %% [markdown]
# Hardly a change, and the small one is innocent: the close and the answer, the same in all completions, are spread over
# fewer steps.

# %% [markdown]
# ## Your predictions

# %%
course.score()

# %% [markdown]
# ## Summary
#
# - A semantic step begins at a marker: a standalone, case-sensitive word before the first `</think>`. $k = 1 + $ markers.
# - Steps follow the turns of thought, sentences and lines follow the layout.
# - On tokens, whole tokens are held back, content never, and a scanner has to know when a marker is certain.
# - A marker set must fit the model, and one that does not raises no error.
# - A count of words can be cheated by other words. Watch tokens per step.

# %% [markdown]
# **Further reading.** Words at which a model can be stopped: DEER ([arXiv 2504.15895](https://arxiv.org/abs/2504.15895)).
# What becomes of numbers that are rewarded: Amodei et al., "Concrete problems in AI safety"
# ([arXiv 1606.06565](https://arxiv.org/abs/1606.06565)). Words: the [glossary](../docs/glossary.md).
#
# Next: [03, confidence and calibration of the probe](03_confidence.ipynb)
