"""Llama 3.1 and 3.2 with JSON calls, as their own templates have them, the date fixed to theirs.

The tools stand in the first user message, results are JSON under `ipython`, outer white space of context is cut. Equal
to the templates, id for id, but for: roles other than the assistant (their name is the header); text beside a call
(the templates drop it); outer white space of a reply (they cut it); several calls in one message (they refuse them:
here one object a line, and `; ` is read too); tools with no user message to hold them (they refuse or misplace them:
here they follow the system text); markers spelled out in content (they stay text); tools that leave out a description
or parameters, have other keys or another order of them (told as `hermes.py` says).
"""

from __future__ import annotations

from rolecraft.renderers._format import CallSyntax, Format, Results, SystemBlock, ToolList

_HEAD = (
    "Given the following functions, please respond with a JSON for a function call "
    "with its proper arguments that best answers the given prompt.\n\n"
    'Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}.'
    "Do not use variables.\n\n"
)

FORMAT = Format(
    begin="<|begin_of_text|>",
    header="<|start_header_id|>{role}<|end_header_id|>\n\n",
    end="<|eot_id|>",
    stops=("<|eom_id|>", "<|end_of_text|>"),
    detect=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    system=SystemBlock(
        lead="Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n",
        lead_with_tools="Environment: ipython\n",
        default="",
    ),
    tools=ToolList(head=_HEAD, item="{tool}\n\n", style="indented", gap="\n\n", place="user"),
    calls=CallSyntax(
        arguments_key="parameters",
        begins=r"\{\s*[\"']?(?:name|parameters|type|function)\b",
        ignored=("type",),
    ),
    results=Results(role="ipython", item="{json}"),
    trim=True,
)
