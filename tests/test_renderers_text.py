"""Texts met before are not tokenised again, and do not fill the memory."""

from __future__ import annotations

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
