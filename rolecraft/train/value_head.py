"""PPO's value head: one number for each token that is about to be chosen, from the policy's last hidden states.

It is trained with the policy, on the same backbone, and saved in every checkpoint; what a run leaves is without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def make(hidden: int, device: torch.device | str) -> torch.nn.Linear:
    """Return a head that expects nothing yet."""
    head = torch.nn.Linear(hidden, 1)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    return head.to(device)


def values(head: torch.nn.Module, hidden_NH: torch.Tensor) -> torch.Tensor:
    """Return the values (N,) of hidden states."""
    found: torch.Tensor = head(hidden_NH.float())[:, 0]
    return found


@contextmanager
def hidden_states(output: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    """Within, note what the output layer is given, (B, T, H): for `objectives.only_logits_at` it is yet to come."""
    seen: list[torch.Tensor] = []
    handle = output.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    try:
        yield seen
    finally:
        handle.remove()
