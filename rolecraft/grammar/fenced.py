"""The syntax in which general models write calls of their own accord: a list of objects in a fenced block of JSON.

A model that was not taught its family's call syntax begins a fenced block or an object. Led to a list, it also says by
the comma or bracket after each call whether another is to come; of calls outside of a list it writes one.
"""

from __future__ import annotations

OPENING = '```json\n[\n  {\n    "name": "'
"""What stands before the first call's name."""

AFTER_NAME = ',\n    "arguments": '
AFTER_ARGUMENTS = "\n  }"
BETWEEN = ',\n  {\n    "name": '
CLOSING = "\n]\n```"

OBJECT_LINE = r"[ \t]*[\[{][^\n]*"
"""An expression for a line that begins an object or a list. Neither a text nor a fenced block at its head begins so."""

FENCE_LINE = r"[ \t]*`{3,}[^\n]*"
JSON_LINE = r"[ \t]*`{3,}[ \t]*([jJ][sS][oO][nN][^\n]*)?"
"""Expressions for a line that begins a fenced block, and one that begins a block of JSON: such a block is calls."""
