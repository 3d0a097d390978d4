"""Qwen3 told not to think: each reply begins with an empty thought, which its prompt holds already.

Equal to the template with `enable_thinking=False`, id for id, for a prompt and its reply, but for what `qwen3.py`
lists. The template drops the empty thought from replies that others follow; here it stays, or prompts would change.
"""

from __future__ import annotations

import dataclasses

from rolecraft.renderers.chatml import FORMAT as CHATML

FORMAT = dataclasses.replace(CHATML, detect=(), reply_lead="<think>\n\n</think>\n\n")
