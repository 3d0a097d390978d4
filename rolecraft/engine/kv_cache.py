"""The KV cache: keys and values of many token sequences, which join, leave and share beginnings without being copied.

A token here is any integer that tells what was computed: with roles, a token's id and its role's together. A scope is a
name under which tokens were computed: they are reused only by who names it, so that no caller learns of another's.

Not covered: sliding-window, chunked, linear or compressed attention, whose caches forget.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch

_ROWS = 4
_COLUMNS = 128
_SCOPES = 64  # that a row remembers beside its own, the newest


class KVCache:
    """Rows of cached tokens; they serve as the `past_key_values` of a transformers model, which only calls `update`.

    Per layer there is one buffer of keys and one of values, (rows, heads, columns, width), made when the layer first
    writes and grown on demand. Row `r` holds `tokens[r]` in its first columns; what lies beyond them is free. The last
    column belongs to nobody: tokens that only fill up a batch are written there.
    """

    def __init__(self, rows: int, columns: int, device: torch.device | str = "cpu") -> None:
        """Hold at most `rows` sequences of `columns` tokens."""
        self.tokens: list[list[int]] = []
        self.columns = 0
        self.is_compileable = False
        self._scopes: list[dict[str, int]] = []  # how many of a row's first tokens each scope may reuse
        self._limits = (rows, columns + 1)
        self._device = torch.device(device)
        self._freed: list[int] = []  # when each row was last freed, counted in calls of `free`
        self._keys: list[torch.Tensor] = []
        self._values: list[torch.Tensor] = []
        self._read: slice | torch.Tensor = slice(0)
        self._depth = 0
        self._targets = torch.empty(0, dtype=torch.long)  # (B, Q): row * columns + column
        self._flat: dict[int, torch.Tensor] = {}

    @property
    def nbytes(self) -> int:
        """The size of the buffers in bytes."""
        return sum(buffer.nbytes for buffer in (*self._keys, *self._values))

    @property
    def max_bytes(self) -> int:
        """The bytes that the buffers may come to, one being held twice while it grows; 0 before the first call."""
        rows, columns = self._limits
        sizes = [buffer.nbytes for buffer in (*self._keys, *self._values)]
        return (sum(sizes) + max(sizes, default=0)) * rows * columns // max(1, len(self.tokens) * self.columns)

    def allocate(self, prompt: list[int], taken: Collection[int], scopes: Sequence[str] = ("",)) -> tuple[int, int]:
        """Choose a row outside `taken` for `prompt` and return it with how many of its tokens are cached there now.

        Only what belongs to one of `scopes` is found, and what the row holds from now on belongs to the first. The last
        token of a prompt never counts as cached: whoever asks wants the logits after it. The caller makes sure that a
        row is free.
        """
        source, known = self.find_prefix(prompt, scopes)
        known = min(known, len(prompt) - 1)
        row = self._choose_row(source, known, taken)
        before = self._scopes[source] if known else {}
        if known and source != row:
            self._copy_prefix(source, row, known)
        del self.tokens[row][known:]
        kept = {scope: min(length, known) for scope, length in list(before.items())[-_SCOPES:]}
        self._scopes[row] = kept | {scopes[0]: sys.maxsize}
        return row, known

    def find_prefix(self, prompt: list[int], scopes: Sequence[str] = ("",)) -> tuple[int, int]:
        """Return the row that begins most like `prompt` with tokens of `scopes`, and how many; (-1, 0) if none does."""
        lengths = [max(owners.get(scope, 0) for scope in scopes) for owners in self._scopes]
        return longest_prefix(
            prompt, ((row, self.tokens[row][:length]) for row, length in enumerate(lengths) if length)
        )

    def free(self, row: int) -> None:
        """Let `row` be overwritten; the row freed longest ago goes first."""
        self._freed[row] = max(self._freed) + 1

    def reserve(self, rows: int, columns: int) -> None:
        """Make room for `rows` sequences of `columns` tokens; what is cached stays."""
        have = len(self.tokens)
        if rows <= have and columns < self.columns:
            return
        if rows > have:
            rows = max(rows, min(2 * have or _ROWS, self._limits[0]))
        if columns >= self.columns:  # one more than asked for: the last column belongs to nobody
            columns = max(columns + 1, min(2 * self.columns or _COLUMNS, self._limits[1]))
        rows, self.columns = max(rows, have), max(columns, self.columns)
        for buffers in (self._keys, self._values):
            for layer, buffer in enumerate(buffers):  # one by one, so that memory is never held twice
                buffers[layer] = _enlarged(buffer, rows, self.columns)
        self.tokens.extend([] for _ in range(rows - have))
        self._freed.extend(0 for _ in range(rows - have))
        self._scopes.extend({"": sys.maxsize} for _ in range(rows - have))

    def prepare(self, rows: Sequence[int], columns_BQ: Sequence[Sequence[int]], depth: int) -> None:
        """Say where the next forward call writes: token q of batch row b in column `columns_BQ[b][q]` of `rows[b]`.

        A column of -1 discards the token. `depth` is how many columns the call reads. `rows` ascend.
        """
        self.reserve(0, depth)
        neighbours = rows[-1] - rows[0] + 1 == len(rows)  # they are read in place, others are gathered
        self._read = slice(rows[0], rows[-1] + 1) if neighbours else torch.tensor(rows, device=self._device)
        self._depth = depth
        rows_B1 = torch.tensor(rows, device=self._device)[:, None]
        self._targets = rows_B1 * self.columns + torch.tensor(columns_BQ, device=self._device) % self.columns
        self._flat.clear()

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new tokens' keys and values, each (B, heads, Q, width); return those of all tokens so far.

        What comes back is (B, heads, depth, width); the attention mask hides what lies past a row's own tokens.
        """
        if layer == len(self._keys):
            self._keys.append(_empty(keys, len(self.tokens), self.columns))
            self._values.append(_empty(values, len(self.tokens), self.columns))
        return self._store(self._keys[layer], keys), self._store(self._values[layer], values)

    def get_seq_length(self, layer: int = 0) -> int:
        """Return the length of the longest row; some models ask, though positions and mask are given."""
        return max(map(len, self.tokens), default=0)

    def swap(self, first: int, second: int) -> None:
        """Exchange two rows."""
        length = max(len(self.tokens[first]), len(self.tokens[second]))
        for buffer in (*self._keys, *self._values):
            kept = buffer[first, :, :length].clone()
            buffer[first, :, :length] = buffer[second, :, :length]
            buffer[second, :, :length] = kept
        tokens, released, scopes = self.tokens, self._freed, self._scopes
        tokens[first], tokens[second] = tokens[second], tokens[first]
        released[first], released[second] = released[second], released[first]
        scopes[first], scopes[second] = scopes[second], scopes[first]

    def clear(self) -> None:
        """Forget all tokens; the buffers stay."""
        self.tokens = [[] for _ in self.tokens]

    def reset(self) -> None:
        """Forget all tokens and free the buffers, whatever a call that failed halfway has made of them."""
        self.tokens, self._scopes, self._freed, self._keys, self._values, self.columns = [], [], [], [], [], 0

    def _choose_row(self, source: int, known: int, taken: Collection[int]) -> int:
        """Return the source itself where little else is lost with it, else an empty row, else the oldest one."""
        if source >= 0 and source not in taken and 2 * known >= len(self.tokens[source]):
            return source
        free = [row for row in range(len(self.tokens)) if row not in taken]
        empty = next((row for row in free if not self.tokens[row]), None)
        if empty is None and len(self.tokens) < self._limits[0]:
            empty = len(self.tokens)
            self.reserve(empty + 1, 0)
        return empty if empty is not None else min(free, key=self._freed.__getitem__)

    def _copy_prefix(self, source: int, target: int, length: int) -> None:
        for buffer in (*self._keys, *self._values):
            buffer[target, :, :length] = buffer[source, :, :length]
        self.tokens[target] = self.tokens[source][:length]

    def _store(self, buffer: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        heads, width = buffer.shape[1], buffer.shape[3]
        if heads not in self._flat:  # once a call: nearly all models have equally many heads in every layer
            rows_BQ = self._targets.div(self.columns, rounding_mode="floor")
            first_BQ = self._targets + rows_BQ * ((heads - 1) * self.columns)
            heads_H1 = torch.arange(heads, device=self._device)[:, None] * self.columns
            self._flat[heads] = (first_BQ[:, None] + heads_H1).reshape(-1)
        buffer.view(-1, width).index_copy_(0, self._flat[heads], new.reshape(-1, width))
        if isinstance(self._read, slice):  # one call in the place of two, for every layer of every step
            rows, first = self._read.stop - self._read.start, self._read.start * buffer.stride(0)
            return buffer.as_strided((rows, heads, self._depth, width), buffer.stride(), first)
        return buffer[:, :, : self._depth].index_select(0, self._read)


def longest_prefix(prompt: list[int], rows: Iterable[tuple[int, list[int]]]) -> tuple[int, int]:
    """Return the row whose tokens share the longest beginning with `prompt`, and its length; (-1, 0) if none does."""
    best = (-1, 0)
    for row, tokens in rows:
        if len(tokens) > best[1] and (length := _common_length(prompt, tokens)) > best[1]:
            best = (row, length)
    return best


def _common_length(first: list[int], second: list[int]) -> int:
    low, high = 0, min(len(first), len(second))
    while low < high:  # slices compare at C speed, so halving beats a loop over tokens
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _empty(like: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    # Zeros, not uninitialised memory: a hidden column still counts with weight 0, and 0 times NaN is NaN.
    return torch.zeros(rows, like.shape[1], columns, like.shape[3], dtype=like.dtype, device=like.device)


def _enlarged(buffer: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    larger = _empty(buffer, rows, columns)
    larger[: buffer.shape[0], :, : buffer.shape[2]] = buffer
    return larger
