"""What a stream lets through early is always a beginning of what the parsed message says."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rolecraft import catalog
from rolecraft.renderers import CallSyntax, reread
from rolecraft.renderers._calls import parse
from rolecraft.server.tool_call_filter import ToolCallFilter
from rolecraft.types import Message, ToolSpec

CALL = '{"name": "look", "arguments": {"at": "{it}"}}'
SYNTAXES = {name: catalog.find("renderers", name).FORMAT.calls for name in catalog.names("renderers")}
SYNTAXES["words"] = CallSyntax(begins=r"Action:")
TAGS = '<think> </think> { } <tool_call> </tool_call> <tool _call> < Action: {"name" ü text'.split()
PIECES = st.sampled_from(
    [
        *TAGS,
        CALL,
        CALL.replace("arguments", "args"),
        "\n",
        " ",
        "\n\n",
        "\t",
        "a {b} c",
        "\n<tool_call>\n",
        "\n</tool_call>",
    ]
)


def content(text: str, syntax: CallSyntax) -> str:
    return parse([(text, False)], syntax, tags_are_tokens=False).content


@pytest.mark.parametrize("family", sorted(SYNTAXES))
@settings(deadline=None)
@given(st.lists(PIECES, max_size=12))
def test_what_is_let_through_begins_the_content(family, pieces):
    filtered = ToolCallFilter(SYNTAXES[family])
    out = "".join(filtered.feed(piece) for piece in pieces)
    assert content("".join(pieces), SYNTAXES[family]).startswith(out)


@pytest.mark.parametrize("family", sorted(SYNTAXES))
@settings(deadline=None)
@given(
    st.lists(PIECES | st.sampled_from(["```json\n", "\n```", "look(at=1)", "look(", "lo", "[TOOL_CALLS]"]), max_size=12)
)
@example(["}", "[TOOL_CALLS]", "look(at=1)", "lo", "look(at=1)"])
def test_what_is_let_through_begins_the_content_however_calls_are_read(family, pieces):
    tools = (ToolSpec("look", "", {"type": "object", "properties": {"at": {}}}),)
    filtered, text = ToolCallFilter(SYNTAXES[family], tools), "".join(pieces)
    out = "".join(filtered.feed(piece) for piece in pieces)
    reply = parse([(text, False)], SYNTAXES[family], tags_are_tokens=False)
    strict = Message("assistant", reply.content, tool_calls=reply.calls, unparsed=reply.unparsed)
    assert reread(strict, text, tools).content.startswith(out)


@pytest.mark.parametrize("family", sorted(SYNTAXES.keys() - {"words"}))
@settings(deadline=None)
@given(st.lists(st.sampled_from(["Some ", "text", ".", "\n", "\n\n", " more", "ü", "4"]), max_size=12))
def test_plain_text_waits_for_nothing_but_its_last_line_break(family, pieces):
    filtered = ToolCallFilter(SYNTAXES[family])
    out = "".join(filtered.feed(piece) for piece in pieces)
    assert out.rstrip() == "".join(pieces).rstrip()


@pytest.mark.parametrize("family", ["hermes", "phi3"])
def test_a_tag_is_noticed_in_pieces(family):
    filtered = ToolCallFilter(SYNTAXES[family])
    assert [filtered.feed(piece) for piece in ("Look.\n", "<tool", "_call", ">\n", CALL)] == ["Look.", "", "", "", ""]


def test_what_only_began_like_a_tag_comes_after_all():
    filtered = ToolCallFilter(SYNTAXES["hermes"])
    assert [filtered.feed(piece) for piece in ("a <", "tool", "box>")] == ["a ", "", "<toolbox>"]


def test_without_calls_all_text_comes_at_once():
    filtered = ToolCallFilter(None)
    assert filtered.feed(CALL) + filtered.feed("\n") == CALL + "\n"
