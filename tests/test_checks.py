"""The checks of every exercise: right solutions are green, each likely mistake is red and the message names it."""

from __future__ import annotations

import contextlib
import math
import random
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from math import exp, tanh
from statistics import fmean, pstdev, stdev
from typing import Any

import numpy as np
import pytest
import torch

from stepgrpo_lab import MarkerSegmenter, OutcomeReward, StepAwareReward, load_recipe
from stepgrpo_lab.course import checks
from stepgrpo_lab.course.checks import _result
from stepgrpo_lab.course.toys import ScriptedPolicy, TinyWriter, drive
from stepgrpo_lab.method.rollout import TrajectoryMachine
from stepgrpo_lab.method.sampling import uniform
from stepgrpo_lab.overthinker.verifier import oracle_tokens
from stepgrpo_lab.planning import plan_memory
from stepgrpo_lab.planning.sizes import config_dimensions, lora_parameters

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


def replayed(completions: Any, threshold: float, closing: int = 1, own: bool = False) -> tuple[float, float]:
    ends = []
    for row in completions:
        stop = exit_rule([confidence for _, confidence, _ in row["probes"]], threshold)
        place, _, right = (row["tokens"], 0, row["right"]) if stop is None else row["probes"][stop]
        ends.append((place + closing * (stop is not None) * row["closing"], row["right"] if own else right))
    before, after = sum(row["tokens"] for row in completions), sum(place for place, _ in ends)
    return 100 * after / before, 100 * fmean(right for _, right in ends)


# ---- notebook 01 -----------------------------------------------------------------------------------------------------


def oracle_saves(
    completions: Any, kept: Callable[..., int] = oracle_tokens, closing: bool = True, pooled: bool = True
) -> float:
    pairs = [(sum(sizes) + closing * end, kept(labels, sizes, end)) for labels, sizes, end in completions]
    if not pooled:
        return sum(1 - after / before for before, after in pairs) / len(pairs)
    return 1 - sum(after for _, after in pairs) / sum(before for before, _ in pairs)


def curve_of_cuts(completions: Any, most: int, last: bool = False, closing: bool = True, first: int = 1) -> Any:
    curve = []
    for steps in range(first, most + first):
        ends = []
        for row in completions:
            at = (min(steps, len(row["ends"])) if last else steps) - 1
            if at < len(row["ends"]):
                ends.append((row["ends"][at] + closing * row["closing"], row["trials_right"][at]))
            else:
                ends.append((row["tokens"], row["right"]))
        curve.append((fmean(tokens for tokens, _ in ends), fmean(right for _, right in ends)))
    return curve


def legal_steps(start: int, operations: Any, answer: int, steps: Any) -> list[tuple[bool, bool, bool]]:
    """Of each step: whether it is legal, completes its pass, and does so rightly."""
    moves, rest, value = [], list(operations), start
    for equations in steps:
        legal = len(equations) in (1, 2) and len(equations) <= len(rest)
        for equation, operation in zip(equations, rest, strict=False):
            legal = legal and equation[0] == value and equation[1:3] == operation
            value = equation[3]
        rest = rest[len(equations) :] if legal else []
        moves.append((legal, legal and not rest, legal and not rest and value == answer))
        if not rest:
            rest, value = list(operations), start
    return moves


def labels_of_chain(*case: Any, once: bool = True, look_ahead: bool = True) -> list[str]:
    moves, labels = legal_steps(*case), list[str]()
    for place, (legal, complete, right) in enumerate(moves):
        end = next((move for move in moves[place:] if move[1] or not move[0]), (False, False, False))
        solved = any(move[2] for move in moves[:place])
        checked = once and any(move[2] and label == "verifying" for move, label in zip(moves, labels, strict=False))
        verifies = (end[2] if look_ahead else right and complete) and not checked
        labels.append("needed" if not solved else "verifying" if verifies else "redundant")
        labels[-1] = labels[-1] if legal else "malformed"
    return labels


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


def scan(pieces: Sequence[str], markers: Markers, content: bool = True, extra: int = 0) -> list[Any]:
    """By the words of the text so far, and where each token begins."""
    found: list[Any] = []
    starts = [len("".join(pieces[:place])) for place in range(len(pieces) + 1)]
    for place in range(len(pieces)):
        texts = ["".join(pieces[: place + more]).partition("</think>")[0] for more in (0, 1)]
        before, now = ([w for w in re.finditer(r"\w+(?=\W)", x, re.DOTALL) if w[0] in markers] for x in texts)
        if len(now) == len(before):
            found.append(None)
            continue
        word = now[len(before)]
        first = next(at for at in range(place + 1) if starts[at + 1] > word.start())
        stays = content and re.search(r"\w", texts[1][starts[first] : word.start()])
        found.append((word[0], place + 1 - first - bool(stays) + extra))
    return found


def scan_too_early(pieces: Sequence[str], markers: Markers) -> list[Any]:
    words = [re.findall(r"\w+", "".join(pieces[: place + 1])) for place in range(len(pieces))]
    return [(row[-1], 1) if row and row[-1] in markers else None for row in words]


def scan_tokens_alone(pieces: Sequence[str], markers: Markers) -> list[Any]:
    return [hit for piece in pieces for hit in scan([piece], markers)]


def turns(text: str, openings: Any, clause: str = r".,;:!?\n", quoted: str = r'"[^"]*"?|`[^`]*`?') -> list[str]:
    """By one pattern for an opening and one for what stands between two of them."""
    thoughts = text.partition("</think>")[0]
    hidden = re.sub(quoted, lambda match: "\0" * len(match[0]), thoughts)
    cuts = [0]
    last = None
    for match in re.finditer(r"\w+", hidden):
        before = hidden[: match.start()].rstrip(" ")
        if match[0].lower() in openings and (not before or re.search(f"[{clause}]$", before)):
            between = hidden[last : match.start()] if last is not None else "word"
            cuts += [match.start()] if re.search(r"\w", between) else []
            last = match.end()
    return [thoughts[start:end] for start, end in zip(cuts, [*cuts[1:], len(thoughts)], strict=True)]


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


def group_rewards(
    correct: Any,
    steps: Any,
    formatted: Any,
    alpha: float = 0.9,
    beta: float = 0.5,
    mean: Callable[[list[int]], float] = fmean,
    squash: Callable[[float], float] = tanh,
    penalises: bool = False,
) -> list[float]:
    counted = [k for c, k in zip(correct, steps, strict=True) if c]
    mu = mean(counted) if counted else 0.0
    terms = [
        beta * squash((k - mu) / mu) if mu and (c or penalises) else 0.0 for c, k in zip(correct, steps, strict=True)
    ]
    return [alpha * (c - term) + (1 - alpha) * f for c, term, f in zip(correct, terms, formatted, strict=True)]


def advantages_of_right(steps: list[int]) -> list[float]:
    mean = fmean(steps)
    terms = [tanh((k - mean) / mean) for k in steps]
    return [-(t - fmean(terms)) / stdev(terms) if len(set(terms)) > 1 else 0.0 for t in terms]


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


def signal(
    groups: Any, scaled: bool = True, mixed: Callable[[list[bool]], bool] | None = None
) -> tuple[float | None, ...]:
    kinds: dict[bool, list[float]] = {True: [], False: []}
    for rewards, forced in groups:
        spread = stdev(rewards) + 1e-4 if scaled else 1.0
        for reward, was_forced in zip(rewards, forced, strict=True):
            kinds[was_forced].append((reward - fmean(rewards)) / spread)
    shared = fmean((mixed or (lambda forced: len(set(forced)) == 2))(forced) for _, forced in groups)
    return shared, *(fmean(kind) if kind else None for kind in kinds.values())


# ---- notebook 09 -----------------------------------------------------------------------------------------------------


def plan(config: Any, rank: int, rows: int, context: int, **how: Any) -> dict[str, float]:
    model = config_dimensions({**config, "model_type": "qwen3", "max_position_embeddings": 4096})
    frozen = model.layers * model.layer_linear
    head = model.hidden // model.heads if how.get("divides") else model.head_dim
    return {
        "weights": frozen / 2 + frozen / 64 + frozen / 4096 + 2 * (model.embedding + model.untied_head),
        "training": how.get("bytes", 16) * sum(lora_parameters(model, rank)),
        "cache": rows * context * how.get("keys", 2) * model.layers * model.kv_heads * head * 2,
    }


def fits(recipe: str, gpu: str | None, limit: int) -> bool:
    return plan_memory(load_recipe(recipe, [f"rollout.max_tokens={limit}"]), gpu=gpu).fits


def longest(recipe: str, gpu: str, limits: list[int]) -> int | None:
    return max((limit for limit in limits if fits(recipe, gpu, limit)), default=None)


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


# ---- on tensors ------------------------------------------------------------------------------------------------------


def probe_confidence(logits: Any, ids: Any, skip: int = 1) -> Any:
    chosen = logits.log_softmax(-1).gather(-1, ids[:, None])[skip:]
    return chosen.mean().exp() if len(chosen) else 0.0


def reliability(stated: list[float], right: list[bool], bins: int = 10) -> Any:
    held: dict[int, list[tuple[float, bool]]] = {}
    for answer in zip(stated, right, strict=True):
        held.setdefault(min(int(answer[0] * bins), bins - 1), []).append(answer)
    rows = [
        (fmean(s for s, _ in held[place]), fmean(r for _, r in held[place]), len(held[place])) for place in sorted(held)
    ]
    return rows, sum(count * abs(mean - share) for mean, share, count in rows) / len(stated)


def with_torch_buckets(stated: list[float], right: list[bool], bins: int = 10) -> Any:
    values, truth = torch.tensor(stated), torch.tensor(right).float()
    place = (values * bins).long().clamp(max=bins - 1)
    rows = [[values[place == i].mean(), truth[place == i].mean(), (place == i).sum()] for i in place.unique()]
    return rows, sum(n * (s - r).abs() for s, r, n in rows) / len(stated)


def rollout_loop(writer: TinyWriter, threshold: float, *, drops: bool = True) -> Any:
    tokens: list[int] = []
    close, scores = None, []
    while not tokens or tokens[-1] != writer.end:
        tokens.append(writer.sample(tokens))
        if tokens[-1] == writer.close:
            close = close or "natural"
        if tokens[-1] not in writer.markers or close:
            continue
        trial = tokens[:-1] + writer.probe_prompt
        start, odds = len(trial), []
        while writer.close not in trial[start:] and len(odds) < 20:
            token, odd = writer.likeliest(trial)
            trial.append(token)
            odds.append(odd)
        scores.append(exp(fmean(map(math.log, odds[1:]))))
        if scores[-1] > threshold:
            close, tokens = "early", tokens[: -1 if drops else None] + writer.forced_close
    return tokens, close, scores


def rollout_that_forgets_the_close(writer: TinyWriter, threshold: float) -> Any:
    writer.forced_close = []
    return rollout_loop(writer, threshold)


def rollout_that_never_stops(writer: TinyWriter, threshold: float) -> Any:
    tokens: list[int] = []
    while True:
        tokens.append(writer.sample(tokens))


def go_back(model: Any, cache: Any, length: int, token: int) -> Any:
    cache.crop(length - cache.get_seq_length())
    return fed(model, cache, length, token)


def fed(model: Any, cache: Any, place: int, token: int) -> Any:
    from stepgrpo_lab.engines.cache import cache_argument

    named = {cache_argument(model): cache}
    return model(input_ids=torch.tensor([[token]]), position_ids=torch.tensor([[place]]), **named).logits[0, -1]


def with_a_new_cache(model: Any, cache: Any, length: int, token: int) -> Any:
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys[:, :, :length].clone(), layer.values[:, :, :length].clone()
    return fed(model, cache, length, token).tolist()


def without_cutting(model: Any, cache: Any, length: int, token: int) -> Any:
    return fed(model, cache, cache.get_seq_length(), token)


def position_counts_on(model: Any, cache: Any, length: int, token: int) -> Any:
    further = cache.get_seq_length()
    cache.crop(length - further)
    return fed(model, cache, further, token)


def with_zeros(model: Any, cache: Any, length: int, token: int) -> Any:
    for layer in cache.layers:
        layer.values[:, :, length:] = 0  # the keys are still attended to
    return fed(model, cache, length, token)


def forgets_after_it(model: Any, cache: Any, length: int, token: int) -> Any:
    logits = go_back(model, cache, length, token)
    cache.crop(-1)
    return logits


def engine(
    model: Any,
    token_text: Any,
    prompt: Any,
    key: Any,
    limit: int,
    settings: Any,
    by_place: bool = True,
    from_prompt: bool = True,
) -> Any:
    """Without a cache: every token is read again for each choice."""
    machine, context, count = TrajectoryMachine(token_text, limit, settings, True), list(prompt), 0
    while not machine.done:
        with torch.no_grad():
            odds = model(input_ids=torch.tensor([context])).logits[0, -1].softmax(-1)
        if machine.choice == "sample":
            token = draw(uniform(key, machine.position if by_place else count), odds.tolist())
            machine.observe(token, math.log(odds[token]))
            count += 1
        elif machine.choice == "greedy":
            machine.observe(int(odds.argmax()), None, float(odds.max()))
        if not machine.done:
            token, place = machine.feed()
            context[(len(prompt) if from_prompt else 1) + place :] = [token]
    return machine.trajectory(prompt)


def temperature(stated: Any, right: Any, squares: bool = False) -> float:
    """By Newton's method on its inverse, or by trying for the squares."""
    odds, truth = torch.tensor(stated).double().clamp(1e-4, 1 - 1e-4).logit(), torch.tensor(right).double()
    if squares:
        tries = torch.linspace(0.3, 6.0, 2000, dtype=torch.float64)
        return float(tries[((odds / tries[:, None]).sigmoid() - truth).pow(2).mean(1).argmin()])
    scale = 0.3
    for _ in range(60):
        given = (scale * odds).sigmoid()
        scale -= float((odds * (given - truth)).sum() / (odds**2 * given * (1 - given)).sum())
    return 1 / scale


def all_groups(rewards: Any, eps: float = 1e-4) -> Any:
    return (rewards - rewards.mean(-1, keepdim=True)) / (rewards.std(-1, keepdim=True) + eps)


def group_by_group(rewards: Any, eps: float = 1e-4) -> Any:
    return torch.stack([torch.tensor(advantages(row.tolist(), eps)) for row in rewards])


def grpo(
    new: Any,
    old: Any,
    gained: Any,
    mask: Any,
    low: float = 0.2,
    high: float = 0.2,
    far: Any = None,
    weight: float = 0.0,
    kind: str = "dapo",
    longest: int = 256,
) -> Any:
    ratio = (new - old).exp()
    scale = gained[:, None]
    losses = -torch.min(ratio * scale, torch.clamp(ratio, 1 - low, 1 + high) * scale)
    if weight:
        losses = losses + weight * (torch.expm1(far - new) - (far - new))
    return {
        "dapo": (losses * mask).sum() / mask.sum(),
        "grpo": ((losses * mask).sum(1) / mask.sum(1)).mean(),
        "dr_grpo": (losses * mask).sum() / (len(mask) * longest),
    }[kind]


def grpo_by_cases(
    new: Any,
    old: Any,
    gained: Any,
    mask: Any,
    low: float = 0.2,
    high: float = 0.2,
    far: Any = None,
    weight: float = 0.0,
    kind: str = "dapo",
    longest: int = 256,
) -> Any:
    ratio, scale = (new - old).exp(), gained[:, None].expand_as(new)
    held = torch.where(scale > 0, ratio.clamp(max=1 + high), ratio.clamp(min=1 - low))
    losses = weight * ((far - new).exp() - far + new - 1) - held * scale
    if kind == "grpo":
        return sum(row[kept].mean() for row, kept in zip(losses, mask, strict=True)) / len(mask)
    return losses[mask].mean() if kind == "dapo" else losses[mask].sum() / longest / len(mask)


def train(policy: Any, rollout: Any, steps: int, updates: int = 2, learning_rate: float = 1.0, **how: Any) -> Any:
    optimiser = torch.optim.SGD([policy], lr=learning_rate)
    for _ in range(steps):
        choices, rewards = rollout(policy)
        gained = how.get("advantages", all_groups)(rewards).flatten()
        old = policy.log_softmax(0)[choices.flatten()].detach()
        for _ in range(updates):
            new = policy.log_softmax(0)[choices.flatten()]
            if how.get("clears", True):
                optimiser.zero_grad()
            old = new.detach() if how.get("fresh") else old
            loss = how.get("loss", grpo)(new[:, None], old[:, None], gained, torch.ones(len(new), 1))
            loss.backward()
            optimiser.step()


def train_by_hand(policy: Any, rollout: Any, steps: int, updates: int = 2, learning_rate: float = 1.0) -> None:
    for _ in range(steps):
        choices, rewards = rollout(policy)
        gained, old = all_groups(rewards), torch.log_softmax(policy, 0).detach()[choices]
        for _ in range(updates):
            ratio = (torch.log_softmax(policy, 0)[choices] - old).exp()
            loss = -torch.min(ratio * gained, ratio.clamp(0.8, 1.2) * gained).mean()
            (slope,) = torch.autograd.grad(loss, policy)
            with torch.no_grad():
                policy -= learning_rate * slope


def interval(before: Any, after: Any, resamples: int = 2000, seed: int = 0) -> Any:
    gaps = np.array(after) - np.array(before)
    drawn = np.random.default_rng(seed).choice(gaps, (resamples, len(gaps)))
    return tuple(np.percentile(drawn.mean(1), [2.5, 97.5]))


def interval_in_plain_python(before: Any, after: Any, resamples: int = 2000, seed: int = 0) -> Any:
    rng, places = random.Random(seed), range(len(before))
    means = sorted(fmean(after[i] - before[i] for i in rng.choices(places, k=len(places))) for _ in range(resamples))
    return [means[resamples // 40], means[-resamples // 40 - 1]]


def unpaired(before: Any, after: Any, resamples: int = 2000, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    means = [rng.choice(after, len(after)).mean() - rng.choice(before, len(before)).mean() for _ in range(resamples)]
    return np.percentile(means, [2.5, 97.5])


def fixed(rollout: Any) -> Any:
    """A rollout that is sampled once."""
    kept: list[Any] = []

    def again(policy: Any) -> Any:
        kept[:] = kept or [rollout(policy)]
        return kept[0]

    return again


# ---- the table -------------------------------------------------------------------------------------------------------


def penalised(correct: torch.Tensor, tokens: torch.Tensor, strength: float = 0.2) -> torch.Tensor:
    rows = []
    for right, lengths in zip(correct, tokens.double(), strict=True):
        some = lengths[right]
        mean, std = (some.mean(), some.std(unbiased=False)) if len(some) else (0.0, 1.0)
        rows.append(torch.where(right, 1 - strength * torch.sigmoid((lengths - mean) / (std + 1e-7)), 0.0))
    return torch.stack(rows)


def chunked(
    hidden: torch.Tensor,
    head: torch.Tensor,
    targets: torch.Tensor,
    chunk: int,
    highest: float | None = None,
    last: bool = True,
) -> torch.Tensor:
    pieces = head[: len(head) if last else len(head) // chunk * chunk].split(chunk)
    tops = [(hidden @ piece.T).amax(-1) for piece in pieces]
    top = torch.stack(tops).amax(0) if highest is None else torch.full_like(tops[0], highest)
    total = sum((hidden @ piece.T - top[:, None]).exp().sum(-1) for piece in pieces)
    return (hidden * head[targets]).sum(-1) - top - torch.as_tensor(total).log()


RIGHT = None


def name_of(value: object) -> str | None:
    return getattr(value, "__name__", None)


ROWS: list[tuple[Check, Solution, str | None]] = [
    (checks.first_confident, exit_rule, RIGHT),
    (checks.first_confident, lambda c, t: exit_rule(c, t - 1e-12), "must be greater than the threshold, not equal"),
    (checks.first_confident, lambda c, t: -1 if exit_rule(c, t) is None else exit_rule(c, t), "expected None"),
    (checks.first_confident, lambda c, t: c.index(max(c)), r"raises ValueError"),
    (checks.first_confident, lambda c, t: exit_rule(c, 0.95), "gives None; expected 0"),
    (checks.kept_share, pooled, RIGHT),
    (checks.kept_share, lambda b, a: sum(a) / sum(b), "multiply by 100"),
    (checks.kept_share, lambda b, a: 100 - pooled(b, a), "what is kept is asked for"),
    (
        checks.kept_share,
        lambda b, a: 100 * sum(y / x for x, y in zip(b, a, strict=True)) / len(b),
        "mean of the percentages",
    ),
    (checks.replay_exits, replayed, RIGHT),
    (checks.replay_exits, lambda c, t: replayed(c, t, closing=0), "the close and the answer must still be written"),
    (checks.replay_exits, lambda c, t: replayed(c, t, own=True), "answers with its trial answer"),
    (checks.replay_exits, lambda c, t: replayed(c, t - 1e-12), "must be greater than the threshold"),
    (checks.replay_exits, lambda c, t: tuple(x / 100 for x in replayed(c, t)), "give percentages"),
    (checks.replay_exits, lambda c, t: (100.0, 100.0), "expected"),
    (checks.label_chain, labels_of_chain, RIGHT),
    (checks.label_chain, lambda *case: labels_of_chain(*case, once=False), "only the first right pass"),
    (checks.label_chain, lambda *case: labels_of_chain(*case, look_ahead=False), "all steps of the verifying pass"),
    (checks.label_chain, lambda s, o, a, steps: ["needed"] * len(steps), "expected"),
    (checks.oracle_saving, oracle_saves, RIGHT),
    (checks.oracle_saving, lambda rows: oracle_saves(rows, pooled=False), "that is the mean of the shares"),
    (
        checks.oracle_saving,
        lambda rows: oracle_saves(rows, lambda n, s, c: oracle_tokens(n, s, 0)),
        "must still be written",
    ),
    (checks.oracle_saving, lambda rows: 1 - oracle_saves(rows), "the share that is kept"),
    (checks.oracle_saving, lambda rows: 100 * oracle_saves(rows), "not a percentage"),
    (
        checks.oracle_saving,
        lambda rows: oracle_saves(rows, lambda n, s, c: c + sum(x for x, y in zip(s, n, strict=True) if y == "needed")),
        "a step in between cannot be left out",
    ),
    (checks.oracle_saving, lambda rows: oracle_saves(rows, closing=False), "those of close and answer"),
    (checks.cut_curve, curve_of_cuts, RIGHT),
    (checks.cut_curve, lambda rows, most: curve_of_cuts(rows, most, last=True), "that takes the last trial answer"),
    (checks.cut_curve, lambda rows, most: curve_of_cuts(rows, most, closing=False), "must still be written"),
    (checks.cut_curve, lambda rows, most: curve_of_cuts(rows, most, first=2), "the answer after the first step stands"),
    (checks.cut_curve, lambda rows, most: [(x, 100 * y) for x, y in curve_of_cuts(rows, most)], "from 0 to 1"),
    (checks.cut_curve, lambda rows, most: [row["trials_right"][most] for row in rows], "raises IndexError"),
    (checks.count_steps, by_library, RIGHT),
    (checks.count_steps, lambda t, m: by_library(t, m) - 1, "the text before the first marker is a step too"),
    (checks.count_steps, by_letters, "only standalone words count"),
    (checks.count_steps, by_spaces, "a marker ends where its letters end"),
    (checks.count_steps, lower_case, "markers are case-sensitive"),
    (checks.count_steps, everywhere, "look only at the text before the first </think>"),
    (checks.count_steps, non_empty, "step 0 is then empty"),
    (checks.count_steps, lambda t, m: by_library(t, "paper"), "use the markers you are given"),
    (checks.scan_markers, scan, RIGHT),
    (checks.scan_markers, scan_tokens_alone, "carry the unfinished word over"),
    (checks.scan_markers, scan_too_early, "expected"),
    (checks.scan_markers, lambda p, m: scan(p, m, content=False), "content never goes"),
    (checks.scan_markers, lambda p, m: scan(p, m, extra=-1), "is held back too"),
    (checks.scan_markers, lambda p, m: scan([x.replace("</think>", ".") for x in p], m), "after </think>"),
    (checks.scan_markers, lambda p, m: scan(p, ("Wait", "Alternatively")), "use the markers you are given"),
    (checks.split_turns, turns, RIGHT),
    (checks.split_turns, lambda text, words: turns(text, words, clause=r".!?\n"), "after a comma too"),
    (checks.split_turns, lambda text, words: turns(text, words, quoted=r"`[^`]*`?"), "in quotation marks"),
    (checks.split_turns, lambda text, words: [part for part in turns(text, words) if part], "even an empty one"),
    (checks.split_turns, lambda text, words: turns(text, {"wait", "hmm", "but"}), "the openings you are given"),
    (checks.split_turns, lambda text, words: re.split(r"(?i)(?=\bwait|\bhmm|\bbut)", text), "expected"),
    (checks.avoid_markers, renamed, RIGHT),
    (checks.avoid_markers, lambda text: re.sub(" (Wait|Alternatively)", "", text), RIGHT),
    (checks.avoid_markers, lambda text: text, "expected 1"),
    (checks.avoid_markers, lambda text: text.replace("Wait", "Hmm"), "expected 1"),
    (checks.avoid_markers, lambda text: renamed(text).replace("</think>", ""), "keep </think>"),
    (checks.avoid_markers, lambda text: thoughts_of(text).partition(" W")[0] + "</think>", "expected 1"),
    (checks.avoid_markers, lambda text: "<think>" + "</think>", "the work must stay"),
    (checks.avoid_markers, lambda text: "</think>" + text, "the work must stay"),
    (checks.geometric_mean, geometric, RIGHT),
    (checks.geometric_mean, lambda p, skip: fmean(p[skip:]), "arithmetic mean"),
    (checks.geometric_mean, lambda p, skip: math.prod(p[skip:]), "joint probability"),
    (checks.geometric_mean, lambda p, skip: geometric(p, 0), "leave the first"),
    (checks.geometric_mean, lambda p, skip: math.prod(p[skip:]) ** (1 / len(p)), "over the tokens that count"),
    (checks.geometric_mean, lambda p, skip: geometric(p, skip) if p[skip:] else 1.0, "nothing vouches"),
    (checks.calibration_error, ece, RIGHT),
    (checks.calibration_error, lambda bins: fmean(abs(s - r) for _, s, r in bins), "its number of answers"),
    (checks.calibration_error, lambda b: abs(sum(n * (s - r) for n, s, r in b)) / sum(n for n, *_ in b), "cancel"),
    (checks.calibration_error, lambda bins: ece(bins) * sum(n for n, *_ in bins), "number of all answers"),
    (checks.cheapest_threshold, cheapest, RIGHT),
    (checks.cheapest_threshold, lambda curve, least: min(curve, key=lambda point: point[1])[0], "only among"),
    (checks.cheapest_threshold, lambda curve, least: max(curve)[0], "no point is right often enough"),
    (checks.cheapest_threshold, lambda c, least: next((t for t, _, r in c if r >= least), None), "any order"),
    (checks.cheapest_threshold, lambda c, least: cheapest(c, least + 1e-9), "exactly as much"),
    (checks.cheapest_threshold, lambda c, least: cheapest(c, least) or 0.5, "return None"),
    (checks.exit_reason, exit_reason, RIGHT),
    (checks.exit_reason, not_strict, "greater than the threshold, not equal"),
    (checks.exit_reason, margin_first, "a confident probe is an early exit wherever it stands"),
    (checks.exit_reason, strict_margin, "exactly as far from the budget as the margin"),
    (checks.exit_reason, lambda score, threshold, *rest: "early" if score > threshold else None, "margin"),
    (checks.decoded_tokens, decoded, RIGHT),
    (checks.decoded_tokens, lambda kept, trials, prompt, replayed: kept, "cost tokens too"),
    (checks.decoded_tokens, lambda *v: v[0] + v[3] + sum(v[1]) - len(v[1]), "its inducing prompt"),
    (checks.decoded_tokens, lambda *v: decoded(*v) + len(v[1]), "chosen but never fed"),
    (checks.decoded_tokens, lambda *v: decoded(*v) - v[3], "fed a second time"),
    (checks.decoded_tokens, lambda *v: decoded(*v) - v[2] * max(0, len(v[1]) - 1), "not only one"),
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
    (checks.visible, lambda rows, width: visible([max(rows)] * len(rows), width), "one row's mask is not the others'"),
    (checks.visible, lambda rows, width: [[c > p for c in range(width)] for p in rows], "True means visible"),
    (checks.draw, draw, RIGHT),
    (checks.draw, lambda number, odds: odds.index(max(odds)), "likeliest"),
    (checks.draw, draw_impossible, "not equal to it"),
    (checks.draw, lambda number, odds: draw(number, odds) if number else 0, "expected"),
    (checks.step_rewards, group_rewards, RIGHT),
    (checks.step_rewards, lambda *v: group_rewards(*v, penalises=True), "a wrong answer gets no step term"),
    (checks.step_rewards, lambda *v: group_rewards(*v, squash=float), "goes through tanh first"),
    (checks.step_rewards, lambda c, k, f, a, b: group_rewards(c, k, f, a, -b), "mind the sign before beta"),
    (checks.step_rewards, lambda c, k, f, a, b: group_rewards(c, k, [True] * len(c), a, b), "multiply 1 - alpha by it"),
    (checks.step_rewards, lambda c, k, f, a, b: group_rewards(c, k, f), "use the alpha and beta"),
    (checks.step_rewards, lambda c, *v: [sum(c) / sum(c)], "raises ZeroDivisionError"),
    (checks.advantages_of_right, advantages_of_right, RIGHT),
    (checks.advantages_of_right, lambda steps: [-a for a in advantages_of_right(steps)], "the sign is wrong"),
    (checks.advantages_of_right, population, "use statistics.stdev"),
    (
        checks.advantages_of_right,
        lambda steps: [-(k - fmean(steps)) / stdev(steps) for k in steps],
        "goes through tanh first",
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
    (checks.group_relative_advantages, lambda r, eps=1e-4: [(x - fmean(r)) / (stdev(r) + eps) for x in r], RIGHT),
    (
        checks.group_relative_advantages,
        lambda r, eps=1e-4: [(x - fmean(r)) / stdev(r) for x in r],
        "eps is added to the deviation",
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
    (checks.clipped_surrogate, lambda n, o, a, lo, hi: -surrogate(n, o, a), "surrogate("),
    (
        checks.clipped_surrogate,
        lambda n, o, a, lo, hi: max(exp(n - o) * a, clip(exp(n - o), lo, hi) * a),
        "not the larger",
    ),
    (checks.k3_estimate, k3, RIGHT),
    (checks.k3_estimate, lambda n, ref: n - ref, "that is k1"),
    (checks.k3_estimate, lambda n, ref: k3(ref, n), "the gap is reference minus policy"),
    (checks.k3_estimate, lambda n, ref: exp(ref - n) - (ref - n), "subtract 1"),
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
    (checks.drawn_ratio, lambda before, after, drawn: sum(after) / sum(before), "use only the drawn ones"),
    (checks.drawn_ratio, lambda before, after, drawn: ratio(before, after, set(drawn)), "must count twice"),
    (checks.drawn_ratio, lambda before, after, drawn: after[9], "raises IndexError"),
    (checks.verdict, say, RIGHT),
    (checks.verdict, lambda low, high, margin: "no worse" if high >= 0 else "worse", "does not show 'no loss'"),
    (checks.verdict, lambda low, high, margin: say(low, high, 0.0), "was accepted beforehand"),
    (checks.verdict, lambda low, high, margin: say(low, high, 1.0), "use the margin that you are given"),
    (checks.closing_signal, signal, RIGHT),
    (checks.closing_signal, lambda groups: (signal(groups)[0], *signal(groups)[:0:-1]), "the two means are exchanged"),
    (checks.closing_signal, lambda groups: signal(groups, scaled=False), "that only subtracts the mean"),
    (checks.closing_signal, lambda groups: signal(groups, mixed=any), "a forced and a natural close"),
    (checks.closing_signal, lambda groups: tuple(x or 0.0 for x in signal(groups)), "return None for it"),
    (checks.closing_signal, lambda groups: fmean(groups[0][0]), "expected"),
    (checks.memory_plan, plan, RIGHT),
    (checks.memory_plan, lambda *case: plan(*case, divides=True), "it is not hidden_size // heads"),
    (checks.memory_plan, lambda *case: plan(*case, keys=1), "both keys and values"),
    (checks.memory_plan, lambda *case: plan(*case, bytes=4), "takes 16 bytes"),
    (checks.memory_plan, lambda config, *rest: plan({**config, "tie_word_embeddings": True}, *rest), "a second table"),
    (checks.memory_plan, lambda config, r, rows, n: plan(config, r, 1, n), "every row that is sampled"),
    (checks.longest_completion, longest, RIGHT),
    (checks.longest_completion, first_fitting, "that fits, but"),
    (checks.longest_completion, lambda recipe, gpu, limits: max(limits), "that does not fit"),
    (checks.longest_completion, own_gpu, "that fits, but"),
    (checks.longest_completion, lambda recipe, gpu, limits: longest(recipe, gpu, limits) or 0, "give None"),
    (checks.shortest_right_reward, reward, RIGHT),
    (checks.shortest_right_reward, reward_shortest_of_all, "look for the shortest among the right"),
    (checks.shortest_right_reward, reward_wrong_too, "a wrong member earns something"),
    (checks.shortest_right_reward, reward_without_default, "without a right answer everybody earns 0"),
    (checks.shortest_right_reward, reward_one_winner, "two right members of the same length"),
    (checks.first_step_below, first_step, RIGHT),
    (checks.first_step_below, first_step_of_rollouts, "which the probes cut"),
    (checks.first_step_below, first_place, 'return the row\'s "step"'),
    (checks.first_step_below, lambda rows, share: first_step(rows, share) or 0, "it is never reached"),
    (checks.first_step_below, lambda rows, share: rows[1]["validation/tokens"], "raises KeyError"),
    (checks.choose_checkpoint, choose_checkpoint, RIGHT),
    (checks.choose_checkpoint, lambda rows, most_lost: choose_checkpoint(rows, 1.0), "it may lose is limited"),
    (
        checks.choose_checkpoint,
        lambda rows, most_lost: max(validated(rows), key=lambda row: row["validation/accuracy"])["step"],
        "shortest",
    ),
    (checks.choose_checkpoint, lambda rows, most_lost: 1, "were validated"),
    (
        checks.choose_checkpoint,
        lambda rows, most_lost: choose_checkpoint(list(reversed(rows)), most_lost),
        "were validated",
    ),
    (checks.choose_checkpoint, lambda rows, most_lost: 40, "were validated"),
    (checks.probe_confidence_from_logits, probe_confidence, RIGHT),
    (checks.probe_confidence_from_logits, lambda x, ids, skip=1: probe_confidence(x.T.T * 2, ids, skip), "expected"),
    (checks.probe_confidence_from_logits, lambda x, ids, skip=1: probe_confidence(x, x.argmax(-1), skip), "gather"),
    (checks.probe_confidence_from_logits, lambda x, ids, skip=1: probe_confidence(x, ids), "skip_first that you"),
    (checks.probe_confidence_from_logits, lambda x, ids, skip=1: probe_confidence(x, ids, 0), "leave the first"),
    (
        checks.probe_confidence_from_logits,
        lambda x, ids, skip=1: x.softmax(-1).gather(-1, ids[:, None])[skip:].mean() if len(ids) > skip else 0,
        "arithmetic",
    ),
    (checks.calibration_curve, reliability, RIGHT),
    (checks.calibration_curve, lambda *case: (reliability(*case)[0], 0.0), "expected"),
    (
        checks.calibration_curve,
        lambda *case: (rows := reliability(*case)[0], fmean(abs(s - r) for s, r, _ in rows)),
        "its number of answers",
    ),
    (
        checks.calibration_curve,
        lambda *case: ([(s, r * n, n) for s, r, n in reliability(*case)[0]], reliability(*case)[1]),
        "is a share",
    ),
    (checks.fit_temperature, temperature, RIGHT),
    (checks.fit_temperature, lambda stated, right: 1 / temperature(stated, right), "one over the temperature"),
    (checks.fit_temperature, lambda stated, right: math.log(temperature(stated, right)), "logarithm"),
    (checks.fit_temperature, lambda stated, right: temperature(stated, right, squares=True), "squared distances"),
    (checks.fit_temperature, lambda stated, right: stated, "expected one number"),
    (checks.truncated_rollout, rollout_loop, RIGHT),
    (checks.truncated_rollout, lambda *case: rollout_loop(*case, drops=False), "the marker is dropped as well"),
    (checks.truncated_rollout, rollout_that_forgets_the_close, "force the close"),
    (checks.truncated_rollout, rollout_that_never_stops, "does the loop stop at writer.end"),
    (checks.backtracking_cache, go_back, RIGHT),
    (checks.backtracking_cache, without_cutting, "still there"),
    (checks.backtracking_cache, position_counts_on, "the position goes on counting"),
    (checks.backtracking_cache, lambda m, c, n, t: go_back(m, c, n - 1, t), "one position too few"),
    (checks.backtracking_cache, with_zeros, "other logits"),
    (checks.backtracking_cache, forgets_after_it, "positions in the cache"),
    (checks.roll_out, engine, RIGHT),
    (checks.roll_out, partial(engine, by_place=False), "the random number belongs to the place"),
    (checks.roll_out, partial(engine, from_prompt=False), "a place counts from the end of the prompt"),
    (checks.roll_out, lambda *case: engine(*case).completion_ids, "return machine.trajectory(prompt)"),
    (checks.group_advantages, all_groups, RIGHT),
    (checks.group_advantages, lambda r, eps=1e-4: (r - r.mean()) / (r.std() + eps), "its own mean and deviation"),
    (checks.group_advantages, lambda r, eps=1e-4: all_groups(r.T, eps).T, "reduces over the groups"),
    (checks.group_advantages, lambda r, eps=1e-4: all_groups(r, 0.0), "add eps"),
    (checks.group_advantages, lambda r, eps=1e-4: all_groups(r), "eps is an argument"),
    (checks.grpo_loss, grpo, RIGHT),
    (checks.grpo_loss, lambda *case: -grpo(*case[:7], 0.0, *case[8:]), "expected"),
    (checks.grpo_loss, lambda *case: grpo(*case[:3], torch.ones_like(case[0]), *case[4:]), "expected"),
    (checks.grpo_loss, lambda n, o, a, m, low, high, *rest: grpo(n, o, a, m, low, low, *rest), "1 - low and 1 + high"),
    (checks.grpo_loss, lambda n, o, a, m, low, high, *rest: grpo(n, o, a, m, 1.0, 1e9, *rest), "nothing is clipped"),
    (checks.grpo_loss, lambda *case: grpo(*case[:7], 0.0, *case[8:]), "the KL term is missing"),
    (checks.grpo_loss, lambda *case: grpo(*case[:6], 2 * case[0].detach() - case[6], *case[7:]), "expected"),
    (checks.grpo_loss, lambda *case: grpo(*case[:8]), "there are three"),
    (checks.grpo_loss, lambda *case: grpo(*case[:9]), "expected"),
    (checks.grpo_loss, lambda *case: grpo(*case).item(), "without item()"),
    (checks.grpo_loss, lambda n, *rest: grpo(n.detach(), *rest), "without a gradient"),
    (checks.training_loop, train, RIGHT),
    (checks.training_loop, lambda *case: train(*case, clears=False), "zero_grad"),
    (checks.training_loop, lambda *case: train(*case, fresh=True), "take them once"),
    (checks.training_loop, lambda *case: train(*case, advantages=lambda r: r), "rewards are not advantages"),
    (checks.training_loop, lambda *case: train(*case, loss=lambda *batch: -grpo(*batch)), "the wrong way"),
    (checks.training_loop, lambda policy, rollout, *rest: train(policy, fixed(rollout), *rest), "sample anew"),
    (checks.paired_bootstrap, interval, RIGHT),
    (checks.paired_bootstrap, unpaired, "one draw of problems serves both"),
    (checks.paired_bootstrap, lambda b, a, n=2000, seed=0: interval(a, b, n, seed), "after minus before"),
    (
        checks.paired_bootstrap,
        lambda b, a, n=2000, seed=0: np.array(interval(b, a, n, seed)) * len(b),
        "divide by their number",
    ),
    (checks.length_penalty, penalised, RIGHT),
    (checks.length_penalty, lambda c, n, a=0.2: penalised(torch.ones_like(c), n, a) * c, "of the right members alone"),
    (checks.length_penalty, lambda c, n, a=0.2: penalised(c, n), "use the one that you are given"),
    (checks.length_penalty, lambda c, n, a=0.2: penalised(c, n, a) + 0.5 * ~c, "gives"),
    (checks.chunked_logprobs, chunked, RIGHT),
    (checks.chunked_logprobs, lambda h, w, t, n: (h @ w.T).log_softmax(-1)[range(len(t)), t], "words at once"),
    (checks.chunked_logprobs, lambda h, w, t, n: chunked(h, w, t, n, highest=0.0), "running maximum"),
    (checks.chunked_logprobs, lambda h, w, t, n: chunked(h, w, t, n, last=False), "the last piece"),
    (checks.own_reward, StepAwareReward(), RIGHT),
    (checks.own_reward, OutcomeReward(), "being shorter never pays"),
    (checks.own_reward, StepAwareReward(penalize_wrong=True), "a wrong answer's reward must not depend on it"),
    (checks.own_reward, lambda c, k, f, n: [1.0 for _ in c], "a wrong answer earns as much"),
    (checks.own_reward, lambda c, k, f, n: [count * right for count, right in zip(n, c, strict=True)], "earns less"),
    (checks.own_reward, lambda c, k, f, n: [1.0], "one for each of"),
]
"""Check, solution, and what the message must say of it; a right solution has none."""


# ---- answers that passed when a check tried a handful of inputs ------------------------------------------------------


def cut_at(close: Callable[[str], str]) -> Solution:
    return lambda text, markers: 1 + sum(word in markers for word in re.findall(r"\w+", close(text)))


WRONG: list[tuple[Check, Solution]] = [
    (checks.first_confident, lambda c, t: c.index(max(c)) if c and max(c) > t else None),
    (checks.first_confident, lambda c, t: next((i for i, x in enumerate(c) if x > 0.95), None)),
    (checks.first_confident, lambda c, t: next((i + 1 for i, x in enumerate(c) if x > t), None)),
    (checks.first_confident, lambda c, t: next((x for x in c if x > t), None)),
    (checks.kept_share, lambda b, a: round(pooled(b, a))),
    (checks.kept_share, lambda b, a: min(100.0, pooled(b, a))),
    (checks.kept_share, lambda b, a: 100 * max(a) / max(b)),
    (checks.kept_share, lambda b, a: 100 * stdev([*a, 0]) / stdev([*b, 0])),
    (checks.replay_exits, lambda c, t: (replayed(c, t)[0], 100 * fmean(row["right"] for row in c))),
    (checks.replay_exits, lambda c, t: replayed(c, 0.95)),
    (checks.label_chain, lambda *case: ["needed" if x == "malformed" else x for x in labels_of_chain(*case)]),
    (checks.label_chain, lambda *case: [*labels_of_chain(*case)[:-1], "redundant"]),
    (checks.oracle_saving, lambda rows: oracle_saves(rows, lambda n, s, c: sum(s[: n.count("needed")]) + c)),
    (checks.oracle_saving, lambda rows: max(0.01, oracle_saves(rows))),
    (checks.oracle_saving, lambda rows: oracle_saves(rows[:1])),
    (checks.cut_curve, lambda rows, most: curve_of_cuts(rows, 2)),
    (checks.cut_curve, lambda rows, most: [(x, fmean(r["right"] for r in rows)) for x, _ in curve_of_cuts(rows, most)]),
    (checks.scan_markers, lambda p, m: [hit and (hit[0], 2) for hit in scan(p, m)]),
    (checks.scan_markers, lambda p, m: [*scan(p, m)[1:], None]),
    (checks.split_turns, lambda text, words: turns(text.lower(), words)),
    (checks.split_turns, lambda text, words: turns(text, words)[:2]),
    (checks.step_rewards, lambda *v: group_rewards(*v, mean=lambda k: sorted(k)[len(k) // 2])),
    (checks.step_rewards, lambda *v: group_rewards(*v, mean=lambda k: sum(k) // len(k))),
    (checks.step_rewards, lambda *v: group_rewards(*v, mean=lambda k: fmean(set(k)))),
    (
        checks.step_rewards,
        lambda c, k, f, a, b: group_rewards(c, k, [x and y for x, y in zip(c, f, strict=True)], a, b),
    ),
    (checks.closing_signal, lambda groups: signal(groups[:1])),
    (checks.closing_signal, lambda groups: (1.0, *signal(groups)[1:])),
    (checks.memory_plan, lambda config, rank, rows, n: plan(config, 16, rows, n)),
    (checks.fit_temperature, lambda stated, right: temperature(stated[:40], right[:40])),
    (checks.count_steps, lambda text, markers: 1 + sum(w.strip(".,()") in markers for w in thoughts_of(text).split())),
    (checks.count_steps, cut_at(lambda text: text.rpartition("</think>")[0] or text)),
    (checks.count_steps, lambda text, m: 1 + len(set(re.findall(r"\w+", thoughts_of(text))) & set(m))),
    (checks.count_steps, lambda text, m: 1 + len(re.findall(rf"\b(?:{'|'.join(m)})", thoughts_of(text)))),
    (checks.count_steps, lambda text, m: by_library(text, m[:1])),
    (checks.avoid_markers, lambda text: renamed(text).partition("</think>")[0] + "</think>"),
    (checks.avoid_markers, lambda text: re.sub(r"\b[ABC] ", "", renamed(text))),
    (checks.avoid_markers, lambda text: re.sub(" (yes|no)", "", renamed(text))),
    (checks.avoid_markers, lambda text: re.sub(r"(Wait|Alternatively) .*?(?=\n)", "", text)),
    (checks.geometric_mean, lambda p, skip: geometric(p[1:], 0) if skip else geometric(p, 0)),
    (checks.geometric_mean, lambda p, skip: geometric(p[: len(p) - skip], 0)),
    (checks.geometric_mean, lambda p, skip: min(p[skip:], default=0.0)),
    (checks.geometric_mean, lambda p, skip: len(p[skip:]) / sum(1 / x for x in p[skip:]) if p[skip:] else 0.0),
    (checks.calibration_error, lambda bins: max(abs(s - r) for _, s, r in bins)),
    (checks.calibration_error, lambda bins: sum(n * (s - r) ** 2 for n, s, r in bins) / sum(n for n, *_ in bins)),
    (checks.calibration_error, lambda bins: sum(n * max(0.0, s - r) for n, s, r in bins) / sum(n for n, *_ in bins)),
    (checks.cheapest_threshold, lambda c, least: min((t for t, _, r in c if r >= least), default=None)),
    (checks.cheapest_threshold, lambda c, least: max(c, key=lambda x: x[2])[0] if cheapest(c, least) else None),
    (checks.exit_reason, lambda *v: exit_reason(v[0], 0.95, *v[2:])),
    (checks.exit_reason, lambda s, t, place, budget, _: exit_reason(s, t, place, budget, 50)),
    (checks.exit_reason, lambda s, t, place, _, margin: exit_reason(s, t, place, 230, margin)),
    (checks.decoded_tokens, lambda kept, t, prompt, again: decoded(kept, t, 6, again)),
    (checks.decoded_tokens, lambda kept, t, prompt, again: decoded(kept, t, prompt, len(t))),
    (checks.places_of_probe, lambda base, prompt, trial: places_of_probe(base, 6, trial)),
    (checks.places_of_probe, lambda base, prompt, trial: sorted(places_of_probe(base, prompt, trial))),
    (checks.visible, lambda rows, width: visible(sorted(rows), width)),
    (checks.visible, lambda rows, width: [[cell != place + 1 for cell in range(width)] for place in rows]),
    (checks.draw, lambda number, odds: round(number * (len(odds) - 1))),
    (checks.draw, lambda number, odds: draw(number, sorted(odds, reverse=True))),
    (checks.draw, lambda number, odds: draw(1 - number, odds)),
    (checks.advantages_of_right, lambda k: sorted(advantages_of_right(k), reverse=True)),
    (checks.advantages_of_right, lambda k: advantages_of_right([x**2 for x in k])),
    (checks.group_relative_advantages, lambda r, eps=1e-4: [x / (stdev(r) + eps) for x in advantages(r, 0.0)]),
    (
        checks.group_relative_advantages,
        lambda r, eps=1e-4: [(x - sorted(r)[len(r) // 2]) / (stdev(r) + eps) for x in r],
    ),
    (checks.group_relative_advantages, lambda r, eps=1e-4: [(x - fmean(r)) / max(stdev(r), eps) for x in r]),
    (checks.clipped_surrogate, lambda n, o, a, lo=0.2, hi=0.28: surrogate(n, o, a, 0.2, 0.28)),
    (checks.clipped_surrogate, lambda n, o, a, lo, hi: surrogate(n, o, a, hi, lo)),
    (checks.clipped_surrogate, lambda n, o, a, lo, hi: surrogate(o, n, a, lo, hi)),
    (checks.clipped_surrogate, lambda n, o, a, lo, hi: min((n / o) * a, clip(n / o, lo, hi) * a)),
    (checks.k3_estimate, lambda n, ref: (ref - n) ** 2 / 2),
    (checks.k3_estimate, lambda n, ref: abs(ref - n)),
    (checks.k3_estimate, lambda n, ref: exp(ref) * (ref - n)),
    (checks.loss_type_weights, lambda n, kind, longest: weights(n, kind, 100)),
    (checks.loss_type_weights, lambda n, kind, longest: weights(n, kind, max(n))),
    (checks.drawn_ratio, lambda b, a, drawn: ratio(b, a, sorted(set(drawn)))),
    (checks.drawn_ratio, lambda b, a, drawn: sum(a[i] for i in drawn) / sum(b)),
    (checks.verdict, lambda low, high, margin: say((low + high) / 2, (low + high) / 2, margin)),
    (checks.verdict, lambda low, high, margin: "no worse" if low > 0 else "worse" if high < 0 else "undecided"),
    (checks.shortest_right_reward, lambda c, k, f, n: reward(c, k, f, k)),
    (checks.shortest_right_reward, lambda c, k, f, n: [x * y for x, y in zip(reward(c, k, f, n), f, strict=True)]),
    (checks.shortest_right_reward, lambda c, k, f, n: [max(x, 0.1) for x in reward(c, k, f, n)]),
    (checks.first_step_below, lambda rows, share: first_step(rows, 0.5)),
    (checks.first_step_below, lambda rows, share: first_step(rows, share * rows[0]["validation/tokens"] / 119)),
    (checks.choose_checkpoint, lambda rows, lost: choose_checkpoint(rows, 0.05)),
    (checks.choose_checkpoint, lambda rows, lost: validated(rows)[-1]["step"]),
]
"""Each is red: fitted to an example, right on symmetric inputs only, or blind to an argument."""


def rewards_in_numpy(correct: Any, steps: Any, formatted: Any, alpha: float = 0.9, beta: float = 0.5) -> Any:
    right, k = np.asarray(correct, dtype=bool), np.asarray(steps, dtype=float)
    mu = k[right].mean() if right.any() else 1.0
    return alpha * right * (1 - beta * np.tanh((k - mu) / mu)) + (1 - alpha) * np.asarray(formatted, dtype=float)


def clipped_in_torch(n: float, o: float, a: float, low: float = 0.2, high: float = 0.28) -> torch.Tensor:
    ratio = torch.exp(torch.tensor(n) - torch.tensor(o))
    return torch.minimum(ratio * a, torch.clamp(ratio, 1 - low, 1 + high) * a)


NATURAL: list[tuple[Check, Solution]] = [
    (checks.geometric_mean, lambda p, skip: exp(fmean(map(math.log, p[skip:]))) if p[skip:] else 0.0),
    (checks.geometric_mean, lambda p, skip: torch.tensor(p[skip:]).log().mean().exp() if p[skip:] else 0.0),
    (checks.visible, lambda rows, width: np.arange(width)[None] <= np.array(rows)[:, None]),
    (checks.visible, lambda rows, width: torch.arange(width)[None] <= torch.tensor(rows)[:, None]),
    (checks.visible, lambda rows, width: [[int(cell <= place) for cell in range(width)] for place in rows]),
    (checks.draw, lambda number, odds: int(np.searchsorted(np.cumsum(odds), number, side="right"))),
    (checks.draw, lambda number, odds: np.searchsorted(np.cumsum(odds), number, side="right")),
    (checks.places_of_probe, lambda base, prompt, trial: np.append(np.arange(base, base + prompt + trial - 1), base)),
    (
        checks.group_relative_advantages,
        lambda r, eps=1e-4: (torch.tensor(r) - fmean(r)) / (torch.tensor(r).std() + eps),
    ),
    (checks.group_relative_advantages, lambda r, e=1e-4: (np.array(r) - np.mean(r)) / (np.std(r, ddof=1) + e)),
    (checks.clipped_surrogate, clipped_in_torch),
    (checks.k3_estimate, lambda n, ref: torch.exp(torch.tensor(ref - n)) - (ref - n) - 1),
    (checks.count_steps, lambda text, m: 1 + len(re.findall(rf"\b(?:{'|'.join(m)})\b", thoughts_of(text)))),
    (checks.kept_share, lambda b, a: 100 * np.sum(a) / np.sum(b)),
    (checks.kept_share, lambda b, a: 100 * torch.tensor(a).sum() / torch.tensor(b).sum()),
    (checks.drawn_ratio, lambda b, a, drawn: np.array(a)[drawn].mean() / np.array(b)[drawn].mean()),
    (checks.shortest_right_reward, lambda right, k, box, length: reward(right, k, box, length)),
    (checks.shortest_right_reward, lambda c, k, f, n: np.array(reward(c, k, f, n))),
    (checks.calibration_curve, with_torch_buckets),
    (
        checks.truncated_rollout,
        lambda writer, t: (lambda rows: [np.array(rows[0]), *rows[1:]])(rollout_loop(writer, t)),
    ),
    (checks.backtracking_cache, with_a_new_cache),
    (checks.group_advantages, group_by_group),
    (checks.grpo_loss, grpo_by_cases),
    (checks.step_rewards, rewards_in_numpy),
    (checks.cut_curve, lambda rows, most: np.array(curve_of_cuts(rows, most))),
    (checks.training_loop, train_by_hand),
    (checks.paired_bootstrap, interval_in_plain_python),
    (
        checks.probe_confidence_from_logits,
        lambda x, ids, skip=1: geometric(x.softmax(-1)[range(len(ids)), ids].tolist(), skip),
    ),
    (checks.first_step_below, lambda rows, share: float(x) if (x := first_step(rows, share)) is not None else None),
]
"""Each is green: right answers as people write them who think in numpy or PyTorch."""


@pytest.mark.parametrize(("check", "solution"), WRONG, ids=name_of)
def test_an_answer_that_is_right_on_examples_only_is_red(check: Check, solution: Solution) -> None:
    assert not check(solution).passed


@pytest.mark.parametrize(("check", "solution"), NATURAL, ids=name_of)
def test_a_right_answer_in_another_style_is_green(check: Check, solution: Solution) -> None:
    result = check(solution)
    assert result.passed, result.message


def test_code_that_never_ends_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(*_: Any) -> Any:
        while True:
            with contextlib.suppress(Exception):
                math.sqrt(2)

    monkeypatch.setattr(_result, "TIME_LIMIT", 0.2)
    result = checks.first_confident(endless)
    assert not result.passed and "loop" in result.message


def test_code_that_exits_or_changes_its_arguments_does_no_harm() -> None:
    assert not checks.first_confident(lambda *_: sys.exit()).passed

    def clearing(steps: list[int]) -> list[float]:
        given = advantages_of_right(steps)
        steps.clear()
        return given

    assert checks.advantages_of_right(clearing).passed


def test_the_smallest_counterexample_is_shown() -> None:
    def from_three_on(confidences: list[float], threshold: float) -> int | None:
        return exit_rule(confidences, threshold) if len(confidences) < 3 else None

    message = checks.first_confident(from_three_on).message
    assert message.count(",") <= 4 and "expected" in message, message


@pytest.mark.parametrize("check", [checks.step_rewards, checks.loss_type_weights, checks.paired_bootstrap])
def test_later_cells_go_on_with_a_right_function(check: Check) -> None:
    [mine] = [solution for listed, solution, named in ROWS if listed is check and named is RIGHT]
    assert check(mine).solution is mine
    wrong = next(solution for listed, solution, named in ROWS if listed is check and named is not RIGHT)
    assert check(check(wrong).solution).passed


def test_every_check_of_a_wrong_answer_has_the_right_one_at_hand() -> None:
    for check in CHECKS:
        library = check(lambda *_, **__: None).solution
        assert check(library).passed, check


def test_the_librarys_function_takes_the_arguments_of_what_was_written() -> None:
    def weights(lengths: list[int], loss_type: str, longest: int = 100) -> None: ...

    library = checks.loss_type_weights(weights).solution
    assert library(loss_type="dr_grpo", lengths=[2, 6]) == [1 / 200] * 2


def test_a_check_takes_the_number_of_its_notebook() -> None:
    assert checks.grpo_loss(grpo, number="07.2").exercise == "07.2"  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "check", [checks.group_advantages, checks.grpo_loss, checks.training_loop, checks.probe_confidence_from_logits]
)
def test_without_torch_an_exercise_on_tensors_is_skipped(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_result, "find_spec", lambda name: None if name == "torch" else name)
    monkeypatch.setenv(checks.STRICT_VARIABLE, "1")
    result = check(lambda *_: None)
    assert result.skipped and not result.passed and callable(result.solution)
    assert len(repr(result).splitlines()) == 1


def test_the_librarys_stand_ins_work_on_lists() -> None:
    assert checks.group_advantages(lambda *_: None).solution([[1.0, 0.0], [0.5, 0.5]])[1] == [0.0, 0.0]
    loss = checks.grpo_loss(lambda *_: None).solution([[-1.0]], [[-1.0]], [0.5], [[True]])
    assert loss == pytest.approx(-0.5)
    sure = checks.probe_confidence_from_logits(lambda *_: None).solution([[0.0, 0.0], [0.0, 0.0]], [0, 1])
    assert sure == pytest.approx(0.5)


def test_partial_credit_is_a_share_of_the_inputs() -> None:
    assert checks.first_confident(exit_rule).share == 1
    assert 0.4 < checks.first_confident(lambda c, t: exit_rule(c, t - 1e-12)).share < 1
    assert 0 < checks.step_rewards(lambda *v: group_rewards(*v, mean=lambda k: sorted(k)[len(k) // 2])).share < 0.6


CHECKS = list(dict.fromkeys(check for check, _, _ in ROWS))


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


WITHOUT_A_THOUGHT: list[Solution] = [
    lambda *_, **__: True,
    lambda *_, **__: 0.0,
    lambda *given, **__: given[0],
    lambda given, *_, **__: [0.0] * len(given),
    lambda given, *_, **__: [None] * len(given),
]


@pytest.mark.parametrize("check", CHECKS, ids=name_of)
def test_an_answer_without_a_thought_earns_nothing(check: Check) -> None:
    for answer in WITHOUT_A_THOUGHT:
        assert check(answer).share == 0


@pytest.mark.parametrize("check", CHECKS, ids=name_of)
def test_a_stub_is_red_and_so_is_code_that_raises(check: Check) -> None:
    def raising(*_: Any, **__: Any) -> Any:
        raise RuntimeError("boom")

    for nothing in (None, ...):
        stub = check(lambda *_, nothing=nothing, **__: nothing)
        assert not stub.passed and "gives nothing yet; write the body (expected" in stub.message
    broken = check(raising)
    assert not broken.passed and "RuntimeError: boom" in broken.message


def test_importing_the_checks_imports_nothing_heavy() -> None:
    program = "import sys, stepgrpo_lab.course.checks; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert not {"torch", "transformers", "plotly"} & set(loaded.split())
