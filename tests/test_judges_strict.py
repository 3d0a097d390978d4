"""What a strict reading had left of an episode whose calls were read leniently."""

from __future__ import annotations

from dataclasses import replace

from episodes import FIND, READ, episode

from rolecraft.judges import strict
from rolecraft.types import Message

STRICT = episode(FIND, READ, "3809", score=1.0)
WORDS = Message("assistant", "```json\n...\n```")
LENIENT = replace(
    STRICT,
    messages=tuple(replace(m, strict=WORDS) if i == 3 else m for i, m in enumerate(STRICT.messages)),
    final_state={"sql": {}},
)


def test_the_strict_record_ends_in_the_reply_that_is_no_call():
    record = strict.strictly(LENIENT)
    assert record.messages == (*STRICT.messages[:3], replace(WORDS, speaker="executor"))
    assert (len(record.turns), record.stop, record.final_state) == (2, "answered", None)


def test_a_strict_record_is_its_own_strict_reading():
    assert strict.strictly(STRICT) is STRICT
    assert strict.judge(STRICT).score == 1


def test_the_share_of_strict_calls_is_judged():
    assert strict.judge(LENIENT).score == 0.5
    assert "1 of 2 messages with calls were read leniently" in strict.judge(LENIENT).reason
