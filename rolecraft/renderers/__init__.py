"""Chat formats as data: messages to ids with loss weights and speakers, and ids back to a message.

A member file exports `FORMAT`, a `Format`; the one `Renderer` reads it. A family that has none is written by its own
template, where that only appends. A prompt's ids are always an exact prefix of
the ids of the finished conversation, because each reply is tokenised apart from its header. Only a format's own
strings become control tokens: a marker spelled out by a user, a tool or a tool's description stays text.
Not covered: a family's date line (it is fixed), pictures, and templates that rewrite earlier replies (refused).
"""

from __future__ import annotations

from rolecraft.renderers._explaining import why_unparsed
from rolecraft.renderers._finding import TEMPLATE, Found, find, prepare, recognize, release, require, switch
from rolecraft.renderers._format import CallSyntax, Format, Results, SystemBlock, ToolList, describe
from rolecraft.renderers._lenient import reread, settled_length, why_unread
from rolecraft.renderers._plain import reply_as_text, reply_from_text, result_as_text, tools_as_text
from rolecraft.renderers._rendered import Rendered
from rolecraft.renderers._renderer import Renderer
from rolecraft.renderers._template import write_template
from rolecraft.renderers._text import Tokenizer

__all__ = [
    "TEMPLATE",
    "CallSyntax",
    "Format",
    "Found",
    "Rendered",
    "Renderer",
    "Results",
    "SystemBlock",
    "Tokenizer",
    "ToolList",
    "describe",
    "find",
    "prepare",
    "recognize",
    "release",
    "reply_as_text",
    "reply_from_text",
    "require",
    "reread",
    "result_as_text",
    "settled_length",
    "switch",
    "tools_as_text",
    "why_unparsed",
    "why_unread",
    "write_template",
]
