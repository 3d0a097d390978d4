"""LFM2: ChatML, tools as a JSON list in the system text, calls as a list in Python's syntax, both between tokens.

Equal to its template, the one that writes calls too, id for id, but for what `hermes.py` lists, an empty system
message where tools are told, and calls whose arguments' names cannot stand in Python (refused). What holds a reply
writes its calls as JSON between the same tokens, which is read too.
"""

from __future__ import annotations

from rolecraft.renderers._format import CallSyntax, Format, Results, ToolList

FORMAT = Format(
    begin="<|startoftext|>",
    header="<|im_start|>{role}\n",
    end="<|im_end|>",
    gap="\n",
    stops=("<|endoftext|>",),
    detect=("<|startoftext|>", "<|im_start|>", "<|im_end|>", "<|tool_call_start|>", "<|tool_list_start|>"),
    tools=ToolList(
        head="List of tools: <|tool_list_start|>[", item="{tool}", between=", ", tail="]<|tool_list_end|>", gap="\n"
    ),
    calls=CallSyntax(
        open="<|tool_call_start|>",
        close="<|tool_call_end|>",
        between=", ",
        listed=True,
        after_text="",
        style="python",
    ),
    results=Results(item="<|tool_response_start|>{content}<|tool_response_end|>"),
)
