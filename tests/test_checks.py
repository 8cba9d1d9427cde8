"""The checks of every exercise: right solutions are green, each likely mistake is red and the message names it."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from math import exp, tanh
from statistics import fmean, pstdev, stdev
from typing import Any

import pytest

from stepgrpo_lab import MarkerSegmenter, TokenText, load_recipe
from stepgrpo_lab.course import checks
from stepgrpo_lab.course.toys import ScriptedPolicy, drive
from stepgrpo_lab.method.rollout import TrajectoryMachine
from stepgrpo_lab.overthinker.verifier import oracle_tokens
from stepgrpo_lab.planning import plan_memory

Solution = Callable[..., Any]
Check = Callable[[Any], checks.CheckResult]
Markers = Sequence[str]
Bins = list[tuple[int, float, float]]
Curve = list[tuple[float, float, float]]


# ---- notebook 00 -----------------------------------------------------------------------------------------------------


def exit_rule(confidences: list[float], threshold: float) -> int | None:
    return next((place for place, value in enumerate(confidences) if value > threshold), None)


def pooled(before: list[float], after: list[float]) -> float:
    return 100 * sum(after) / sum(before)


# ---- notebook 01 -----------------------------------------------------------------------------------------------------


def until_the_first_other(labels: list[str], sizes: list[int], closing: int) -> int:
    kept = 0
    for label, size in zip(labels, sizes, strict=True):
        if label != "needed":
            break
        kept += size
    return kept + closing


def only_needed(labels: list[str], sizes: list[int], closing: int) -> int:
    return sum(size for label, size in zip(labels, sizes, strict=True) if label == "needed") + closing


def saved(before: list[int], after: list[int]) -> float:
    return 1 - sum(after) / sum(before)


def mean_of_shares(before: list[int], after: list[int]) -> float:
    return sum(1 - y / x for x, y in zip(before, after, strict=True)) / len(before)


def cut_after(trials: list[list[bool]], own: list[bool], steps: int) -> float:
    answers = [row[steps - 1] if steps <= len(row) else end for row, end in zip(trials, own, strict=True)]
    return sum(answers) / len(answers)


def last_trial(trials: list[list[bool]], own: list[bool], steps: int) -> float:
    return sum(row[min(steps, len(row)) - 1] for row in trials) / len(own)


def missing_is_wrong(trials: list[list[bool]], own: list[bool], steps: int) -> float:
    return sum(len(row) >= steps and row[steps - 1] for row in trials) / len(own)


# ---- notebook 02 -----------------------------------------------------------------------------------------------------


def by_library(text: str, markers: Markers) -> int:
    return MarkerSegmenter(markers).count(text)


def thoughts_of(text: str) -> str:
    return text.partition("</think>")[0]


def by_letters(text: str, markers: Markers) -> int:
    return 1 + sum(thoughts_of(text).count(marker) for marker in markers)


def by_spaces(text: str, markers: Markers) -> int:
    return 1 + sum(word.strip(".,") in markers for word in thoughts_of(text).split())


def lower_case(text: str, markers: Markers) -> int:
    small = {marker.lower() for marker in markers}
    return 1 + sum(word.lower() in small for word in re.findall(r"\w+", thoughts_of(text)))


def everywhere(text: str, markers: Markers) -> int:
    return 1 + sum(word in markers for word in re.findall(r"\w+", text))


def non_empty(text: str, markers: Markers) -> int:
    return sum(bool(step.text) for step in MarkerSegmenter(markers).split(text))


def by_spans(pieces: list[str], start: int, end: int) -> list[int]:
    spans = TokenText.from_pieces(pieces).spans(range(len(pieces)))
    return [place for place, (first, last) in enumerate(spans) if first < end and last > start]


def inclusive(pieces: list[str], start: int, end: int) -> list[int]:
    return by_spans(pieces, start, end + 1)


def whole_tokens(pieces: list[str], start: int, end: int) -> list[int]:
    spans = TokenText.from_pieces(pieces).spans(range(len(pieces)))
    return [place for place, (first, last) in enumerate(spans) if start <= first and last <= end]


def renamed(text: str) -> str:
    return re.sub("Wait|Alternatively", "Hmm", text)


# ---- notebook 03 -----------------------------------------------------------------------------------------------------


def geometric(probabilities: list[float], skip: int) -> float:
    counted = probabilities[skip:]
    return math.prod(counted) ** (1 / len(counted)) if counted else 0.0


def ece(bins: Bins) -> float:
    return sum(n * abs(stated - right) for n, stated, right in bins) / sum(n for n, *_ in bins)


def cheapest(curve: Curve, least: float) -> float | None:
    enough = [point for point in curve if point[2] >= least]
    return min(enough, key=lambda point: point[1])[0] if enough else None


# ---- notebook 04 -----------------------------------------------------------------------------------------------------


def exit_reason(confidence: float, threshold: float, place: int, think_budget: int, margin: int) -> str | None:
    if confidence > threshold:
        return "early"
    return "near_budget" if think_budget - place <= margin else None


def not_strict(confidence: float, threshold: float, *rest: int) -> str | None:
    return "early" if confidence >= threshold else exit_reason(confidence, threshold, *rest)


def margin_first(confidence: float, threshold: float, place: int, think_budget: int, margin: int) -> str | None:
    if think_budget - place <= margin:
        return "near_budget"
    return "early" if confidence > threshold else None


def strict_margin(confidence: float, threshold: float, place: int, think_budget: int, margin: int) -> str | None:
    return exit_reason(confidence, threshold, place, think_budget, margin - 1)


def decoded(kept: int, trials: list[int], prompt: int, replayed: int) -> int:
    return kept + replayed + sum(prompt + trial - 1 for trial in trials)


def run_engine(machine: TrajectoryMachine, policy: ScriptedPolicy) -> Any:
    drive(machine, policy)
    return machine.trajectory([0])


def engine_without_probabilities(machine: TrajectoryMachine, policy: ScriptedPolicy) -> Any:
    while not machine.done:
        if machine.choice == "sample":
            machine.observe(*policy.sample())
        elif machine.choice == "greedy":
            machine.observe(policy.likeliest()[0], None)
        if not machine.done:
            machine.feed()
    return machine.trajectory([0])


def engine_that_feeds_too_often(machine: TrajectoryMachine, policy: ScriptedPolicy) -> Any:
    while not machine.done:
        machine.observe(*policy.sample())
        machine.feed()
    return machine.trajectory([0])


# ---- notebook 05 -----------------------------------------------------------------------------------------------------


def places_of_probe(base: int, prompt: int, trial: int) -> list[int]:
    return [*range(base, base + prompt + trial - 1), base]


def visible(rows: list[int], width: int) -> list[list[bool]]:
    return [[cell <= place for cell in range(width)] for place in rows]


def draw(number: float, probabilities: list[float]) -> int:
    total = 0.0
    for token, probability in enumerate(probabilities):
        total += probability
        if total > number:
            return token
    return len(probabilities) - 1


def draw_impossible(number: float, probabilities: list[float]) -> int:
    return next(token for token in range(4) if sum(probabilities[: token + 1]) >= number)


# ---- notebook 06 -----------------------------------------------------------------------------------------------------


def mean_of_right(correct: Any, steps: Any) -> float | None:
    kept = [k for c, k in zip(correct, steps, strict=True) if c]
    return fmean(kept) if kept else None


def member_reward(right: bool, steps: int, formatted: bool, mean: Any, alpha: float = 0.9, beta: float = 0.5) -> float:
    return alpha * (1 - beta * tanh((steps - mean) / mean) if right else 0) + (1 - alpha) * formatted


def advantages_of_right(steps: list[int]) -> list[float]:
    mean = fmean(steps)
    terms = [tanh((k - mean) / mean) for k in steps]
    return [-(t - fmean(terms)) / stdev(terms) if len(set(terms)) > 1 else 0.0 for t in terms]


def penalising(correct: bool, steps: int, formatted: bool, mean: Any, alpha: float = 0.9, beta: float = 0.5) -> float:
    return alpha * (correct - beta * tanh((steps - mean) / mean)) + (1 - alpha) * formatted


def without_tanh(correct: bool, steps: int, formatted: bool, mean: Any, alpha: float = 0.9, beta: float = 0.5) -> float:
    return alpha * (1 - beta * (steps - mean) / mean if correct else 0) + (1 - alpha) * formatted


def population(steps: list[int]) -> list[float]:
    mean = fmean(steps)
    terms = [tanh((k - mean) / mean) for k in steps]
    return [-(t - fmean(terms)) / pstdev(terms) for t in terms]


# ---- notebook 07 -----------------------------------------------------------------------------------------------------


def advantages(rewards: list[float], eps: float = 1e-4) -> list[float]:
    if len(set(rewards)) == 1:
        return [0.0] * len(rewards)
    return [(reward - fmean(rewards)) / (stdev(rewards) + eps) for reward in rewards]


def clip(value: float, low: float, high: float) -> float:
    return min(max(value, 1 - low), 1 + high)


def surrogate(now: float, old: float, advantage: float, low: float = 0.2, high: float = 0.28) -> float:
    return min(exp(now - old) * advantage, clip(exp(now - old), low, high) * advantage)


def k3(now: float, reference: float) -> float:
    return exp(reference - now) - (reference - now) - 1


def weights(lengths: list[int], loss_type: str, longest: int = 256) -> list[float]:
    divisors = {
        "grpo": [len(lengths) * length for length in lengths],
        "dapo": [sum(lengths)] * len(lengths),
        "dr_grpo": [len(lengths) * longest] * len(lengths),
    }
    return [1 / divisor for divisor in divisors[loss_type]]


# ---- notebook 08 -----------------------------------------------------------------------------------------------------


def ratio(before: Any, after: Any, drawn: Any) -> float:
    return float(sum(after[place] for place in drawn) / sum(before[place] for place in drawn))


def mean_of_ratios(before: Any, after: Any, drawn: Any) -> float:
    return float(sum(after[place] / before[place] for place in drawn) / len(drawn))


def say(low: float, high: float, margin: float) -> str:
    return "no worse" if low > -margin else "worse" if high < -margin else "undecided"


def split(advantages: Any, forced: Any) -> tuple[float | None, ...]:
    kinds = [[a for a, f in zip(advantages, forced, strict=True) if f is kind] for kind in (True, False)]
    return tuple(sum(kind) / len(kind) if kind else None for kind in kinds)


def split_over_all(advantages: Any, forced: Any) -> tuple[float, ...]:
    kinds = [[a for a, f in zip(advantages, forced, strict=True) if f is kind] for kind in (True, False)]
    return tuple(sum(kind) / len(advantages) for kind in kinds)


def split_without_none(advantages: Any, forced: Any) -> tuple[float, ...]:
    return tuple(mean or 0.0 for mean in split(advantages, forced))


# ---- notebook 09 -----------------------------------------------------------------------------------------------------


def cache_bytes(config: Any, width: int) -> int:
    return 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * config["head_dim"] * width


def adapter_size(shapes: Any, layers: int, rank: int) -> int:
    return layers * rank * sum(outputs + inputs for outputs, inputs in shapes.values())


def fits(recipe: str, gpu: str | None, limit: int) -> bool:
    return plan_memory(load_recipe(recipe, [f"rollout.max_tokens={limit}"]), gpu=gpu).fits


def longest(recipe: str, gpu: str, limits: list[int]) -> int | None:
    return max((limit for limit in limits if fits(recipe, gpu, limit)), default=None)


def query_heads(config: Any, width: int) -> int:
    return 2 * config["num_hidden_layers"] * config["num_attention_heads"] * config["head_dim"] * width


def derived_head(config: Any, width: int) -> int:
    head = config["hidden_size"] // config["num_attention_heads"]
    return 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * head * width


def product(shapes: Any, layers: int, rank: int) -> int:
    return layers * rank * sum(outputs * inputs for outputs, inputs in shapes.values())


def first_fitting(recipe: str, gpu: str, limits: list[int]) -> int | None:
    return next((limit for limit in limits if fits(recipe, gpu, limit)), None)


def own_gpu(recipe: str, gpu: str, limits: list[int]) -> int | None:
    return longest(recipe, None, limits)  # type: ignore[arg-type]


# ---- notebook 10 -----------------------------------------------------------------------------------------------------


def reward(correct: list[bool], steps: list[int], formatted: list[bool], tokens: list[int]) -> list[float]:
    shortest = min((count for count, right in zip(tokens, correct, strict=True) if right), default=None)
    return [
        0.0 if not right else 1.0 if count == shortest else 0.5 for count, right in zip(tokens, correct, strict=True)
    ]


def reward_shortest_of_all(correct: Any, steps: Any, formatted: Any, tokens: Any) -> list[float]:
    return [
        0.0 if not right else 1.0 if count == min(tokens) else 0.5 for count, right in zip(tokens, correct, strict=True)
    ]


def reward_wrong_too(correct: Any, steps: Any, formatted: Any, tokens: Any) -> list[float]:
    return [1.0 if count == min(tokens) else 0.5 * right for count, right in zip(tokens, correct, strict=True)]


def reward_without_default(correct: Any, steps: Any, formatted: Any, tokens: Any) -> list[float]:
    shortest = min(count for count, right in zip(tokens, correct, strict=True) if right)
    return [
        0.0 if not right else 1.0 if count == shortest else 0.5 for count, right in zip(tokens, correct, strict=True)
    ]


def reward_one_winner(correct: Any, steps: Any, formatted: Any, tokens: Any) -> list[float]:
    rewards = [0.5 * right for right in correct]
    right = [place for place, is_right in enumerate(correct) if is_right]
    if right:
        rewards[min(right, key=lambda place: tokens[place])] = 1.0
    return rewards


def validated(rows: Any) -> list[dict[str, float]]:
    return [row for row in rows if "validation/tokens" in row]


def first_step(rows: Any, share: float) -> int | None:
    known = validated(rows)
    start = known[0]["validation/tokens"]
    return next((int(row["step"]) for row in known if row["validation/tokens"] < share * start), None)


def first_step_of_rollouts(rows: Any, share: float) -> int | None:
    start = rows[0]["validation/tokens"]
    return next((row["step"] for row in rows if row.get("tokens", start) < share * start), None)


def first_place(rows: Any, share: float) -> int | None:
    lengths = [row["validation/tokens"] for row in validated(rows)]
    return next((place for place, length in enumerate(lengths) if length < share * lengths[0]), None)


def choose_checkpoint(rows: Any, most_lost: float) -> int:
    known = validated(rows)
    least = known[0]["validation/accuracy"] - most_lost
    kept = [row for row in known if row["validation/accuracy"] >= least]
    return int(min(kept, key=lambda row: row["validation/tokens"])["step"])


# ---- the table -------------------------------------------------------------------------------------------------------

RIGHT = None
ROWS: list[tuple[Check, Solution, str | None]] = [
    (checks.first_confident, exit_rule, RIGHT),
    (checks.first_confident, lambda c, t: exit_rule(c, t - 1e-12), "must be greater than the threshold, not equal"),
    (checks.first_confident, lambda c, t: -1 if exit_rule(c, t) is None else exit_rule(c, t), "expected None"),
    (checks.first_confident, lambda c, t: c.index(max(c)), r"first_confident([0.7, 0.8], 0.95) gives 1"),
    (checks.first_confident, lambda c, t: exit_rule(c, 0.95), "first_confident([0.6, 0.7, 0.99], 0.5) gives 2"),
    (checks.kept_share, pooled, RIGHT),
    (checks.kept_share, lambda b, a: sum(a) / sum(b), "multiply by 100"),
    (checks.kept_share, lambda b, a: 100 - pooled(b, a), "what is kept is asked for"),
    (
        checks.kept_share,
        lambda b, a: 100 * sum(y / x for x, y in zip(b, a, strict=True)) / len(b),
        "mean of the shares",
    ),
    (checks.stop_after_needed, oracle_tokens, RIGHT),
    (checks.stop_after_needed, lambda n, s, c: oracle_tokens(n, s, 0), "the close and the answer must still be"),
    (checks.stop_after_needed, until_the_first_other, "gives 23; expected 46. look for the last needed step"),
    (checks.stop_after_needed, only_needed, "a step in between cannot be left out"),
    (checks.stop_after_needed, lambda n, s, c: sum(s) + c, "gives 61; expected 36"),
    (checks.pooled_saving, saved, RIGHT),
    (checks.pooled_saving, mean_of_shares, "0.316667: that is the mean of the shares"),
    (checks.pooled_saving, lambda b, a: 1 - saved(b, a), "the share that is kept"),
    (checks.pooled_saving, lambda b, a: 100 * saved(b, a), "not per cent"),
    (checks.cut_accuracy, cut_after, RIGHT),
    (checks.cut_accuracy, lambda t, o, s: cut_after(t, o, s + 1), "that after the first stands at index 0"),
    (checks.cut_accuracy, lambda t, o, s: sum(row[s - 1] for row in t) / len(o), "raises IndexError"),
    (checks.cut_accuracy, last_trial, "that is the last trial answer of completions that end before"),
    (checks.cut_accuracy, missing_is_wrong, "cut_accuracy(trials_right, own_right, 3) gives 0.5; expected 0.75"),
    (checks.cut_accuracy, lambda t, o, s: sum(o) / len(o), "gives 0.75; expected 0.25"),
    (checks.count_steps, by_library, RIGHT),
    (checks.count_steps, lambda t, m: by_library(t, m) - 1, "the text before the first marker is a step too"),
    (checks.count_steps, by_letters, "only standalone words count"),
    (checks.count_steps, by_spaces, "a marker ends where its letters end, also at a bracket"),
    (checks.count_steps, lower_case, "markers are case-sensitive"),
    (checks.count_steps, everywhere, "look only at the text before the first </think>"),
    (checks.count_steps, non_empty, "step 0 is then empty"),
    (checks.count_steps, lambda t, m: by_library(t, "paper"), "use the markers you are given"),
    (checks.covering_tokens, by_spans, RIGHT),
    (checks.covering_tokens, inclusive, "the end is excluded"),
    (checks.covering_tokens, whole_tokens, "token 1 starts before the marker but holds its first letters"),
    (checks.covering_tokens, lambda p, s, e: [1, 2], "covering_tokens(['12', ' Wa', 'it', ',', ' so'], 7, 8)"),
    (checks.avoid_markers, renamed, RIGHT),
    (checks.avoid_markers, lambda text: re.sub(" (Wait|Alternatively)", "", text), RIGHT),
    (checks.avoid_markers, lambda text: text, "gives 3; expected 1"),
    (checks.avoid_markers, lambda text: text.replace("Wait", "Hmm"), "gives 2; expected 1"),
    (checks.avoid_markers, lambda text: renamed(text).replace("</think>", ""), "keep </think>"),
    (checks.avoid_markers, lambda text: thoughts_of(text).partition(" W")[0] + "</think>", "gives 2; expected 1"),
    (checks.avoid_markers, lambda text: "<think>" + "</think>", "the work must stay"),
    (checks.avoid_markers, lambda text: "</think>" + text, "the work must stay"),
    (checks.geometric_mean, geometric, RIGHT),
    (checks.geometric_mean, lambda p, skip: fmean(p[skip:]), "arithmetic mean"),
    (checks.geometric_mean, lambda p, skip: math.prod(p[skip:]), "joint probability"),
    (checks.geometric_mean, lambda p, skip: geometric(p, 0), "leave the first"),
    (checks.geometric_mean, lambda p, skip: math.prod(p[skip:]) ** (1 / len(p)), "not of all"),
    (checks.geometric_mean, lambda p, skip: geometric(p, skip) if p[skip:] else 1.0, "nothing vouches"),
    (checks.calibration_error, ece, RIGHT),
    (checks.calibration_error, lambda bins: fmean(abs(s - r) for _, s, r in bins), "its number of answers"),
    (checks.calibration_error, lambda b: abs(sum(n * (s - r) for n, s, r in b)) / sum(n for n, *_ in b), "cancel"),
    (checks.calibration_error, lambda bins: ece(bins) * sum(n for n, *_ in bins), "number of all answers"),
    (checks.cheapest_threshold, cheapest, RIGHT),
    (checks.cheapest_threshold, lambda curve, least: min(curve, key=lambda point: point[1])[0], "only among"),
    (checks.cheapest_threshold, lambda curve, least: max(curve)[0], "take the one with the fewest"),
    (checks.cheapest_threshold, lambda c, least: next((t for t, _, r in c if r >= least), None), "any order"),
    (checks.cheapest_threshold, lambda c, least: cheapest(c, least + 1e-9), "exactly as much"),
    (checks.cheapest_threshold, lambda c, least: cheapest(c, least) or 0.5, "must give None"),
    (checks.exit_reason, exit_reason, RIGHT),
    (checks.exit_reason, not_strict, "greater than the threshold, not equal"),
    (checks.exit_reason, margin_first, "a confident probe is an early exit wherever it stands"),
    (checks.exit_reason, strict_margin, "exactly as far as the margin"),
    (checks.exit_reason, lambda score, threshold, *rest: "early" if score > threshold else None, "margin"),
    (checks.decoded_tokens, decoded, RIGHT),
    (checks.decoded_tokens, lambda kept, trials, prompt, replayed: kept, "cost tokens too"),
    (checks.decoded_tokens, lambda *v: v[0] + v[3] + sum(v[1]) - len(v[1]), "its inducing prompt"),
    (checks.decoded_tokens, lambda *v: decoded(*v) + len(v[1]), "chosen but never fed"),
    (checks.decoded_tokens, lambda *v: decoded(*v) - v[3], "fed a second time"),
    (checks.decoded_tokens, lambda *v: decoded(*v) - v[2] * (len(v[1]) - 1), "not only one"),
    (checks.run_engine, run_engine, RIGHT),
    (checks.run_engine, lambda machine, policy: machine, "Return machine.trajectory"),
    (checks.run_engine, engine_without_probabilities, "third argument"),
    (checks.run_engine, engine_that_feeds_too_often, "RuntimeError"),
    (checks.places_of_probe, places_of_probe, RIGHT),
    (checks.places_of_probe, lambda base, prompt, trial: places_of_probe(base, prompt, trial + 1), "never fed"),
    (checks.places_of_probe, lambda base, prompt, trial: [*range(base, base + prompt + trial)], "goes back"),
    (checks.places_of_probe, lambda base, prompt, trial: places_of_probe(base, prompt, trial)[:-1], "fed again"),
    (
        checks.places_of_probe,
        lambda base, prompt, trial: places_of_probe(base + 1, prompt, trial),
        "marker's own place",
    ),
    (checks.visible, visible, RIGHT),
    (checks.visible, lambda rows, width: [[c < p for c in range(width)] for p in rows], "itself"),
    (checks.visible, lambda rows, width: [[True] * width for _ in rows], "earlier probe"),
    (checks.visible, lambda rows, width: visible([max(rows)] * len(rows), width), "row's own place"),
    (checks.visible, lambda rows, width: [[c > p for c in range(width)] for p in rows], "True means visible"),
    (checks.draw, draw, RIGHT),
    (checks.draw, lambda number, odds: odds.index(max(odds)), "likeliest"),
    (checks.draw, draw_impossible, "up to, but not including"),
    (checks.draw, lambda number, odds: draw(number, odds) if number else 0, "impossible"),
    (checks.mean_steps_of_right, mean_of_right, RIGHT),
    (checks.mean_steps_of_right, lambda c, k: fmean(k), "that is the mean over all members"),
    (checks.mean_steps_of_right, lambda c, k: sum(x for x, y in zip(k, c, strict=True) if y) / sum(c), "divides by 0"),
    (checks.mean_steps_of_right, lambda c, k: mean_of_right(c, k) or 0, "nobody is right, so there is no mean"),
    (checks.member_reward, member_reward, RIGHT),
    (checks.member_reward, penalising, "a wrong answer gets no step term"),
    (checks.member_reward, without_tanh, "goes through tanh first"),
    (checks.member_reward, lambda c, k, f, m, a, b: member_reward(c, k, f, m, a, -b), "mind the sign before beta"),
    (checks.member_reward, lambda c, k, f, m, a, b: member_reward(c, k, True, m, a, b), "multiply 1 - alpha"),
    (
        checks.member_reward,
        lambda c, k, f, m, a, b: a * c * (1 - b * tanh((k - m) / m)) + (1 - a) * f,
        "look at it for right answers alone",
    ),
    (checks.member_reward, lambda c, k, f, m, a, b: member_reward(c, k, f, m), "0.6, 0.2) gives"),
    (checks.advantages_of_right, advantages_of_right, RIGHT),
    (checks.advantages_of_right, lambda steps: [-a for a in advantages_of_right(steps)], "the sign is wrong"),
    (checks.advantages_of_right, population, "use statistics.stdev"),
    (
        checks.advantages_of_right,
        lambda steps: [-(k - fmean(steps)) / stdev(steps) for k in steps],
        "standardise tanh((k - mu) / mu)",
    ),
    (
        checks.advantages_of_right,
        lambda steps: advantages_of_right(steps) if len(set(steps)) > 1 else [1 / 0],
        "where all are equal, give zeros",
    ),
    (checks.group_relative_advantages, advantages, RIGHT),
    (checks.group_relative_advantages, lambda r, eps=0: [x - fmean(r) for x in r], "not divided yet"),
    (
        checks.group_relative_advantages,
        lambda r, eps=1e-4: [(x - fmean(r)) / (pstdev(r) + eps) for x in r],
        "use statistics.stdev, not pstdev",
    ),
    (
        checks.group_relative_advantages,
        lambda r, eps=1e-4: [(x - fmean(r)) / (stdev(r) + eps) for x in r],
        "where all are equal, give zeros",
    ),
    (checks.group_relative_advantages, lambda r, eps=1e-4: advantages(r), "eps is added to the deviation"),
    (checks.clipped_surrogate, surrogate, RIGHT),
    (checks.clipped_surrogate, lambda n, o, a, lo, hi: exp(n - o) * a, "nothing is clipped"),
    (
        checks.clipped_surrogate,
        lambda n, o, a, lo, hi: clip(exp(n - o), lo, hi) * a,
        "this one holds back what has gone astray",
    ),
    (
        checks.clipped_surrogate,
        lambda n, o, a, lo, hi: min(exp(n - o), clip(exp(n - o), lo, hi)) * a,
        "not the smaller ratio",
    ),
    (checks.clipped_surrogate, lambda n, o, a, lo, hi: surrogate(n, o, a, lo, lo), "1 - low and 1 + high"),
    (checks.clipped_surrogate, lambda n, o, a, lo, hi: -surrogate(n, o, a), "that is the loss"),
    (
        checks.clipped_surrogate,
        lambda n, o, a, lo, hi: max(exp(n - o) * a, clip(exp(n - o), lo, hi) * a),
        "this one holds back what has gone astray",
    ),
    (checks.k3_estimate, k3, RIGHT),
    (checks.k3_estimate, lambda n, ref: n - ref, "that is k1"),
    (checks.k3_estimate, lambda n, ref: k3(ref, n), "the gap is reference minus policy"),
    (checks.k3_estimate, lambda n, ref: exp(ref - n) - (ref - n), "expected 0.1487"),
    (checks.loss_type_weights, weights, RIGHT),
    (
        checks.loss_type_weights,
        lambda lengths, kind, longest: [1 / n for n in lengths],
        "the mean over the completions is missing",
    ),
    (
        checks.loss_type_weights,
        lambda lengths, kind, longest: weights(lengths, "grpo" if kind == "grpo" else "dapo"),
        "times the longest length allowed",
    ),
    (
        checks.loss_type_weights,
        lambda lengths, kind, longest: weights(lengths, "grpo", longest),
        "tokens of all completions",
    ),
    (checks.drawn_ratio, ratio, RIGHT),
    (checks.drawn_ratio, mean_of_ratios, "mean of the problems' ratios"),
    (checks.drawn_ratio, lambda before, after, drawn: ratio(after, before, drawn), "before over after"),
    (checks.drawn_ratio, lambda before, after, drawn: sum(after) / sum(before), "use only the drawn problems"),
    (checks.drawn_ratio, lambda before, after, drawn: ratio(before, after, set(drawn)), "must count twice"),
    (checks.drawn_ratio, lambda before, after, drawn: after[9], "your code raised IndexError"),
    (checks.verdict, say, RIGHT),
    (checks.verdict, lambda low, high, margin: "no worse" if high >= 0 else "worse", "does not show 'no loss'"),
    (checks.verdict, lambda low, high, margin: say(low, high, 0.0), "even the worst end"),
    (checks.verdict, lambda low, high, margin: say(low, high, 1.0), "with a margin of 0.2 points"),
    (checks.advantage_by_close, split, RIGHT),
    (checks.advantage_by_close, lambda a, f: split(a, f)[::-1], "the two are exchanged"),
    (checks.advantage_by_close, split_over_all, "not by the size of the group"),
    (checks.advantage_by_close, split_without_none, "has no mean: return None"),
    (checks.cache_bytes_per_token, cache_bytes, RIGHT),
    (checks.cache_bytes_per_token, lambda config, width: cache_bytes(config, width) // 2, "both keys and values"),
    (checks.cache_bytes_per_token, query_heads, "only key-value heads are kept"),
    (checks.cache_bytes_per_token, derived_head, "it is not hidden_size // heads"),
    (
        checks.cache_bytes_per_token,
        lambda config, width: cache_bytes({**config, "num_hidden_layers": 1}, width),
        "every layer keeps its own",
    ),
    (checks.cache_bytes_per_token, lambda config, width: 7, "Keys and values, of all layers"),
    (checks.adapter_size, adapter_size, RIGHT),
    (checks.adapter_size, product, "add, do not multiply"),
    (checks.adapter_size, lambda shapes, layers, rank: product(shapes, layers, 1), "the matrices themselves"),
    (checks.adapter_size, lambda shapes, layers, rank: adapter_size(shapes, 1, rank), "every layer has its own"),
    (checks.adapter_size, lambda shapes, n, r: n * r * sum(i for _, i in shapes.values()), "that is A alone"),
    (checks.adapter_size, lambda shapes, n, r: n * r * sum(o for o, _ in shapes.values()), "that is B alone"),
    (checks.longest_completion, longest, RIGHT),
    (checks.longest_completion, first_fitting, "that fits, but"),
    (checks.longest_completion, lambda recipe, gpu, limits: max(limits), "that does not fit"),
    (checks.longest_completion, own_gpu, "that fits, but"),
    (checks.longest_completion, lambda recipe, gpu, limits: longest(recipe, gpu, limits) or 0, "give None"),
    (checks.shortest_right_reward, reward, RIGHT),
    (checks.shortest_right_reward, reward_shortest_of_all, "look for the shortest among the right"),
    (checks.shortest_right_reward, reward_wrong_too, "short guesses would be learnt first"),
    (checks.shortest_right_reward, reward_without_default, "your code raised ValueError"),
    (checks.shortest_right_reward, reward_one_winner, "two right members of the same length"),
    (checks.first_step_below, first_step, RIGHT),
    (checks.first_step_below, first_step_of_rollouts, "which the probes cut"),
    (checks.first_step_below, first_place, 'return the row\'s "step"'),
    (checks.first_step_below, lambda rows, share: first_step(rows, share) or 0, "which is never reached"),
    (checks.first_step_below, lambda rows, share: rows[1]["validation/tokens"], "your code raised KeyError"),
    (checks.choose_checkpoint, choose_checkpoint, RIGHT),
    (checks.choose_checkpoint, lambda rows, most_lost: choose_checkpoint(rows, 1.0), "which lost 9 points"),
    (
        checks.choose_checkpoint,
        lambda rows, most_lost: max(validated(rows), key=lambda row: row["validation/accuracy"])["step"],
        "shortest",
    ),
    (checks.choose_checkpoint, lambda rows, most_lost: 1, "was not validated"),
    (
        checks.choose_checkpoint,
        lambda rows, most_lost: choose_checkpoint(list(reversed(rows)), most_lost),
        "with nothing to lose",
    ),
    (checks.choose_checkpoint, lambda rows, most_lost: 40, "with at most 0.5 lost"),
]
"""Check, solution, and what the message must say of it; a right solution has none."""

CHECKS = list(dict.fromkeys(check for check, _, _ in ROWS))


def name_of(value: object) -> str | None:
    return getattr(value, "__name__", None)


def test_every_check_has_right_and_wrong_solutions_in_the_table() -> None:
    exercises = {getattr(checks, name) for name in checks.__all__ if hasattr(getattr(checks, name), "exercise")}
    for right in (True, False):
        assert {check for check, _, named in ROWS if (named is RIGHT) == right} == exercises


@pytest.mark.parametrize(("check", "solution", "named"), ROWS, ids=name_of)
def test_a_right_solution_is_green_and_a_mistake_is_red_and_named(
    check: Check, solution: Solution, named: str | None
) -> None:
    result = check(solution)
    assert result.passed == (named is RIGHT), result.message
    assert named is RIGHT or named.lower() in result.message.lower(), result.message


@pytest.mark.parametrize("check", CHECKS, ids=name_of)
def test_a_stub_is_red_and_so_is_code_that_raises(check: Check) -> None:
    def raising(*_: Any, **__: Any) -> Any:
        raise RuntimeError("boom")

    for nothing in (None, ...):
        stub = check(lambda *_, nothing=nothing, **__: nothing)
        assert not stub.passed and "gives nothing yet; write the body (expected" in stub.message
    broken = check(raising)
    assert not broken.passed and "raised RuntimeError: boom" in broken.message


def test_importing_the_checks_imports_nothing_heavy() -> None:
    program = "import sys, stepgrpo_lab.course.checks; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert not {"torch", "transformers", "plotly"} & set(loaded.split())
