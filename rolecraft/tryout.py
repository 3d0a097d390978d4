"""Tries a base out: its family, chat format, context, the memory that it needs, and a first reply.

Not covered: how well it calls tools (see `rolecraft eval`), and memory on an accelerator.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rolecraft import adapters, bases, contract, engine, model, recipe
from rolecraft.engine.context import LONGEST, token_bytes
from rolecraft.engine.weights import Weights
from rolecraft.train.memory import activation_bytes
from rolecraft.types import Message, Prompt, Sampling, ToolCall

if sys.platform != "win32":
    import resource

_QUESTION = "Say hello in five words."
_MIB = 2**20
_ROW = 1024
"""Tokens of the training row that the estimate is for."""
_ADAM_BYTES = 16
"""Of one trained parameter: itself, its gradient and Adam's two means, in float32."""


def examine(base: str, weights: Weights = "float32") -> dict[str, Any]:
    """Return what was found of a base as JSON-ready data; raises what loading it raises.

    Memory is in MiB. What it needs is worked out from the model's config and not measured, but for `peak`: what this
    process came to, torch itself included. The first reply is written with the base's `weights` in that form, and
    `copies` are what is kept of them.
    """
    place = bases.find(base)
    config = model.load_config(base)
    needs = estimate(config, recipe.load_recipe(recipe.find_recipe("lora"), ()))
    begun = time.perf_counter()
    loaded = model.load(base, dtype="float32" if weights == "float32" else "stored")
    seconds = time.perf_counter() - begun
    parameters = sum(parameter.numel() for parameter in loaded.model.parameters())
    reply, told, copies = _reply(loaded, weights)
    return {
        "base": base,
        "place": place,
        "family": f"{config.model_type} ({type(loaded.model).__name__})",
        "parameters": parameters,
        "format": _format(loaded),
        "context": {"model": loaded.context, "used": min(loaded.context or LONGEST, LONGEST)},
        "memory": needs,
        "load_seconds": round(seconds, 2),
        "reply": reply,
        "weights": told,
        "copies": {what: _mib(size) for what, size in copies.items()},
        "peak": _peak(),
    }


def estimate(config: Any, lora: recipe.Recipe) -> dict[str, Any]:
    """Return the MiB that playing one conversation and tuning a LoRA on one row at a time need, by a model's config."""
    empty = model.make_empty(config)
    parameters = sum(parameter.numel() for parameter in empty.parameters())
    trained = adapters.count_trainable(adapters.find(lora.adapter.name).attach(empty, lora.adapter.settings))
    context = min(getattr(config.get_text_config(), "max_position_embeddings", None) or LONGEST, LONGEST)
    found: dict[str, Any] = {"play_tokens": context, "tune_tokens": _ROW, "trained": trained}
    for name, width in (("float32", 4), ("bfloat16", 2)):
        weights = parameters * width
        found[name] = {
            "weights": _mib(weights),
            "play": _mib(weights + context * token_bytes(config, width)),
            "tune": _mib(weights + trained * _ADAM_BYTES + _ROW * activation_bytes(config, width)),
        }
    return found


def show(found: Mapping[str, Any], console: Console) -> None:
    """Print what `examine` found."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    needs, reply, context = found["memory"], found["reply"], found["context"]
    table.add_row("base", f"{found['base']}, at {found['place']}")
    table.add_row("family", f"{found['family']}, {found['parameters'] / 1e6:,.1f} million parameters")
    table.add_row("chat format", f"{found['format']['name']}: {escape(found['format']['why'])}")
    table.add_row("a call", escape(repr(found["format"]["call"])))
    limit = "its config names no limit" if context["model"] is None else f"{context['model']:,} tokens"
    table.add_row("context", f"{limit}; {context['used']:,} are used unless --max-context says otherwise")
    for width in ("float32", "bfloat16"):
        one = needs[width]
        table.add_row(
            f"memory, {width}",
            f"about {one['play']:,} MiB to play one conversation of {needs['play_tokens']:,} tokens (weights "
            f"{one['weights']:,}), about {one['tune']:,} MiB to tune a LoRA of {needs['trained'] / 1e6:.1f} million "
            f"parameters on rows of {needs['tune_tokens']:,} tokens, one at a time",
        )
    table.add_row("", "worked out from the config; torch itself takes some 300 MiB more")
    peak = "" if found["peak"] is None else f"; this process came to {found['peak']:,} MiB at most"
    table.add_row("loaded", f"in {found['load_seconds']:.1f} s{peak}")
    copies = ", ".join(f"{what} {size:,}" for what, size in found["copies"].items())
    table.add_row("weights", f"{found['weights'] or 'in float32'}; copies kept, MiB: {copies}")
    table.add_row(
        "first reply", f"{escape(repr(reply['text']))} ({reply['tokens']} tokens in {reply['seconds']:.1f} s)"
    )
    console.print(table, highlight=False)


def _format(loaded: model.Loaded) -> dict[str, str]:
    """Return the chat format, why it is this one, and a call as it is written there."""
    name, _, why = loaded.chat.partition(": ")
    called = Message("assistant", tool_calls=(ToolCall("weather", {"city": "Ulm"}, "call00001"),))
    return {
        "name": name or contract.name_of(loaded.renderer),
        "why": why or "the tokenizer's config asks for it (rolecraft_renderer)",
        "call": loaded.renderer.reply_text(called),
    }


def _reply(loaded: model.Loaded, weights: Weights) -> tuple[dict[str, Any], str, dict[str, int]]:
    """Return a first reply, how the weights are held in words, and the bytes of each copy of them."""
    prompt = Prompt((Message("user", _QUESTION),), sampling=Sampling(max_tokens=24))
    settings = engine.Settings(max_requests=1, max_context=min(loaded.context or _ROW, _ROW), weights=weights)
    with engine.LocalEngine(loaded, settings) as local:
        begun = time.perf_counter()
        (made,) = asyncio.run(local.complete(prompt))
        seconds = time.perf_counter() - begun
        told, copies = local.weights, local.copies
    text = made.message.content if made.message.unparsed is None else made.message.unparsed
    usage = made.turn.usage
    found = {"question": _QUESTION, "text": text, "tokens": usage.completion, "seconds": round(seconds, 2)}
    return found, told, copies


def _peak() -> int | None:
    if sys.platform == "win32":
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most // _MIB if sys.platform == "darwin" else most // 1024


def _mib(count: int) -> int:
    return -(-count // _MIB)
