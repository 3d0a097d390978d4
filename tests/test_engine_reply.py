from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from rolecraft import catalog, renderers
from rolecraft.engine.reply import Reader, find_stop, has_stop, parse
from rolecraft.types import Message, Prompt, Sampling, ToolSpec


@pytest.fixture(scope="module")
def renderer(nano_tokenizer):
    return renderers.find(nano_tokenizer)


def _ids(renderer, text: str) -> list[int]:
    return list(renderer.reply(Message("assistant", text)))


def _prompt(*stops: str) -> Prompt:
    return Prompt((), sampling=Sampling(stop=stops))


@settings(deadline=None)
@given(data=st.data())
def test_pieces_join_to_the_text_before_the_first_stop(renderer, data: DataObject):
    text = data.draw(st.text(alphabet="ab €é🙂\n<", max_size=30))
    stops = data.draw(st.lists(st.text(alphabet="ab €🙂", min_size=1, max_size=4), max_size=3))
    ids = _ids(renderer, text)
    count = next((n for n in range(1, len(ids)) if find_stop(renderer.text(ids[:n]), stops) is not None), len(ids))
    reader = Reader(renderer, stops)
    pieces = [reader.read(token) for token in ids[:count]] + [reader.rest()]
    assert "".join(pieces) == parse(renderer, _prompt(*stops), ids[:count]).content


def test_half_a_character_is_held_back(renderer):
    reader = Reader(renderer)
    pieces = [reader.read(token) for token in _ids(renderer, "🙂")]
    assert [piece for piece in pieces if piece] == ["🙂"]


def test_what_may_begin_a_stop_string_is_held_back(renderer):
    reader = Reader(renderer, ["Observation:"])
    shown = "".join(reader.read(token) for token in _ids(renderer, "So: Obse"))
    assert shown == "So: "
    assert reader.rest() == "Obse"


def test_a_stop_string_before_half_a_character_is_cut():
    class Bytes:
        """Has a token of a space and half a character, as some tokenizers do."""

        stop_ids = frozenset()

        def text(self, ids):
            return b"".join((b"so", b" \xf0\x9f")[i] for i in ids).decode(errors="replace")

    reader = Reader(Bytes(), [" "])
    assert [reader.read(0), reader.read(1), reader.rest()] == ["so", "", ""]


@settings(deadline=None)
@given(data=st.data())
def test_a_stop_string_is_noticed_with_the_token_that_ends_it(renderer, data: DataObject):
    text = data.draw(st.text(alphabet="ab €🙂", max_size=40))
    stop = data.draw(st.text(alphabet="ab €🙂", min_size=1, max_size=3))
    ids = _ids(renderer, text)[:-1]
    first = next((n for n in range(1, len(ids) + 1) if stop in renderer.text(ids[:n])), None)
    assert next((n for n in range(1, len(ids) + 1) if has_stop(renderer, ids[:n], [stop])), None) == first


def test_a_message_ends_before_its_stop_string_and_keeps_no_ids(renderer):
    message = parse(renderer, _prompt("Obs"), _ids(renderer, "The debt is 3. Obs: 4")[:-1])
    assert message.content == "The debt is 3. "
    assert message.ids is None


def test_text_that_shares_a_token_with_the_stop_string_is_kept(renderer):
    ids = _ids(renderer, "debt of Plalples")[:-1]
    stop = renderer.text(ids[-1:])[1:]
    assert parse(renderer, _prompt(stop), ids).content + stop == "debt of Plalples"


@pytest.mark.parametrize("stop", ["END", "never"])
def test_a_fenced_call_is_read_leniently_where_bare_lines_are_the_family_s_own(nano_tokenizer, stop):
    format = replace(catalog.find("renderers", "nano").FORMAT, lenient=True)
    renderer = renderers.Renderer(format, nano_tokenizer)
    prompt = replace(_prompt(stop), tools=(ToolSpec("noop", ""),), lenient=True)
    text = '```json\n{"name":"noop","arguments":{}}\n```\n'
    message = parse(renderer, prompt, _ids(renderer, text + "END" * (stop == "END")))
    assert ([call.name for call in message.tool_calls], message.content, message.unparsed) == (["noop"], "", None)
    assert message.strict is not None
    assert message.strict.unparsed is not None
    assert parse(renderer, replace(prompt, lenient=False), _ids(renderer, text)).tool_calls == ()


def test_the_nano_base_is_read_strictly_alone(renderer):
    prompt = replace(_prompt(), tools=(ToolSpec("noop", ""),), lenient=True)
    text = "```python\nnoop()\n```"
    assert parse(renderer, prompt, _ids(renderer, text)).content == text


def test_calls_before_a_stop_string_are_read(renderer):
    ids = _ids(renderer, '{"name":"noop","args":{}}\nEND')
    message = parse(renderer, _prompt("\nEND"), ids)
    assert [call.name for call in message.tool_calls] == ["noop"]
    assert message.content == ""


def test_a_reply_without_stop_string_keeps_its_ids(renderer):
    ids = _ids(renderer, "The debt is 3.")
    message = parse(renderer, _prompt("Obs"), ids)
    assert message.ids == tuple(ids)
