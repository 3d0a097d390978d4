"""The syntax in which general models write calls of their own accord: objects in a fenced block of JSON.

A model that was not taught its family's call syntax begins a fenced block or an object. Led to a list, it also says by
the comma or bracket after each call whether another is to come; of calls outside of a list it writes one. But a list
may make it think of another one, of what was asked for: then it is led to one object.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Block:
    """How a fenced block of calls is set: what stands before a name, after it, after the arguments, and at the end.

    `between` stands in place of `opening` before all calls but the first; None: there is but one.
    """

    opening: str
    after_name: str
    after_arguments: str
    closing: str
    between: str | None = None


LIST = Block(
    opening='```json\n[\n  {\n    "name": ',
    after_name=',\n    "arguments": ',
    after_arguments="\n  }",
    closing="\n]\n```",
    between=',\n  {\n    "name": ',
)
OBJECT = Block(
    opening='```json\n{\n  "name": ',
    after_name=',\n  "arguments": ',
    after_arguments="\n}",
    closing="\n```",
)

OBJECT_LINE = r"[ \t]*([\[{]|<\|?(tool|func))[^\n]*"
"""An expression for a line that begins an object, a list or a mark of calls: neither a text nor a block begins so."""

MARK_LINE = r"[ \t]*<[^\n]*"
"""An expression for a line that begins a mark of any kind."""

FENCE_LINE = r"[ \t]*`{2,}[^\n]*"
JSON_LINE = r"[ \t]*`{2,}[ \t]*([jJ][sS][oO][nN][^\n]*)?"
"""Expressions for a line that begins a fenced block, and one that begins a block of JSON: such a block is calls.

Two marks are enough: kept from three, a model writes two.
"""
