"""Mistral with tokenizer v3 (Nemo): no system block, calls as a list of objects with ids, results as objects.

Equal to Nemo's template, id for id, for one question. It moves the tools, and the system text, to the last question,
and leaves the latter out once that is answered: here both stay at the first, or prompts would change. Else equal but
for: roles other than the assistant (their name opens the reply); text beside a call (it drops it); ids that are not
nine characters (it refuses them); conversations whose roles do not alternate (it refuses them); quotes in a tool's
description (it does not escape them); and what `hermes.py` lists. What is served gives calls ids of its own: a
result then names that one, not the id that the model wrote.
"""

from __future__ import annotations

import dataclasses

from rolecraft.renderers._format import CallSyntax, Results, SystemBlock
from rolecraft.renderers.mistral import FORMAT as MISTRAL

FORMAT = dataclasses.replace(
    MISTRAL,
    blocks=tuple(block for block in MISTRAL.blocks if block.role != "system"),
    detect=("[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]"),
    system=SystemBlock(place="user", gap="\n\n"),
    calls=CallSyntax(open="[TOOL_CALLS]", between=", ", listed=True, after_text="", id_key="id"),
    results=Results(item='{"content": {content}, "call_id": "{id}"}'),
)
