"""The responses API's items become chat messages, reasoning with what it led to."""

from __future__ import annotations

import pytest

from rolecraft.server.responses_input import read_input

USER, SAID = {"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Plalples."}
CALL = {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"}


def thought(text: str) -> dict:
    return {"type": "reasoning", "summary": [{"type": "summary_text", "text": text}]}


def shown(*items: dict) -> list[tuple]:
    """Return each message as its role, content, reasoning and how many calls it has."""
    messages = read_input(items, None).messages
    return [
        (one["role"], one["content"], one.get("reasoning_content"), len(one.get("tool_calls", ()))) for one in messages
    ]


@pytest.mark.parametrize("next_item", [SAID, CALL], ids=["words", "call"])
def test_all_reasoning_before_a_message_or_call_is_its_own(next_item):
    *_, told = shown(USER, thought("One."), thought("Two."), next_item)
    assert told == ("assistant", next_item.get("content"), "One.\n\nTwo.", int(next_item is CALL))


def test_reasoning_that_led_to_nothing_stays_where_it_was():
    asked = ("user", "Who?", None, 0)
    said = ("assistant", "Plalples.", None, 0)
    lone = ("assistant", "", "Hm.", 0)
    assert shown(USER, thought("Hm."), USER, SAID) == [asked, lone, asked, said]
    assert shown(USER, SAID, thought("Hm."), USER) == [asked, said, lone, asked]
    assert shown(USER, thought("Hm.")) == [asked, lone]


def test_calls_join_the_words_before_them_and_reasoning_parts_them():
    assert shown(USER, SAID, CALL, CALL)[1:] == [("assistant", "Plalples.", None, 2)]
    assert shown(USER, SAID, CALL, thought("Hm."), CALL)[1:] == [
        ("assistant", "Plalples.", None, 1),
        ("assistant", None, "Hm.", 1),
    ]


def test_reasoning_without_text_is_none():
    assert shown(USER, thought(""), USER) == [("user", "Who?", None, 0)] * 2
