"""Reliable tool-calling agents from small open-weight models.

The nouns are here; everything that does work is in its own module, so that importing this costs nothing.
"""

from __future__ import annotations

from rolecraft.types import (
    Completion,
    Engine,
    Environment,
    Judge,
    Message,
    Prompt,
    Sampling,
    Task,
    ToolCall,
    ToolSpec,
    Trajectory,
    Turn,
    Verdict,
)

__all__ = [
    "Completion",
    "Engine",
    "Environment",
    "Judge",
    "Message",
    "Prompt",
    "Sampling",
    "Task",
    "ToolCall",
    "ToolSpec",
    "Trajectory",
    "Turn",
    "Verdict",
]
