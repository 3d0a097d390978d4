"""SmolLM3 told not to think: each reply begins with an empty thought, which its prompt holds already.

Equal to the template with `enable_thinking=False` as `smollm3.py` says.
"""

from __future__ import annotations

import dataclasses

from rolecraft.renderers._format import SystemBlock
from rolecraft.renderers.smollm3 import FORMAT as SMOLLM3

FORMAT = dataclasses.replace(
    SMOLLM3,
    detect=(),
    reply_lead="<think>\n\n</think>\n",
    system=SystemBlock(
        lead=SMOLLM3.system.lead.replace("/think", "/no_think"),
        default="You are a helpful AI assistant named SmolLM, trained by Hugging Face.",
        tail=SMOLLM3.system.tail,
    ),
)
