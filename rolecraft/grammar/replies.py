"""Writes the rules of a whole reply: text, calls in the format's own syntax or in fenced blocks.

Narrower than the format: where calls are lines of JSON, no line of text begins with their first bracket.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rolecraft.errors import ContractError
from rolecraft.grammar.fenced import FENCE_LINE, JSON_LINE, MARK_LINE, OBJECT_LINE, Block
from rolecraft.grammar.schemas import read
from rolecraft.grammar.shapes import Arena, Limits
from rolecraft.grammar.values import Layout, ValueWriter, as_json, escaped, listed, quoted
from rolecraft.renderers import CallSyntax, Renderer
from rolecraft.types import Json, ToolSpec

_LONGER_TEXTS = 16
"""How many times as long as in a call's arguments a text of an answer may be where its schema leaves it open."""


class ReplyWriter:
    """Writes the rules of one reply; `lead` is what the tokenizer puts before any text, a space in some families."""

    def __init__(self, renderer: Renderer, limits: Limits, lead: str) -> None:
        self.unsupported: dict[str, None] = {}
        self._end = f"<[{renderer.end_id}]>"
        self._lead = f"{quoted(lead)} " if lead else ""
        self._renderer, self._syntax, self._limits = renderer, renderer.call_syntax, limits
        self._tags = () if renderer.tags_are_tokens else self._syntax.tags
        self._avoided = f"^[^{''.join(re.escape(tag[0]) for tag in self._tags)}]*$" if self._tags else ""
        self._comma, self._colon = (",", ":") if self._syntax.compact else (", ", ": ")
        self._arena = Arena()
        self._rules: list[str] = []
        self._values = self._writer_of(Layout(quoted(self._comma), quoted(self._colon)))
        self._fenced = self._writer_of(Layout('"," GAP?', '":" GAP?', "GAP?", mark="f"))

    @property
    def open_keys(self) -> bool:
        """Whether some object may hold keys that no schema lists."""
        return self._values.open_keys or self._fenced.open_keys

    def finished(self, reply: str) -> str:
        """Return the grammar whose replies are `reply`."""
        return "\n".join([f"start: {reply} {self._end}", *self._rules, ""])

    def text(self, *, lenient: bool = False, fences: bool = True) -> str:
        """Return a rule for text without calls.

        `lenient`: nor does it begin as one in another syntax, and without `fences` with no block or mark at all.
        """
        self._rule("LINE", self._line())
        if lenient:
            line = self._line()
            without = f"{OBJECT_LINE}|{FENCE_LINE}" + ("" if fences else f"|{MARK_LINE}")
            self._rule("FIRST", f"({line}) & ~/{without}/")
            self._rule("FENCE", f"({line}) & /{FENCE_LINE}/ & ~/{JSON_LINE}/")
            self._rule("INSIDE", f"({line}) & ~/{OBJECT_LINE}/")
            fence = r'| FENCE "\n" INSIDE ("\n" LINE?)*' if fences else ""
            self._rule("text", rf'{self._lead}(FIRST ("\n" LINE?)* {fence})?')
        else:
            self._rule("text", rf'{self._lead}LINE? ("\n" LINE?)*')
        return "text"

    def text_and(self, calls: str, *, lenient: bool = False) -> str:
        """Return a rule for text, `calls`, or the one and on a new line the other."""
        apart = quoted(self._syntax.after_text)
        return rf"({self.text(lenient=lenient)} ({apart} {calls.removeprefix(self._lead)})? | {calls})"

    def reasoned(self, reply: str) -> str:
        """Return a rule for `reply` after the reasoning that a family may begin with."""
        if self._renderer.reasoning_ids is None:
            return reply
        opening, closing = self._renderer.reasoning_ids
        self._rule("REASONING", r"/(?s:.)+/")
        self._rule("BREAKS", r"/\n{1,2}/")
        self._rule("reasoning", f"<[{opening}]> REASONING? <[{closing}]> BREAKS?")
        return f"reasoning? {reply}"

    def content(self, schema: Mapping[str, Json]) -> str:
        """Return a rule for a text that is JSON of `schema`."""
        limits = replace(self._limits, text=self._limits.text * _LONGER_TEXTS)
        reading = read(schema, "schema", limits, self._arena, self._avoided, content=True)
        self.unsupported |= dict.fromkeys(reading.unsupported)
        return f"{self._lead}{self._values.name(reading.place)}"

    def thought(self, roles: Sequence[str]) -> str:
        """Return a rule for text that ends as soon as it names one of `roles` as the next."""
        names = " | ".join(map(quoted, roles))
        forbidden = self._forbidden()
        without = f" & ~/{forbidden}/" if forbidden else ""
        self._rule("THOUGHT", rf'( /((?s:.*)[ \n])?Next: / ({names}) "." ){without}')
        self._rule("thought[lazy]", "THOUGHT")
        return f"{self._lead}thought"

    def calls(self, tools: Sequence[tuple[int, ToolSpec]], parallel: bool, *, apart: bool = False) -> str:
        """Return a rule for one call of one of `tools`, or for several.

        `apart`: its beginning is written word by word, as objects are, so that a reply may turn out to be the other.
        """
        heads = [
            f"{self._head(tool.name, apart)} {self._values.name(arguments)} {self._tail()}"
            for tool, arguments in self._read(tools)
        ]
        body = f"({' | '.join(heads)})"
        between = quoted(self._syntax.between)
        most = self._limits.calls if parallel else 1
        if self._syntax.listed:
            self._rule("call", body)
            items = f'"[" {listed("call", between, 1, most)} "]"'
            self._rule("calls", f"{self._tag(self._syntax.open)} {items} {self._tag(self._syntax.close)}")
            return "calls" if self._renderer.tags_are_tokens else f"{self._lead}calls"
        if self._syntax.open:
            body = f"{self._tag(self._syntax.open)} {body} {self._tag(self._syntax.close)}"
            between = f"{self._lead if self._renderer.tags_are_tokens else ''}{between}"
        self._rule("call", body)
        self._rule("calls", listed("call", between, 1, most))
        return "calls" if self._renderer.tags_are_tokens and self._syntax.open else f"{self._lead}calls"

    def fenced(self, tools: Sequence[tuple[int, ToolSpec]], block: Block, parallel: bool) -> str:
        """Return a rule for a fenced block of calls."""
        self._rule("GAP", r"/\n {0,24}| {1,2}/")
        body = " | ".join(
            f"{quoted(self._renderer.shielded(as_json(tool.name)) + block.after_name)} {self._fenced.name(arguments)}"
            for tool, arguments in self._read(tools)
        )
        self._rule("fenced_call", f"({body}) {quoted(block.after_arguments)}")
        most = self._limits.calls if parallel and block.between is not None else 1
        calls = listed("fenced_call", quoted(block.between or ""), 1, most)
        self._rule("fenced", f"{self._lead}{quoted(block.opening)} {calls} {quoted(block.closing)}")
        return "fenced"

    def _read(self, tools: Sequence[tuple[int, ToolSpec]]) -> list[tuple[ToolSpec, int]]:
        """Return each tool with the place of its arguments' shape."""
        found = []
        for place, tool in tools:
            where = f"tools[{place}].parameters"
            reading = read(tool.parameters, where, self._limits, self._arena, self._avoided)
            self.unsupported |= dict.fromkeys(reading.unsupported)
            found.append((tool, reading.place))
        return found

    def _writer_of(self, layout: Layout) -> ValueWriter:
        return ValueWriter(self._arena, layout, self._limits, self._rule, self._tags, self._renderer.shielded)

    def _head(self, name: str, apart: bool) -> str:
        """Return an expression for a call of a tool up to its arguments."""
        if self._syntax.style == "named":
            before, slot, after = self._syntax.mark.partition("{id}")
            identity = f"/[A-Za-z0-9]{{9}}/ {self._tag(after)}" if slot else ""
            return f"{quoted(self._renderer.shielded(name))} {self._tag(before)} {identity}"
        words = ["{", as_json(self._syntax.name_key), self._colon, as_json(name), self._comma]
        words += [as_json(self._syntax.arguments_key), self._colon]
        return " ".join(quoted(self._renderer.shielded(word)) for word in (words if apart else ["".join(words)]))

    def _tail(self) -> str:
        return "" if self._syntax.style == "named" else '"}"'

    def broken(self, calls: str) -> str:
        """Return a rule for `calls` after which the line may end: there a model decides that no further call comes."""
        return f'{calls} "\\n"?' if self._syntax.open else calls

    def _tag(self, text: str) -> str:
        """Return what opens or closes a call, with the space that belongs to it."""
        pieces = self._renderer.written_pieces(text)
        leads = ["", *(self._lead if isinstance(piece, int) else "" for piece in pieces)]
        return " ".join(
            f"<[{piece}]>" if isinstance(piece, int) else f"{lead}{quoted(piece)}"
            for piece, lead in zip(pieces, leads, strict=False)
        )

    def _line(self) -> str:
        """Return an expression for a line of text, not empty, that begins no call."""
        if not self._syntax.open:
            first = re.escape(_opener(self._syntax))
            return rf"/[ \t]*[^ \t\n{first}][^\n]*|[ \t]+/"
        if self._renderer.tags_are_tokens:
            return r"/[^\n]+/"
        return rf"/[^\n]+/ & ~/{self._forbidden()}/"

    def _forbidden(self) -> str:
        """Return an expression for the texts in which a call would begin; '' if only a token begins one."""
        if not self._syntax.open:
            return rf"((?s:.*)\n)?[ \t]*{re.escape(_opener(self._syntax))}(?s:.*)"
        if self._renderer.tags_are_tokens:
            return ""
        return f"(?s:.*){escaped(self._syntax.tags[0])}(?s:.*)"

    def _rule(self, name: str, body: str) -> None:
        self._rules.append(f"{name}: {body}")


def _opener(syntax: CallSyntax) -> str:
    """Return the character that a call begins with."""
    fixed = re.match(r"\\?([^\w\s.*+?()\[\]|^$\\])(?![?*{])", syntax.begins)
    alternatives = re.sub(r"\\.|\[[^\]]*\]|\([^()]*\)", "", syntax.begins)
    if fixed is None or "|" in alternatives:
        raise ContractError(
            f"calls that begin with {syntax.begins!r} cannot be told from text character by character; "
            "let the format's calls begin with a fixed bracket, or with a tag"
        )
    return fixed.group(1)
