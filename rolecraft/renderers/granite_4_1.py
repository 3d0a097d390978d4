"""Granite 4.1: Granite 4.0's format with no system text of its own.

Equal to its template, id for id, but for what `granite.py` lists.
"""

from __future__ import annotations

import dataclasses

from rolecraft.renderers._format import SystemBlock
from rolecraft.renderers.granite import FORMAT as GRANITE

FORMAT = dataclasses.replace(GRANITE, system=SystemBlock())
