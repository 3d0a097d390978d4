"""A format's tools, calls and results as plain text, for a model whose prompt others render.

There no tag is a token, so a tag that a user quotes reads like one that the model wrote.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from rolecraft.renderers._calls import parse, write_call
from rolecraft.renderers._format import Format
from rolecraft.renderers._tools import describe_tool
from rolecraft.types import Message, ToolSpec


def tools_as_text(tools: Sequence[ToolSpec], format: Format) -> str:
    """Return how the format tells a model of the tools, to stand in the system message."""
    style = format.tools
    before, _, after = style.item.partition("{tool}")
    return "".join((style.head, *(before + describe_tool(tool, style.style) + after for tool in tools), style.tail))


def reply_as_text(message: Message, format: Format) -> str:
    """Return what a model wrote to say `message`."""
    syntax = format.calls
    calls = [
        syntax.open + _shielded(write_call(call, syntax), syntax.tags) + syntax.close for call in message.tool_calls
    ]
    unparsed = [] if message.unparsed is None else [message.unparsed]
    said = [message.content] if message.content else []
    return "\n".join([*said, *([syntax.between.join(calls)] if calls else []), *unparsed])


def result_as_text(content: str, format: Format) -> str:
    """Return how the format shows the result of a call."""
    item = format.results.item
    return item.replace("{json}", json.dumps(content, ensure_ascii=False)).replace("{content}", content)


def reply_from_text(text: str, format: Format) -> Message:
    """Return the message in a reply's text; what does not parse as a call is kept in `unparsed`. Never raises."""
    read = parse([(text, False)], format.calls, tags_are_tokens=False)
    return Message("assistant", read.content, tool_calls=read.calls, unparsed=read.unparsed)


def _shielded(text: str, tags: Sequence[str]) -> str:
    for tag in tags:
        text = text.replace(tag, tag.replace("<", "\\u003c"))
    return text
