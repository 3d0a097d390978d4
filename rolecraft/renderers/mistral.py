"""Mistral since tokenizer v13 (Ministral 3, Devstral): a token for each part, a call as its name and an object.

Equal to Ministral 3's template, id for id, but for: roles other than the assistant (their name opens the reply);
replies that neither say nor call anything (it refuses them), conversations whose roles do not alternate (it refuses
them), pictures and thoughts as parts of their own, and what `hermes.py` lists. Devstral's own system text is another.
"""

from __future__ import annotations

from rolecraft.renderers._format import Block, CallSyntax, Format, SystemBlock, ToolList

_THINK = (
    "# HOW YOU SHOULD THINK AND ANSWER\n\nFirst draft your thinking process (inner monologue) until you arrive at a "
    "response. Format your response using Markdown, and use LaTeX for any mathematical equations. Write both your "
    "thoughts and the response in the same language as the input.\n\nYour thinking process must follow the template "
    "below:[THINK]Your thoughts or/and draft, like working through an exercise on scratch paper. Be as casual and as "
    "long as you want until you are confident to generate the response to the user.[/THINK]Here, provide a "
    "self-contained response."
)

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
    system=SystemBlock(default=_THINK),
    tools=ToolList(head="[", item="{tool}", between=", ", tail="]", place="block", role="tools"),
    calls=CallSyntax(open="[TOOL_CALLS]", between="", after_text="", style="named", mark="[ARGS]"),
)
