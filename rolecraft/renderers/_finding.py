"""Finds the renderer of a tokenizer: by a name, by what the tokenizer asks for, or by the tokens it has."""

from __future__ import annotations

from pathlib import Path

from rolecraft import catalog
from rolecraft.errors import ContractError
from rolecraft.renderers._renderer import Renderer
from rolecraft.renderers._text import Tokenizer


def find(tokenizer: Tokenizer, name: str | Path | None = None) -> Renderer:
    """Return the renderer called `name` (or in that file), else the one the tokenizer asks for or looks like.

    A tokenizer asks by `rolecraft_renderer` in its config, for a member alone. Raises NotFound for an unknown name,
    ContractError if the tokenizer's tokens fit no format or do not fit the named one.
    """
    if name:
        return Renderer(catalog.find("renderers", name).FORMAT, tokenizer)
    asked = tokenizer.init_kwargs.get("rolecraft_renderer")
    if asked:
        return Renderer(catalog.find("renderers", str(asked)).FORMAT, tokenizer)
    tokens = {token.content for token in tokenizer.added_tokens_decoder.values()}
    formats = {member: catalog.find("renderers", member).FORMAT for member in catalog.names("renderers")}
    fitting = [member for member, one in formats.items() if one.detect and tokens.issuperset(one.detect)]
    if not fitting:
        told = "; ".join(f"{member}: {' '.join(one.detect)}" for member, one in formats.items() if one.detect)
        raise ContractError(
            f"no chat format fits this tokenizer; name a renderer, or add one format's tokens to it ({told})"
        )
    best = max(fitting, key=lambda member: len(formats[member].detect))
    return Renderer(formats[best], tokenizer)
