"""Granite 4.0: blocks named in role tokens, Hermes' tool calls, and a system text where there are no tools.

Equal to its template, id for id, but for what `hermes.py` lists and an empty system message (the template takes its
own text instead; here it is an empty block, or none where tools are told).
"""

from __future__ import annotations

from rolecraft.renderers._format import CallSyntax, Format, Results, SystemBlock, ToolList

_HEAD = """You are a helpful assistant with access to the following tools. \
You may call one or more tools to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>"""
_TAIL = """
</tools>

For each tool call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>. If a tool does not exist in the provided list of tools, \
notify the user that you do not have the ability to fulfill the request."""

FORMAT = Format(
    header="<|start_of_role|>{role}<|end_of_role|>",
    end="<|end_of_text|>",
    gap="\n",
    detect=("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"),
    system=SystemBlock(
        default="You are a helpful assistant. Please ensure responses are professional, accurate, and safe.",
        default_with_tools="",
    ),
    tools=ToolList(head=_HEAD, tail=_TAIL, gap="\n\n"),
    calls=CallSyntax(open="<tool_call>\n", close="\n</tool_call>"),
    results=Results(role="user", item="\n<tool_response>\n{content}\n</tool_response>", merged=True, between=""),
)
