"""Mistral Small 3.2 (tokenizer v11): Mistral's parts, with an id in each call and in its result.

Equal to its template with a system text, id for id, for one question (its own long text, where there is none, tells
today's date and is not assumed). It moves the tools to the last question: here they stay before the first, or prompts
would change. Else equal but for text beside a call (it drops it), ids that are not nine characters and conversations
whose roles do not alternate (it refuses them), and what `mistral.py` lists.
"""

from __future__ import annotations

import dataclasses

from rolecraft.renderers._format import Results
from rolecraft.renderers.mistral import FORMAT as MISTRAL

FORMAT = dataclasses.replace(
    MISTRAL,
    detect=(*MISTRAL.detect, "[CALL_ID]", "[TOOL_CONTENT]"),
    calls=dataclasses.replace(MISTRAL.calls, mark="[CALL_ID]{id}[ARGS]"),
    results=Results(item="{id}[TOOL_CONTENT]{content}"),
)
