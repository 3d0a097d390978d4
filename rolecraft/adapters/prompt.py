"""P-tuning (arXiv 2103.10385), alone or with LoRA on the same frozen base, as CMAT tunes its agents (arXiv 2404.01663).

A prompt encoder makes a few virtual tokens that stand before every sequence. Both parts are one adapter: trained, saved
and loaded together, the encoder's own weights too, so that training goes on in the same parameters. Importing this
makes the method known to PEFT; a call then takes ids that begin with the virtual tokens' (`virtual_tokens.ids`).

PEFT itself refuses LoRA and P-tuning on one model, and keeps of an encoder what it says alone. Not covered: several
such adapters on one model.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import Any, Literal

from peft import LoraConfig, LoraModel, PromptEncoder, PromptEncoderConfig, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.utils import PeftType
from torch import nn

from rolecraft import matching
from rolecraft import virtual_tokens as virtual
from rolecraft.adapters import lora
from rolecraft.adapters._roleless import gate, inputs, loads, measure, parts, penalty
from rolecraft.errors import ContractError, SettingsError

__all__ = [
    "PromptConfig",
    "PromptModel",
    "Settings",
    "attach",
    "gate",
    "inputs",
    "loads",
    "measure",
    "merge",
    "parts",
    "penalty",
    "virtual_tokens",
]

_VALUE = "PROMPT: run `import rolecraft.adapters.prompt` before loading this adapter"
"""What the configuration says its type is. PEFT answers an unknown type with a KeyError that quotes it, and nothing
else."""
_NO_LAYERS = "dummy-target-modules"
"""PEFT's name for an adapter on no layer."""
_ENCODER = ".prompt_encoder."


@dataclass(frozen=True, slots=True)
class Settings:
    """PEFT's names for P-tuning, and beside it a LoRA's settings, or None for virtual tokens alone.

    CMAT names no numbers: these are PEFT's, and P-tuning's two-layer LSTM is `encoder_reparameterization_type: LSTM`.
    `encoder_hidden_size` None is the base's width; `encoder_num_layers` and `encoder_dropout` are the LSTM's.
    """

    num_virtual_tokens: int = 20
    encoder_reparameterization_type: Literal["MLP", "LSTM"] = "MLP"
    encoder_hidden_size: int | None = None
    encoder_num_layers: int = 2
    encoder_dropout: float = 0.0
    lora: lora.Settings | None = None

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be."""
        for name in ("num_virtual_tokens", "encoder_hidden_size", "encoder_num_layers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingsError(f"adapter.{name} is {value}; it must be at least 1")
        if not 0.0 <= self.encoder_dropout < 1.0:
            raise SettingsError(f"adapter.encoder_dropout is {self.encoder_dropout}; it must be at least 0 and below 1")


def register() -> PeftType:
    """Enter P-tuning with LoRA into PEFT's tables and return its type; PEFT's enum is closed, so it is opened here.

    Safe to call again: it returns what is there.
    """
    known = PeftType._value2member_map_.get(_VALUE)
    if known is None:
        known = str.__new__(PeftType, _VALUE)
        known._name_, known._value_ = "PROMPT", _VALUE
        PeftType._member_map_["PROMPT"] = known
        PeftType._value2member_map_[_VALUE] = known
        PeftType._member_names_.append("PROMPT")
    PEFT_TYPE_TO_PREFIX_MAPPING[known] = LoraModel.prefix
    PEFT_TYPE_TO_CONFIG_MAPPING[known] = PromptConfig
    PEFT_TYPE_TO_TUNER_MAPPING[known] = PromptModel
    return known


@dataclass
class PromptConfig(LoraConfig):  # type: ignore[misc]
    """A LoRA's configuration with the prompt encoder's beside it, with PEFT's names; see `Settings`."""

    num_virtual_tokens: int = 20
    encoder_reparameterization_type: str = "MLP"
    encoder_hidden_size: int | None = None
    encoder_num_layers: int = 2
    encoder_dropout: float = 0.0

    def __post_init__(self) -> None:
        """Check both parts; raises ValueError, which is what PEFT's callers know."""
        super().__post_init__()
        self.peft_type = PEFT_TYPE
        try:
            Settings(**self._encoder())
        except SettingsError as error:
            raise ValueError(str(error)) from error

    def make_encoder(self, width: int) -> PromptEncoder:
        """Return a fresh prompt encoder for a model of `width`."""
        told = self._encoder()
        if told["encoder_reparameterization_type"] == "MLP":
            del told["encoder_num_layers"]  # an MLP has PEFT's own number of layers
        told["encoder_hidden_size"] = self.encoder_hidden_size or width
        return PromptEncoder(PromptEncoderConfig(**told, token_dim=width, num_transformer_submodules=1))

    def _encoder(self) -> dict[str, Any]:
        return {
            "num_virtual_tokens": self.num_virtual_tokens,
            "encoder_reparameterization_type": self.encoder_reparameterization_type,
            "encoder_hidden_size": self.encoder_hidden_size,
            "encoder_num_layers": self.encoder_num_layers,
            "encoder_dropout": self.encoder_dropout,
        }


class PromptModel(LoraModel):  # type: ignore[misc]
    """PEFT's LoRA on the chosen layers, if any, and virtual tokens in the embedding; made by `peft.get_peft_model`.

    Merging folds the LoRA alone: the virtual tokens stay.
    """

    def inject_adapter(self, model: nn.Module, adapter_name: str, *arguments: Any, **named: Any) -> None:
        """Put both parts on `model`; raises ValueError where there are virtual tokens already."""
        if virtual.layers(model):
            raise ValueError("the model has virtual tokens already, and a second prompt would stand nowhere")
        super().inject_adapter(model, adapter_name, *arguments, **named)
        config, table = self.peft_config[adapter_name], model.get_input_embeddings()  # type: ignore[operator]
        encoder = config.make_encoder(table.weight.shape[1]).to(table.weight.device)
        encoder.requires_grad_(not config.inference_mode)
        model.set_input_embeddings(  # type: ignore[operator]
            virtual.VirtualTokens(table, encoder, config.num_virtual_tokens)
        )

    def unload(self) -> nn.Module:
        """Return the base as it was before its adapter."""
        base: nn.Module = super().unload()
        for one in virtual.layers(base):
            base.set_input_embeddings(one.table)  # type: ignore[operator]
        return base

    @classmethod
    def _get_adapter_state_dict(
        cls, model: Any, config: Any, adapter_name: str, state_dict: dict[str, Any], unwanted_adapter_names: list[str]
    ) -> dict[str, Any]:
        found: dict[str, Any] = super()._get_adapter_state_dict(
            model, config, adapter_name, state_dict, unwanted_adapter_names
        )
        return found | {key: one for key, one in state_dict.items() if _ENCODER in key}


def attach(model: Any, settings: Settings) -> Any:
    """Return `model` as a PEFT model with fresh virtual tokens and perhaps a LoRA.

    Without its virtual tokens it is the base at the start. Raises SettingsError if a LoRA's layers are not there.
    """
    beside = {} if settings.lora is None else asdict(settings.lora)
    matching.require_quick(
        {"adapter.lora.target_modules": beside.get("target_modules")}, [name for name, _ in model.named_modules()]
    )
    own = {key: value for key, value in asdict(settings).items() if key != "lora"}
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in beside.items()}
    make: Any = PromptConfig  # its fields are those of both settings, which have checked their types
    config = make(task_type="CAUSAL_LM", **({"target_modules": _NO_LAYERS} | plain), **own)
    with warnings.catch_warnings():
        # PEFT asks transformers for a property under the name it had before 5.23.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        try:
            return get_peft_model(model, config)
        except ValueError as error:
            raise SettingsError(f"adapter: {error}") from error


def virtual_tokens(settings: Settings) -> int:
    """Return how many virtual tokens every sequence begins with."""
    return settings.num_virtual_tokens


def merge(model: Any) -> Any:
    """Raise ContractError: virtual tokens are part of the prompt, which the weights of a plain model do not hold."""
    raise ContractError(
        "P-tuning's virtual tokens cannot be merged into their base: they stand in the prompt, not in its weights"
    )


PEFT_TYPE = register()
