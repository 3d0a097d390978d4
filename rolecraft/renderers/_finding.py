"""Finds the chat format of a tokenizer: by a name, by what its own template writes, or by the tokens it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rolecraft import catalog
from rolecraft.errors import ContractError
from rolecraft.renderers._format import Format
from rolecraft.renderers._probing import CHATS, OTHERS, Probe, knows_tools, own_text, text_of
from rolecraft.renderers._renderer import Renderer

_SHOWN = 24  # characters of a difference


@dataclass(frozen=True, slots=True)
class Found:
    """A tokenizer's renderer, the name of its format, and why it is this one; '' if somebody named it."""

    renderer: Renderer
    name: str
    why: str = ""


def find(tokenizer: Any, name: str | Path | None = None) -> Renderer:
    """Return the renderer of the format that `recognize` finds."""
    return recognize(tokenizer, name).renderer


def recognize(tokenizer: Any, name: str | Path | None = None) -> Found:
    """Return the format called `name` (or in that file), else the one that the tokenizer asks for or looks like.

    A tokenizer asks by `rolecraft_renderer` in its config, for a member alone. Else the member is taken that renders
    as the tokenizer's own template does, and where none does the one whose tokens it has. Raises NotFound for an
    unknown name, ContractError if no format fits the tokenizer or the named one does not.
    """
    name = name or tokenizer.init_kwargs.get("rolecraft_renderer")
    if name:
        return Found(Renderer(catalog.find("renderers", name).FORMAT, tokenizer), str(name))
    formats = {member: catalog.find("renderers", member).FORMAT for member in catalog.names("renderers")}
    if getattr(tokenizer, "chat_template", None):
        alike = _by_template(tokenizer, formats)
        if alike is not None:
            why = "it renders as the model's own template"
            if not knows_tools(tokenizer):
                why += ", which tells no tools: they are told in Hermes' format"
            return Found(Renderer(formats[alike], tokenizer), alike, why)
    found = _by_tokens(tokenizer, formats)
    if not getattr(tokenizer, "chat_template", None):
        return found
    return replace(found, why=f"{found.why}; the model's own template differs: {_difference(tokenizer, found)}")


def _difference(tokenizer: Any, found: Found) -> str:
    """Return in words where the model's own template first writes something else than the format that was found."""
    for messages, tools in CHATS:
        own, ours = own_text(tokenizer, messages, tools), text_of(found.renderer.format, tokenizer, messages, tools)
        if own is None or ours is None:
            return "it fails on a plain conversation"
        if own != ours:
            place = _alike(own, ours)
            before = own[max(0, place - _SHOWN) : place]
            return f"after {before!r} it has {own[place : place + _SHOWN]!r}, not {ours[place : place + _SHOWN]!r}"
    return "nowhere"


def _alike(one: str, other: str) -> int:
    """Return how many characters the texts have in common before they differ."""
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _by_template(tokenizer: Any, formats: Mapping[str, Format]) -> str | None:
    """Return the format that writes what the tokenizer's own template writes, or None; of several the nearest."""

    def equal(format: Format, probes: tuple[Probe, ...]) -> int:
        written = [text_of(format, tokenizer, *probe) for probe in probes]
        return sum(
            text is not None and text == own[probe] for text, probe in zip(written, map(id, probes), strict=True)
        )

    own = {id(probe): own_text(tokenizer, *probe) for probe in (*CHATS, *OTHERS)}
    alike = [name for name, one in formats.items() if equal(one, CHATS) == len(CHATS)]
    fitting = _fitting(tokenizer, formats)
    return max(
        alike,
        key=lambda name: (equal(formats[name], OTHERS), len(formats[name].detect) if name in fitting else 0),
        default=None,
    )


def _fitting(tokenizer: Any, formats: Mapping[str, Format]) -> list[str]:
    """Return the formats whose tokens the tokenizer has."""
    tokens = {token.content for token in tokenizer.added_tokens_decoder.values()}
    return [member for member, one in formats.items() if one.detect and tokens.issuperset(one.detect)]


def _by_tokens(tokenizer: Any, formats: Mapping[str, Format]) -> Found:
    fitting = _fitting(tokenizer, formats)
    if not fitting:
        told = "; ".join(f"{member}: {' '.join(one.detect)}" for member, one in formats.items() if one.detect)
        raise ContractError(
            f"no chat format fits this tokenizer; name a renderer, or add one format's tokens to it ({told})"
        )
    # Of formats with the same tokens the one that says nothing in a model's name.
    best = max(fitting, key=lambda member: (len(formats[member].detect), formats[member].system.default is None))
    why = f"the tokenizer has {' '.join(formats[best].detect)}"
    return Found(Renderer(formats[best], tokenizer), best, why)
