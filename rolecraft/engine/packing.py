"""Packs a base's matrices for playing: its own are let go, its adapters stay as they are.

Two forms may be kept: for replies, where reading the weights takes the time, and for prompts, where multiplying does.
Not covered: accelerators, and training afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from rolecraft import virtual_tokens
from rolecraft.engine.blocks import Blocks
from rolecraft.engine.layout import Linear, Network, assemble, base_layers, changed, joint_bias, linears
from rolecraft.engine.packed import Kind, Logits, Matrix, fits_int4, most_rows, quantise, to_bfloat16, to_int4, to_int8
from rolecraft.engine.roles import read_loras
from rolecraft.engine.weights import Choice


@dataclass(slots=True)
class Packer:
    """Packs linear layers of one model and counts what it made.

    `kind` is the form for replies; `prompts` tells to keep bfloat16 for prompts beside it. `nbytes`: the bytes by what
    they are for; `most`: how many rows at once a shape is multiplied by; `from_file`, `anew`: how many matrices of 4
    bits are the GGUF file's blocks, and how many are not.
    """

    kind: Kind
    prompts: bool
    blocks: Blocks
    names: dict[int, str]
    nbytes: dict[str, int] = field(default_factory=dict)
    most: dict[tuple[int, int], int] = field(default_factory=dict)
    from_file: int = 0
    anew: int = 0

    def linear(self, modules: Sequence[Any]) -> Linear | None:
        """Return linear layers that read the same input as one; None if what is on them cannot be read."""
        plain = base_layers(modules)
        loras = read_loras(modules, torch.float32)
        if loras is None and plain != list(modules):
            return None
        bias = joint_bias(plain)
        replies, prompts = self.matrices(plain)
        made = Linear((), replies.out, None if bias is None else bias.float(), loras, None, replies, prompts)
        for module in plain:
            release(module)
        return made

    def matrices(self, plain: Sequence[Any]) -> tuple[Matrix, Matrix | None]:
        """Return the forms of linear modules, one below the other, for replies and for prompts (None: the same)."""
        weights = [module.weight.detach() for module in plain]
        prompts = self._in_bfloat16(weights) if self.prompts and self.kind != "bfloat16" else None
        replies = self._replies(plain, weights)
        self._count(f"{replies.kind} for {'replies' if prompts else 'all'}", replies.nbytes)
        if prompts is not None:
            self._count("bfloat16 for prompts", prompts.nbytes)
        return replies, prompts

    def logits(self, module: Any, table: Tensor | None) -> Logits:
        """Return what gives the logits: in 8 bits where the layers have 4, which would cost it more than them.

        `table` are its rows where they are the tokens' vectors too.
        """
        weights = [module.weight.detach()]
        made = self._in_bfloat16(weights) if self.kind == "bfloat16" else to_int8(weights)
        self._count(f"{made.kind} for logits", made.nbytes)
        if table is None:
            table = module.weight.detach().clone()
            self._count(f"{_name(table)} for the best logits", table.nbytes)
        return Logits(made, table)

    def embedding(self, weight: nn.Parameter) -> Tensor:
        """Return the table of the tokens' vectors, which is looked up in and not multiplied by."""
        kept = weight.detach()
        self._count(f"{_name(kept)} for looking tokens up", kept.nbytes)
        return kept

    def _replies(self, plain: Sequence[Any], weights: Sequence[Tensor]) -> Matrix:
        if self.kind == "bfloat16":
            return self._in_bfloat16(weights)
        if self.kind == "int8" or not fits_int4(weights[0].shape[1]):
            return to_int8(weights)
        parts = []
        for module, weight in zip(plain, weights, strict=True):
            found = self.blocks.read(self.names.get(id(module), ""), weight)
            self.from_file, self.anew = self.from_file + (found is not None), self.anew + (found is None)
            parts.append(quantise(weight) if found is None else found)
        return to_int4(parts)

    def _in_bfloat16(self, weights: Sequence[Tensor]) -> Matrix:
        made = to_bfloat16(weights)
        shape = (made.out, made.width)
        if shape not in self.most:
            self.most[shape] = most_rows(made)
        return replace(made, most=self.most[shape])

    def _count(self, what: str, nbytes: int) -> None:
        self.nbytes[what] = self.nbytes.get(what, 0) + nbytes


def packer(model: Any, kind: Kind, prompts: bool) -> Packer:
    """Return what packs the linear layers of `model`, which know their names in it without an adapter's wrappers."""
    names = {id(module): name.replace(".base_layer", "") for name, module in model.named_modules()}
    return Packer(kind, prompts, Blocks(str(getattr(model, "name_or_path", "") or "")), names)


def pack(model: Any, places: int, make: Packer) -> tuple[Network, Network]:
    """Return a model that `layout.read` takes as networks for replies and for prompts; its own matrices are let go."""
    with torch.inference_mode(False), torch.no_grad():
        _leave_file(model)
        head, weight = model.lm_head, model.get_input_embeddings().weight
        tied = head.weight is weight
        embedding = make.embedding(weight)
        logits = make.logits(head, embedding if tied else None)
        if not tied:
            release(head)
        bias = None if head.bias is None else head.bias.detach().float()
        last = Linear((), logits.out, bias, None, None, logits)
        network = assemble(model, places, embedding, make.linear, last, torch.float32)
    assert network is not None  # it was read before
    return both(replace(network, apart=True))


def _leave_file(model: Any) -> None:
    """Copy what is not packed: weights that were just read are windows on their file, one of which holds all of it."""
    packed_too = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    for module in model.modules():
        for weight in module.parameters(recurse=False):
            if isinstance(module, nn.Embedding) or id(weight) not in packed_too:
                weight.data = weight.data.clone()


def both(network: Network) -> tuple[Network, Network]:
    """Return the network itself, and as prompts are multiplied."""
    return network, changed(network, lambda one: replace(one, packed=one.packed_prompts or one.packed))


def with_adapter(network: Network, model: Any) -> Network:
    """Return the network with the adapter's weights as they are now."""
    blocks = []
    for block, layer in zip(network.blocks, model.model.layers, strict=False):
        qkv, out, gate_up, down = (read_loras(group, torch.float32) for group in linears(layer))
        blocks.append(
            replace(
                block,
                qkv=replace(block.qkv, loras=qkv),
                out=replace(block.out, loras=out),
                gate_up=replace(block.gate_up, loras=gate_up),
                down=replace(block.down, loras=down),
            )
        )
    return replace(network, blocks=tuple(blocks), virtual=virtual_tokens.rows(model))


class PackedLinear(nn.Module):
    """A linear layer of a model that transformers runs, multiplied in packed form: many rows as prompts are."""

    def __init__(self, replies: Matrix | Logits, prompts: Matrix | None, like: nn.Linear) -> None:
        """Take the place of `like`, whose bias it keeps."""
        super().__init__()
        self.in_features, self.out_features = like.in_features, like.out_features
        self.replies, self.prompts, self.bias = replies, prompts, like.bias
        # What asks a layer for its weight, as adapters do, learns its type and place.
        self.weight = nn.Parameter(torch.empty(0), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out) for `x` (..., in): a call of one token a row multiplies as replies are."""
        one = x.dim() < 3 or x.shape[1] == 1
        matrix = self.replies if one or self.prompts is None else self.prompts
        out = matrix.product(x.reshape(-1, x.shape[-1])).view(*x.shape[:-1], -1)
        return out if self.bias is None else out + self.bias


def pack_modules(model: Any, make: Packer) -> None:
    """Put packed layers in the place of the model's own, and let the rest compute in float32; adapters stay."""
    head = model.get_output_embeddings()
    with torch.inference_mode(False), torch.no_grad():
        _leave_file(model)
        make.embedding(model.get_input_embeddings().weight)
        for parent, name, module in list(_own_linears(model)):
            if module is head:
                tied = module.weight is model.get_input_embeddings().weight
                made = PackedLinear(make.logits(module, module.weight if tied else None), None, module)
            else:
                made = PackedLinear(*make.matrices([module]), module)
            setattr(parent, name, made)
        model.float()


def _own_linears(model: Any) -> list[tuple[nn.Module, str, nn.Linear]]:
    """Return the linear layers that are the base's, each with who has it and by what name."""
    inside = {
        id(part)
        for wrapper in model.modules()
        if isinstance(wrapper, BaseTunerLayer)
        for name, child in wrapper.named_children()
        if name != "base_layer"
        for part in child.modules()
    }
    return [
        (parent, name, child)
        for parent in model.modules()
        if id(parent) not in inside
        for name, child in parent.named_children()
        if type(child) is nn.Linear and id(child) not in inside
    ]


def describe(choice: Choice, made: Packer | None) -> str:
    """Return in words how the weights are held; '' for weights as they are and nothing to say of it."""
    if made is None:
        return choice.why
    size = sum(made.nbytes.values()) / 2**20
    told = [choice.why or f"weights in {choice.kind}", f"{size:,.0f} MiB"]
    if choice.prompts:
        told.append("prompts in bfloat16")
    if made.from_file:
        told.append(f"{made.from_file} matrices as {made.blocks.file and made.blocks.file.name} has them")
    if made.anew:
        told.append(f"{made.anew} matrices quantised to 4 bits anew, which loses some")
    return "; ".join(told)


def _name(table: Tensor) -> str:
    return str(table.dtype).removeprefix("torch.")


def release(module: Any) -> None:
    """Let a module's weight go."""
    module.weight.data = module.weight.data.new_empty(0)
