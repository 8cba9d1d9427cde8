"""The group explorer and the loss explorer, without a browser."""

from __future__ import annotations

import dataclasses
import math
import statistics
from typing import Any

import pytest
from test_widgets_rollout import group_of
from traitlets import TraitError

from stepgrpo_lab.method.records import Outcome
from stepgrpo_lab.recordings import RecordedGroup, load_recordings
from stepgrpo_lab.widgets import GroupExplorer, LossExplorer
from stepgrpo_lab.widgets.group_explorer import METHODS
from stepgrpo_lab.widgets.loss_explorer import LATER, SHOWN


def group_with(correct: list[bool], steps: list[int], tokens: list[int], *, forced: bool = False) -> RecordedGroup:
    """A group of these outcomes; the tokens are the first so many of one completion, the last two forced if asked."""
    [template, _] = (group := group_of([])).members
    members = []
    for is_correct, k, length in zip(correct, steps, tokens, strict=True):
        ids = (template.trajectory.completion_ids * length)[:length]
        logprobs = [*[-0.5] * (length - 2), *([None] * 2 if forced else [-0.5] * 2)]
        members.append(
            dataclasses.replace(
                template,
                trajectory=dataclasses.replace(template.trajectory, completion_ids=ids, logprobs=logprobs),
                outcome=Outcome(is_correct, True, k, length, close="natural"),
                policy_logprobs=[-0.5] * length,
            )
        )
    return dataclasses.replace(group, members=members)


GOLDEN = group_with([True, True, True, False, False], [2, 4, 6, 3, 9], [20, 40, 60, 30, 90])


def test_the_golden_group() -> None:
    explorer = GroupExplorer([GOLDEN])
    assert explorer.rewards["Step-GRPO"] == pytest.approx([1.207953, 1.0, 0.792047, 0.1, 0.1], abs=1e-6)
    assert explorer.advantages["Step-GRPO"] == pytest.approx([1.1039, 0.6997, 0.2955, -1.0495, -1.0495], abs=1e-4)
    assert explorer.rewards["GRPO"] == pytest.approx([1.0, 1.0, 1.0, 0.1, 0.1])
    assert explorer.sentence == (
        "3 of 5 members are right, mean steps 4.00. Step-GRPO likes member 0 most (reward 1.208, advantage +1.104) "
        "and member 3 least (reward 0.100, advantage -1.050)."
    )


def test_the_baselines_on_the_same_group() -> None:
    explorer = GroupExplorer([GOLDEN], penalty=0.4, overlong_limit=50)
    assert explorer.rewards["LP"] == pytest.approx(
        [0.9 * value + 0.1 for value in (0.909159, 0.8, 0.690841)] + [0.1, 0.1], abs=1e-5
    )
    assert explorer.rewards["SOP"] == pytest.approx([1.0, 1.0, 0.1, 0.1, -0.8])  # the slope goes from 40 to 50
    kimi = [0.5, 0.5 - 20 / 70, 0.5 - 40 / 70, 0.0, -0.5]
    wanted = [0.9 * (c + 0.4 * k) + 0.1 for c, k in zip([1, 1, 1, 0, 0], kimi, strict=True)]
    assert explorer.rewards["Kimi"] == pytest.approx(wanted)


def test_a_control_that_changes_one_method_alone_names_it() -> None:
    named = 0
    for place in range(len(GroupExplorer([GOLDEN]).view.controls)):
        explorer = GroupExplorer([GOLDEN])
        control, before = explorer.view.controls[place], dict(explorer.rewards)
        options = [value for _, value in getattr(control, "options", ())]
        control.value = options[-1] if options else control.min if hasattr(control, "min") else not control.value
        changed = [method for method, rewards in explorer.rewards.items() if rewards != before[method]]
        if len(changed) == 1:
            assert changed[0] in control.description
            named += 1
    assert named == 4


def test_beta_is_inert_where_all_are_right_and_the_std_divides() -> None:
    right = group_with([True] * 5, [2, 3, 4, 5, 6], [20] * 5)
    explorer = GroupExplorer([right])
    strong = explorer.advantages["Step-GRPO"]
    explorer.step_beta = 0.05
    assert explorer.advantages["Step-GRPO"] == pytest.approx(strong, abs=0.01)
    explorer.scale = "none"
    weak = explorer.advantages["Step-GRPO"]
    explorer.step_beta = 0.5
    assert explorer.advantages["Step-GRPO"] == pytest.approx([10 * value for value in weak])


def test_the_mean_over_all_and_the_batch_s_std() -> None:
    other = group_with([True, False], [1, 1], [10, 10])
    explorer = GroupExplorer([GOLDEN, other], mean_over="all")
    assert "mean steps 4.80" in explorer.sentence
    explorer.scale = "batch"
    rewards = [*explorer.rewards["GRPO"], 1.0, 0.1]
    centred = 1.0 - statistics.fmean(explorer.rewards["GRPO"])
    assert explorer.advantages["GRPO"][0] == pytest.approx(centred / (statistics.stdev(rewards) + 1e-4))


def test_the_push_follows_the_loss_type_and_the_mask() -> None:
    group = group_with([True, False], [1, 1], [4, 8], forced=True)
    explorer = GroupExplorer([group], loss_type="dapo")
    up, down = (explorer.advantages["Step-GRPO"][index] for index in (0, 1))
    assert explorer.push[0] == pytest.approx([up / 12] * 4)
    assert explorer.push[1] == pytest.approx([down / 12] * 8)
    explorer.loss_type = "grpo"
    assert explorer.push[0] == pytest.approx([up / 8] * 4)
    explorer.loss_type = "dr_grpo"
    assert explorer.push[1][0] == pytest.approx(down / (2 * group.limit))
    explorer.train_forced = False
    assert explorer.push[0][2:] == [0.0, 0.0]


def test_a_group_without_a_signal_says_so() -> None:
    explorer = GroupExplorer([group_with([False, False], [1, 5], [10, 50])])
    assert "no token is pushed" in explorer.sentence
    assert explorer.push[0][0] == 0.0
    explorer.method = "SOP"
    explorer.overlong_limit = 40
    assert "SOP likes member 0 most" in explorer.sentence


def test_no_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="no groups to explore"):
        GroupExplorer([])


FORCED = group_with([True, False], [1, 1], [12, 12], forced=True)


def test_a_moved_token_is_clipped() -> None:
    explorer = LossExplorer(FORCED, 0, advantage=1.0, token=2)
    assert explorer.tokens[2].ratio == 1.0
    assert explorer.pulls == pytest.approx([1 / 24] * SHOWN)
    explorer.log_ratio = 0.1
    assert explorer.log_ratios == [0.0, 0.0, 0.1, *[0.0] * 5]
    assert explorer.pulls[2] == pytest.approx(math.exp(0.1) / 24)
    explorer.log_ratio = 0.5
    assert explorer.tokens[2].clipped
    assert explorer.pulls[2] == 0.0
    assert "clipping decides, so nothing pulls it" in explorer.sentence
    explorer.advantage = -1.0
    assert explorer.pulls[2] == pytest.approx(-math.exp(0.5) / 24)
    assert "makes it less likely" in explorer.sentence


def test_the_slider_shows_the_chosen_token_s_ratio() -> None:
    explorer = LossExplorer(FORCED, 0, log_ratios=LATER, token=7)
    assert explorer.log_ratio == 0.5
    explorer.token = 0
    assert explorer.log_ratio == -0.5
    explorer.first_update()
    assert explorer.log_ratio == 0.0
    explorer.later_update()
    assert explorer.log_ratio == LATER[0]
    assert LossExplorer(FORCED, 0, token=1, log_ratio=0.2).log_ratios[1] == 0.2


def test_the_kl_penalty_pulls_back_to_the_reference() -> None:
    explorer = LossExplorer(FORCED, 0, advantage=0.0, kl_weight=0.5, reference_gap=-0.5)
    assert explorer.tokens[0].kl == pytest.approx(math.exp(-0.5) + 0.5 - 1)
    assert explorer.pulls[0] == pytest.approx(-0.5 * (1 - math.exp(-0.5)) / 24)
    explorer.reference_gap = 0.0
    assert explorer.pulls[0] == 0.0


def test_the_mask_and_the_loss_types() -> None:
    explorer = LossExplorer(FORCED, 0, advantage=1.0, token=SHOWN - 1)
    assert explorer.forced[-2:] == [True, True]
    explorer.train_forced = False
    assert explorer.pulls[-2:] == [0.0, 0.0]
    assert "it is masked, so nothing pulls it" in explorer.sentence
    assert explorer.pulls[0] == pytest.approx(1 / 20)
    explorer.loss_type = "dr_grpo"
    assert explorer.pulls[0] == pytest.approx(1 / (2 * FORCED.limit))


def test_it_starts_at_the_shipped_set_s_forced_close() -> None:
    explorer = LossExplorer()
    assert any(explorer.forced)
    assert not all(explorer.forced)
    with pytest.raises(ValueError, match="log-probabilities were not recorded"):
        members = [dataclasses.replace(member, policy_logprobs=None) for member in FORCED.members]
        LossExplorer(dataclasses.replace(FORCED, members=members))
    assert load_recordings()


def shortest_right(correct: list[bool], steps: list[int], formatted: list[bool], tokens: list[int]) -> list[float]:
    least = min((n for n, right in zip(tokens, correct, strict=True) if right), default=None)
    return [1.0 if right and n == least else 0.5 * right for n, right in zip(tokens, correct, strict=True)]


def test_a_reward_of_ones_own_stands_beside_the_package_s() -> None:
    explorer = GroupExplorer([GOLDEN], methods={"mine <b>": shortest_right}, method="mine <b>")
    assert explorer.rewards["mine <b>"] == [1.0, 0.5, 0.5, 0.0, 0.0]
    assert explorer.rewards.keys() == {*METHODS, "mine <b>"}
    assert "mine <b>" in explorer.sentence and "<b>" not in explorer.body()
    assert any(row != [0.0] * len(row) for row in explorer.push)
    for scale in ("batch", "none", "group"):
        explorer.scale = scale
        assert len(explorer.advantages["mine <b>"]) == 5


@pytest.mark.parametrize(
    ("methods", "error"),
    [
        ({"GRPO": shortest_right}, ValueError),
        ({"mine": 0.5}, TypeError),
        ({"mine": lambda correct, steps, formatted, tokens: [1.0]}, ValueError),
        ({"mine": lambda correct, steps, formatted, tokens: [math.nan] * len(correct)}, ValueError),
    ],
)
def test_a_reward_that_cannot_be_shown_is_refused(methods: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        GroupExplorer([GOLDEN], methods=methods)


def test_an_unknown_method_is_refused() -> None:
    explorer = GroupExplorer([GOLDEN])
    with pytest.raises(TraitError):
        explorer.method = "mine"
    assert explorer.method == METHODS[0]
