"""Gemma 3: the system text opens the first user message; the family knows no tools, so Hermes' tags in text serve.

Equal to its template without tools, id for id, but for outer white space of a reply and of the system text (the
template cuts the first and keeps the second), conversations whose roles do not alternate (it refuses them), and
markers spelled out in content (they stay text). Results are a user's block.
"""

from __future__ import annotations

from rolecraft.renderers._format import CallSyntax, Format, Results, SystemBlock, ToolList

_TAIL = """

To call a function, write a JSON object with its name and arguments between tags:
<tool_call>
{"name": <name>, "arguments": <object>}
</tool_call>

"""

FORMAT = Format(
    begin="<bos>",
    header="<start_of_turn>{role}\n",
    end="<end_of_turn>",
    gap="\n",
    assistant="model",
    stops=("<eos>",),
    detect=("<start_of_turn>", "<end_of_turn>"),
    system=SystemBlock(place="user", gap="\n\n"),
    tools=ToolList(head="You may call these functions:", tail=_TAIL, place="user"),
    calls=CallSyntax(open="<tool_call>\n", close="\n</tool_call>"),
    results=Results(role="user", item="<tool_response>\n{content}\n</tool_response>", merged=True),
    trim=True,
)
