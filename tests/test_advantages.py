"""Advantages: hand-computed cases, and what must not change them."""

from __future__ import annotations

import math

import pytest
import torch
import trl_side
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecraft import advantages

GROUPS = torch.tensor([0, 0, 1, 1, 1])


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(found: torch.Tensor, *expected: float) -> None:
    torch.testing.assert_close(found, numbers(*expected), atol=1e-6, rtol=0)


def test_a_group_is_centred_and_divided_by_its_own_deviation():
    found = advantages.group_relative(numbers(1, 0, 3, 2, 1), GROUPS)
    half = 0.5 / (math.sqrt(0.5) + advantages.EPSILON)
    one = 1 / (1 + advantages.EPSILON)
    close(found, half, -half, one, 0, -one)


def test_without_a_scale_the_mean_alone_is_taken_away():
    close(advantages.group_relative(numbers(1, 0, 3, 2, 1), GROUPS, "none"), 0.5, -0.5, 1, 0, -1)


def test_the_batchs_deviation_is_one_for_all_groups():
    rewards = numbers(1, 0, 3, 2, 1)
    divisor = float(rewards.std()) + advantages.EPSILON
    close(advantages.group_relative(rewards, GROUPS, "batch"), *(d / divisor for d in (0.5, -0.5, 1, 0, -1)))


def test_a_group_that_agrees_teaches_nothing_however_its_mean_rounds():
    rewards = torch.full((7,), 0.1)
    assert advantages.group_relative(rewards, torch.zeros(7)).abs().max() == 0
    assert not advantages.varies(rewards, torch.zeros(7)).any()


def test_a_group_of_one_has_no_advantage_and_does_not_vary():
    close(advantages.group_relative(numbers(5, 1, 0), torch.tensor([3, 9, 9]), "none"), 0, 0.5, -0.5)
    assert advantages.varies(numbers(5, 1, 0), torch.tensor([3, 9, 9])).tolist() == [False, True, True]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-4, 4), min_size=4, max_size=12),
    st.floats(0.5, 8),
    st.floats(-9, 9),
    st.randoms(use_true_random=False),
)
def test_shifting_a_reward_changes_nothing_and_order_is_kept(rewards, factor, shift, random):
    rewards_G = torch.tensor(rewards, dtype=torch.float64).round(decimals=3)
    groups_G = torch.tensor([random.randrange(3) for _ in rewards])
    plain = advantages.group_relative(rewards_G, groups_G, "none")
    torch.testing.assert_close(advantages.group_relative(rewards_G + shift, groups_G, "none"), plain)
    torch.testing.assert_close(advantages.group_relative(rewards_G * factor, groups_G, "none"), plain * factor)
    order = torch.tensor(random.sample(range(len(rewards)), len(rewards)))
    torch.testing.assert_close(advantages.group_relative(rewards_G[order], groups_G[order], "none"), plain[order])


def test_a_fulfilled_layer_does_not_drown_the_other():
    groups = torch.zeros(4)
    rewards = torch.stack([numbers(100, 100, 100, 100), numbers(0, 0, 1, 1)], 1)
    found = advantages.layered(rewards, numbers(1, 1), groups)
    torch.testing.assert_close(found, advantages.layered(rewards[:, 1:], numbers(1), groups))


def test_layers_are_normalised_by_themselves_and_then_together():
    groups = torch.zeros(4)
    rewards = torch.stack([numbers(0, 0, 0, 10), numbers(0, 1, 0, 1)], 1)
    one = (rewards[:, 0] - 2.5) / (5 + advantages.EPSILON)
    two = (rewards[:, 1] - 0.5) / (math.sqrt(1 / 3) + advantages.EPSILON)
    both = one + 2 * two
    expected = both / (float(both.std()) + advantages.EPSILON)
    torch.testing.assert_close(advantages.layered(rewards, numbers(1, 2), groups), expected)


def test_a_layer_that_was_not_judged_says_nothing_of_a_rollout():
    rewards = torch.stack([numbers(1, 0, math.nan), numbers(0, 0, 0)], 1)
    found = advantages.layered(rewards, numbers(1, 1), torch.zeros(3), "none")
    close(found, 0.5, -0.5, 0)


def test_steps_from_one_state_are_compared_by_what_followed():
    # Two rollouts of one task: both began in `a`; then one went on in `b`, the other in `c`.
    returns = numbers(1, 1, 0, 0)
    found = advantages.stepwise(
        returns, ["a", "b", "a", "c"], torch.zeros(4, dtype=torch.long), numbers(0.7, 0.7, -0.7, -0.7)
    )
    half = 0.5 / (math.sqrt(0.5) + advantages.EPSILON)
    close(found, 0.7 + half, 0.7, -0.7 - half, -0.7)


def test_one_state_in_two_tasks_is_two_states():
    returns = numbers(1, 0)
    found = advantages.stepwise(returns, ["a", "a"], torch.tensor([0, 1]), numbers(0, 0))
    close(found, 0, 0)


def test_what_follows_is_discounted():
    close(advantages.discounted(numbers(1, 0, 2), 0.5), 1.5, 1, 2)
    assert advantages.discounted(numbers(), 0.5).shape == (0,)


def test_generalised_estimates_by_hand():
    found, returns = advantages.generalised(numbers(0, 0, 1), numbers(0.5, 0.2, 0.4), gamma=0.9, lam=0.5)
    last = 1 - 0.4
    middle = 0.9 * 0.4 - 0.2 + 0.45 * last
    first = 0.9 * 0.2 - 0.5 + 0.45 * middle
    close(found, first, middle, last)
    close(returns, first + 0.5, middle + 0.2, last + 0.4)


def test_with_lambda_one_a_return_is_the_discounted_reward():
    rewards, values = numbers(0.3, -1, 2), numbers(9, -4, 1)
    _, returns = advantages.generalised(rewards, values, gamma=0.8, lam=1.0)
    torch.testing.assert_close(returns, advantages.discounted(rewards, 0.8))


@pytest.mark.parametrize("centre", [True, False])
def test_whitening_sees_the_masked_tokens_alone(centre: bool):
    given_BT = torch.stack([numbers(1, 2, 1e6), numbers(3, -1e6, 1e6)])
    mask_BT = torch.tensor([[True, True, False], [True, False, False]])
    found = advantages.whitened(given_BT, mask_BT, centre=centre)
    expected = numbers(1, 2, 3) - (2 if centre else 0)
    if not centre:
        expected = numbers(-1, 0, 1) + 2
    torch.testing.assert_close(found[mask_BT], expected, atol=1e-6, rtol=0)
    assert not found[~mask_BT].any()


@pytest.mark.slow
def test_advantages_are_trl_s_of_the_same_rewards(tmp_path):
    generator = torch.Generator().manual_seed(0)
    rewards = torch.rand(12, 3, generator=generator).round(decimals=2)
    rewards[:4] = rewards[0]  # a group that agrees
    weights = [0.5, 1.0, 2.0]
    told = [{"reward_weights": weights, "scale_rewards": scale} for scale in ("group", "batch", "none")]
    told.append({"reward_weights": weights, "multi_objective_aggregation": "normalize_then_sum"})
    groups, whole = torch.arange(12) // 4, rewards.double()
    weighed = (whole * numbers(*weights)).sum(1)
    ours = [advantages.group_relative(weighed, groups, scale) for scale in ("group", "batch", "none")]
    ours.append(advantages.layered(whole, numbers(*weights), groups))
    cases = [{"rewards": rewards, "group": 4, "told": one} for one in told]
    for mine, theirs, case in zip(ours, trl_side.ask(cases, tmp_path), told, strict=True):
        # TRL's rewards are in float32, where the mean of equal rewards rounds; ours are 0 there
        torch.testing.assert_close(theirs["advantages"].double(), mine, atol=5e-6, rtol=1e-5, msg=str(case))
        assert mine.abs().max() > 0.1
