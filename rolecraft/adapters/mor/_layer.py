"""A linear layer with a Mixture of Roles beside it, and the gate that hands every such layer the call's role ids.

Not covered: merging. What a Mixture of Roles adds depends on the token, so no weight can hold it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from torch.nn import functional
from torch.nn.modules.module import _has_any_global_hook
from torch.utils.hooks import RemovableHandle
from transformers.modeling_layers import GradientCheckpointingLayer

from rolecraft.adapters.mor._losses import Load
from rolecraft.adapters.mor._losses import load as balance_load
from rolecraft.adapters.mor._mixture import Routing, Way, Weights, launched, stacked
from rolecraft.adapters.mor._plan import Mixture, Plan
from rolecraft.adapters.mor._product import Layout
from rolecraft.adapters.mor._product import add as add_product

Init = Literal["lora", "released"]

_Added = tuple[torch.Tensor, Routing | None]
_AMPERE = (8, 0)
"""The compute capability from which on torch's `grouped_mm` runs."""


class RoleGate:
    """Takes `role_ids` out of a model's call and keeps their plan for the layers while the call runs.

    `calls` counts the model's calls, and `again` tells that a layer is being computed again in the backward pass.
    """

    def __init__(self, roles: tuple[str, ...]) -> None:
        self.roles = roles
        self.plan: Plan | None = None
        self.calls = 0
        self.again = False
        self._hooks: list[RemovableHandle] = []

    def watch(self, model: nn.Module) -> None:
        """Register on `model` and on its decoder layers."""
        self._hooks.append(model.register_forward_pre_hook(self._enter, with_kwargs=True))
        self._hooks.append(model.register_forward_hook(self._leave, always_call=True))
        for module in model.modules():
            if isinstance(module, GradientCheckpointingLayer):
                self._hooks.append(module.register_forward_pre_hook(self._enter_layer))

    def unwatch(self, model: nn.Module) -> None:
        """Leave `model` as it was before `watch`."""
        while self._hooks:
            self._hooks.pop().remove()
        for module in model.modules():
            checkpoint = getattr(module, "_gradient_checkpointing_func", None)
            if isinstance(checkpoint, _Checkpoint):
                module._gradient_checkpointing_func = checkpoint.original  # type: ignore[assignment]  # as in gate_of

    def _enter(self, model: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        role_ids, times = kwargs.pop("role_ids", None), kwargs.pop("role_times", None)
        self.calls += 1
        if role_ids is not None:
            _check_shape(role_ids, args, kwargs)
        self.plan = None if role_ids is None else Plan(role_ids, len(self.roles), times)
        return args, kwargs

    def _leave(self, model: nn.Module, args: Any, output: Any) -> None:
        self.plan = None

    def _enter_layer(self, layer: Any, args: Any) -> None:
        if layer.gradient_checkpointing and not isinstance(layer._gradient_checkpointing_func, _Checkpoint):
            layer._gradient_checkpointing_func = _Checkpoint(self, layer._gradient_checkpointing_func)


def _check_shape(role_ids: torch.Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Raise ValueError unless role ids (B, T) are of the tokens' shape, where the call names its tokens as usual."""
    first = args[0] if args and isinstance(args[0], torch.Tensor) and not args[0].is_floating_point() else None
    for name, tokens in (("inputs_embeds", kwargs.get("inputs_embeds")), ("input_ids", kwargs.get("input_ids", first))):
        if tokens is not None and role_ids.shape != tokens.shape[:2]:
            raise ValueError(
                f"role_ids have the shape {tuple(role_ids.shape)} and {name} {tuple(tokens.shape)}; give a role id for "
                "each token: (batch, token)"
            )


@dataclass(frozen=True, slots=True)
class _Checkpoint:
    """A checkpointing function under which a layer, computed again in the backward pass, has the plan of its own
    call."""

    gate: RoleGate
    original: Callable[..., Any]

    def __call__(self, function: Callable[..., Any], *args: Any) -> Any:
        plan, trained, begun = self.gate.plan, torch.is_grad_enabled(), False

        def with_plan(*inputs: Any) -> Any:
            nonlocal begun
            if trained and not begun and not torch.is_grad_enabled():
                raise ValueError(
                    "reentrant gradient checkpointing loses the routers' balance loss; give "
                    'gradient_checkpointing_kwargs={"use_reentrant": False}'
                )
            before = self.gate.plan, self.gate.again
            self.gate.plan, self.gate.again, begun = plan, begun, True
            try:
                return function(*inputs)
            finally:
                self.gate.plan, self.gate.again = before

        return self.original(with_plan, *args)


class MoRLinear(nn.Module, BaseTunerLayer):  # type: ignore[misc]  # PEFT's own place to put a method
    """A frozen linear layer and, for each adapter on it, stacked LoRAs and their router.

    `mor_A` (E*r, in), `mor_B` (E*r, out) and `mor_router` (E, in) are one parameter each, a role's rows being
    neighbours: every process of a data-parallel run has a gradient for all of them, whichever roles its batch holds.
    They are kept in float32 and cast to the input's type, which costs little and keeps small steps from being lost.
    """

    adapter_layer_names = ("mor_A", "mor_B", "mor_router")
    other_param_names = ("mixtures", "mor_dropout", "sums", "_loads")

    # PEFT's own, which its types do not tell.
    active_adapters: Any
    disable_adapters: Any
    set_adapter: Any

    def __init__(self, base_layer: nn.Linear, gate: RoleGate) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.gate = gate
        self.in_features, self.out_features = base_layer.in_features, base_layer.out_features
        self.mor_A, self.mor_B, self.mor_router = nn.ParameterDict(), nn.ParameterDict(), nn.ParameterDict()
        self.mor_dropout = nn.ModuleDict()
        self.mixtures: dict[str, Mixture] = {}
        self.way: Way | None = None
        self._loads: dict[str, tuple[int, Load]] = {}
        self.sums: dict[str, torch.Tensor] = {}
        self._disable_adapters = False
        self.merged_adapters: list[str] = []

    def update_layer(self, name: str, mixture: Mixture, dropout: float, init: Init) -> None:
        """Put an adapter on this layer that starts as the base: B is zero.

        `lora`: A as in LoRA, uniform within 1 / sqrt(in). `released`: within 1 / sqrt(r * in), as the released code has
        it by reading the fan of a three-dimensional tensor.
        """
        rows, device = mixture.total * mixture.r, self.base_layer.weight.device
        bound = 1 / math.sqrt(self.in_features * (mixture.r if init == "released" else 1))
        self.mixtures[name] = mixture
        self.mor_dropout[name] = nn.Dropout(dropout) if dropout else nn.Identity()
        self.mor_A[name] = nn.Parameter(torch.empty(rows, self.in_features, device=device).uniform_(-bound, bound))
        self.mor_B[name] = nn.Parameter(torch.zeros(rows, self.out_features, device=device))
        if mixture.router:
            bound = 1 / math.sqrt(self.in_features)  # torch's own for a linear layer
            router = torch.empty(mixture.total, self.in_features, device=device).uniform_(-bound, bound)
            self.mor_router[name] = nn.Parameter(router)
        self.set_adapter(self.active_adapters)

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return the base's output (..., out) plus what the active adapters add to each token by its role."""
        active = [name for name in self.active_adapters if name in self.mixtures]
        if self.disable_adapters or not active:
            output: torch.Tensor = self.base_layer(x, *args, **kwargs)
            return output
        plan = self._plan(x)
        # As rows, for what a linear layer makes of (B, T, in) can be a view, and those cannot be added to in place.
        output = self.base_layer(x.reshape(-1, self.in_features), *args, **kwargs)
        if not torch.compiler.is_compiling() and (output._is_view() or self._watched()):
            output = output.clone()  # somebody may keep the base's own output, or watch its gradient
        for name in active:
            output = self._with(name, x, output, plan)
        return output.view(*x.shape[:-1], self.out_features)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Raise ValueError: what is added depends on the token."""
        raise ValueError(
            "a Mixture of Roles cannot be merged: which LoRAs a token gets depends on its role and the router"
        )

    def unmerge(self) -> None:
        """Raise ValueError: nothing was ever merged."""
        raise ValueError("a Mixture of Roles is never merged")

    def weights(self, name: str) -> Weights:
        """Return the adapter's matrices as they are kept."""
        return Weights(self.mor_A[name], self.mor_B[name], self.mor_router.get(name, None))

    def load(self, name: str = "default") -> Load | None:
        """Return how an adapter's routers spread the tokens of the model's last call, if that was one in training."""
        call, found = self._loads.get(name, (-1, None))
        return found if call == self.gate.calls else None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to a call: its tensors can be neither copied nor sent."""
        return {**self.__dict__, "_loads": {}}

    def _watched(self) -> bool:
        anywhere = _has_any_global_hook()  # type: ignore[no-untyped-call]
        return bool(self.base_layer._forward_hooks or anywhere)

    def _plan(self, x: torch.Tensor) -> Plan:
        plan = self.gate.plan
        if plan is None:
            raise ValueError(
                "a Mixture of Roles needs role_ids, the role of each token (B, T), -1 for nobody: model(input_ids=..., "
                f"role_ids=...); roles are {', '.join(f'{i} {role}' for i, role in enumerate(self.gate.roles))}"
            )
        if len(plan.ids) * self.in_features != x.numel():
            raise ValueError(
                f"role_ids have the shape {plan.shape} and the tokens {tuple(x.shape[:-1])}; they must agree"
            )
        return plan

    def _with(self, name: str, x: torch.Tensor, output: torch.Tensor, plan: Plan) -> torch.Tensor:
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        way = self._way(x, self.mixtures[name], dtype)
        add = self._add_grouped if way == "grouped" else self._add_stacked if way == "stacked" else self._add_launched
        output, routing = add(name, x, output, plan, dtype)
        if routing is not None and self.training and torch.is_grad_enabled():
            self._note(name, routing)
        return output

    def _add_grouped(self, name: str, x: torch.Tensor, output: torch.Tensor, plan: Plan, dtype: torch.dtype) -> _Added:
        mixture, arrangement = self.mixtures[name], plan.arrangement
        rows = plan.arranged(x, arrangement, dtype)
        dropped = self._dropped(name, rows)
        layout = Layout(arrangement, plan.masks(mixture, arrangement), mixture)
        return add_product(output, rows, None if dropped is rows else dropped, self.weights(name), layout)

    def _add_stacked(self, name: str, x: torch.Tensor, output: torch.Tensor, plan: Plan, dtype: torch.dtype) -> _Added:
        rows = x.reshape(-1, self.in_features).to(dtype)
        added, routing = stacked(rows, self._dropped(name, rows), self._cast(name, dtype), plan, self.mixtures[name])
        return output + added.to(output.dtype), routing

    def _add_launched(self, name: str, x: torch.Tensor, output: torch.Tensor, plan: Plan, dtype: torch.dtype) -> _Added:
        rows, weights = plan.arranged(x, plan.by_role, dtype), self._cast(name, dtype)
        added, routing = launched(rows, self._dropped(name, rows), weights, plan, self.mixtures[name])
        added = plan.by_role.restore(added)
        if plan.covered == 0 and torch.is_grad_enabled():
            # Other processes of a data-parallel run wait for a gradient of everything.
            matrices = (weights.A, weights.B, weights.router)
            added = added + 0.0 * sum(one.sum() for one in matrices if one is not None)
        return output + added.to(output.dtype), routing

    def _dropped(self, name: str, rows: torch.Tensor) -> torch.Tensor:
        dropped: torch.Tensor = self.mor_dropout[name](rows) if self.training else rows
        return dropped

    def _cast(self, name: str, dtype: torch.dtype) -> Weights:
        kept = self.weights(name)
        return Weights(kept.A.to(dtype), kept.B.to(dtype), None if kept.router is None else kept.router.to(dtype))

    def _way(self, x: torch.Tensor, mixture: Mixture, dtype: torch.dtype) -> Way:
        if self.way is not None:
            return self.way
        if torch.compiler.is_compiling():
            return "stacked"
        able = x.is_cuda and torch.cuda.get_device_capability(x.device) >= _AMPERE
        return "grouped_mm" if able and self._launches(mixture, dtype) else "grouped"

    def _launches(self, mixture: Mixture, dtype: torch.dtype) -> bool:
        """Tell whether `grouped_mm` is there (torch 2.10) and takes this: bfloat16, in rows of whole 16 bytes."""
        if dtype != torch.bfloat16 or not hasattr(functional, "grouped_mm"):
            return False
        widths = (max(mixture.counts) * mixture.r, self.in_features, self.out_features)
        return all(width * dtype.itemsize % 16 == 0 for width in widths)

    def _note(self, name: str, routing: Routing) -> None:
        found = balance_load(routing)
        if self.gate.again:  # computed with the same steps, as checkpointing wants, and noted when it was new
            return
        self._loads[name] = (self.gate.calls, found)
        seen = torch.stack((found.share.detach() * found.seen, found.seen.to(found.share.dtype)))
        self.sums[name] = self.sums[name] + seen if name in self.sums else seen


def gate_of(model: nn.Module, roles: tuple[str, ...]) -> RoleGate:
    """Return the gate that watches `model`, made at the first call; raises ValueError for adapters of other roles."""
    gate: RoleGate | None = getattr(model, "mor_gate", None)
    if gate is None:
        gate = RoleGate(roles)
        gate.watch(model)
        model.mor_gate = gate  # type: ignore[assignment]  # torch types attributes as modules and tensors
    elif gate.roles != roles:
        raise ValueError(f"the model has adapters for the roles {gate.roles} already, and this one is for {roles}")
    return gate


def ungate(model: nn.Module) -> None:
    """Take the gate off a model whose adapters are gone."""
    gate: RoleGate | None = getattr(model, "mor_gate", None)
    if gate is not None:
        gate.unwatch(model)
        del model.mor_gate


def layers(model: nn.Module) -> Mapping[str, MoRLinear]:
    """Return the layers with a Mixture of Roles by name, in the model's order."""
    return {name: module for name, module in model.named_modules() if isinstance(module, MoRLinear)}
