"""Plain low-rank adaptation by PEFT: one LoRA on each chosen linear layer, the same for every role."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rolecraft import matching
from rolecraft.adapters._low_rank import lighten
from rolecraft.adapters._roleless import gate, inputs, loads, measure, parts, penalty, virtual_tokens
from rolecraft.errors import SettingsError

__all__ = ["Settings", "attach", "gate", "inputs", "loads", "measure", "merge", "parts", "penalty", "virtual_tokens"]


@dataclass(frozen=True, slots=True)
class Settings:
    """PEFT's names, and the defaults of Agent Distillation's student (arXiv 2505.17612, finetune_sft.py).

    `target_modules` is `all-linear`, a regular expression, or names of linear layers; `layers_to_transform` keeps the
    adapter to some layers. `modules_to_save` are trained in full and saved beside the adapter.
    """

    r: int = 64
    lora_alpha: float = 128
    lora_dropout: float = 0.05
    target_modules: str | tuple[str, ...] = "all-linear"
    bias: Literal["none", "all", "lora_only"] = "none"
    use_rslora: bool = False
    use_dora: bool = False
    layers_to_transform: tuple[int, ...] | None = None
    modules_to_save: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse what PEFT would take and do nothing useful with."""
        if self.r < 1:
            raise SettingsError(f"adapter.r is {self.r}; a LoRA's rank is at least 1")
        if not 0.0 <= self.lora_dropout < 1.0:
            raise SettingsError(f"adapter.lora_dropout is {self.lora_dropout}; it must be at least 0 and below 1")
        if not self.target_modules:
            raise SettingsError("adapter.target_modules is empty; write 'all-linear' or names of linear layers")


def attach(model: Any, settings: Settings) -> Any:
    """Return `model` as a PEFT model with a fresh LoRA; raises SettingsError if no layer of it is meant.

    The LoRA is kept in float32 whatever the base's dtype, and starts as the base because B is zero.
    """
    import peft

    matching.require_quick(
        {"adapter.target_modules": settings.target_modules}, [name for name, _ in model.named_modules()]
    )
    values = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(settings).items()}
    config = peft.LoraConfig(task_type="CAUSAL_LM", **values)
    with warnings.catch_warnings():
        # PEFT asks transformers for a property under the name it had before 5.23.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        try:
            attached = peft.get_peft_model(model, config)
        except ValueError as error:
            raise SettingsError(f"adapter: {error}") from error
    lighten(attached)
    return attached


def merge(model: Any) -> Any:
    """Return the base model with every LoRA added into its layer's weights."""
    return model.merge_and_unload(safe_merge=True)
