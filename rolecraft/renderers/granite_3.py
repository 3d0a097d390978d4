"""Granite 3.3: Granite 4's blocks, tools as an indented list in a block of their own, calls as a list after a token.

Equal to its template, id for id, but for today's date in the system text it assumes (here it is fixed); calls (the
template writes text alone; here they stand as the model is told to write them); its documents, controls and thoughts,
which have no place here; and what `hermes.py` lists.
"""

from __future__ import annotations

import dataclasses

from rolecraft.renderers._format import CallSyntax, Results, SystemBlock, ToolList
from rolecraft.renderers.granite import FORMAT as GRANITE

_WHO = "Knowledge Cutoff Date: April 2024. Today's Date: July 26, 2024. You are Granite, developed by IBM."
_TOLD = """ You are a helpful assistant with access to the following tools. \
When a tool is required to answer the user's query, respond only with <|tool_call|> followed by a JSON list of tools \
used. If a tool does not exist in the provided list of tools, \
notify the user that you do not have the ability to fulfill the request."""

FORMAT = dataclasses.replace(
    GRANITE,
    detect=(),
    system=SystemBlock(default=f"{_WHO} You are a helpful AI assistant.", default_with_tools=_WHO + _TOLD),
    tools=ToolList(
        head="[", item="\n    {tool}", between=",", tail="\n]", style="nested", place="block", role="available_tools"
    ),
    calls=CallSyntax(open="<|tool_call|>", between=", ", listed=True, after_text=""),
    results=Results(),
)
