"""ChatML that no family's template claims, with Hermes' tool calls and no system text of its own.

Equal, without tools, to the template that writes each message as a block, id for id, but for what `hermes.py` lists.
"""

from __future__ import annotations

import dataclasses

from rolecraft.renderers._format import SystemBlock
from rolecraft.renderers.hermes import FORMAT as HERMES

FORMAT = dataclasses.replace(
    HERMES,
    system=SystemBlock(),
    tools=dataclasses.replace(HERMES.tools, head=HERMES.tools.head.lstrip(), gap="\n\n"),
)
