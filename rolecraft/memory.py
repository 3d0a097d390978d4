"""Keeps a conversation within a model's context, or within a budget of tokens: what is oldest goes first.

Within a budget (CMAT's short-term memory, arXiv 2404.01663) the oldest observations are folded: a short
remark stands in their place, so that the model knows that it may ask again. Where a context is full all the same, the
oldest questions are left out, each with all that answered it. Not covered: summaries of what was left out. A question
that does not fit alone, with its calls and results, stays whole.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Protocol

from rolecraft.errors import ContextFull
from rolecraft.types import Completion, Delta, Engine, Message, Prompt

_REMARK = "({count} characters of {tool} were left out to save room; call it again if they are needed)"


class Measuring(Engine, Protocol):
    """An engine that can tell how long a prompt is."""

    async def length(self, prompt: Prompt) -> int:
        """Return how many tokens the prompt has."""
        ...


class Folding:
    """An engine before another that folds the oldest observations of prompts of more than `budget` tokens.

    Each turn tells how many were folded in its prompt, so that its record can be read as it was played.
    """

    def __init__(self, engine: Measuring, budget: int) -> None:
        """Stand before `engine`."""
        self._engine, self._budget = engine, budget

    async def complete(self, prompt: Prompt) -> tuple[Completion, ...]:
        """Return completions of the prompt within the budget; raises ContextFull where what must stay is longer."""
        count = await self._count(prompt)
        made = await self._engine.complete(_with(prompt, count))
        return tuple(_told(one, count) for one in made)

    async def stream(self, prompt: Prompt) -> AsyncIterator[Delta]:
        """Yield a reply to the prompt within the budget as it comes; raises as `complete` does."""
        count = await self._count(prompt)
        deltas = self._engine.stream(_with(prompt, count))
        try:
            async for delta in deltas:
                yield delta if delta.completion is None else replace(delta, completion=_told(delta.completion, count))
        finally:
            if isinstance(deltas, AsyncGenerator):
                await deltas.aclose()

    async def _count(self, prompt: Prompt) -> int:
        """Return how many observations must be folded, the fewest."""
        if prompt.text is not None or await self._engine.length(prompt) <= self._budget:
            return 0
        most = len(foldable(prompt.messages))
        least = await self._engine.length(_with(prompt, most))
        if least > self._budget:
            raise ContextFull(
                f"the prompt for {prompt.speaker!r} has {least} tokens with all that may be folded ({most} "
                f"observations), and the budget is {self._budget}: the request, the tools, the replies and the last "
                "observations stay; raise it (--fold), or shorten the request"
            )
        low, high = 1, most
        while low < high:
            middle = (low + high) // 2
            fits = await self._engine.length(_with(prompt, middle)) <= self._budget
            low, high = (low, middle) if fits else (middle + 1, high)
        return high


def folded(messages: Sequence[Message], count: int) -> tuple[Message, ...]:
    """Return the conversation with its `count` oldest observations folded, or as many as may be."""
    found = list(messages)
    for place in foldable(messages)[:count]:
        found[place] = found[place].edited(content=_remark(messages, place))
    return tuple(found)


def foldable(messages: Sequence[Message]) -> tuple[int, ...]:
    """Return the places of the observations that a remark is shorter than, the oldest first.

    Those after the last reply stay, which nobody has read yet.
    """
    last = next((place for place in range(len(messages) - 1, -1, -1) if _acts(messages[place])), 0)
    return tuple(
        place
        for place, message in enumerate(messages[:last])
        if message.role == "tool" and len(_remark(messages, place)) < len(message.content)
    )


def _acts(message: Message) -> bool:
    """Tell whether a message led to observations: it calls, or it is code."""
    return message.role == "assistant" and (bool(message.tool_calls) or message.unparsed is not None)


def _remark(messages: Sequence[Message], place: int) -> str:
    message = messages[place]
    called = (call for one in messages[:place] for call in one.tool_calls if call.id == message.tool_call_id)
    tool = message.name or next((call.name for call in called), "a result")
    return _REMARK.format(count=len(message.content), tool=tool)


def _with(prompt: Prompt, count: int) -> Prompt:
    return replace(prompt, messages=folded(prompt.messages, count)) if count else prompt


def _told(made: Completion, count: int) -> Completion:
    return replace(made, turn=replace(made.turn, folded=count)) if count else made


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
