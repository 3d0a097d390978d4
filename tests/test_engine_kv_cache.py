from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from rolecraft.engine.kv_cache import KVCache, longest_prefix

_TOKENS = st.lists(st.integers(0, 2), max_size=12)


def _filled(lengths: list[int], rows: int = 4, columns: int = 16) -> KVCache:
    """Rows of the given lengths in two layers; the key of row r, column c is 100 r + c, its value the negative."""
    cache = KVCache(rows, columns)
    cache.reserve(len(lengths), max(lengths))
    for row, length in enumerate(lengths):
        _append(cache, row, length)
    return cache


def _append(cache: KVCache, row: int, count: int) -> None:
    start = len(cache.tokens[row])
    columns = list(range(start, start + count))
    cache.prepare([row], [columns], start + count)
    keys = torch.tensor([100.0 * row + column for column in columns]).reshape(1, 1, count, 1).expand(1, 3, count, 2)
    for layer in range(2):
        cache.update(keys, -keys, layer)
    cache.tokens[row] += columns


def _keys(cache: KVCache, row: int, layer: int = 0) -> list[float]:
    """What row `row` holds now, read by a forward call that writes nothing."""
    length = len(cache.tokens[row])
    cache.prepare([row], [[-1]], max(length, 1))
    nothing = torch.full((1, 3, 1, 2), 7.0)
    keys, values = cache.update(nothing, nothing, layer)
    assert torch.equal(keys, -values) or length == 0
    assert torch.equal(keys[:, 0], keys[:, 2])
    return keys[0, 1, :length, 0].tolist()


@given(_TOKENS, st.lists(_TOKENS, max_size=4))
def test_longest_is_the_longest_common_beginning(prompt, rows):
    def alike(tokens):
        return next(
            (i for i, (a, b) in enumerate(zip(prompt, tokens, strict=False)) if a != b), min(len(prompt), len(tokens))
        )

    row, length = longest_prefix(prompt, enumerate(rows))
    assert length == max(map(alike, rows), default=0)
    assert row == -1 if length == 0 else alike(rows[row]) == length


def test_rows_of_different_lengths_keep_their_own_keys():
    cache = _filled([3, 5, 1])
    _append(cache, 0, 2)
    assert _keys(cache, 0) == [0, 1, 2, 3, 4]
    assert _keys(cache, 1, layer=1) == [100, 101, 102, 103, 104]
    assert _keys(cache, 2) == [200]


def test_a_batch_writes_each_row_at_its_own_column():
    cache = _filled([3, 5, 1])
    new = torch.arange(2.0).reshape(2, 1, 1, 1).expand(2, 3, 1, 2) + 50
    cache.prepare([0, 2], [[3], [1]], 4)
    keys, _ = cache.update(new, -new, 0)
    assert keys[:, 0, :, 0].tolist() == [[0, 1, 2, 50], [200, 51, 0, 0]]


def test_padding_is_written_where_nobody_reads():
    cache = _filled([15, 16])
    before = [_keys(cache, row) for row in range(2)]
    cache.prepare([0, 1], [[-1, -1], [-1, -1]], 16)
    cache.update(torch.full((2, 3, 2, 2), 9.0), torch.full((2, 3, 2, 2), 9.0), 0)
    assert [_keys(cache, row) for row in range(2)] == before


def test_growing_keeps_what_is_cached():
    cache = _filled([3, 5], rows=40, columns=500)
    cache.reserve(20, 300)
    assert len(cache.tokens) >= 20
    assert cache.columns > 300
    assert _keys(cache, 1) == [100, 101, 102, 103, 104]


def test_growing_stops_at_the_limits():
    cache = _filled([3], rows=5, columns=200)
    cache.reserve(5, 129)
    cache.reserve(5, 200)
    assert (len(cache.tokens), cache.columns) == (5, 201)


def test_a_prompt_that_extends_a_row_stays_in_it():
    cache = _filled([3, 5])
    assert cache.allocate([0, 1, 2, 3, 4, 9], taken=[]) == (1, 5)
    assert _keys(cache, 1) == [100, 101, 102, 103, 104]


def test_a_row_in_use_is_copied_not_taken():
    cache = _filled([3, 5])
    assert cache.allocate([0, 1, 2, 3, 9], taken=[1]) == (2, 4)
    assert _keys(cache, 2) == [100, 101, 102, 103]
    assert _keys(cache, 1) == [100, 101, 102, 103, 104]


def test_a_short_common_beginning_does_not_cost_a_long_row():
    cache = _filled([3, 9])
    row, known = cache.allocate([0, 1, 2, 7], taken=[0])
    assert (row, known) == (2, 3)
    assert len(cache.tokens[1]) == 9


def test_the_last_token_of_a_prompt_is_always_computed():
    cache = _filled([3])
    assert cache.allocate([0, 1, 2], taken=[]) == (0, 2)
    assert cache.tokens[0] == [0, 1]


def test_the_row_released_longest_ago_goes_first():
    cache = _filled([3, 3, 3], rows=3)
    for row in (1, 2, 0):
        cache.free(row)
    assert cache.allocate([8, 8], taken=[])[0] == 1


def test_swapped_rows_exchange_all_they_hold():
    cache = _filled([2, 5])
    cache.swap(0, 1)
    assert cache.tokens == [[0, 1, 2, 3, 4], [0, 1], [], []]
    assert _keys(cache, 0, layer=1) == [100, 101, 102, 103, 104]
    assert _keys(cache, 1) == [0, 1]


def test_cleared_rows_know_nothing():
    cache = _filled([3, 5])
    cache.clear()
    assert cache.allocate([0, 1, 2, 3], taken=[])[1] == 0
    assert cache.nbytes > 0


def test_what_another_scope_computed_is_not_found():
    cache = KVCache(4, 16)
    row, _ = cache.allocate([0, 1, 2, 3], taken=[], scopes=("mine",))
    _append(cache, row, 5)
    assert cache.find_prefix([0, 1, 2, 3, 4], ("other",)) == cache.find_prefix([0, 1, 2, 3, 4]) == (-1, 0)
    assert cache.allocate([0, 1, 2, 3, 4], taken=[row], scopes=("other",))[1] == 0
    assert cache.allocate([0, 1, 2, 3, 4], taken=[row], scopes=("new", "mine"))[1] == 4


def test_a_scope_sees_of_a_row_only_what_was_computed_under_it():
    """A row that goes on under a new scope: those who know the old one learn nothing of what came after."""
    cache = KVCache(4, 16)
    assert cache.allocate([0, 1, 2], taken=[], scopes=("first",)) == (0, 0)
    _append(cache, 0, 3)
    assert cache.allocate([0, 1, 2, 3, 4], taken=[], scopes=("second", "first")) == (0, 3)
    _append(cache, 0, 2)
    assert cache.find_prefix([0, 1, 2, 3, 4], ("first",)) == (0, 3)
    assert cache.find_prefix([0, 1, 2, 3, 4], ("third", "second")) == (0, 5)


def test_a_row_written_anew_belongs_to_its_new_scope_alone():
    cache = KVCache(1, 16)
    for scope in ("first", "second"):
        assert cache.allocate([0, 1, 2], taken=[], scopes=(scope,)) == (0, 0)
        _append(cache, 0, 3)
    assert cache.find_prefix([0, 1, 2], ("first",)) == (-1, 0)


def test_scopes_move_with_their_rows():
    cache = KVCache(4, 16)
    row, _ = cache.allocate([0, 1, 2], taken=[], scopes=("mine",))
    _append(cache, row, 3)
    cache.swap(row, 1 - row)
    assert cache.find_prefix([0, 1, 2], ("mine",)) == (1 - row, 3)
