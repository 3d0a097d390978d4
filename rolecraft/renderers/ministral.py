"""Ministral 3, which reasons: Mistral's format with a system text that says how to think.

Equal to its template, id for id, but for replies that neither say nor call anything and conversations whose roles do
not alternate (it refuses them), and what `mistral.py` lists.
"""

from __future__ import annotations

import dataclasses

from rolecraft.renderers._format import SystemBlock
from rolecraft.renderers.mistral import FORMAT as MISTRAL

_THINK = (
    "# HOW YOU SHOULD THINK AND ANSWER\n\nFirst draft your thinking process (inner monologue) until you arrive at a "
    "response. Format your response using Markdown, and use LaTeX for any mathematical equations. Write both your "
    "thoughts and the response in the same language as the input.\n\nYour thinking process must follow the template "
    "below:[THINK]Your thoughts or/and draft, like working through an exercise on scratch paper. Be as casual and as "
    "long as you want until you are confident to generate the response to the user.[/THINK]Here, provide a "
    "self-contained response."
)

FORMAT = dataclasses.replace(MISTRAL, detect=(), system=SystemBlock(default=_THINK))
