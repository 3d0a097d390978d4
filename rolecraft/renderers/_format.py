"""What a chat format is, as data; each member of this folder is one, called `FORMAT`."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal

ToolStyle = Literal["signature", "json", "indented", "nested", "function"]
"""How one tool is told: a signature line, its JSON on one line, its JSON indented, the same within an indented list,
or its function's JSON alone."""

CallStyle = Literal["json", "named", "python"]
"""How one call is written: an object with its name and arguments, its name and an object of arguments with a mark
between the two, or Python's `f(a='x')`."""

_UNTOLD = {"untold": "default"}  # at its default such a field is not part of a format's description
_NEVER_TOLD = {"untold": "always"}  # such a field is none, as it changes no prompt


@dataclass(frozen=True, slots=True)
class CallSyntax:
    r"""How a family writes tool calls: `open`, the JSON object, `close`, with `between` from one to the next.

    Without an `open`, a call is whatever starts a line and matches the regular expression `begins`. Keys in `ignored`
    may stand in the object and say nothing. `compact` JSON has no space after its separators. `listed`: all calls of a
    reply stand in one list between `open` and `close`. `after_text` parts the calls from text before
    them. Without a `close` a call ends where the next begins or the reply ends. `mark`: what style `named` writes
    between a call's name and its arguments, where `{id}` stands for the call's id. `id_key`: the object's key
    for that id.
    """

    open: str = ""
    close: str = ""
    between: str = "\n"
    name_key: str = "name"
    arguments_key: str = "arguments"
    compact: bool = False
    begins: str = r"\{"
    ignored: tuple[str, ...] = ()
    listed: bool = field(default=False, metadata=_UNTOLD)
    after_text: str = field(default="\n", metadata=_UNTOLD)
    style: CallStyle = field(default="json", metadata=_UNTOLD)
    mark: str = field(default="", metadata=_UNTOLD)
    id_key: str = field(default="", metadata=_UNTOLD)

    @property
    def tags(self) -> tuple[str, ...]:
        """The opening tag and, if there is one, the closing tag; or nothing."""
        return tuple(tag for tag in (self.open.strip(), self.close.strip()) if tag) if self.open else ()

    @property
    def marks(self) -> tuple[str, ...]:
        """The tags, and what stands between a call's name and its arguments."""
        return (*self.tags, *(part for part in self.mark.split("{id}") if part))


@dataclass(frozen=True, slots=True)
class SystemBlock:
    """What a family puts before the system text, and the text it assumes where there is none (None: no block).

    `default_with_tools` is that text where tools are told (None: the same). `tail` ends the block. Place `user` is the
    first user message, with `gap` between the two; families of this place have no system block.
    """

    lead: str = ""
    lead_with_tools: str = ""
    default: str | None = None
    default_with_tools: str | None = field(default=None, metadata=_UNTOLD)
    tail: str = field(default="", metadata=_UNTOLD)
    place: Literal["system", "user"] = field(default="system", metadata=_UNTOLD)
    gap: str = field(default="", metadata=_UNTOLD)


@dataclass(frozen=True, slots=True)
class ToolList:
    """How the tools are told: `head`, an `item` for each (`{tool}` is its place) with `between` them, `tail`.

    `gap` stands between them and the text they follow, if there is any. Place `user` is the first user message, place
    `block` a block after the system's whose role is `role`.
    """

    head: str = ""
    item: str = "\n{tool}"
    tail: str = ""
    style: ToolStyle = "json"
    gap: str = ""
    place: Literal["system", "user", "block"] = "system"
    between: str = field(default="", metadata=_UNTOLD)
    role: str = field(default="", metadata=_UNTOLD)


@dataclass(frozen=True, slots=True)
class Results:
    """How a tool's answer is shown: under which header word, in which `item` (`{content}` or `{json}`, and `{id}`).

    `merged`: consecutive answers share one block, `between` them.
    """

    role: str = "tool"
    item: str = "{content}"
    merged: bool = False
    between: str = field(default="\n", metadata=_UNTOLD)


@dataclass(frozen=True, slots=True)
class Block:
    """What opens and closes the blocks of one role."""

    role: str
    open: str
    close: str


@dataclass(frozen=True, slots=True)
class Template:
    """A model's own Jinja template, with the `names` of special tokens and the switches that it is given.

    `tells_tools`: it tells a model of tools, and shows their calls and results. `takes_system`: it takes a system text.
    """

    text: str
    names: tuple[tuple[str, str | bool], ...] = ()
    tells_tools: bool = True
    takes_system: bool = True


@dataclass(frozen=True, slots=True)
class Format:
    """A chat format. A block is a header, its text, `end` and `gap`; `begin` opens the whole.

    Roles of context that have a `Block` among `blocks` begin and end as that says instead. What has a `template` is
    written by it; of the other fields `header` then says how a reply is announced, `end`, `stops` and `calls` how it is
    read.
    `header` has `{role}`; `speaker_header`, for speakers other than the assistant, has `{speaker}` and defaults to
    `header`. `stops` also end a reply, where the tokenizer has them. A tokenizer that has all of `detect` is taken to
    be of this family. `trim`: outer white space of what no model wrote is cut. `lenient`: calls that are written in
    another way than `calls` may be read too. `reply_lead` follows the header of each reply, unlearned: a family told
    not to think begins with an empty thought.
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
    lenient: bool = field(default=True, metadata=_NEVER_TOLD)
    reply_lead: str = field(default="", metadata=_UNTOLD)
    blocks: tuple[Block, ...] = field(default=(), metadata=_UNTOLD)
    template: Template | None = field(default=None, metadata=_UNTOLD)

    def block(self, role: str) -> Block:
        """Return what opens and closes the blocks of a role."""
        own = next((one for one in self.blocks if one.role == role), None)
        return own or Block(role, self.header.replace("{role}", role), self.end + self.gap)


def describe(part: Any) -> Any:
    """Return a format, or a part of it, as JSON-ready data of which contracts keep a digest.

    A field that formats without it do not need is left out at its default, so that their digests stay what they are.
    """
    if isinstance(part, tuple):
        return tuple(map(describe, part))
    if not is_dataclass(part):
        return part
    return {
        one.name: describe(value)
        for one in fields(part)
        if _is_told(one.metadata.get("untold"), (value := getattr(part, one.name)) == one.default)
    }


def _is_told(untold: str | None, at_default: bool) -> bool:
    return untold is None or (untold == "default" and not at_default)
