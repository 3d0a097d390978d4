"""What adapters say of roles that know none: the same for every token, without losses or figures of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def gate(settings: Any) -> None:
    """Return None: what is trained is the same for every role."""
    return


def virtual_tokens(settings: Any) -> int:
    """Return 0: a sequence begins with its own first token."""
    return 0


def inputs(role_ids_BT: torch.Tensor, times_BT: torch.Tensor | None = None) -> Mapping[str, torch.Tensor]:
    """Return nothing: there are no roles to tell."""
    return {}


def penalty(model: Any) -> float:
    """Return 0: there is no loss but the tokens'."""
    return 0.0


def measure(model: Any) -> Mapping[str, float]:
    """Return nothing beside the losses."""
    return {}


def loads(model: Any) -> Mapping[str, Mapping[str, Sequence[float]]]:
    """Return nothing: nothing is routed."""
    return {}


def parts(model: Any) -> Mapping[str, Sequence[torch.Tensor]]:
    """Return nothing: every role has all that is trained."""
    return {}
