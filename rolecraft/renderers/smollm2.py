"""SmolLM2's ChatML; its template drops tools and calls, so they are told and written as Hermes does.

Equal to that template without tools, id for id, but for what `hermes.py` lists.
"""

from __future__ import annotations

import dataclasses

from rolecraft.renderers._format import SystemBlock
from rolecraft.renderers.hermes import FORMAT as HERMES

FORMAT = dataclasses.replace(
    HERMES,
    detect=(),
    system=SystemBlock(default="You are a helpful AI assistant named SmolLM, trained by Hugging Face"),
)
