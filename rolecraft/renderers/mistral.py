"""Mistral since tokenizer v13 (Devstral, Ministral): a token for each part, a call as its name and an object.

Equal to Devstral's template with a system text, id for id (its own, where there is none, is not assumed), but for:
roles other than the assistant (their name opens the reply), pictures and thoughts as parts of their own, and what
`hermes.py` lists.
"""

from __future__ import annotations

from rolecraft.renderers._format import Block, CallSyntax, Format, ToolList

FORMAT = Format(
    begin="<s>",
    header="",
    speaker_header="{speaker}\n",
    end="</s>",
    blocks=(
        Block("system", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
        Block("user", "[INST]", "[/INST]"),
        Block("tool", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
        Block("tools", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    ),
    detect=("[SYSTEM_PROMPT]", "[INST]", "[TOOL_CALLS]", "[ARGS]", "[AVAILABLE_TOOLS]"),
    tools=ToolList(head="[", item="{tool}", between=", ", tail="]", place="block", role="tools"),
    calls=CallSyntax(open="[TOOL_CALLS]", between="", after_text="", style="named", mark="[ARGS]"),
)
