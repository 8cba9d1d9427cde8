"""From a recipe's reward section to the reward that trains."""

from __future__ import annotations

from functools import partial
from typing import Any

from stepgrpo_lab.method.baselines import (
    l1_exact_rewards,
    l1_max_rewards,
    length_penalty_rewards,
    scaled_tokens,
    shorter_better_rewards,
)
from stepgrpo_lab.method.group_rewards import (
    GRPOLambdaReward,
    OutcomeReward,
    Outcomes,
    kimi_rewards,
    serial_exit_rewards,
    soft_overlong_rewards,
)
from stepgrpo_lab.method.rewards import BatchReward, GroupReward, StepAwareReward
from stepgrpo_lab.recipes.schema import Recipe, Reward, naming_key

PUBLISHED_STRENGTH = {
    "length_penalty": 0.2,
    "grpo_lambda": 0.2,
    "kimi": 0.4,
    "l1_exact": 3e-4,
    "l1_max": 3e-4,
    "shorter_better": 1e-3,
}
"""What ``reward.strength: null`` means for each function."""


def recipe_reward(reward: Reward) -> GroupReward | BatchReward:
    """The reward of a recipe, with its token constants scaled.

    Raises:
        ValueError: A constant is out of range for this function.

    Example:
        >>> recipe_reward(Reward(function="correctness"))([True], [3], [False], [90])
        [0.9]
    """
    if reward.function == "step_aware":
        return StepAwareReward(
            step_alpha=reward.step_alpha,
            step_beta=reward.step_beta,
            mean_over=reward.mean_over,
            penalize_wrong=reward.penalize_wrong,
        )
    if reward.function == "correctness":
        return OutcomeReward(step_alpha=reward.step_alpha)
    if reward.function == "grpo_lambda":
        return GRPOLambdaReward(reward.penalized_share, reward_strength(reward), reward.step_alpha)
    outcomes = _outcomes(reward)
    outcomes([True], [1])  # a constant that the function refuses shows here, not minutes later
    return OutcomeReward(outcomes, reward.step_alpha)


def reward_strength(reward: Reward) -> float:
    """``reward.strength``, or the function's published value."""
    return PUBLISHED_STRENGTH[reward.function] if reward.strength is None else reward.strength


def _outcomes(reward: Reward) -> Outcomes:
    scale = reward.length_scale
    if reward.function == "serial_group":
        return serial_exit_rewards
    if reward.function == "soft_overlong":
        limit, cache = scaled_tokens(reward.overlong_limit, scale), scaled_tokens(reward.overlong_cache, scale)
        return partial(soft_overlong_rewards, limit=limit, cache=cache)
    strength = reward_strength(reward)
    if reward.function == "length_penalty":
        return partial(length_penalty_rewards, strength=strength)
    if reward.function == "kimi":
        return partial(kimi_rewards, weight=strength)
    if reward.function == "shorter_better":
        return partial(shorter_better_rewards, per_token=strength / scale)
    function: Any = {"l1_exact": l1_exact_rewards, "l1_max": l1_max_rewards}[reward.function]
    return partial(function, target=scaled_tokens(reward.target_tokens, scale), per_token=strength / scale)


def check_reward(recipe: Recipe) -> None:
    """Check that the reward section can mean something beside the rollout's.

    Raises:
        ValueError: A constant is out of range, or no completion could ever reach it.
    """
    reward, limit = recipe.reward, recipe.rollout.max_tokens
    remedy = f"rollout.max_tokens is {limit}: lower reward.length_scale (our lengths over the published ones)"
    if reward.function in ("l1_exact", "l1_max"):
        target = scaled_tokens(reward.target_tokens, reward.length_scale)
        if target > limit:
            raise ValueError(f"reward.target_tokens is {target} tokens after scaling, but {remedy}")
    if reward.function == "soft_overlong":
        start = scaled_tokens(reward.overlong_limit, reward.length_scale)
        start -= scaled_tokens(reward.overlong_cache, reward.length_scale)
        if start >= limit:
            raise ValueError(f"reward.overlong_limit punishes from {start} tokens on after scaling, but {remedy}")
    if reward.function == "serial_group" and not recipe.rollout.serial:
        raise ValueError("reward.function is 'serial_group': it pays the exits of a chain, so set rollout.serial=true")
    if recipe.rollout.serial and recipe.rollout.dynamic:
        raise ValueError("rollout.serial and rollout.dynamic are two ways to sample: set rollout.dynamic=false")
    for published in recipe.rollout.round_limits or []:
        if scaled_tokens(published, reward.length_scale) > limit:
            raise ValueError(f"rollout.round_limits holds {published}, too much after scaling: {remedy}")
    with naming_key(Reward, "reward"):
        recipe_reward(reward)
