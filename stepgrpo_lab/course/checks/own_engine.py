"""The check of notebook 05's engine: a whole truncated rollout of one row on a real cache."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

from stepgrpo_lab.course.checks._result import Unsolved, draws, same, torch_exercise
from stepgrpo_lab.course.checks.backtracking import _gone_back
from stepgrpo_lab.course.toys import tiny_policy
from stepgrpo_lab.method.rollout import TrajectoryMachine, rollout_settings
from stepgrpo_lab.method.sampling import SampleKey, uniform

LIMIT = 30
Case = tuple[Sequence[int], SampleKey, float]


@cache
def _policy() -> Any:
    return tiny_policy()


def _settings(threshold: float) -> Any:
    """Above a threshold of 0.4 a probe may be declined. Below it every probe exits, near the budget if not early."""
    margin = 0 if threshold > 0.4 else LIMIT
    return rollout_settings(
        "official", markers="paper", probe_max_tokens=8, near_budget_margin=margin, exit_threshold=threshold
    )


def _rolled_out(
    model: Any,
    token_text: Any,
    prompt: Sequence[int],
    key: SampleKey,
    limit: int,
    settings: Any,
    *,
    offset: bool = True,
    by_place: bool = True,
    greedy: bool = True,
    whole_prompt: bool = True,
) -> Any:
    """The engine as one writes it, right by default, or with a mistake in it."""
    import torch
    from transformers import DynamicCache

    machine, kept = TrajectoryMachine(token_text, limit, settings, True), DynamicCache(config=model.config)
    count = 0
    with torch.no_grad():
        for place, token in enumerate(prompt if whole_prompt else prompt[-1:]):
            logits = _gone_back(model, kept, place, token)
        start = len(prompt) if whole_prompt else 1
        while not machine.done:
            odds = logits.double().softmax(-1)
            if machine.choice is not None:
                drawn = uniform(key, machine.position if by_place else count)
                token = int((odds.cumsum(-1) <= drawn).sum().clamp(max=len(odds) - 1))
                count += machine.choice == "sample"
                if machine.choice == "sample":
                    machine.observe(token, odds[token].log().item())
                else:
                    token = int(odds.argmax()) if greedy else token
                    machine.observe(token, None, odds[token].item())
            if not machine.done:
                token, place = machine.feed()
                logits = _gone_back(model, kept, (start if offset else 1) + place, token)
    return machine.trajectory(list(prompt))


_MISTAKES: dict[str, dict[str, Any]] = {
    "the random number belongs to the place: uniform(key, machine.position), not to how many were drawn": {
        "by_place": False
    },
    "a place counts from the end of the prompt: feed at len(prompt) + place": {"offset": False},
    "a trial answer is greedy: take the likeliest token where machine.choice is 'greedy'": {"greedy": False},
    "the whole prompt has to be read before the first token is chosen": {"whole_prompt": False},
}


@torch_exercise(
    "05.4",
    "token for token the library's engine, on one row: cache, places and random numbers are all clean",
    reference=_rolled_out,
    needs=("torch", "transformers"),
)
def roll_out(solution: Callable[..., Any]) -> None:
    """``roll_out(model, token_text, prompt, key, limit, settings)``: a trajectory, as ``LockstepEngine`` makes it.

    Feed the prompt, then do what a ``TrajectoryMachine(token_text, limit, settings, True)`` asks for, at temperature 1,
    until it is done. A sample's number is ``uniform(key, machine.position)``.

    Example:
        >>> roll_out(lambda model, token_text, prompt, key, limit, settings: None).passed
        False
    """
    from stepgrpo_lab.method.records import Trajectory

    rows = draws(_start, 4)
    passed, complaint = 0, ""
    for case in rows:
        expected, actual = _run(_rolled_out, case), _run(solution, case)
        what = f"roll_out of prompt {list(case[0])}, sample {case[1].sample}, threshold {case[2]:g}"
        if actual is None or actual is ...:
            raise Unsolved(f"{what} gives nothing yet; write the body (expected a trajectory)")
        if not isinstance(actual, Trajectory):
            raise Unsolved(f"{what} gives {type(actual).__name__}; return machine.trajectory(prompt)")
        if difference := _difference(actual, expected):
            complaint = complaint or f"{what} {difference}" + _named(actual, case)
        else:
            passed += 1
    if complaint:
        raise Unsolved(complaint, passed / len(rows))


def _run(function: Callable[..., Any], case: Case) -> Any:
    prompt, key, threshold = case
    model, token_text = _policy()
    return function(model, token_text, list(prompt), key, LIMIT, _settings(threshold))


def _difference(actual: Any, expected: Any) -> str:
    """Where two trajectories differ; empty if nowhere."""
    if actual.completion_ids != expected.completion_ids:
        pairs = enumerate(zip(actual.completion_ids, expected.completion_ids, strict=False))
        place = next((at for at, (one, other) in pairs if one != other), "the end")
        return f"writes other tokens than the library's engine, from place {place} on"
    if actual.prompt_ids != expected.prompt_ids:
        return "has another prompt: machine.trajectory(prompt)"
    if [probe.token_ids for probe in actual.probes] != [probe.token_ids for probe in expected.probes]:
        return "gives other trial answers than the library's engine"
    if not same([probe.confidence for probe in actual.probes], [probe.confidence for probe in expected.probes], 1e-3):
        return "scores its probes otherwise"
    if not same(actual.logprobs, expected.logprobs, 1e-3):
        return "records other log-probabilities: observe(token, logprob) takes those of the sampled tokens"
    return ""


def _named(actual: Any, case: Case) -> str:
    for message, how in _MISTAKES.items():
        try:
            if not _difference(actual, _run(partial(_rolled_out, **how), case)):
                return f": {message}"
        except (RuntimeError, ValueError, IndexError):
            continue
    return ""


def _start(rng: random.Random, size: int) -> Case:
    prompt = [3 + rng.randrange(8), 5, 6 + rng.randrange(4)]
    return prompt, SampleKey(0, "course", 0, rng.randrange(100)), rng.choice([0.3, 0.5, 1.0])
