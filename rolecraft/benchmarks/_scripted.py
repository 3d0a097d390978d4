"""An engine without a model, for references and for policies that a score is compared with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

from rolecraft.types import Completion, Delta, Message, Prompt, Turn


@dataclass(frozen=True, slots=True)
class Scripted:
    """An engine that answers with whatever `policy` makes of the prompt; it holds no model."""

    policy: Callable[[Prompt], Message]

    async def complete(self, prompt: Prompt) -> tuple[Completion, ...]:
        """Return the policy's message, once for each reply asked for."""
        message = self.policy(prompt)
        return (Completion(message, Turn(message, prompt.speaker)),) * prompt.sampling.n

    async def stream(self, prompt: Prompt) -> AsyncIterator[Delta]:
        """Yield the whole reply at once."""
        (completion,) = await self.complete(replace(prompt, sampling=replace(prompt.sampling, n=1)))
        yield Delta(completion.message.content, completion)
