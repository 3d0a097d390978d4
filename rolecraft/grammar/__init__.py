"""Writes the grammar of a reply: calls in a chat format's own syntax, JSON of a schema, or whose turn comes next.

The grammar is in llguidance's dialect of Lark. A reply that follows it to its end parses, and its calls fit their
schemas. Narrower than the format: where calls are lines of JSON, no line of text begins with their first bracket.
Not covered: keys of an object that are all different where the schema leaves them open; `matcher` sees to that.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rolecraft.errors import ContractError, DataError
from rolecraft.grammar import patterns, schemas
from rolecraft.grammar.shapes import Arena, Either, Items, Limits, Literals, Number, Record, Shape, Text
from rolecraft.renderers import CallSyntax, Renderer
from rolecraft.types import Choice, Json, ToolSpec

OnUnsupported = Literal["refuse", "ignore"]

_LONGEST_NAME = 256
_LONGEST_GRAMMAR = 2_000_000
_SHOWN = 5
_CHARACTER = r'[^"\\\x00-\x1f\x7f]|\\[' + patterns.ESCAPES.replace("\\", r"\\") + "]"
_KEY_CHARACTER = r'[^"\\\x00-\x1f\x7f]'
LONGEST_FREE_KEY = 32
"""Characters of a key that no schema lists."""

_LONGER_TEXTS = 16
"""How many times as long as in a call's arguments a text of an answer may be where its schema leaves it open."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a reply may be.

    `choice` is `none` (text), `auto` (text, calls or both), `required` (calls, no text) or the name of the one tool to
    be called. `parallel`: several calls are allowed. `next_roles`: the text ends by naming one of them; no calls then.
    `schema`: where a reply may be text, it is JSON that fits, or calls.
    """

    tools: tuple[ToolSpec, ...] = ()
    choice: Choice = "auto"
    parallel: bool = True
    next_roles: tuple[str, ...] = ()
    schema: Mapping[str, Json] | None = None


@dataclass(frozen=True, slots=True)
class Grammar:
    """A reply's grammar; `ignored` are the paths of schema keywords it does not keep.

    `open_keys`: some object may hold keys that no schema lists, which have to be kept different.
    """

    text: str
    ignored: tuple[str, ...] = ()
    open_keys: bool = False


def write(
    renderer: Renderer, wanted: Wanted, limits: Limits, on_unsupported: OnUnsupported = "refuse", lead: str = ""
) -> Grammar:
    """Return the grammar of a whole reply, the end token included.

    `lead` is what the tokenizer puts before any text, a space in some families. Raises DataError for tools that cannot
    be written or made a grammar, and for a keyword that is not supported unless those are to be ignored; ContractError
    for a format whose calls have no fixed beginning.
    """
    chosen = _chosen(wanted)
    for role in wanted.next_roles:
        if not re.fullmatch(r"\w+", role):
            raise DataError(f"role {role!r} cannot be named as the next one; use letters, digits and '_'")
    writer = _Writer(renderer, limits, lead)
    if wanted.next_roles:
        reply = writer.thought(wanted.next_roles)
    else:
        reply = _calls_or_text(writer, wanted, chosen)
        if writer.unsupported and on_unsupported == "refuse":
            raise DataError(_unsupported(tuple(writer.unsupported)))
    text = writer.finished(reply)
    if len(text) > _LONGEST_GRAMMAR:
        raise DataError(f"the grammar of {len(chosen)} tools has {len(text)} characters; offer fewer, or smaller ones")
    return Grammar(text, tuple(writer.unsupported), writer.open_keys)


def _calls_or_text(writer: _Writer, wanted: Wanted, chosen: Sequence[tuple[int, ToolSpec]]) -> str:
    """Return a rule for calls of the chosen tools, for text or for both, as `wanted.choice` says."""
    calls = writer.calls(chosen, wanted.parallel, apart=wanted.schema is not None) if chosen else ""
    if calls and wanted.parallel:
        calls = writer.broken(calls)
    if calls and wanted.choice != "auto":
        return calls
    if wanted.schema is not None:
        content = writer.content(wanted.schema)
        return f"({content} | {calls})" if calls else content
    return writer.text_and(calls) if calls else writer.text()


def _chosen(wanted: Wanted) -> list[tuple[int, ToolSpec]]:
    """Return the tools that may be called, each with its place."""
    tools = list(enumerate(wanted.tools))
    if wanted.choice == "none" or (wanted.choice == "auto" and not tools):
        return []
    if not tools:
        raise DataError(f"choice is {wanted.choice!r} and there are no tools; give tools, or ask for 'none'")
    for place, tool in tools:
        if not tool.name.strip() or len(tool.name) > _LONGEST_NAME or not tool.name.isprintable():
            raise DataError(
                f"tools[{place}].name is {tool.name[:40]!r}; it must be 1 to {_LONGEST_NAME} printable characters"
            )
    if wanted.choice in ("auto", "required"):
        return tools
    named = [pair for pair in tools if pair[1].name == wanted.choice]
    if not named:
        names = [tool.name for tool in wanted.tools]
        near = difflib.get_close_matches(wanted.choice, names, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(names[:8])}."
        raise DataError(f"choice is {wanted.choice!r}, which is no tool, nor none, auto or required. {hint}")
    return named


def _unsupported(paths: Sequence[str]) -> str:
    shown = "; ".join(paths[:_SHOWN]) + (f"; and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else "")
    return f"schema keywords that a grammar cannot keep: {shown}. Drop them, or ignore what is unsupported"


class _Writer:
    """Writes rules; a shape's rule has its number."""

    def __init__(self, renderer: Renderer, limits: Limits, lead: str) -> None:
        self.unsupported: dict[str, None] = {}
        self.open_keys = False
        self._end = f"<[{renderer.end_id}]>"
        self._lead = f"{_quoted(lead)} " if lead else ""
        self._renderer, self._syntax, self._limits = renderer, renderer.call_syntax, limits
        self._tags = () if renderer.tags_are_tokens else self._syntax.tags
        self._avoided = f"^[^{''.join(re.escape(tag[0]) for tag in self._tags)}]*$" if self._tags else ""
        self._comma, self._colon = (",", ":") if self._syntax.compact else (", ", ": ")
        self._arena = Arena()
        self._rules: list[str] = []
        self._names: dict[int, str] = {}

    def finished(self, reply: str) -> str:
        """Return the grammar whose replies are `reply`."""
        return "\n".join([f"start: {reply} {self._end}", *self._rules, ""])

    def text(self) -> str:
        """Return a rule for text without calls."""
        self._rule("LINE", self._line())
        self._rule("text", rf'{self._lead}LINE? ("\n" LINE?)*')
        return "text"

    def text_and(self, calls: str) -> str:
        """Return a rule for text, `calls`, or the one and on a new line the other."""
        apart = _quoted(self._syntax.after_text)
        return rf"({self.text()} ({apart} {calls.removeprefix(self._lead)})? | {calls})"

    def content(self, schema: Mapping[str, Json]) -> str:
        """Return a rule for a text that is JSON of `schema`."""
        limits = replace(self._limits, text=self._limits.text * _LONGER_TEXTS)
        reading = schemas.read(schema, "schema", limits, self._arena, self._avoided, content=True)
        self.unsupported |= dict.fromkeys(reading.unsupported)
        return f"{self._lead}{self._name(reading.place)}"

    def thought(self, roles: Sequence[str]) -> str:
        """Return a rule for text that ends as soon as it names one of `roles` as the next."""
        names = " | ".join(map(_quoted, roles))
        forbidden = self._forbidden()
        without = f" & ~/{forbidden}/" if forbidden else ""
        self._rule("THOUGHT", rf'( /((?s:.*)[ \n])?Next: / ({names}) "." ){without}')
        self._rule("thought[lazy]", "THOUGHT")
        return f"{self._lead}thought"

    def calls(self, tools: Sequence[tuple[int, ToolSpec]], parallel: bool, *, apart: bool = False) -> str:
        """Return a rule for one call of one of `tools`, or for several.

        `apart`: its beginning is written word by word, as objects are, so that a reply may turn out to be the other.
        """
        heads = []
        for place, tool in tools:
            where = f"tools[{place}].parameters"
            reading = schemas.read(tool.parameters, where, self._limits, self._arena, self._avoided)
            self.unsupported |= dict.fromkeys(reading.unsupported)
            heads.append(f"{self._head(tool.name, apart)} {self._name(reading.place)} {self._tail()}")
        body = f"({' | '.join(heads)})"
        between = _quoted(self._syntax.between)
        most = self._limits.calls if parallel else 1
        if self._syntax.listed:
            self._rule("call", body)
            listed = f'"[" {_listed("call", between, 1, most)} "]"'
            self._rule("calls", f"{self._tag(self._syntax.open)} {listed} {self._tag(self._syntax.close)}")
            return "calls" if self._renderer.tags_are_tokens else f"{self._lead}calls"
        if self._syntax.open:
            body = f"{self._tag(self._syntax.open)} {body} {self._tag(self._syntax.close)}"
            between = f"{self._lead if self._renderer.tags_are_tokens else ''}{between}"
        self._rule("call", body)
        self._rule("calls", _listed("call", between, 1, most))
        return "calls" if self._renderer.tags_are_tokens and self._syntax.open else f"{self._lead}calls"

    def _head(self, name: str, apart: bool) -> str:
        """Return an expression for a call of a tool up to its arguments."""
        if self._syntax.style == "named":
            before, slot, after = self._syntax.mark.partition("{id}")
            identity = f"/[A-Za-z0-9]{{9}}/ {self._tag(after)}" if slot else ""
            return f"{_quoted(self._renderer.shielded(name))} {self._tag(before)} {identity}"
        words = ["{", _json(self._syntax.name_key), self._colon, _json(name), self._comma]
        words += [_json(self._syntax.arguments_key), self._colon]
        return " ".join(_quoted(self._renderer.shielded(word)) for word in (words if apart else ["".join(words)]))

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
            f"<[{piece}]>" if isinstance(piece, int) else f"{lead}{_quoted(piece)}"
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
        return f"(?s:.*){_escaped(self._syntax.tags[0])}(?s:.*)"

    def _rule(self, name: str, body: str) -> None:
        self._rules.append(f"{name}: {body}")

    def _name(self, place: int) -> str:
        """Return the name of a shape's rule, which is written when first asked for."""
        if place not in self._names:
            shape = self._arena.shapes[place]
            terminal = isinstance(shape, Literals) or (isinstance(shape, Number) and not shape.step)
            terminal = terminal or (isinstance(shape, Text) and not shape.patterns)
            self._names[place] = f"{'S' if terminal else 's'}{place}"
            self._rule(self._names[place], self._body(shape, self._names[place]))
        return self._names[place]

    def _body(self, shape: Shape, name: str) -> str:
        match shape:
            case Literals(texts):
                return " | ".join(_quoted(self._renderer.shielded(text)) for text in texts)
            case Text():
                return self._text(shape)
            case Number():
                return self._number(shape)
            case Items():
                return self._items(shape, name)
            case Record():
                return self._record(shape, name)
            case Either(options):
                return " | ".join(map(self._name, options))

    def _text(self, shape: Text) -> str:
        if shape.patterns:
            return f"%json {json.dumps(patterns.string_schema(shape.least, shape.most, shape.patterns))}"
        return self._string(_CHARACTER, shape.least, shape.most)

    def _string(self, character: str, least: int, most: int, taken: Sequence[str] = ()) -> str:
        """Return an expression for a JSON string of so many characters that is none of `taken` and holds no tag."""
        body = f"/({character}){{{least},{most}}}/"
        if self._tags:
            tags = "|".join(map(_escaped, self._tags))
            body += f" & ~/(?s:.*)({tags})(?s:.*)/"
        whole = rf'"\"" ( {body} ) "\""'
        return f"( {whole} ) & ~( {' | '.join(map(_quoted, taken))} )" if taken else whole

    def _number(self, shape: Number) -> str:
        digits, places = self._limits.digits, self._limits.places
        if shape.low is None or shape.high is None:
            natural = f"-?(0|[1-9][0-9]{{0,{digits - 1}}})"
            return f"/{natural}/" if shape.whole else rf"/{natural}(\.[0-9]{{1,{places}}})?([eE][+-]?[0-9]{{1,2}})?/"
        low, high = shape.low, shape.high
        if shape.step:
            ends = {"minimum": int(low.value), "maximum": int(high.value), "multipleOf": shape.step}
            return f"%json {json.dumps({'type': 'integer', **ends})}"
        if shape.whole:
            return f"/{patterns.integers(int(low.value), int(high.value))}/"
        return f"/{patterns.decimals(low, high, shape.places)}/"

    def _items(self, shape: Items, name: str) -> str:
        """Write a rule for what may follow each of the first items; return the list's own."""
        comma, after = _quoted(self._comma), ""
        more = shape.most - len(shape.first)
        if shape.rest is not None and more:
            least, rest = max(0, shape.least - len(shape.first)), self._name(shape.rest)
            after = _times(f"({comma} {rest})", least, more) if shape.first else _listed(rest, comma, least, more)
        for place in reversed(range(len(shape.first))):
            item = f"{comma if place else ''} {self._name(shape.first[place])} {after}"
            after = f"{name}_{place}" if place < shape.least else f"{name}_{place}?"
            self._rule(f"{name}_{place}", item)
        return f'"[" {after} "]"'

    def _record(self, shape: Record, name: str) -> str:
        """Write a rule for each key, at the beginning and after others; return the object's own.

        Where a key is optional, the rule at its place also leads to what follows without it.
        """
        comma, colon = _quoted(self._comma), _quoted(self._colon)
        first, later = self._free_keys(shape, name)
        for place in reversed(range(len(shape.keys))):
            key, value, must = shape.keys[place]
            pair = f"{_quoted(self._renderer.shielded(_json(key)))} {colon} {self._name(value)}"
            beginning = f"{pair} {later}"
            alone = must or (shape.some and place == len(shape.keys) - 1)
            self._rule(f"{name}_{place}", beginning if alone or not first else f"{beginning} | {first}")
            first = f"{name}_{place}" if alone or first else f"{name}_{place}?"
            self._rule(f"{name}_{place}_later", f"{comma} {pair} {later}" if must else f"({comma} {pair})? {later}")
            later = f"{name}_{place}_later"
        return f'"{{" {first} "}}"'

    def _free_keys(self, shape: Record, name: str) -> tuple[str, str]:
        """Return rules for the keys that no schema lists, at the beginning and after others."""
        if shape.rest is None or not shape.most:
            return "", ""
        self.open_keys = True
        taken = [self._renderer.shielded(_json(key)) for key in shape.taken]
        key = name.upper().replace("S", "K")
        self._rule(key, self._string(_KEY_CHARACTER, 1, LONGEST_FREE_KEY, taken))
        pair = f"{key} {_quoted(self._colon)} {self._name(shape.rest)}"
        comma = _quoted(self._comma)
        first = _listed(f"({pair})", comma, shape.least, shape.most)
        return first, _times(f"({comma} {pair})", shape.least, shape.most)


def _times(expression: str, least: int, most: int) -> str:
    return f"{expression}{{{least},{most}}}" if most else ""


def _listed(item: str, comma: str, least: int, most: int) -> str:
    """Return an expression for `least` to `most` items with `comma` between them; `most` is at least 1."""
    items = f"{item} {_times(f'({comma} {item})', max(0, least - 1), most - 1)}"
    return items if least else f"({items})?"


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


def _escaped(text: str) -> str:
    return re.escape(text).replace("/", r"\/")


def _json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _quoted(text: str) -> str:
    """Return `text` as a literal of the grammar, whatever it holds."""
    return json.dumps(text)
