"""ChatML with Hermes tool calls, word for word as Qwen2.5's own template has them.

Equal to that template, id for id, but for: roles other than the assistant (their name is the header); a reply that
begins with a newline (the header is tokenised apart); markers spelled out in content (they stay text); and tools. Each
is told as `type` and `function`, with `name`, `description` and `parameters` in this order: a description left out is
"", parameters left out are an object without properties, `strict` and any other key is not told. The template prints
the keys that the caller gave, in the caller's order.
"""

from __future__ import annotations

from rolecraft.renderers._format import CallSyntax, Format, Results, SystemBlock, ToolList

_HEAD = """

# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>"""
_TAIL = """
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>"""

FORMAT = Format(
    header="<|im_start|>{role}\n",
    end="<|im_end|>",
    gap="\n",
    stops=("<|endoftext|>",),
    detect=("<|im_start|>", "<|im_end|>"),
    system=SystemBlock(default="You are Qwen, created by Alibaba Cloud. You are a helpful assistant."),
    tools=ToolList(head=_HEAD, item="\n{tool}", tail=_TAIL),
    calls=CallSyntax(open="<tool_call>\n", close="\n</tool_call>"),
    results=Results(role="user", item="<tool_response>\n{content}\n</tool_response>", merged=True),
)
