"""Keeps a conversation within a model's context: the oldest questions are left out, each with all that answered it.

Not covered: summaries of what was left out. A question that does not fit alone, with its calls and results, stays
whole.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from rolecraft.errors import ContextFull
from rolecraft.types import Completion, Delta, Engine, Message, Prompt


class Window:
    """An engine before another that leaves out the oldest questions of prompts that are too long for it.

    `left_out` counts them; `full` is why the last prompt was refused, "" if it was not.
    """

    def __init__(self, engine: Engine, tell: Callable[[int], None] = lambda count: None) -> None:
        """Stand before `engine`; `tell` is called with how many questions are left out now, whenever one more is."""
        self._engine = engine
        self._tell = tell
        self.left_out = 0
        self.full = ""

    async def complete(self, prompt: Prompt) -> tuple[Completion, ...]:
        """Return completions of the prompt, or of its end; raises ContextFull if its last question does not fit.

        A reply that the context cut short, before it had `max_tokens`, is asked for again with a question less.
        """
        self.full = ""
        while True:
            shorter = replace(prompt, messages=without_oldest(prompt.messages, self.left_out))
            more = questions(shorter.messages) > 1
            try:
                made = await self._engine.complete(shorter)
                if not more or not any(map(_cut_by_context(prompt), made)):
                    return made
            except ContextFull as error:
                if not more:
                    self.full = str(error)
                    raise
            self.left_out += 1
            self._tell(self.left_out)

    async def stream(self, prompt: Prompt) -> AsyncIterator[Delta]:
        """Yield the whole reply at once: one that is cut short is not to be seen."""
        (completion,) = await self.complete(prompt)
        yield Delta(completion.message.content, completion)


def questions(messages: tuple[Message, ...]) -> int:
    """Return how many questions a conversation has."""
    return sum(message.role == "user" for message in messages)


def without_oldest(messages: tuple[Message, ...], count: int) -> tuple[Message, ...]:
    """Return the conversation without its `count` oldest questions and what followed each; its opening stays."""
    places = [place for place, message in enumerate(messages) if message.role == "user"]
    if not count or not places:
        return messages
    kept = places[min(count, len(places) - 1)]
    return messages[: places[0]] + messages[kept:]


def _cut_by_context(prompt: Prompt) -> Callable[[Completion], bool]:
    most = prompt.sampling.max_tokens
    return lambda made: made.turn.stop == "length" and 0 < made.turn.usage.completion < most
