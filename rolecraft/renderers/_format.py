"""What a chat format is, as data; each member of this folder is one, called `FORMAT`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ToolStyle = Literal["signature", "json", "indented"]
"""How one tool is told: a signature line, its JSON on one line, or its JSON indented."""


@dataclass(frozen=True, slots=True)
class CallSyntax:
    r"""How a family writes tool calls: `open`, the JSON object, `close`, with `between` from one to the next.

    Without an `open`, a call is whatever starts a line and matches the regular expression `begins`. Keys in `ignored`
    may stand in the object and say nothing. `compact` JSON has no space after its separators.
    """

    open: str = ""
    close: str = ""
    between: str = "\n"
    name_key: str = "name"
    arguments_key: str = "arguments"
    compact: bool = False
    begins: str = r"\{"
    ignored: tuple[str, ...] = ()

    @property
    def tags(self) -> tuple[str, ...]:
        """The opening and closing tag, or nothing."""
        return (self.open.strip(), self.close.strip()) if self.open else ()


@dataclass(frozen=True, slots=True)
class SystemBlock:
    """What a family puts before the system text, and the text it assumes where there is none (None: no block)."""

    lead: str = ""
    lead_with_tools: str = ""
    default: str | None = None


@dataclass(frozen=True, slots=True)
class ToolList:
    """How the tools are told: `head`, an `item` for each (`{tool}` is its place), `tail`.

    `gap` stands between them and the text they follow, if there is any. Place `user` is the first user message.
    """

    head: str = ""
    item: str = "\n{tool}"
    tail: str = ""
    style: ToolStyle = "json"
    gap: str = ""
    place: Literal["system", "user"] = "system"


@dataclass(frozen=True, slots=True)
class Results:
    """How a tool's answer is shown: under which header word, in which `item` (`{content}` or `{json}`).

    `merged`: consecutive answers share one block, `\\n` between them.
    """

    role: str = "tool"
    item: str = "{content}"
    merged: bool = False


@dataclass(frozen=True, slots=True)
class Format:
    """A chat format. A block is a header, its text, `end` and `gap`; `begin` opens the whole.

    `header` has `{role}`; `speaker_header`, for speakers other than the assistant, has `{speaker}` and defaults to
    `header`. `stops` also end a reply, where the tokenizer has them. A tokenizer that has all of `detect` is taken to
    be of this family. `trim`: outer white space of what no model wrote is cut. `lenient`: calls that are written in
    another way than `calls` may be read too.
    """

    header: str
    end: str
    calls: CallSyntax
    tools: ToolList
    begin: str = ""
    gap: str = ""
    speaker_header: str = ""
    assistant: str = "assistant"
    system: SystemBlock = SystemBlock()
    results: Results = Results()
    stops: tuple[str, ...] = ()
    detect: tuple[str, ...] = ()
    trim: bool = False
    lenient: bool = True
