"""Mixture of Roles as a method of PEFT: its configuration, its tuner, and its place in PEFT's tables.

Not covered: quantised layers, and PEFT's mixed-adapter batches.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, cast, get_args, get_origin

from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner
from peft.utils import PeftType
from torch import nn

from rolecraft.adapters.mor._layer import MoRLinear, gate_of, ungate
from rolecraft.adapters.mor._plan import Mixture
from rolecraft.errors import SettingsError
from rolecraft.gate import Assignment, Gate
from rolecraft.settings import require_choice

_VALUE = "MOR: run `import rolecraft.adapters.mor` before loading this adapter"
"""What the configuration says its type is. PEFT answers an unknown type with a KeyError that quotes it, and nothing
else."""


def register() -> PeftType:
    """Enter Mixture of Roles into PEFT's tables and return its type; PEFT's enum is closed, so it is opened here.

    Safe to call again: it returns what is there.
    """
    known = PeftType._value2member_map_.get(_VALUE)
    if known is None:
        known = str.__new__(PeftType, _VALUE)
        known._name_, known._value_ = "MOR", _VALUE
        PeftType._member_map_["MOR"] = known
        PeftType._value2member_map_[_VALUE] = known
        PeftType._member_names_.append("MOR")
    PEFT_TYPE_TO_PREFIX_MAPPING[known] = MoRModel.prefix
    PEFT_TYPE_TO_CONFIG_MAPPING[known] = MoRConfig
    PEFT_TYPE_TO_TUNER_MAPPING[known] = MoRModel
    return known


@dataclass
class MoRConfig(PeftConfig):  # type: ignore[misc]
    """A Mixture of Roles; the defaults are MoRAgent's (arXiv 2512.21708, section 4.1; where it is silent, its released
    code).

    `roles` are LoRAs per role, the shared one included, in the order of the role ids: a mapping, kept as pairs because
    PEFT's files sort keys. `top_k` is how many of the routed ones are active for a token. `lora_alpha` None is `r`:
    scale 1. Without a `router` all LoRAs of a role are always active. `assignment` and `context` tell how tokens get
    role ids; they are kept here so that the adapter is never played otherwise than it was trained.
    """

    roles: Any = field(default_factory=lambda: {"reasoner": 5, "executor": 5, "summarizer": 4})
    top_k: dict[str, int] = field(default_factory=lambda: {"reasoner": 3, "executor": 3, "summarizer": 2})
    r: int = 16
    lora_alpha: float | None = None
    lora_dropout: float = 0.0
    router: bool = True
    target_modules: set[str] | list[str] | str | None = "all-linear"
    exclude_modules: list[str] | str | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    modules_to_save: list[str] | None = None
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
        """Check every choice, the mixture and the gate; raises ValueError naming the field or role, and the value."""
        super().__post_init__()
        self.peft_type = PEFT_TYPE
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)
        pairs = self.roles.items() if isinstance(self.roles, Mapping) else self.roles
        self.roles = [[str(role), int(count)] for role, count in pairs]
        self.mixture()
        try:
            self._check_choices()
            Gate(self.speakers, self.assignment, self.context)
        except SettingsError as error:  # PEFT's callers know ValueError only
            raise ValueError(str(error)) from error

    @property
    def speakers(self) -> tuple[str, ...]:
        """The roles' names, in the order of their ids."""
        return tuple(role for role, _ in self.roles)

    def mixture(self) -> Mixture:
        """Return the sizes that a layer needs; raises ValueError for sizes that cannot be."""
        if not self.roles or self.r < 1:
            raise ValueError(
                f"a Mixture of Roles needs a role and a rank of at least 1; got {self.roles!r}, r={self.r}"
            )
        if set(self.top_k) != set(self.speakers):
            named, roles = ", ".join(self.top_k), ", ".join(self.speakers)
            raise ValueError(f"top_k names {named}, and roles names {roles}; name the same")
        for role, count in self.roles:
            routed, k = count - 1, self.top_k[role]
            if count < 1 or not min(1, routed) <= k <= routed:
                raise ValueError(
                    f"role {role!r} has {count} LoRAs, the shared one included, so {routed} routed ones; top_k {k} "
                    f"must lie in {min(1, routed)}..{routed}"
                )
        scale = 1.0 if self.lora_alpha is None else self.lora_alpha / self.r
        counts, top_k = tuple(count for _, count in self.roles), tuple(self.top_k[role] for role in self.speakers)
        return Mixture(counts, top_k, self.r, scale, self.router)

    def _check_choices(self) -> None:
        for name, hint in inspect.get_annotations(MoRConfig, eval_str=True).items():
            if cast("object", get_origin(hint)) is Literal:
                require_choice(getattr(self, name), get_args(hint), name)


class MoRModel(BaseTuner):  # type: ignore[misc]
    """Puts `MoRLinear` in the place of a model's linear layers; made by `peft.get_peft_model`."""

    prefix = "mor_"
    tuner_layer_cls = MoRLinear
    target_module_mapping: ClassVar[dict[str, list[str]]] = {}

    def unload(self) -> nn.Module:
        """Return the base as it was before its adapters; they are gone."""
        base: nn.Module = super().unload()
        ungate(base)
        return base

    def _create_and_replace(
        self,
        peft_config: MoRConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **_: Any,
    ) -> None:
        gate = gate_of(self.model, peft_config.speakers)
        if not isinstance(target, MoRLinear):
            if type(target) is not nn.Linear:
                raise ValueError(
                    f"{current_key} is a {type(target).__name__}; a Mixture of Roles goes on plain linear layers only: "
                    "name them in target_modules, and load the base unquantised"
                )
            layer = MoRLinear(target, gate)
            layer.set_adapter(self.active_adapters)
            self._replace_module(parent, target_name, layer, target)
            target = layer.train(target.training)
        target.update_layer(adapter_name, peft_config.mixture(), peft_config.lora_dropout, peft_config.init_weights)
        if adapter_name not in self.active_adapters:
            for matrices in (target.mor_A, target.mor_B, target.mor_router):
                if adapter_name in matrices:
                    matrices[adapter_name].requires_grad_(False)


PEFT_TYPE = register()
