"""An agent of its own: the openai SDK and a loop; it knows nothing of Rolecraft but an address."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import openai


async def play(
    client: openai.AsyncOpenAI,
    question: list[dict[str, Any]],
    tools: list[dict[str, Any]],
    run: Callable[[str, str, dict[str, Any]], Awaitable[str]],
    **settings: Any,
) -> list[dict[str, Any]]:
    """Return the conversation in which a question was answered, or given up after eight replies."""
    messages = list(question)
    for _ in range(8):
        answer = await client.chat.completions.create(messages=messages, tools=tools or openai.omit, **settings)
        reply = answer.choices[0].message
        messages.append(reply.model_dump(include={"role", "content", "tool_calls"}, exclude_none=True))
        if not reply.tool_calls:
            break
        for call in reply.tool_calls:
            result = await run(call.id, call.function.name, json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    return messages
