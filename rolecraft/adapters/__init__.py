"""What an adapter is: a part of a model that is trained, the rest frozen.

To add an adapter, write `adapters/x.py` with the names of `Adapter`; a recipe then names it in `adapter.name`. An
attached model starts as the base, where it is told no virtual tokens, and gives what is frozen no gradient. It is
PEFT's model, with a part put on the base and saved without it, or transformers' own, saved whole (see
`bases.is_whole`); both by their own `save_pretrained`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from rolecraft import catalog
from rolecraft.gate import Gate

if TYPE_CHECKING:
    import torch

__all__ = ["ROUTER_LOAD", "Adapter", "count_trainable", "find"]

ROUTER_LOAD = "router_load.json"
"""Beside an adapter with routers: what `Adapter.loads` said when training ended."""


class Adapter(Protocol):
    """The contract of a member of `adapters/`: a module with these names."""

    Settings: type[Any]
    """A frozen dataclass with PEFT's names."""

    def attach(self, model: Any, settings: Any) -> Any:
        """Return `model` with all frozen but what is trained; random numbers come from torch's generator."""
        ...

    def gate(self, settings: Any) -> Gate | None:
        """Return the rule that gives each token its role id, or None for an adapter that knows no roles."""
        ...

    def virtual_tokens(self, settings: Any) -> int:
        """Return how many virtual tokens (see the part of that name) every sequence begins with; 0 for most."""
        ...

    def inputs(self, role_ids_BT: torch.Tensor, times_BT: torch.Tensor | None = None) -> Mapping[str, torch.Tensor]:
        """Return what the forward call takes beside the ids; `role_ids_BT` (B, T) is what the gate said, -1: nobody.

        `times_BT`: how many rows each token stands for where rows share a prefix.
        """
        ...

    def penalty(self, model: Any) -> torch.Tensor | float:
        """Return what the last forward call adds to the token loss, in nats; 0 for an adapter that adds nothing."""
        ...

    def measure(self, model: Any) -> Mapping[str, float]:
        """Return what to log beside the losses, by name, after a training step."""
        ...

    def loads(self, model: Any) -> Mapping[str, Mapping[str, Sequence[float]]]:
        """Return for each layer and role the share of the role's tokens that chose each routed LoRA, if any are."""
        ...

    def parts(self, model: Any) -> Mapping[str, Sequence[torch.Tensor]]:
        """Return the trained numbers that each role has for itself, as views; nothing where roles share them."""
        ...

    def merge(self, model: Any) -> Any:
        """Return the base with the adapter's weights added in; raises ContractError where that cannot be done."""
        ...


def find(name: str | Path) -> Adapter:
    """Return the member `adapters/<name>.py`, or the one in a user's own file; raises NotFound as catalog.find does."""
    return cast("Adapter", catalog.find("adapters", name))


def count_trainable(model: Any) -> int:
    """Return how many numbers of `model` are trained."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
