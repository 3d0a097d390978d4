"""An engine whose roles are models of their own (alpha-UMi's three models): each prompt goes to its speaker's.

Each has its weights, its keys and values and its thread; a role reads all that it sees with its own model, so nothing
is shared at a hand-over. Roles that name the same folder share one engine. Not covered: models with other tokenizers or
prompts than each other, which are refused, since a conversation is one text for all.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from rolecraft import contract
from rolecraft.engine.local import LocalEngine
from rolecraft.engine.settings import Constrain, Settings
from rolecraft.errors import ContractError, EngineError
from rolecraft.model import Loaded
from rolecraft.renderers import describe
from rolecraft.types import Completion, Delta, Prompt


class RoleEngines:
    """Implements `types.Engine` on one local engine for each role; closing it closes them all."""

    def __init__(self, engines: Mapping[str, LocalEngine], folder: Path) -> None:
        """Take over the engines of the roles, read from `folder`; raises ContractError if their prompts differ."""
        self._engines = dict(engines)
        self._first = next(iter(self._engines.values()))
        self._folder = folder
        _require_one_format(self._engines)

    @property
    def loaded(self) -> Loaded:
        """The first role's model, for what all share: tokenizer, renderer and base; `adapter` is the folder of all."""
        return replace(self._first.loaded, adapter=self._folder)

    @property
    def settings(self) -> Settings:
        """How they were opened."""
        return self._first.settings

    @property
    def context(self) -> int:
        """The most tokens of a conversation: what every role's model can hold."""
        return min(engine.context for engine in self._engines.values())

    @property
    def weights(self) -> str:
        """In which form the weights are, in words; '' for the usual one."""
        return self._first.weights

    async def complete(self, prompt: Prompt) -> tuple[Completion, ...]:
        """Return the completions of the speaker's model; raises EngineError for a speaker that has none."""
        return await self._of(prompt).complete(prompt)

    def stream(self, prompt: Prompt) -> AsyncIterator[Delta]:
        """Yield the reply of the speaker's model as it comes."""
        return self._of(prompt).stream(prompt)

    async def length(self, prompt: Prompt) -> int:
        """Return how many tokens a prompt has for the speaker's model."""
        return await self._of(prompt).length(prompt)

    def holding(self, constrain: Constrain) -> RoleEngines:
        """Return the same engines, which hold other replies; closing either closes both."""
        return RoleEngines({name: one.holding(constrain) for name, one in self._engines.items()}, self._folder)

    def close(self) -> None:
        """Stop all engines; safe to call twice."""
        with ExitStack() as stack:
            for engine in self._engines.values():
                stack.callback(engine.close)

    def __enter__(self) -> RoleEngines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _of(self, prompt: Prompt) -> LocalEngine:
        if prompt.speaker not in self._engines:
            known = ", ".join(self._engines)
            raise EngineError(f"{prompt.speaker!r} has no model in {str(self._folder)!r}; there are those of {known}")
        return self._engines[prompt.speaker]


def _require_one_format(engines: Mapping[str, LocalEngine]) -> None:
    (first, one), *others = engines.items()
    for name, other in others:
        alike = describe(one.loaded.renderer.format) == describe(other.loaded.renderer.format)
        if not alike or one.loaded.tokenizer.get_vocab() != other.loaded.tokenizer.get_vocab():
            formats = [contract.name_of(engine.loaded.renderer) for engine in (one, other)]
            raise ContractError(
                f"the models of {first!r} and {name!r} read other prompts (formats {', '.join(map(repr, formats))}); "
                "tune the roles of a team from one base"
            )
