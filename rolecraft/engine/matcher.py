"""Lets through only the tokens that keep a reply within its grammar, and tells those that leave no choice.

Not covered: drawing tokens, and a tokenizer without a fast implementation, which is refused.
"""

from __future__ import annotations

import bisect
import itertools
import json
import re
import threading
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import llguidance
import numpy as np
import torch

from rolecraft import grammar, wire
from rolecraft.engine.ending import Merged, Whole
from rolecraft.engine.key_scan import KeyScan
from rolecraft.engine.opening import Opening, opening_of
from rolecraft.errors import DataError, EngineError
from rolecraft.grammar import OnUnsupported, Wanted
from rolecraft.grammar.shapes import Limits
from rolecraft.renderers import Renderer
from rolecraft.types import Message

_KEPT = 64
_MOST_CHOICES = 20_000  # as many optional keys as a request can list take two each
_SPARE = 4  # tokens that it may take to end a character


@dataclass(frozen=True, slots=True)
class Settings:
    """What a grammar does beyond the schemas: where it ends what they leave open, and with keywords it cannot keep."""

    limits: Limits = field(default_factory=Limits)
    on_unsupported: OnUnsupported = "refuse"


class Grammars:
    """The grammars of one renderer and its tokenizer, compiled once and kept; any number of threads may ask.

    One that takes long to compile keeps nobody waiting but those who ask for it too; what is refused is kept as well.
    """

    def __init__(self, renderer: Renderer, tokenizer: Any, vocabulary: int, settings: Settings) -> None:
        """Prepare for masks of `vocabulary` tokens; the tokenizer is read when the first reply is to be held."""
        self._renderer, self._tokenizer, self._vocabulary, self._settings = renderer, tokenizer, vocabulary, settings
        self._read: _Words | None = None
        self._kept: OrderedDict[str, Future[_Compiled | str]] = OrderedDict()
        self._lock = threading.RLock()

    def start(self, wanted: Wanted, begun: Sequence[int] = ()) -> Matcher:
        """Return a matcher for a reply that begins with the tokens `begun`.

        Raises EngineError for a tokenizer that cannot be used, DataError for tools that cannot be made a grammar, or a
        beginning that does not fit it. Keywords that are ignored are told in a warning, once for each set of tools.
        """
        found = self._find(wanted)
        with self._lock:
            endings = [self._words.plain(f" Next: {role}.".encode()) for role in wanted.next_roles]
            ends = tuple((*ending, self._renderer.end_id) for ending in endings)
            whole = Whole.of(self._renderer, any(tool.repeatable for tool in wanted.tools))
            scan = KeyScan.of_reply() if found.open_keys else None
            opening = None if begun else found.opening
            matcher = Matcher(self._words, found.matcher.deep_copy(), scan, ends, whole, opening)
        try:
            for token in begun:
                matcher.accept(token)
        except EngineError as error:
            text = self._renderer.text(begun)
            raise DataError(f"the reply cannot begin with {text!r} if choice is {wanted.choice!r}") from error
        return matcher

    @property
    def _words(self) -> _Words:
        with self._lock:
            if self._read is None:
                self._read = _Words(_Plain(self._renderer, self._tokenizer), self._vocabulary)
            return self._read

    def _opening(self, wanted: Wanted) -> Opening | None:
        words = self._words
        fence_id = words.plain(f"{words.lead}{wanted.block.opening}".encode())[0]
        return opening_of(wanted, self._renderer, words.tokens, words.lead, fence_id, words.objects)

    def _find(self, wanted: Wanted) -> _Compiled:
        tools = [{"name": tool.name, "parameters": tool.parameters} for tool in wanted.tools]
        form = [wanted.choice, wanted.parallel, list(wanted.next_roles), wanted.schema]
        key = wire.dumps([tools, *form, wanted.lenient, wanted.block.opening])
        with self._lock:
            first = key not in self._kept
            kept = self._kept.setdefault(key, Future())
            self._kept.move_to_end(key)
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        if first:
            try:
                kept.set_result(self._compile(wanted))
            except DataError as error:
                kept.set_result(str(error))
            except BaseException as error:
                with self._lock:
                    self._kept.pop(key, None)
                kept.set_exception(error)  # those who wait for it would wait for ever
                raise
        found = kept.result()
        if isinstance(found, str):
            raise DataError(found)
        return found

    def _compile(self, wanted: Wanted) -> _Compiled:
        settings = self._settings
        written = grammar.write(self._renderer, wanted, settings.limits, settings.on_unsupported, self._words.lead)
        if written.ignored:
            warnings.warn(f"calls are not held to {'; '.join(written.ignored)}", stacklevel=2)
        limits = llguidance.LLParserLimits(verbose_errors=False, max_items_in_row=_MOST_CHOICES)
        text = llguidance.LLMatcher.grammar_from_lark(written.text)
        compiled = llguidance.LLMatcher(self._words.tokenizer, text, log_level=0, limits=limits)
        if compiled.is_error():
            reason = compiled.get_error().partition("\n")[0]
            what = f"{len(wanted.tools)} tools" if wanted.schema is None else "schema"
            raise DataError(f"the {what} cannot be made a grammar: {reason}; simplify what is asked for")
        return _Compiled(compiled, written.open_keys, self._opening(wanted))


@dataclass(frozen=True, slots=True)
class _Compiled:
    """llguidance's matcher at the beginning, and how the reply may begin.

    `open_keys` tells whether objects may have keys that no schema lists.
    """

    matcher: Any
    open_keys: bool
    opening: Opening | None


class Matcher:
    """One reply's way through its grammar, up to and including the end token."""

    def __init__(
        self,
        words: _Words,
        compiled: Any,
        scan: KeyScan | None,
        endings: tuple[tuple[int, ...], ...],
        whole: Whole,
        opening: Opening | None = None,
    ) -> None:
        self._words, self._compiled, self._endings, self._whole = words, compiled, endings, whole
        self._opening = opening
        self._scans = [scan] if scan is not None else []
        self._written: list[int] = []
        self._closing_from: int | None = None

    @property
    def finished(self) -> bool:
        """Whether the end token has been written."""
        return bool(self._compiled.is_stopped())

    def allowed(self, left: int | None = None) -> torch.Tensor:
        """Return which tokens may come next, (V,) booleans; raises EngineError if none can.

        `left` is how many tokens the reply may still have. A text that has to name the next role does it in the last.
        """
        words = self._words
        mask = np.zeros(words.vocabulary, dtype=bool)
        if closing := self._closing(left):
            mask[[ending[0] for ending in closing]] = True
            return torch.from_numpy(mask)
        bits = np.frombuffer(self._compiled.compute_bitmask(), dtype=np.uint8)
        known = np.unpackbits(bits, bitorder="little", count=min(words.vocabulary, 8 * len(bits)))
        mask[: len(known)] = known
        if self._scans:
            for token in self._scans[-1].doubtful(words, mask):
                mask[token] = not self._scans[-1].after(words.tokens[token]).clash
        if self._compiled.is_error() or not mask.any():
            reason = self._compiled.get_error().partition("\n")[0] or "no token of this tokenizer fits"
            raise EngineError(
                f"a constrained reply cannot go on: {reason}; simplify the schema, or do not constrain it"
            )
        return torch.from_numpy(mask)

    @property
    def is_open(self) -> bool:
        """Whether a reply that looks like a call so far may still be told to be text."""
        return self._may_be_open and self._opening is not None and self._opening.is_open(self._text)

    def doubted(self, allowed: torch.Tensor) -> torch.Tensor | None:
        """Return which tokens (V,) say that a call is meant, where `allowed` ones come next; None where none does."""
        if self._opening is None or not self._may_be_open:
            return None
        return self._opening.doubted(self._text, allowed)

    @property
    def _may_be_open(self) -> bool:
        """Whether the reply is short enough: of a longer one the text is not put together at each token."""
        return self._opening is not None and len(self._written) <= self._opening.longest

    @property
    def _text(self) -> bytes:
        return self._tail(len(self._written))

    def merged(self, allowed: torch.Tensor) -> Merged | None:
        """Return which tokens mean one that may come next, of `allowed` ones: the end, or where a call begins."""
        if self._opening is not None and not self._written:
            return self._opening.merged(allowed)
        whole = self._whole
        if not allowed[whole.end_id]:
            return None
        meant = torch.zeros_like(allowed)
        meant[whole.stop_ids] = True
        if whole.ends_in_call(self._tail(2 * len(whole.close) + 1)):
            meant |= whole.ends_in_twin(self._text)
        return Merged(whole.end_id, meant)

    def _tail(self, count: int) -> bytes:
        """Return what the last `count` tokens say."""
        return b"".join(map(self._words.tokens.__getitem__, self._written[len(self._written) - count :]))

    def forced(self, left: int | None = None) -> list[int]:
        """Return the tokens that come next whatever the model says; none where there is a choice."""
        if closing := self._closing(left):
            alike = itertools.takewhile(lambda tokens: len(set(tokens)) == 1, zip(*closing, strict=False))
            return [tokens[0] for tokens in alike]
        tokens = list(self._compiled.compute_ff_tokens())
        return self._up_to_name(tokens) if self.is_open else tokens

    def _up_to_name(self, tokens: list[int]) -> list[int]:
        """Return those of forced tokens that stand before a first call's name: whether it is meant is asked there."""
        text = self._text
        for count, token in enumerate(tokens):
            if self._opening is not None and self._opening.is_name(text):
                return tokens[:count]
            text += self._words.tokens[token]
        return tokens

    def accept(self, token: int) -> None:
        """Take a token; raises EngineError, and takes nothing, if it does not fit."""
        scan = self._scans[-1].after(self._words.tokens[token]) if self._scans else None
        if self.finished or (scan and scan.clash) or self._compiled.try_consume_tokens([token]) != 1:
            if self._compiled.is_error():
                reason = self._compiled.get_error().partition("\n")[0]
                raise DataError(f"a reply cannot be held to what is asked for: {reason}; describe less, or split it")
            raise EngineError(f"token {token} does not fit the grammar of the reply")
        self._scans += [scan] if scan else []
        self._written.append(token)

    def rollback(self, count: int) -> None:
        """Take back the last `count` tokens."""
        if not 0 <= count <= len(self._written):
            raise EngineError(f"cannot take back {count} tokens of {len(self._written)}")
        if count and not self._compiled.rollback(count):
            raise EngineError(f"cannot take back {count} tokens: {self._compiled.get_error()}")
        kept = len(self._written) - count
        del self._written[kept:], self._scans[kept + 1 :]
        if self._closing_from is not None and self._closing_from > kept:
            self._closing_from = None

    def copy(self) -> Matcher:
        """Return a matcher at the same point, which goes its own way."""
        matcher = Matcher(self._words, self._compiled.deep_copy(), None, self._endings, self._whole, self._opening)
        matcher._scans, matcher._written = self._scans.copy(), self._written.copy()
        matcher._closing_from = self._closing_from
        return matcher

    def _closing(self, left: int | None) -> list[tuple[int, ...]]:
        """Return what is left of each possible ending once there is no room for anything else."""
        if not self._endings or self.finished:
            return []
        if self._closing_from is None:
            if left is None or left > max(map(len, self._endings)) + _SPARE or not self._can_close():
                return []
            self._closing_from = len(self._written)
        begun = tuple(self._written[self._closing_from :])
        return [ending[len(begun) :] for ending in self._endings if ending[: len(begun)] == begun]

    def _can_close(self) -> bool:
        """Tell whether an ending fits here: not within a character, nor within an ending that is being written."""
        if self._compiled.compute_ff_tokens():
            return False
        return all(self._compiled.validate_tokens(list(ending)) == len(ending) for ending in self._endings)


class _Plain:
    """Turns text into ids as a tokenizer does, but never into control tokens; `tokens` are their bytes by id."""

    def __init__(self, renderer: Renderer, tokenizer: Any) -> None:
        fast = getattr(tokenizer, "backend_tokenizer", None)
        if fast is None:
            raise EngineError(f"{type(tokenizer).__name__} has no fast implementation, which constrained replies need")
        data = json.loads(fast.to_str()) | {"padding": None, "truncation": None}
        # The end token is in the grammar; what llguidance takes for it is a token that no reply has.
        end = min(renderer.control_ids - renderer.stop_ids, default=renderer.end_id)
        self._given = llguidance.LLTokenizer(json.dumps(data), eos_token=end, slices=[])
        self.tokens = [bytes(self._given.decode_bytes([token])) for token in range(self._given.vocab_size)]
        self.eos_token_id, self.bos_token_id, self.special_token_ids = end, None, sorted(renderer.control_ids)
        text = b"".join(map(self.tokens.__getitem__, renderer.reply(Message("assistant", "x"))[:-1]))
        self.lead = text.removesuffix(b"x").decode()
        markers = sorted((self.tokens[token] for token in renderer.control_ids), key=len, reverse=True)
        self._markers = re.compile(b"|".join(map(re.escape, markers)))

    def __call__(self, text: bytes) -> list[int]:
        """Return the ids of `text`; a marker in it is cut in two."""
        ids: list[int] = self._given.tokenize_bytes(text)
        if set(self.special_token_ids).isdisjoint(ids):
            return ids
        starts = [0, *(match.start() + 1 for match in self._markers.finditer(text)), len(text)]
        parts = [text[start:end] for start, end in itertools.pairwise(starts)]
        return [i for part in parts for i in self._given.tokenize_bytes(part)]


class _Words:
    """A tokenizer as llguidance has it, and the size of the masks."""

    def __init__(self, plain: _Plain, vocabulary: int) -> None:
        self.tokenizer = llguidance.LLTokenizer(llguidance.TokenizerWrapper(plain))
        self.plain, self.tokens, self.vocabulary, self.lead = plain, plain.tokens, vocabulary, plain.lead

    @cached_property
    def quoting(self) -> dict[int, np.ndarray[Any, np.dtype[np.int64]]]:
        """The tokens with at least two double quotes, and with at least three."""
        quotes = np.array([token.count(b'"') for token in self.tokens[: self.vocabulary]])
        return {least: np.flatnonzero(quotes >= least) for least in (2, 3)}

    @cached_property
    def objects(self) -> torch.Tensor:
        """Which tokens begin an object or a list, (V,) booleans."""
        begins = [token.lstrip().startswith((b"{", b"[")) for token in self.tokens[: self.vocabulary]]
        return torch.tensor(begins + [False] * (self.vocabulary - len(begins)))

    @cached_property
    def _sorted(self) -> tuple[list[bytes], list[int]]:
        places = sorted(range(min(len(self.tokens), self.vocabulary)), key=self.tokens.__getitem__)
        return [self.tokens[place] for place in places], places

    def beginning(self, text: bytes) -> list[int]:
        """Return the tokens that begin with `text`."""
        tokens, places = self._sorted
        return places[bisect.bisect_left(tokens, text) : bisect.bisect_right(tokens, text + b"\xff" * 64)]
