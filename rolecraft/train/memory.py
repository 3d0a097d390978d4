"""What a training run needs of the machine's memory: told before it starts, and refused if it cannot be there.

Not covered: what else uses the machine, and training that is sharded over several devices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainingArguments

from rolecraft import adapters, model
from rolecraft.engine.context import memory as memory_of
from rolecraft.errors import SettingsError
from rolecraft.recipe import Recipe

_MIB = 2**20
_STATES = {"adamw_torch": 8, "adamw_torch_fused": 8, "adamw_apex_fused": 8, "sgd": 0, "adafactor": 0}
"""The bytes that transformers' optimizers keep of one trained float32 number: AdamW's two means."""


@dataclass(frozen=True, slots=True)
class Needs:
    """Bytes of one process: the `weights`, `gradients` (twice where processes exchange them) and the optimizer's
    `states`; `token` is what a training step keeps of one token, `rows` how many examples it holds at once.

    `states` is None for an optimizer that is not known. `memory` is what the device has, shared by `sharing` processes.
    """

    weights: int
    gradients: int
    states: int | None
    token: int
    rows: int
    memory: int
    sharing: int
    optimizer: str


def count(recipe: Recipe, arguments: TrainingArguments) -> Needs:
    """Return what the recipe needs, worked out on the meta device from the base's config; loads no weights."""
    config = model.load_config(recipe.model.base)
    attached = adapters.find(recipe.adapter.name).attach(
        model.make_empty(config).to(getattr(torch, recipe.model.dtype)), recipe.adapter.settings
    )
    trained = [parameter for parameter in attached.parameters() if parameter.requires_grad]
    numbers, optimizer = adapters.count_trainable(attached), str(getattr(arguments.optim, "value", arguments.optim))
    halved = recipe.training.bf16 is True or next(iter(attached.parameters())).element_size() == 2
    width = 2 if halved else 4
    kept = checkpointed_bytes if recipe.training.gradient_checkpointing else activation_bytes
    return Needs(
        weights=sum(parameter.nbytes for parameter in attached.parameters()),
        gradients=sum(parameter.nbytes for parameter in trained) * (2 if arguments.world_size > 1 else 1),
        states=_STATES[optimizer] * numbers if optimizer in _STATES else None,
        token=kept(config, width),
        rows=recipe.training.per_device_train_batch_size * (1 if recipe.preference is None else 2),
        memory=memory_of(arguments.device),
        sharing=arguments.world_size if arguments.device.type == "cpu" else 1,
        optimizer=optimizer,
    )


def require(needs: Needs) -> None:
    """Raise SettingsError if weights, gradients and the optimizer's states alone are more than the device has."""
    fixed = _fixed(needs) * needs.sharing
    if fixed <= needs.memory:
        return
    shared = f" in each of {needs.sharing} processes" if needs.sharing > 1 else ""
    raise SettingsError(
        f"training needs at least {_mib(fixed)} MiB of memory and this machine has {_mib(needs.memory)}: "
        f"{_parts(needs)}{shared}; train fewer parameters (adapter.name=lora), take a smaller base, or fewer "
        "processes (training.processes)"
    )


def tell(needs: Needs, longest: int) -> str:
    """Return in words what is needed at most, with examples of up to `longest` tokens."""
    activations = needs.rows * longest * needs.token
    each = _fixed(needs) + activations
    shared = f", in each of {needs.sharing} processes" if needs.sharing > 1 else ""
    text = (
        f"memory: up to about {_mib(each)} MiB ({_parts(needs)}, activations {_mib(activations)} for {needs.rows} x "
        f"{longest:,} tokens){shared}; this machine has {_mib(needs.memory)}"
    )
    if each * needs.sharing > needs.memory:
        text += ", which may not do: lower training.per_device_train_batch_size, or set training.gradient_checkpointing"
    return text


def activation_bytes(config: Any, width: int) -> int:
    """Return about how many bytes of one token a training step keeps for the way back, without checkpointing.

    Per layer: what the norms, the projections and the feed-forward part keep, which numbers LoRA's dropout kept, and
    what the C library leaves unused between them; at the end the logits, their gradient, and as much for what makes it,
    in float32. The factors fit
    what steps of the base smollm2 were seen to take with dropout, and are a fourth too many without.
    """
    text = config.get_text_config()
    return int(text.num_hidden_layers * _layer(text) * width) + _logits(text)


def checkpointed_bytes(config: Any, width: int) -> int:
    """Return the same with checkpointing: what each layer takes in, and one layer's own at a time."""
    text = config.get_text_config()
    return int((text.num_hidden_layers * text.hidden_size + _layer(text)) * width) + _logits(text)


def _logits(text: Any) -> int:
    return int(text.vocab_size) * 4 * (4 if getattr(text, "final_logit_softcapping", None) else 3)


def _layer(text: Any) -> int:
    return int(18 * text.hidden_size + 5 * (getattr(text, "intermediate_size", None) or 4 * text.hidden_size))


def _fixed(needs: Needs) -> int:
    return needs.weights + needs.gradients + (needs.states or 0)


def _parts(needs: Needs) -> str:
    states = "not known" if needs.states is None else _mib(needs.states)
    return f"weights {_mib(needs.weights)}, gradients {_mib(needs.gradients)}, states of {needs.optimizer} {states}"


def _mib(count: int) -> str:
    return f"{-(-count // _MIB):,}"
