"""Finds the chat format of a tokenizer: by a name, by what its own template writes, or by the tokens it has."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rolecraft import catalog
from rolecraft.errors import ContractError
from rolecraft.renderers._deriving import derive
from rolecraft.renderers._format import Format
from rolecraft.renderers._jinja import templates
from rolecraft.renderers._own import alike
from rolecraft.renderers._probing import CHATS, OTHERS, Probe, knows_tools, own_text, text_of
from rolecraft.renderers._renderer import Renderer
from rolecraft.renderers.hermes import FORMAT as HERMES

TEMPLATE = "template"
"""The name of the format that is the model's own template."""

_NOT = "_nothink"  # ends the name of a format in which its family is told not to think
_SWITCH = "enable_thinking"
_THINKS = "it thinks before it answers, if it was made to (--no-think tells it not to)"
_SHOWN = 24  # characters of a difference


@dataclass(frozen=True, slots=True)
class Found:
    """A tokenizer's renderer, the name of its format, and why it is this one; '' if somebody named it."""

    renderer: Renderer
    name: str
    why: str = ""


def require(name: str | Path | None) -> None:
    """Raise NotFound for a format that is not there; None is a tokenizer's own."""
    if name not in (None, TEMPLATE):
        catalog.find("renderers", name)


def prepare(tokenizer: Any, name: str | Path | None = None) -> None:
    """Start what `recognize` will need of processes, if anything, so that it need not wait."""
    name = name or tokenizer.init_kwargs.get("rolecraft_renderer")
    if name in (None, TEMPLATE) and getattr(tokenizer, "chat_template", None):
        templates(os.getpid()).prepare()


def release(found: Found) -> None:
    """End the process that renders templates, unless the format that was found needs it."""
    if not found.renderer.format.template:
        templates(os.getpid()).release()


def find(tokenizer: Any, name: str | Path | None = None) -> Renderer:
    """Return the renderer of the format that `recognize` finds."""
    return recognize(tokenizer, name).renderer


def recognize(tokenizer: Any, name: str | Path | None = None, *, think: bool | None = None) -> Found:
    """Return the format called `name` (or in that file), else the one that the tokenizer asks for or looks like.

    A tokenizer asks by `rolecraft_renderer` in its config, for a member alone. Else the member is taken that renders
    as the tokenizer's own template does; where none does, that template itself if it only appends, and if it does not
    the member whose tokens the tokenizer has. `think` False: the format in which the family is told not to think.
    Raises NotFound for an unknown name, ContractError if no format fits the tokenizer, the named one does not, or it
    has no such switch.
    """
    name = name or tokenizer.init_kwargs.get("rolecraft_renderer")
    if name == TEMPLATE:
        derived = derive(tokenizer, think)
        if derived.format is None:
            raise ContractError(f"the tokenizer's own template cannot be the chat format: {derived.why}")
        found = Found(Renderer(derived.format, tokenizer), TEMPLATE)
    elif name:
        found = Found(Renderer(catalog.find("renderers", name).FORMAT, tokenizer), str(name))
    else:
        found = _recognize(tokenizer, think)
    return _thinking(found, tokenizer, think)


def _thinking(found: Found, tokenizer: Any, think: bool | None) -> Found:
    """Return the format with the family's switch for thinking as it is wanted, and told where it is not."""
    if found.name == TEMPLATE:
        if think is not None and _SWITCH not in tokenizer.get_chat_template(None, []):
            raise ContractError(f"the model's own template has no switch for thinking ({_SWITCH}): {_leave_out(think)}")
        return found
    if think is None:
        thinks = found.why and f"{found.name}{_NOT}" in catalog.names("renderers")
        return replace(found, why=f"{found.why}; {_THINKS}") if thinks else found
    name = _switched(found.name, think)
    why = found.why and f"{found.why}; it is told {'to think' if think else 'not to think'}"
    return Found(Renderer(catalog.find("renderers", name).FORMAT, tokenizer), name, why)


def switch(found: Found, tokenizer: Any) -> dict[bool, Renderer]:
    """Return the renderers that tell the family to think, and not to; none where it has no such switch."""
    if found.name == TEMPLATE:
        if _SWITCH not in tokenizer.get_chat_template(None, []):
            return {}
        derived = {think: derive(tokenizer, think).format for think in (True, False)}
        return {think: Renderer(format, tokenizer) for think, format in derived.items() if format is not None}
    if f"{found.name.removesuffix(_NOT)}{_NOT}" not in catalog.names("renderers"):
        return {}
    names = {think: _switched(found.name, think) for think in (True, False)}
    return {think: Renderer(catalog.find("renderers", name).FORMAT, tokenizer) for think, name in names.items()}


def _switched(name: str, think: bool) -> str:
    """Return the name of the family's format in which it thinks, or is told not to."""
    names = catalog.names("renderers")
    families = [one.removesuffix(_NOT) for one in names if one.endswith(_NOT)]
    family = name.removesuffix(_NOT)
    if family not in families:
        raise ContractError(
            f"chat format {name!r} has no switch for thinking; {' and '.join(families)} have one: {_leave_out(think)}"
        )
    return family if think else family + _NOT


def _leave_out(think: bool) -> str:
    return f"leave out {'--think' if think else '--no-think'}"


def _recognize(tokenizer: Any, think: bool | None) -> Found:
    formats = {member: catalog.find("renderers", member).FORMAT for member in catalog.names("renderers")}
    if not getattr(tokenizer, "chat_template", None):
        return _by_tokens(tokenizer, formats)
    member = _by_template(tokenizer, formats)
    tells = member is not None and _tells_tools_alike(tokenizer, formats[member])
    why = "it renders as the model's own template"
    if member is not None and (tells or not knows_tools(tokenizer)):
        why += "" if tells else ", which tells no tools: they are told in Hermes' format"
        return Found(Renderer(formats[member], tokenizer), member, why)
    derived = derive(tokenizer, think)
    if member is not None and not derived.native:
        why += f" but for tools, which are told in Hermes' format instead: {derived.why}"
        return Found(Renderer(formats[member], tokenizer), member, why)
    # Where the template's own calls cannot be used, tokens of a family whose own are known say more.
    known = any(formats[one].calls != HERMES.calls for one in _fitting(tokenizer, formats))
    if derived.format is not None and (derived.native or not known):
        why = "no format that is known renders as the model's own template, so that itself does: it only appends"
        if not derived.native:
            why += f"; tools are told in Hermes' format: {derived.why}"
        return Found(Renderer(derived.format, tokenizer), TEMPLATE, why)
    try:
        found = _by_tokens(tokenizer, formats)
    except ContractError as error:
        raise ContractError(f"{error}. The model's own template cannot serve: {derived.why}") from error
    why = f"{found.why}; the model's own template differs: {_difference(tokenizer, found)}"
    return replace(found, why=f"{why}; it cannot serve itself: {derived.why} (--format names another format)")


def _tells_tools_alike(tokenizer: Any, format: Format) -> bool:
    """Tell whether a format tells tools as the tokenizer's own template does, in one of the places where it may."""
    asked = [(messages, tools) for messages, tools in OTHERS if tools and messages[-1].role == "user"]
    return any(text_of(format, tokenizer, *probe) == own_text(tokenizer, *probe) for probe in asked)


def _difference(tokenizer: Any, found: Found) -> str:
    """Return in words where the model's own template first writes something else than the format that was found."""
    for messages, tools in CHATS:
        own, ours = own_text(tokenizer, messages, tools), text_of(found.renderer.format, tokenizer, messages, tools)
        if own is None or ours is None:
            return "it fails on a plain conversation"
        if own != ours:
            place = alike(own, ours)
            before = own[max(0, place - _SHOWN) : place]
            return f"after {before!r} it has {own[place : place + _SHOWN]!r}, not {ours[place : place + _SHOWN]!r}"
    return "nowhere"


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
            "no chat format fits this tokenizer; name one (--format, or model.renderer in a recipe), or add one "
            f"format's tokens to it ({told})"
        )
    # Of formats with the same tokens the one that says nothing in a model's name.
    best = max(fitting, key=lambda member: (len(formats[member].detect), formats[member].system.default is None))
    why = f"the tokenizer has {' '.join(formats[best].detect)}"
    return Found(Renderer(formats[best], tokenizer), best, why)
