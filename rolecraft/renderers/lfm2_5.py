"""LFM2.5: LFM2's format without tokens around tools and results, and with thoughts as text of the reply.

Equal to its template, the vision model's, id for id, but for thoughts of replies before the last question (it drops
them, here they stay) and what `lfm2.py` lists. That of the 8B model escapes nothing in arguments, and prints lists in
them as Python does; that of 2025's models writes no calls.
"""

from __future__ import annotations

import dataclasses

from rolecraft.renderers._format import Results
from rolecraft.renderers.lfm2 import FORMAT as LFM2

FORMAT = dataclasses.replace(
    LFM2,
    detect=(),
    tools=dataclasses.replace(LFM2.tools, head="List of tools: [", tail="]"),
    results=Results(),
)
