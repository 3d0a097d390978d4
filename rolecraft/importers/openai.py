"""OpenAI fine-tuning rows, Rolecraft's own data format; what is read and what is refused is in `rolecraft/wire.py`."""

from __future__ import annotations

from collections.abc import Mapping

from rolecraft import wire
from rolecraft.types import Json, Trajectory

EXAMPLE: Mapping[str, Json] = {
    "messages": [
        {"role": "user", "content": "How far is it from Lübeck to Kiel, and from Kiel to Lübeck?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_0",
                    "type": "function",
                    "function": {"name": "distance", "arguments": '{"start":"Lübeck","end":"Kiel"}'},
                },
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "distance", "arguments": '{"start":"Kiel","end":"Lübeck"}'},
                },
            ],
            "speaker": "executor",
        },
        {"role": "tool", "content": "64 km", "tool_call_id": "call_0"},
        {"role": "tool", "content": "64 km", "tool_call_id": "call_1"},
        {"role": "assistant", "content": "64 km either way.", "speaker": "summarizer", "weight": 1},
    ],
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "distance",
                "description": "Road distance between two towns",
                "parameters": {
                    "type": "object",
                    "properties": {"start": {"type": "string"}, "end": {"type": "string"}},
                    "required": ["start", "end"],
                },
            },
        }
    ],
}


KEYS = wire.KNOWN_ROW


def convert(row: Mapping[str, Json]) -> Trajectory:
    """Return the trajectory in one row; raises DataError."""
    return wire.trajectory_from_json(row)
