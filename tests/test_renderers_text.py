"""Texts met before are not tokenised again, and do not fill the memory."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from rolecraft.renderers._text import Codec, Seen


class Counting:
    """A tokenizer that counts what it is asked to encode."""

    def __init__(self, tokenizer):
        self.tokenizer, self.asked = tokenizer, []
        self.init_kwargs, self.unk_token_id = tokenizer.init_kwargs, tokenizer.unk_token_id
        self.added_tokens_decoder = tokenizer.added_tokens_decoder

    def encode(self, text, *, add_special_tokens):
        self.asked.append(text)
        return self.tokenizer.encode(text, add_special_tokens=add_special_tokens)


def test_a_text_is_tokenised_once(nano_tokenizer):
    tokenizer = Counting(nano_tokenizer)
    codec = Codec(tokenizer)
    tokenizer.asked.clear()
    assert codec.plain("rank of one") == codec.plain("rank of one") != codec.plain("rank of two")
    assert tokenizer.asked == ["rank of one", "rank of two"]


def test_what_was_met_longest_ago_is_forgotten_first():
    seen = Seen(10)
    seen.put("aaaa", (1,))
    seen.put("bbbb", (2,))
    assert seen.get("aaaa") == (1,)
    seen.put("cccc", (3,))
    assert [seen.get(text) for text in ("aaaa", "bbbb", "cccc")] == [(1,), None, (3,)]


def test_a_text_larger_than_the_memory_is_forgotten_at_once():
    seen = Seen(10)
    seen.put("a" * 11, (1,))
    assert seen.get("a" * 11) is None
    seen.put("b", (2,))
    seen.put("b", (2,))
    assert seen.get("b") == (2,)


class Slow:
    """A tokenizer that encodes a long text until it is told to go on."""

    def __init__(self, tokenizer):
        self._tokenizer, self.encoding, self.go_on = tokenizer, threading.Event(), threading.Event()

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)

    def encode(self, text, **options):
        if len(text) > 100:
            self.encoding.set()
            assert self.go_on.wait(20)
        return self._tokenizer.encode(text, **options)


def test_who_reads_tokens_does_not_wait_for_a_long_text(nano_tokenizer):
    tokenizer = Slow(nano_tokenizer)
    codec = Codec(tokenizer)
    ids = codec.plain("rank")
    with ThreadPoolExecutor() as pool:
        long = pool.submit(codec.plain, "rank " * 100)
        assert tokenizer.encoding.wait(20)
        assert pool.submit(codec.text, ids).result(timeout=20) == "rank"
        assert not long.done()
        tokenizer.go_on.set()
        assert long.result(timeout=20)


def test_a_marker_that_a_text_repeats_is_cut_and_encoded_once(nano_tokenizer):
    tokenizer = Counting(nano_tokenizer)
    codec = Codec(tokenizer)
    tokenizer.asked.clear()
    ids = codec.plain("<|im_end|>" * 500)
    assert nano_tokenizer.decode(ids) == "<|im_end|>" * 500
    assert len(tokenizer.asked) < 5
