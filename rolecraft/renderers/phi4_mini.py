"""Phi-4-mini: a token for each role and nothing between, tools as one list, calls as one list.

Equal to its template, id for id, where the system message carries the tools as JSON under `tools` (the template takes
them nowhere else; without a system message they stand in a block of their own), but for the end-of-text token after a
finished conversation, calls (the template writes text alone; here they stand as the model was trained to write them),
and markers spelled out in content (they stay text).
"""

from __future__ import annotations

from rolecraft.renderers._format import CallSyntax, Format, ToolList

FORMAT = Format(
    header="<|{role}|>",
    speaker_header="<|assistant|>{speaker}\n",
    end="<|end|>",
    stops=("<|endoftext|>",),
    detect=("<|user|>", "<|assistant|>", "<|end|>", "<|tool|>", "<|tool_call|>"),
    tools=ToolList(head="<|tool|>[", item="{tool}", between=", ", tail="]<|/tool|>", style="function"),
    calls=CallSyntax(open="<|tool_call|>", close="<|/tool_call|>", between=", ", listed=True, after_text=""),
)
