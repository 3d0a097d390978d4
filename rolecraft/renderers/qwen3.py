"""Qwen3, thinking or made without thoughts (2507): ChatML with Hermes' tool calls and no system text of its own.

A thought is text of the reply, `<think>\\n...\\n</think>\\n\\n` before the rest. Equal to the templates, id for id, but
for what `hermes.py` lists; an empty system message (left out); and, of the thinking template, thoughts of replies
before the last question (it drops them, here they stay) and a last reply without one (it adds an empty thought).
"""

from __future__ import annotations

import dataclasses

from rolecraft.renderers.chatml import FORMAT as CHATML

FORMAT = dataclasses.replace(CHATML, detect=("<|im_start|>", "<|im_end|>", "<think>", "<tool_call>"))
