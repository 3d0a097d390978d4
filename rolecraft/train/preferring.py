"""Pairs as batches, what the policy said of them before it learned, and the loss of preferring one reply to the other.

Each row of a batch is a whole conversation that ends in a reply; a pair's are neighbours, the preferred one first.
What the policy said before is computed once, as it begins: with fresh weights, so a resumed run finds the same numbers.
Not covered: where pairs come from (`pairs`), and computing the context that they share once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch

from rolecraft import objectives, policy_losses
from rolecraft.preference import PreferenceSettings
from rolecraft.train.batches import Batch
from rolecraft.train.rows import Rows
from rolecraft.train.trainer import Objective, RoleTrainer

MEASURES = ("preference/margin", "preference/right", "preference/preferred", "preference/refused")
"""Means over pairs: the margin, the share above 0, and how many nats a reply has gained since the policy began."""


class Pairs:
    """Rows two by two; an item is a batch of pairs, with what the policy said of each reply before it learned."""

    def __init__(self, rows: Rows, lengths: Sequence[int]) -> None:
        self._rows, self._lengths = rows, lengths
        self._before_B = torch.empty(0)

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self._lengths) // 2

    def __getitem__(self, batch: Batch) -> dict[str, Any]:
        """Return what `Rows` does for the pairs' rows, the `scale` of a pair's loss, and `before_B` of each row."""
        rows = tuple(row for pair in batch.rows for row in (2 * pair, 2 * pair + 1))
        inputs = self._rows[Batch(rows, 1.0 if batch.scale else 0.0)]
        known = {"before_B": self._before_B[list(rows)]} if len(self._before_B) else {}
        return {**inputs, **known, "scale": batch.scale}

    def begin(self, trainer: RoleTrainer) -> None:
        """Note what the policy says of each reply now."""
        before_B = torch.zeros(len(self._lengths))
        trained, step = trainer.model.training, trainer.args.per_device_train_batch_size
        trainer.model.eval()
        order = sorted(range(len(self)), key=self.length)
        for start in range(0, len(order), step):
            pairs = order[start : start + step]
            inputs = trainer._prepare_inputs(self[Batch(tuple(pairs), 1.0)])
            # the Trainer's own context has no autocast: only its `train` lays that over the model's forward
            with torch.no_grad(), trainer.accelerator.autocast():
                losses_N, weights_N, _, _ = trainer.token_losses(trainer.model, inputs)
            said_B = _sums(-losses_N * weights_N, inputs)
            before_B[[row for pair in pairs for row in (2 * pair, 2 * pair + 1)]] = said_B.float().cpu()
        trainer.model.train(trained)
        self._before_B = before_B

    def length(self, pair: int) -> int:
        """Return the tokens of the longer one of a pair's rows."""
        return max(self._lengths[2 * pair : 2 * pair + 2])


def objective(told: PreferenceSettings) -> Objective:
    """Return the objective of preferring, as a recipe tells of it."""
    return Objective(partial(_loss, told), MEASURES)


def _loss(
    told: PreferenceSettings, losses_N: torch.Tensor, weights_N: torch.Tensor, inputs: Mapping[str, Any]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a batch's share of the step's loss, and the sums of MEASURES over its pairs."""
    now_B = _sums(-losses_N * weights_N, inputs)
    before_B = inputs["before_B"].to(now_B)
    counts_B = _sums(weights_N, inputs).clamp(min=1e-9)  # rows that fill up a step have none
    lengths_B = counts_B if told.by_length else torch.ones_like(counts_B)
    (now_P, before_P), (refused_P, refused_before_P) = (
        ((now_B / lengths_B)[side::2], (before_B / lengths_B)[side::2]) for side in (0, 1)
    )
    margins_P = policy_losses.margins(now_P, refused_P, before_P, refused_before_P, told.beta)
    losses_P = policy_losses.dpo(margins_P)
    if told.likelihood:
        losses_P = losses_P - told.likelihood * now_B[::2] / counts_B[::2]
    gained_B = now_B - before_B
    found = torch.stack((margins_P, (margins_P > 0).to(margins_P), gained_B[::2], gained_B[1::2])).detach()
    sums = torch.stack((found.sum(1), torch.full_like(found[:, 0], found.shape[1])), dim=1)
    return losses_P.sum() * inputs["scale"], sums * bool(inputs["scale"])


def _sums(values_N: torch.Tensor, inputs: Mapping[str, Any]) -> torch.Tensor:
    """Return the sum of each row's trained tokens (B,)."""
    weights_BT = inputs["weights_BT"]
    keep_BT, _, _ = objectives.next_token_targets(inputs["ids_BT"], weights_BT)
    rows_N = keep_BT.nonzero()[:, 0]
    return torch.zeros(len(weights_BT), dtype=values_N.dtype, device=values_N.device).index_add(0, rows_N, values_N)
