"""Sees to it that the keys of an object which no schema lists are all different: grammars cannot.

Not covered: text whose JSON no grammar holds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from rolecraft.grammar.fenced import LIST
from rolecraft.grammar.values import LONGEST_FREE_KEY

_NEWLINE, _QUOTE, _BACKSLASH, _BRACE, _BRACKET = b'\n"\\{['
_BLANK = b" \t"
_SPECIAL = b'"\\\n'
_PIECES = re.compile(rb'[^"\\\n]+|["\\\n]')
_FENCE = LIST.opening.partition("\n")[0].encode() + b"\n"


class Words(Protocol):
    """A tokenizer's tokens, as far as keys are looked for in them."""

    @property
    def quoting(self) -> dict[int, np.ndarray[Any, np.dtype[np.int64]]]:
        """The tokens with at least two double quotes, and with at least three."""

    def beginning(self, text: bytes) -> list[int]:
        """Return the tokens that begin with `text`."""


@dataclass(frozen=True, slots=True)
class KeyScan:
    """Where in the JSON of a line, or of a fenced block that begins a reply, its writer is, and the open objects' keys.

    `text` is what of a string is written (None: outside of strings). `clash`: a key is, or can only become, one that is
    there already. `fence` is what is left of the line that begins a fenced block, `in_fence` tells that it is written.
    """

    opened: tuple[frozenset[bytes] | None, ...] = ()
    text: bytes | None = None
    is_key: bool = False
    escaped: bool = False
    expects_key: bool = False
    at_start: bool = True
    clash: bool = False
    fence: bytes = b""
    in_fence: bool = False

    @classmethod
    def of_reply(cls) -> KeyScan:
        """Return the state before a reply."""
        return cls(fence=_FENCE)

    def after(self, data: bytes) -> KeyScan:
        """Return the state after more bytes."""
        scan = self
        for piece in _PIECES.findall(data):
            if scan.text is None or scan.escaped or piece[0] in _SPECIAL:
                for byte in piece:
                    scan = scan._step(byte)
            elif scan.is_key:
                scan = replace(scan, text=scan.text + piece)
        return replace(scan, clash=True) if scan._ends_in_a_clash() else scan

    def doubtful(self, words: Words, mask: np.ndarray[Any, np.dtype[np.bool_]]) -> list[int]:
        """Return the allowed tokens after which a key might be there twice."""
        if not any(self.opened):
            return []
        tokens = set(words.quoting[2 if self.text is None else 3].tolist())
        if self.text is not None and self.is_key:
            rests = [key.removeprefix(self.text) for key in self.opened[-1] or () if key.startswith(self.text)]
            tokens.update(token for rest in rests for token in words.beginning(rest or b'"'))
        return [token for token in tokens if mask[token]]

    def _ends_in_a_clash(self) -> bool:
        """Tell whether a key as long as can be is there already: nothing but its end can follow."""
        if self.text is None or not self.is_key or self.text not in (self.opened[-1] or ()):
            return False
        return len(self.text.decode("utf-8", "replace")) >= LONGEST_FREE_KEY

    def _step(self, byte: int) -> KeyScan:
        if byte == _NEWLINE and not self.in_fence:  # none is within the JSON of a call in the format's own syntax
            return KeyScan(in_fence=self.fence == b"\n")
        if not self.opened:
            return self._outside(byte)
        if self.text is None:
            return self._between(byte)
        text = self.text + bytes([byte]) if self.is_key else b""
        if self.escaped or byte != _QUOTE:
            return replace(self, text=text, escaped=byte == _BACKSLASH and not self.escaped)
        if not self.is_key:
            return replace(self, text=None)
        keys = self.opened[-1] or frozenset()
        return replace(
            self, text=None, opened=(*self.opened[:-1], keys | {self.text}), clash=self.clash or self.text in keys
        )

    def _outside(self, byte: int) -> KeyScan:
        if byte == _BRACE and (self.at_start or self.in_fence):
            return replace(self, opened=(frozenset(),), expects_key=True, at_start=False)
        if byte == _BRACKET and self.in_fence:
            return replace(self, opened=(None,))
        fence = self.fence[1:] if self.fence[:1] == bytes([byte]) else b""
        return replace(self, at_start=self.at_start and byte in _BLANK, fence=fence)

    def _between(self, byte: int) -> KeyScan:
        match byte:
            case 0x22:
                return replace(self, text=b"", is_key=self.expects_key)
            case 0x7B | 0x5B:
                is_object = byte == _BRACE
                return replace(self, opened=(*self.opened, frozenset() if is_object else None), expects_key=is_object)
            case 0x7D | 0x5D:
                return replace(self, opened=self.opened[:-1], expects_key=False)
            case 0x2C:
                return replace(self, expects_key=self.opened[-1] is not None)
        return replace(self, expects_key=False) if byte == 0x3A else self
