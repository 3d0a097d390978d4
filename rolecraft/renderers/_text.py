"""Text to ids and back for one tokenizer, such that only a template can become a control token.

A marker that content spells out is cut in two (a SentencePiece tokenizer then puts a space at the cut).
Not covered: a tokenizer whose ordinary vocabulary holds a marker without declaring it an added token.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

Piece = str | int
"""Plain text, or the id of a control token."""

REASONING_TAGS = ("<think>", "</think>")
"""Around the reasoning in a reply's text; a tokenizer that has them as tokens gets them as such."""

_MARKER = re.compile(r"<[^<>\s]+>|\[[A-Z_/]+\]")
_GUARD = "\ue000"  # of the letters that nobody's texts have
_REMEMBERED = 2_000_000  # characters, which with their ids take some 15 bytes each


def reasoning_end(text: str) -> int | None:
    """Return where the reasoning that a reply's text opens with ends, 0 if there is none; None if it does not end."""
    opening, closing = REASONING_TAGS
    if not text.lstrip().startswith(opening):
        return 0
    end = text.find(closing)
    return None if end < 0 else end + len(closing)


class AddedToken(Protocol):
    """What `transformers` tells of an added token."""

    content: str
    special: bool
    lstrip: bool
    rstrip: bool


class Tokenizer(Protocol):
    """The part of a `transformers` tokenizer that renderers use."""

    init_kwargs: dict[str, Any]
    unk_token_id: int | None

    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]:
        """Added tokens by id, each an `AddedToken`."""
        ...

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return the ids of `text`."""
        ...

    def decode(self, ids: list[int], *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool) -> Any:
        """Return the text of `ids`."""
        ...


class Codec:
    """A tokenizer with its control tokens kept apart from its text; safe to share between threads."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder.items()
        tokens = {i: token for i, token in added if token.special or _MARKER.fullmatch(token.content)}
        self.control = {token.content: i for i, token in tokens.items()}
        self._texts = {i: token.content for i, token in tokens.items()}
        self._strips_right = frozenset(i for i, token in tokens.items() if token.rstrip)
        self._strips_left = frozenset(i for i, token in tokens.items() if token.lstrip)
        self._forbidden = frozenset(self._texts) - {tokenizer.unk_token_id}
        longest_first = sorted(self.control, key=len, reverse=True)
        self._find = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._lock = threading.Lock()
        self._seen = Seen(_REMEMBERED)
        self._encode("")  # a tokenizer drops its own truncation at the first call: from then on nothing changes it

    def plain(self, text: str) -> tuple[int, ...]:
        """Return the ids of untrusted `text`; no control token is among them, whatever the text says."""
        ids = self._seen.get(text)
        if ids is None:
            ids = self._plain(text)
            self._seen.put(text, ids)
        return ids

    def template(self, text: str, only: Iterable[str] | None = None) -> tuple[Piece, ...]:
        """Return trusted text as pieces: its control tokens (those in `only`, if given) as ids, the rest as text."""
        allowed = self.control.keys() if only is None else self.control.keys() & set(only)
        pieces: list[Piece] = []
        end = 0
        for match in self._find.finditer(text):
            if match.group() in allowed:
                pieces += [text[end : match.start()], self.control[match.group()]]
                end = match.end()
        return tuple(piece for piece in (*pieces, text[end:]) if piece != "")

    def guarded(self, text: str, only_not: Iterable[str] = ()) -> str:
        """Return untrusted `text` for somebody else's template: no control token is spelled in it, but for some.

        `unguarded` undoes it.
        """
        allowed = frozenset(only_not)

        def broken(match: re.Match[str]) -> str:
            mark = match.group()
            return mark if mark in allowed else f"{mark[0]}{_GUARD}{mark[1:]}"

        return self._find.sub(broken, text)

    def unguarded(self, text: str) -> tuple[Piece, ...]:
        """Return what a template wrote as pieces; its own control tokens are ids, those of guarded text are text."""
        pieces = (piece.replace(_GUARD, "") if isinstance(piece, str) else piece for piece in self.template(text))
        return tuple(piece for piece in pieces if piece != "")

    def first_control(self, text: str) -> str | None:
        """Return the first control token that `text` spells out."""
        match = self._find.search(text)
        return match.group() if match else None

    def first_mark(self, text: str, tags: Iterable[str] = ()) -> str | None:
        """Return the first control token, or one of `tags`, that `text` spells out; reasoning's tags do not count."""
        spelled = (match.group() for match in self._find.finditer(text))
        marks = [mark for mark in spelled if self.control[mark] in self._forbidden and mark not in REASONING_TAGS]
        return min({*marks[:1], *(tag for tag in tags if tag in text)}, key=text.index, default=None)

    def encode(self, pieces: Iterable[Piece]) -> tuple[int, ...]:
        """Return the ids of `pieces`; neighbouring texts are tokenised as one, as the family's own template would."""
        ids: list[int] = []
        text = ""
        for piece in pieces:
            if isinstance(piece, str):
                text += piece
                continue
            ids += self._between(ids, text, piece)
            ids.append(piece)
            text = ""
        ids += self._between(ids, text, None)
        return tuple(ids)

    def segments(self, ids: Sequence[int]) -> list[tuple[str, bool]]:
        """Return `ids` as runs of (text, whether it is one control token); any ids are fine."""
        runs: list[tuple[str, bool]] = []
        plain: list[int] = []
        for i in ids:
            if i not in self._texts:
                plain.append(i)
                continue
            if plain:
                runs.append((self._decode(plain), False))
                plain = []
            runs.append((self._texts[i], True))
        return [*runs, (self._decode(plain), False)] if plain else runs

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`, control tokens spelled out."""
        return "".join(text for text, _ in self.segments(ids))

    def _between(self, ids: list[int], text: str, following: int | None) -> tuple[int, ...]:
        # A token declared to strip its neighbours swallows the template's newline, as it does in the tokenizer itself.
        if ids and ids[-1] in self._strips_right:
            text = text.lstrip()
        if following in self._strips_left:
            text = text.rstrip()
        return self.plain(text) if text else ()

    def _plain(self, text: str) -> tuple[int, ...]:
        text = _without_lone_surrogates(text)
        ids = self._encode(text)
        if self._forbidden.isdisjoint(ids):
            return tuple(ids)
        parts = self._cut(text)
        known = {part: self._encode(part) for part in dict.fromkeys(parts)}  # a text of markers repeats its parts
        ids = [i for part in parts for i in known[part]]
        if self._forbidden.isdisjoint(ids):
            return tuple(ids)
        # A normaliser can turn other text into a marker; single characters cannot be one.
        ids = [i for character in text for i in self._encode(character)]
        return tuple(i for i in ids if i not in self._forbidden)

    def _cut(self, text: str) -> list[str]:
        """Return `text` in parts, cut within each spelled-out control token."""
        parts: list[str] = []
        start, match = 0, self._find.search(text)
        while match:
            cut = match.start() + 1
            parts.append(text[start:cut])
            start, match = cut, self._find.search(text, cut)
        return [*parts, text[start:]]

    def _encode(self, text: str) -> list[int]:
        with self._lock:
            return self._tokenizer.encode(text, add_special_tokens=False)

    def _decode(self, ids: list[int]) -> str:
        # Without the lock: decoding changes nothing, and whoever streams must not wait for a long text's encoding.
        return str(self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


class Seen:
    """The ids of texts met before, the least recently used forgotten first; safe to share between threads."""

    def __init__(self, characters: int) -> None:
        """Remember texts of so many characters together: how many texts that is says little of their size."""
        self._most = characters
        self._held = 0
        self._ids: OrderedDict[str, tuple[int, ...]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, text: str) -> tuple[int, ...] | None:
        """Return the ids of `text` if they are known."""
        with self._lock:
            if text in self._ids:
                self._ids.move_to_end(text)
            return self._ids.get(text)

    def put(self, text: str, ids: tuple[int, ...]) -> None:
        """Remember the ids of `text`, and forget what no longer fits."""
        with self._lock:
            if text not in self._ids:
                self._ids[text] = ids
                self._held += len(text)
            while self._held > self._most:
                forgotten, _ = self._ids.popitem(last=False)
                self._held -= len(forgotten)


def _without_lone_surrogates(text: str) -> str:
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
