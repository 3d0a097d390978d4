"""Phi-3's chat blocks; the family has no tool calls of its own, so Hermes' tags in plain text serve.

Equal to its template but for the end-of-text token that the template puts after a finished conversation.
"""

from __future__ import annotations

from rolecraft.renderers._format import CallSyntax, Format, Results, ToolList

_TAIL = """

To call a function, write a JSON object with its name and arguments between tags:
<tool_call>
{"name": <name>, "arguments": <object>}
</tool_call>"""

FORMAT = Format(
    header="<|{role}|>\n",
    speaker_header="<|assistant|>{speaker}\n",
    end="<|end|>",
    gap="\n",
    stops=("<|endoftext|>",),
    detect=("<|user|>", "<|assistant|>", "<|end|>"),
    tools=ToolList(head="You may call these functions:", tail=_TAIL, gap="\n\n"),
    calls=CallSyntax(open="<tool_call>\n", close="\n</tool_call>"),
    results=Results(role="user", item="<tool_response>\n{content}\n</tool_response>", merged=True),
)
