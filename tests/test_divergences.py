"""Divergences and step weights against values worked out by hand, and what must hold for any logits."""

from __future__ import annotations

import math

import pytest
import torch

from rolecraft import divergences
from rolecraft.divergences import forward_kl, reverse_kl, step_gates

# Chances (1/2, 1/2) and (1/4, 3/4).
EVEN, SKEWED = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, math.log(3)]])


def logits(count: int = 7, words: int = 11, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    return torch.randn(count, words, requires_grad=True), torch.randn(count, words)


@pytest.mark.parametrize(
    ("divergence", "expected"),
    [
        (reverse_kl, 0.5 * math.log(2) + 0.5 * math.log(2 / 3)),  # sum of student * log(student / teacher)
        (forward_kl, 0.25 * math.log(1 / 2) + 0.75 * math.log(3 / 2)),
    ],
)
def test_two_words_by_hand(divergence, expected):
    assert float(divergence(EVEN, SKEWED)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("divergence", [reverse_kl, forward_kl])
def test_it_is_torch_s_own(divergence):
    student, teacher = logits()
    p, q = (student, teacher) if divergence is reverse_kl else (teacher, student)
    expected = torch.nn.functional.kl_div(q.log_softmax(-1), p.log_softmax(-1), reduction="none", log_target=True)
    torch.testing.assert_close(divergence(student, teacher), expected.sum(-1))


@pytest.mark.parametrize("divergence", [reverse_kl, forward_kl])
def test_it_is_zero_for_equals_whatever_is_added_to_the_logits(divergence):
    student, _ = logits()
    torch.testing.assert_close(divergence(student, student.detach() + 3.0), torch.zeros(7), atol=1e-6, rtol=0)


@pytest.mark.parametrize("divergence", [reverse_kl, forward_kl])
def test_pieces_change_neither_value_nor_gradient(divergence):
    found = []
    for chunk in (10_000, 22):
        student, teacher = logits()
        losses = divergence(student, teacher, chunk)
        losses.sum().backward()
        found.append((losses.detach(), student.grad))
    torch.testing.assert_close(found[0], found[1])


def test_what_a_player_may_not_say_adds_nothing():
    impossible = torch.tensor([[0.0, 0.0, float("-inf")]])
    assert float(reverse_kl(impossible, torch.zeros(1, 3))) == pytest.approx(math.log(3 / 2), abs=1e-6)
    assert float(forward_kl(torch.zeros(1, 3), impossible)) == pytest.approx(math.log(3 / 2), abs=1e-6)


def test_a_descent_on_reverse_kl_reaches_the_teacher():
    student, teacher = logits()
    optimizer = torch.optim.Adam([student], lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        reverse_kl(student, teacher).sum().backward()
        optimizer.step()
    torch.testing.assert_close(student.softmax(-1), teacher.softmax(-1), atol=1e-3, rtol=0)


def test_a_step_beyond_the_gate_counts_less_in_proportion_and_others_in_full():
    gaps = torch.tensor([0.5, 1.5, 4.0, 4.0, 0.0])
    steps = torch.tensor([7, 7, 9, 9, 12])  # means 1, 4 and 0
    assert step_gates(gaps, steps, within=2.0).tolist() == [1.0, 1.0, 0.5, 0.5, 1.0]
    assert step_gates(gaps, steps, within=0.5).tolist() == [0.5, 0.5, 0.125, 0.125, 1.0]


def test_a_step_that_is_back_on_the_way_counts_in_full_again():
    gates = step_gates(torch.tensor([0.1, 8.0, 0.1]), torch.tensor([0, 1, 2]), within=1.0)
    assert gates.tolist() == [1.0, 0.125, 1.0]


def test_gates_have_no_gradient_and_no_tokens_no_gates():
    gaps = torch.tensor([2.0], requires_grad=True)
    assert not step_gates(gaps, torch.tensor([0]), 1.0).requires_grad
    assert len(step_gates(torch.zeros(0), torch.zeros(0, dtype=torch.long), 1.0)) == 0
    assert divergences.reverse_kl(torch.zeros(0, 5), torch.zeros(0, 5)).shape == (0,)
