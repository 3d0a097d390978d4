"""A reply's code is found however it is fenced, and what is no code is told as such."""

from __future__ import annotations

import pytest

from rolecraft import codeblocks
from rolecraft.types import Message, ToolCall, ToolSpec

STOCK = ToolSpec(
    "stock",
    "pieces in stock",
    {
        "type": "object",
        "properties": {
            "item": {"type": "string", "description": "the item"},
            "where": {"enum": ["shop", "store"], "default": "shop"},
            "days": {"type": "array", "items": {"type": "integer"}},
            "more": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        },
        "required": ["item"],
    },
)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("I think.\n```python\nx = 1\nx\n```", "x = 1\nx"),
        ("```py\nx\n```\nand so on", "x"),
        ("```Python3\nx\n```", "x"),
        ("```tool_code\nx\n```", "x"),
        ("```\nx\n```", "x"),
        ("~~~python\nx\n~~~", "x"),
        ("  ```python\n  x\n  ```", "  x"),
        ("````python\nprint('```')\n````", "print('```')"),
        ("```python\nfirst\n```\nno:\n```python\nlast\n```", "last"),
        ("```json\n{}\n```\n```python\nx\n```", "x"),
        ("```python\nx\n```\n```output\n3\n```", "x"),
        ("```python\nx = 1", "x = 1"),
        ("Code:\n<code>\nx\n</code>", "x"),
        ("I compute it.\n```python\nprint(1)\n```\nOutput:\n```\n400\n```", "print(1)"),
        ("```\nx\n```\nor\n```\ny\n```", "y"),
        ("final_answer(3)", "final_answer(3)"),
        ("print(stock('lamp'))", "print(stock('lamp'))"),
        ("n = stock('lamp')", "n = stock('lamp')"),
    ],
)
def test_a_block_is_found(text, code):
    assert codeblocks.find(text, ["stock"]) == code


@pytest.mark.parametrize(
    "text",
    [
        "",
        "It is 3.",
        "3",
        "print",
        "```json\n{}\n```",
        "```",
        "```\nopen",
        "erase('all')",
        "so I call stock('lamp')",
        "`x`",
    ],
)
def test_what_is_no_block_is_none(text):
    assert codeblocks.find(text, ["stock"]) is None


@pytest.mark.parametrize("text", ["```python\nx = 1", "final_answer(3)", "```python\nx\n```\n```python\ny ="])
def test_a_block_that_was_cut_is_not_run(text):
    assert codeblocks.find(text, cut=True) in (None, "x")


@pytest.mark.parametrize(
    "text", ["`" * 200_000, "```python\n" * 50_000, "<code>" * 50_000, "~~~\n" * 90_000, "(" * 10**5]
)
def test_hostile_text_is_read_in_no_time(text):
    codeblocks.find(text)


def test_a_reply_becomes_a_call_and_keeps_its_text():
    reply = Message("assistant", "So.\n```python\nx\n```", ids=(1, 2))
    read = codeblocks.read(reply, (STOCK,))
    assert read.tool_calls == (ToolCall("python", {"code": "x"}),)
    assert (read.content, read.ids) == (reply.content, (1, 2))


def test_a_reply_that_was_ended_at_its_fence_gets_it_back():
    read = codeblocks.read(Message("assistant", "So.\n```python\nx = 1"), ())
    assert read.content == "So.\n```python\nx = 1\n```"
    bare = Message("assistant", "final_answer(3)")
    assert codeblocks.read(bare, ()).content == bare.content


def test_what_was_cut_after_a_block_is_left_out():
    said = "So.\n```python\nx\n```"
    read = codeblocks.read(Message("assistant", f"{said}\nIt is proba", ids=(1, 2)), (), cut=True)
    assert (read.content, read.ids) == (said, None)
    assert read.tool_calls[0].arguments == {"code": "x"}


def test_a_reply_without_a_block_is_unparsed_and_told_why():
    read = codeblocks.read(Message("assistant", "It is 3."), (STOCK,))
    assert (read.content, read.unparsed, read.tool_calls) == ("", "It is 3.", ())
    assert "no code" in codeblocks.why_unread("It is 3.")
    assert "not closed" in codeblocks.why_unread("```python\nx")
    assert "not as JSON" in codeblocks.why_unread('{"name": "stock", "arguments": {}}')


def test_a_call_in_the_bases_own_syntax_is_no_code():
    read = codeblocks.read(Message("assistant", "I look.", (ToolCall("stock", {"item": "lamp"}),)), (STOCK,))
    assert read.unparsed == '{"name": "stock", "arguments": {"item": "lamp"}}'
    assert read.tool_calls == ()


def test_a_conversation_is_shown_as_code_and_what_it_printed():
    code = Message(
        "assistant", "```python\nprint(stock('lamp'))\n```", (ToolCall("stock", {"item": "lamp"}, "c"),), ids=(1,)
    )
    told = (Message("user", "?"), code, Message("tool", "12", tool_call_id="c"), Message("tool", "so: 12"))
    shown = codeblocks.shown(told)
    assert [(message.role, message.content) for message in shown] == [
        ("user", "?"),
        ("assistant", code.content),
        ("tool", "so: 12"),
    ]
    assert shown[1].tool_calls == ()
    assert shown[1].ids == (1,)


def test_other_agents_calls_are_shown_as_the_code_that_makes_them():
    call = Message("assistant", "I look.", (ToolCall("stock", {"item": "a'b", "no name": 1}, "c"),))
    shown = codeblocks.shown((call, Message("tool", "12", tool_call_id="c")))
    assert shown[0].content == "I look.\n```python\nprint(stock(item=\"a'b\", **{'no name': 1}))\n```"
    assert shown[1].content == "12"
    assert codeblocks.find(shown[0].content) is not None


def test_a_reply_that_could_not_be_read_is_trained_as_it_was_written():
    assert codeblocks.written(Message("assistant", unparsed="It is 3.")).content == "It is 3."


def test_functions_are_declared_with_their_types_and_docstrings():
    python, keyword = ToolSpec("python", "run code"), ToolSpec("class", "none")
    told = codeblocks.signatures((STOCK, python, keyword))
    assert told.startswith(
        "stock(item: str, where: Literal['shop', 'store'] = 'shop', days: list[int] | None = None, "
        "more: float | None = None)\n"
        "    pieces in stock\n    item: the item"
    )
    assert "python" not in told
    assert "class" not in told
    assert told.endswith("final_answer(answer)\n    end the task with this answer")
