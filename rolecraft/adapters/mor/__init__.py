"""Mixture of Roles (MoRAgent, arXiv 2512.21708): for each role a shared LoRA and routed LoRAs, on one frozen base.

Importing this makes the method known to PEFT: `get_peft_model(model, MoRConfig(...))`,
`PeftModel.from_pretrained(model, folder)`. A forward call then takes `role_ids`, the role of each token (B, T), -1 for
tokens of the base alone; and `role_times`, how often each token counts in the balance loss, once by default.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import torch
from peft import get_peft_model

from rolecraft import matching
from rolecraft.adapters._roleless import virtual_tokens
from rolecraft.adapters.mor import _losses
from rolecraft.adapters.mor._layer import MoRLinear, layers
from rolecraft.adapters.mor._method import MoRConfig, MoRModel
from rolecraft.adapters.mor._mixture import mixing
from rolecraft.adapters.mor._plan import Plan
from rolecraft.errors import ContractError, SettingsError
from rolecraft.gate import Assignment, Gate

__all__ = [
    "MoRConfig",
    "MoRLinear",
    "MoRModel",
    "Plan",
    "Settings",
    "attach",
    "gate",
    "inputs",
    "layers",
    "loads",
    "measure",
    "merge",
    "mixing",
    "parts",
    "penalty",
    "virtual_tokens",
]

_GROUPS = ("early", "middle", "late")


@dataclass(frozen=True, slots=True)
class Settings:
    """Of `MoRConfig`, with its names and defaults; what the paper leaves open is an option here.

    `balance_reduction`: over the wrapped layers, the mean (as in transformers' mixtures of experts; summed over 112
    layers an even load would cost 0.9 nats). `orthogonality_reduction`: the sum, as equation 13 has no mean.
    `orientation` `subspace` can reach 0, `literal` only by shrinking the LoRAs. `include_shared`: figure 5 of the paper
    shows that the shared LoRA took part. `init_weights` `released` is the code's, a quarter of LoRA's own at r = 16.
    """

    roles: Mapping[str, int] = field(default_factory=lambda: {"reasoner": 5, "executor": 5, "summarizer": 4})
    top_k: Mapping[str, int] = field(default_factory=lambda: {"reasoner": 3, "executor": 3, "summarizer": 2})
    r: int = 16
    lora_alpha: float | None = None
    lora_dropout: float = 0.0
    router: bool = True
    target_modules: str | tuple[str, ...] = "all-linear"
    modules_to_save: tuple[str, ...] | None = None
    init_weights: Literal["lora", "released"] = "released"
    assignment: Assignment = "stream"
    context: str | None = "reasoner"
    balance_coef: float = 1e-3
    orthogonality_coef: float = 1e-4
    balance_reduction: Literal["mean", "sum"] = "mean"
    orthogonality_reduction: Literal["mean", "sum"] = "sum"
    orientation: Literal["subspace", "literal"] = "subspace"
    include_shared: bool = True

    def __post_init__(self) -> None:
        """Raise SettingsError for sizes that cannot be."""
        try:
            _config(self)
        except ValueError as error:
            raise SettingsError(f"adapter: {error}") from error


def attach(model: Any, settings: Settings) -> Any:
    """Return `model` as a PEFT model with a fresh Mixture of Roles; raises SettingsError if no layer of it is meant."""
    matching.require_quick(
        {"adapter.target_modules": settings.target_modules}, [name for name, _ in model.named_modules()]
    )
    with warnings.catch_warnings():
        # PEFT asks transformers for a property under the name it had before 5.23.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        try:
            return get_peft_model(model, _config(settings))
        except ValueError as error:
            raise SettingsError(f"adapter: {error}") from error


def gate(settings: Settings) -> Gate:
    """Return the rule that gives each token its role id."""
    return Gate(tuple(settings.roles), settings.assignment, settings.context)


def inputs(role_ids_BT: torch.Tensor, times_BT: torch.Tensor | None = None) -> Mapping[str, torch.Tensor]:
    """Return the role ids, and the rows that tokens stand for, under the names that the model's call knows them by."""
    return {"role_ids": role_ids_BT} | ({} if times_BT is None else {"role_times": times_BT})


def penalty(model: Any) -> torch.Tensor | float:
    """Return the last call's balance and orthogonality losses, times their coefficients (equation 8).

    Balance is that of the call's own tokens, as in transformers' mixtures of experts: a role that has none there adds
    nothing, and the mean over batches is not the loss of their tokens taken together.
    """
    wrapped, config = layers(model), _active(model)
    total: torch.Tensor | float = 0.0
    if config.balance_coef and config.router:
        noted = [load for layer in wrapped.values() if (load := layer.load(_name(model))) is not None]
        if noted:
            losses_LR = _losses.balance(_losses.together(noted), config.mixture())
            total = total + config.balance_coef * _reduce(losses_LR, config.balance_reduction)
    if config.orthogonality_coef:
        losses_LR = torch.stack([_orthogonality(layer, model, config) for layer in wrapped.values()])
        total = total + config.orthogonality_coef * _reduce(losses_LR, config.orthogonality_reduction)
    return total


@torch.no_grad()
def measure(model: Any) -> Mapping[str, float]:
    """Return both losses by role and third of the layers, before their coefficients, and the largest similarity.

    `balance/<role>/<third>` is k when routing is even; it is that of this process's last batch, and left out for a role
    without tokens there. `similarity/<role>` is the largest |cosine| between two LoRAs' products.
    """
    wrapped, config, name = list(layers(model).values()), _active(model), _name(model)
    rows: dict[str, list[float]] = {}
    for place, layer in enumerate(wrapped):
        third = _GROUPS[place * len(_GROUPS) // len(wrapped)]
        for role, value in zip(config.speakers, _orthogonality(layer, model, config).tolist(), strict=True):
            rows.setdefault(f"orthogonality/{role}/{third}", []).append(value)
        if (load := layer.load(name)) is not None:
            for role, value in _balances(load, config).items():
                rows.setdefault(f"balance/{role}/{third}", []).append(value)
    found = {key: sum(values) / len(values) for key, values in rows.items()}
    kept = [layer.weights(name) for layer in wrapped]
    largest = torch.stack([_losses.similarity(w.A, w.B, config.mixture()) for w in kept]).amax(0)
    return found | {f"similarity/{role}": value for role, value in zip(config.speakers, largest.tolist(), strict=True)}


def loads(model: Any) -> dict[str, dict[str, list[float]]]:
    """Return for each layer and role the share of the role's tokens that chose each routed LoRA, in training.

    Of this process's tokens since it began: a resumed run counts anew. A role that had none is left out.
    """
    found: dict[str, dict[str, list[float]]] = {}
    config, name = _active(model), _name(model)
    edges = config.mixture().edges
    for path, layer in layers(model).items():
        if name not in layer.sums:
            continue
        chosen_E, seen_E = layer.sums[name].tolist()
        for role, first, end in zip(config.speakers, edges, edges[1:], strict=False):
            if end - first > 1 and seen_E[first]:
                shares = [chosen_E[i] / seen_E[i] for i in range(first, end - 1)]
                found.setdefault(path, {})[role] = shares
    return found


def parts(model: Any) -> Mapping[str, Sequence[torch.Tensor]]:
    """Return each role's rows of A, B and the router, as views; nothing unless the role computes all that it sees.

    Under the other assignments a role's loss depends on what others made of the tokens before.
    """
    config, name = _active(model), _name(model)
    if config.assignment != "reencode" or config.modules_to_save:
        return {}
    edges, found = config.mixture().edges, dict[str, list[torch.Tensor]]()
    for layer in layers(model).values():
        kept = layer.weights(name)
        for role, first, end in zip(config.speakers, edges, edges[1:], strict=False):
            low, high = first * config.r, end * config.r
            router = [] if kept.router is None else [kept.router[first:end]]
            found.setdefault(role, []).extend([kept.A[low:high], kept.B[low:high], *router])
    return found


def merge(model: Any) -> Any:
    """Raise ContractError: what a Mixture of Roles adds depends on the token."""
    raise ContractError("a Mixture of Roles cannot be merged into its base: what it adds depends on each token's role")


def _config(settings: Settings) -> MoRConfig:
    values = {each.name: getattr(settings, each.name) for each in fields(settings)}
    plain = {
        key: dict(value) if isinstance(value, Mapping) else list(value) if isinstance(value, tuple) else value
        for key, value in values.items()
    }
    make: Any = MoRConfig  # its fields are those of Settings, which has checked their types
    config: MoRConfig = make(task_type="CAUSAL_LM", **plain)
    return config


def _name(model: Any) -> str:
    return str(model.active_adapter)


def _active(model: Any) -> MoRConfig:
    config: MoRConfig = model.peft_config[_name(model)]
    return config


def _orthogonality(layer: MoRLinear, model: Any, config: MoRConfig) -> torch.Tensor:
    kept = layer.weights(_name(model))
    mixture = config.mixture()
    # Autocast would take the products in a half type, whose gradient does not fit the float32 matrices.
    with torch.autocast(kept.A.device.type, enabled=False):
        return _losses.orthogonality(kept.A, kept.B, mixture, config.orientation, config.include_shared)


def _balances(load: _losses.Load, config: MoRConfig) -> dict[str, float]:
    """Return the balance loss of each role that had tokens."""
    mixture, seen_E = config.mixture(), load.seen.tolist()
    losses = zip(config.speakers, mixture.edges, _losses.balance(load, mixture).tolist(), strict=False)
    return {role: loss for role, first, loss in losses if seen_E[first]}


def _reduce(losses_LR: torch.Tensor, reduction: str) -> torch.Tensor:
    losses_L = losses_LR.sum(-1)
    return losses_L.mean() if reduction == "mean" else losses_L.sum()
