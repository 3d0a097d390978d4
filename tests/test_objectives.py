"""The token loss, and that leaving out what is not trained changes nothing but memory."""

from __future__ import annotations

import pytest
import tiny
import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from rolecraft import objectives

VOCABULARY = 24


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and weights (3, 9), about half of the tokens trained with weights of their own."""
    generator = torch.Generator().manual_seed(seed)
    ids_BT = torch.randint(0, VOCABULARY, (3, 9), generator=generator)
    weights_BT = torch.rand(3, 9, generator=generator) * (torch.rand(3, 9, generator=generator) < 0.5)
    return ids_BT, weights_BT


def reference_loss(logits_BTV: torch.Tensor, ids_BT: torch.Tensor, weights_BT: torch.Tensor) -> torch.Tensor:
    """The same loss written the long way: every token but the first, predicted from the one before."""
    total = torch.zeros(())
    for row in range(ids_BT.shape[0]):
        for place in range(1, ids_BT.shape[1]):
            chance = torch.log_softmax(logits_BTV[row, place - 1], -1)[ids_BT[row, place]]
            total = total - weights_BT[row, place] * chance
    return total


def loss_of(logits_NV: torch.Tensor, targets_N: torch.Tensor, weights_N: torch.Tensor) -> torch.Tensor:
    return objectives.weighted_sum(objectives.token_losses(logits_NV, targets_N), weights_N)


def test_a_token_is_predicted_from_the_one_before_it():
    ids_BT, weights_BT = batch()
    logits_BTV = torch.randn(3, 9, VOCABULARY)
    keep_BT, targets_N, weights_N = objectives.next_token_targets(ids_BT, weights_BT)
    loss = loss_of(objectives.pick_logits(logits_BTV, keep_BT), targets_N, weights_N)
    torch.testing.assert_close(loss, reference_loss(logits_BTV, ids_BT, weights_BT))


def test_the_first_token_of_a_row_is_never_trained():
    keep_BT, targets_N, _ = objectives.next_token_targets(torch.tensor([[5, 6]]), torch.tensor([[1.0, 0.0]]))
    assert not keep_BT.any()
    assert targets_N.numel() == 0


@pytest.mark.parametrize("architecture", list(tiny.ARCHITECTURES))
def test_a_model_computes_logits_only_where_they_are_trained(architecture):
    ids_BT, weights_BT = batch()
    model = tiny.model(VOCABULARY, architecture)
    keep_BT, targets_N, weights_N = objectives.next_token_targets(ids_BT, weights_BT)
    with objectives.only_logits_at(model.get_output_embeddings(), keep_BT):
        logits = model(input_ids=ids_BT, use_cache=False).logits
    assert logits.shape == (targets_N.numel(), VOCABULARY)
    whole = reference_loss(model(input_ids=ids_BT).logits, ids_BT, weights_BT)
    torch.testing.assert_close(loss_of(objectives.pick_logits(logits, keep_BT), targets_N, weights_N), whole)


def test_gradients_are_those_of_the_whole_logits():
    ids_BT, weights_BT = batch()
    model = tiny.model(VOCABULARY)
    keep_BT, targets_N, weights_N = objectives.next_token_targets(ids_BT, weights_BT)
    with objectives.only_logits_at(model.get_output_embeddings(), keep_BT):
        loss_of(model(input_ids=ids_BT).logits, targets_N, weights_N).backward()
    few = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    reference_loss(model(input_ids=ids_BT).logits, ids_BT, weights_BT).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(few[name], parameter.grad, atol=1e-5, rtol=1e-4)


def test_afterwards_the_model_gives_all_its_logits_again():
    ids_BT, weights_BT = batch()
    model = tiny.model(VOCABULARY)
    keep_BT, _, _ = objectives.next_token_targets(ids_BT, weights_BT)
    with objectives.only_logits_at(model.get_output_embeddings(), keep_BT):
        pass
    assert model(input_ids=ids_BT).logits.shape == (3, 9, VOCABULARY)


def test_right_padding_without_a_mask_does_not_change_the_loss():
    ids_BT, weights_BT = batch()
    model = tiny.model(VOCABULARY)
    keep_BT, _, _ = objectives.next_token_targets(ids_BT, weights_BT)
    longer_BT = functional.pad(ids_BT, (0, 4), value=0)
    alone = model(input_ids=ids_BT).logits[keep_BT]
    padded = model(input_ids=longer_BT).logits[functional.pad(keep_BT, (0, 4))]
    torch.testing.assert_close(padded, alone)


def test_a_batch_that_trains_nothing_has_loss_zero_and_gradient_zero():
    ids_BT, _ = batch()
    model = tiny.model(VOCABULARY)
    keep_BT, targets_N, weights_N = objectives.next_token_targets(ids_BT, torch.zeros(3, 9))
    with objectives.only_logits_at(model.get_output_embeddings(), keep_BT):
        loss = loss_of(model(input_ids=ids_BT).logits, targets_N, weights_N)
    loss.backward()
    assert loss == 0
    assert all(not parameter.grad.any() for parameter in model.parameters())


def test_pieces_of_a_large_vocabulary_add_up_to_the_whole():
    logits = torch.randn(7, VOCABULARY, requires_grad=True)
    targets = torch.randint(0, VOCABULARY, (7,))
    whole = objectives.token_losses(logits, targets)
    (gradient,) = torch.autograd.grad(whole.sum(), logits)
    pieces = objectives.token_losses(logits, targets, chunk=2 * VOCABULARY)
    torch.testing.assert_close(pieces, whole)
    torch.testing.assert_close(torch.autograd.grad(pieces.sum(), logits)[0], gradient)


def test_the_loss_of_half_precision_logits_is_computed_in_float32():
    logits = torch.randn(4, VOCABULARY).bfloat16()
    losses = objectives.token_losses(logits, torch.tensor([1, 2, 3, 4]))
    assert losses.dtype == torch.float32


def test_each_speaker_has_its_own_sum():
    sums = objectives.sums_by_speaker(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([2, 0, 2]), 3)
    assert sums.tolist() == [[2.0, 1.0], [0.0, 0.0], [5.0, 2.0]]


def test_a_checkpoint_around_the_losses_of_tokens_gives_their_gradient():
    logits_NV = torch.randn(9, 5, requires_grad=True)
    targets_N = torch.randint(5, (9,))
    found, expected = (
        torch.autograd.grad(losses.sum(), logits_NV)[0]
        for losses in (
            checkpoint(objectives.token_losses, logits_NV, targets_N, 10, use_reentrant=False),
            functional.cross_entropy(logits_NV, targets_N, reduction="none"),
        )
    )
    torch.testing.assert_close(found, expected)


def test_the_losses_of_tokens_have_no_second_derivative():
    logits_NV = torch.randn(3, 5, requires_grad=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(objectives.token_losses(logits_NV, torch.arange(3)).sum(), logits_NV, create_graph=True)
