"""Policy losses: hand-computed cases, formulas written another way, and what must not change them."""

from __future__ import annotations

import math

import pytest
import torch
import trl_side

from rolecraft import policy_losses
from rolecraft.policy_losses import Clip


def tensors(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """New and old log-probabilities (3, 6), a mask with a tool's tokens in the middle, and advantages (3, 1)."""
    generator = torch.Generator().manual_seed(seed)
    new = -torch.rand(3, 6, generator=generator, dtype=torch.float64)
    old = new + 0.4 * torch.randn(3, 6, generator=generator, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 0, 0, 1, 1], [1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]]).bool()
    return new, old, mask, torch.tensor([[1.5], [-0.5], [-1.0]], dtype=torch.float64)


def naive(new, old, mask, advantages, *, low, high, sequence, how, reference=None, beta=0.0, longest=None):
    """The published formulas, token by token."""
    rows = []
    for i in range(len(new)):
        places = [t for t in range(new.shape[1]) if mask[i, t]]
        logs = [float(new[i, t] - old[i, t]) for t in places]
        mean = math.exp(sum(logs) / len(logs))
        losses = []
        for t, log in zip(places, logs, strict=True):
            ratio, a = (mean if sequence else math.exp(log)), float(advantages[i, 0])
            loss = -min(ratio * a, min(max(ratio, 1 - low), 1 + high) * a)
            if beta:
                d = float(reference[i, t] - new[i, t])
                loss += beta * ratio * (math.exp(d) - d - 1)
            losses.append(loss)
        rows.append(losses)
    total, count = sum(map(sum, rows)), sum(map(len, rows))
    if how == "grpo":
        return sum(sum(row) / len(row) for row in rows) / len(rows)
    return total / (len(rows) * longest if how == "dr_grpo" else count)


@pytest.mark.parametrize("how", ["grpo", "bnpo", "dapo", "dr_grpo"])
@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_the_loss_is_what_the_formulas_say(how, level, beta):
    new, old, mask, advantages = tensors()
    reference = old - 0.2
    found = policy_losses.grpo(
        new, old, advantages, mask, clip=Clip(0.2, 0.28), level=level, how=how,
        reference_BT=reference, beta=beta, longest=10,
    )  # fmt: skip
    expected = naive(
        new, old, mask, advantages, low=0.2, high=0.28, sequence=level == "sequence", how=how,
        reference=reference, beta=beta, longest=10,
    )  # fmt: skip
    assert float(found) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_what_a_tool_said_has_no_gradient_and_no_say(level):
    new, old, mask, advantages = tensors()
    new.requires_grad_()
    loss = policy_losses.grpo(new, old, advantages, mask, level=level)
    (gradient,) = torch.autograd.grad(loss, new)
    assert not gradient[~mask].any()
    changed = torch.where(mask, old, old + 7)
    torch.testing.assert_close(policy_losses.grpo(new, changed, advantages, mask, level=level), loss)


def test_on_policy_the_gradient_is_that_of_the_plain_policy_gradient():
    new, _, mask, advantages = tensors()
    new.requires_grad_()
    (found,) = torch.autograd.grad(policy_losses.grpo(new, new.detach(), advantages, mask), new)
    torch.testing.assert_close(found, torch.where(mask, -advantages / mask.sum(), 0.0))


def test_a_ratio_that_has_moved_far_enough_stops_counting():
    ratios, good, bad = torch.tensor([[0.5, 1.0, 1.25, 2.0]]), torch.ones(1, 1), -torch.ones(1, 1)
    clip = Clip(0.2, 0.28)
    assert policy_losses.clipped(ratios, good, clip).tolist() == [pytest.approx([-0.5, -1.0, -1.25, -1.28])]
    assert policy_losses.clipped(ratios, bad, clip).tolist() == [pytest.approx([0.8, 1.0, 1.25, 2.0])]
    assert policy_losses.is_clipped(ratios, good, clip).tolist() == [[False, False, False, True]]
    assert policy_losses.is_clipped(ratios, bad, clip).tolist() == [[True, False, False, False]]


def test_two_sided_clipping_bounds_what_a_bad_token_costs():
    ratios, bad = torch.tensor([[50.0]]), -torch.ones(1, 1)
    assert policy_losses.clipped(ratios, bad, Clip(most=3.0)).item() == pytest.approx(3.0)
    assert policy_losses.clipped(ratios, bad).item() == pytest.approx(50.0)


def test_a_rollouts_ratio_is_the_geometric_mean_over_its_own_tokens():
    new = torch.tensor([[math.log(2.0), 5.0, math.log(8.0)]])
    found = policy_losses.ratios(new, torch.zeros(1, 3), torch.tensor([[True, False, True]]), "sequence")
    assert found.item() == pytest.approx(4.0)


def test_the_divergence_is_never_negative_and_nought_where_both_agree():
    new, old, _, _ = tensors()
    assert (policy_losses.k3(new, old) > 0).all()
    assert not policy_losses.k3(new, new).any()


def test_a_rollout_without_a_token_of_its_own_costs_nothing():
    new, old, mask, advantages = tensors()
    mask[1] = False
    for how in ("grpo", "bnpo", "dapo"):
        assert torch.isfinite(policy_losses.grpo(new, old, advantages, mask, how=how, level="sequence"))


def test_dr_grpo_asks_for_the_longest():
    new, old, mask, advantages = tensors()
    with pytest.raises(ValueError, match="longest"):
        policy_losses.grpo(new, old, advantages, mask, how="dr_grpo")


def test_the_value_loss_takes_the_worse_of_the_value_and_the_held_one():
    mask = torch.ones(1, 2).bool()
    # The first moved past the target from 0 to 1, held at 0.2; the second stays within.
    found = policy_losses.value(torch.tensor([[1.0, 0.1]]), torch.zeros(1, 2), torch.tensor([[1.0, 0.5]]), mask)
    assert found.item() == pytest.approx(0.5 * (0.8**2 + 0.4**2) / 2)


def test_the_reward_comes_at_the_end_and_divergence_is_paid_on_the_way():
    old, reference = torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -1.0])
    assert policy_losses.penalised(3.0, old, reference, 0.1).tolist() == pytest.approx([-0.05, 3.1])
    assert policy_losses.penalised(3.0, old).tolist() == [0.0, 3.0]


def test_a_preference_costs_what_the_published_formula_says():
    generator = torch.Generator().manual_seed(3)
    preferred, refused, before, refused_before = (
        -9 * torch.rand(50, generator=generator, dtype=torch.float64) for _ in range(4)
    )
    found = policy_losses.dpo(policy_losses.margins(preferred, refused, before, refused_before, beta=0.3))
    for place, loss in enumerate(found.tolist()):
        # equation 7: the policy's ratio to the reference of the one, over that of the other
        better = math.exp(preferred[place]) / math.exp(before[place])
        worse = math.exp(refused[place]) / math.exp(refused_before[place])
        chance = better**0.3 / (better**0.3 + worse**0.3)
        assert loss == pytest.approx(-math.log(chance), abs=1e-12)


def test_a_preference_by_hand_its_gradient_and_its_bounds():
    log_2 = math.log(2)
    now = torch.tensor([log_2, -300.0, 0.0], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(3, dtype=torch.float64)
    losses = policy_losses.dpo(policy_losses.margins(now, zero, zero, zero, beta=1.0))
    assert losses.tolist() == pytest.approx([math.log(1.5), 300.0, log_2])  # log(1 + 1/2); linear where it is lost
    (gradient,) = torch.autograd.grad(losses.sum(), now)
    assert gradient.tolist() == pytest.approx([-1 / 3, -1.0, -0.5])


AGGREGATIONS = [("grpo", "token"), ("bnpo", "token"), ("dr_grpo", "token"), ("dapo", "token"), ("grpo", "sequence")]
"""GRPO's four, and GSPO."""


@pytest.mark.slow
def test_losses_and_gradients_are_trl_s_on_the_same_tensors(tmp_path):
    cases, ours = [], []
    for how, level in AGGREGATIONS:
        for beta in (0.0, 0.3):
            for high, most in ((0.28, None), (4e-4, 3.0)):
                case = parity(how, level, beta, 0.2 if most is None else 3e-4, high, most)
                cases.append(case)
                ours.append(ours_of(case))
    for case, (mine, gradient), theirs in zip(cases, ours, trl_side.ask(cases, tmp_path), strict=True):
        assert theirs["gradient"].dtype == torch.float64
        assert float(mine) == pytest.approx(float(theirs["losses"].sum()), abs=1e-6, rel=1e-6), case["told"]
        torch.testing.assert_close(gradient, theirs["gradient"], atol=1e-6, rtol=1e-6)
        assert gradient.abs().max() > 1e-3


@pytest.mark.slow
def test_a_step_in_two_batches_is_trl_s_window_of_two(tmp_path):
    # bnpo is left out: TRL's is a mean over each batch, ours one over the step, however it is cut
    cases = [{**parity(how, level, 0.1, 0.2, 0.28, None), "parts": 2} for how, level in AGGREGATIONS if how != "bnpo"]
    for case, theirs in zip(cases, trl_side.ask(cases, tmp_path), strict=True):
        mine, gradient = ours_of(case)
        assert len(theirs["losses"]) == 2
        assert float(mine) == pytest.approx(float(theirs["losses"].sum()), abs=1e-6, rel=1e-6), case["told"]
        torch.testing.assert_close(gradient, theirs["gradient"], atol=1e-6, rtol=1e-6)


def parity(how, level, beta, low, high, most):
    """A case for TRL: eight tries with a tool's tokens among theirs, some ratios within the clip and some beyond."""
    generator = torch.Generator().manual_seed(7)
    new = -2 * torch.rand(8, 9, generator=generator, dtype=torch.float64)
    old = new + 0.5 * torch.randn(8, 9, generator=generator, dtype=torch.float64)
    mask = torch.rand(8, 9, generator=generator) < 0.7
    mask[:, 0] = True
    return {
        "told": {
            "loss_type": how,
            "importance_sampling_level": level,
            "beta": beta,
            "epsilon": low,
            "epsilon_high": high,
            "delta": most,
        },
        "parts": 1,
        "new": new,
        "old": old,
        "reference": old - 0.3 * torch.rand(8, 9, generator=generator, dtype=torch.float64),
        "mask": mask,
        "advantages": torch.randn(8, generator=generator, dtype=torch.float64),
    }


def ours_of(case):
    """Our loss of a case, and its gradient."""
    told, new = case["told"], case["new"].clone().requires_grad_()
    loss = policy_losses.grpo(
        new,
        case["old"],
        case["advantages"][:, None],
        case["mask"],
        clip=Clip(told["epsilon"], told["epsilon_high"], told["delta"]),
        level=told["importance_sampling_level"],
        how=told["loss_type"],
        reference_BT=case["reference"],
        beta=told["beta"],
        longest=10,
    )
    (gradient,) = torch.autograd.grad(loss, new)
    return loss.detach(), gradient
