"""A family that is not known is written by its own template where that only appends; else it is told why not."""

from __future__ import annotations

import copy
import dataclasses
import re
from typing import Any

import families
import pytest
from conftest import QWEN_SPLIT, train
from families import TOOLS, Family, as_json, conversations, official, row
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecraft import contract
from rolecraft.errors import ContractError, DataError
from rolecraft.renderers import TEMPLATE, Renderer, find, recognize, write_template
from rolecraft.team import Role
from rolecraft.types import Message, ToolCall, ToolSpec

ASKED = Message("user", "q")
_DEVSTRAL = "unsloth-mistral-Devstral-Small-2507.jinja"
NATIVE = (
    Family(
        TEMPLATE,
        "llama.cpp",
        _DEVSTRAL,
        "039a4710e2aabaa79e85a233fa3daa4fbc030a4a8dc218cb7f34fb0c4b8c13b1",
        families.MISTRAL,
        eos="</s>",
        bos="<s>",
    ),
    Family(
        TEMPLATE,
        "llama.cpp",
        "MiMo-VL.jinja",
        "10490379c20af484107413cc5fd93f6e587d0cb4364a183a89ab68849406b80d",
        marks=families.CALLS,
    ),
)
IN_TEXT = (
    Family(
        TEMPLATE,
        "llama.cpp",
        "google-gemma-2-2b-it.jinja",
        "ecd6ae513fe103f0eb62e8ab5bfa8d0fe45c1074fa398b089c93a7e70c15cfd6",
        ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
        eos="<eos>",
        bos="<bos>",
        tools=False,
        calls=0,
        system=False,
    ),
    Family(
        TEMPLATE,
        "llama.cpp",
        "Qwen3-Coder.jinja",
        "d287fb2edf144207f868ae1b282755dc19db2a3f1c5b3a3d57e9e5abffa98392",
        marks=families.CALLS,
        tools=False,
        calls=0,
    ),
)

APRIEL = Family(
    TEMPLATE,
    "llama.cpp",
    "unsloth-Apriel-1.5.jinja",
    "fae87682d3551b1cd3191fc92c5372c230e6e90115a98f049e35218cf4e13d8f",
    ("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|end|>", "</s>"),
    ("<tool_calls>", "</tool_calls>"),
    eos="<|end|>",
)

each = pytest.mark.parametrize("family", [*NATIVE, *IN_TEXT], ids=str)


def renderer_of(family: Family) -> tuple[Renderer, Any]:
    tokenizer = families.tokenizer(family)
    return find(tokenizer, TEMPLATE), tokenizer


@each
def test_its_ids_are_the_template_s(family: Family) -> None:
    renderer, tokenizer = renderer_of(family)
    for messages, tools in conversations(family):
        prompt = messages[-1].role != "assistant"
        ours = renderer.prompt(messages, tools, "assistant") if prompt else renderer.render(messages, tools).ids
        assert ours == official(tokenizer, family, messages, as_json(tools), prompt=prompt)


@each
def test_each_prompt_and_reply_begin_the_finished_conversation_and_replies_alone_are_learned(family: Family) -> None:
    renderer, _ = renderer_of(family)
    for messages, tools in conversations(dataclasses.replace(family, tools=True, calls=2), 60):
        whole, learned = renderer.render(messages, tools), 0
        for place, message in enumerate(messages):
            if message.role == "assistant":
                prompt, reply = renderer.prompt(messages[:place], tools, "assistant"), renderer.reply(message)
                assert whole.ids[: len(prompt) + len(reply)] == (*prompt, *reply)
                assert whole.starts[place] == len(prompt)
                assert set(whole.weights[len(prompt) : len(prompt) + len(reply)]) == {1.0}
                learned += len(reply)
        assert sum(whole.weights) == learned


@each
@pytest.mark.parametrize("instructions", ["", "Think.\nThen act."])
def test_the_saved_template_prompts_as_the_renderer_does(family: Family, instructions: str) -> None:
    renderer, tokenizer = renderer_of(family)
    tokenizer.chat_template = write_template(renderer.format, "assistant", instructions)
    role = Role("assistant", instructions)
    for messages, tools in conversations(dataclasses.replace(family, tools=True, calls=2), 60):
        seen, prompt = role.view(messages), messages[-1].role != "assistant"
        ours = renderer.prompt(seen, tools, "assistant") if prompt else renderer.render(seen, tools).ids
        theirs = tokenizer.apply_chat_template(
            [row(message) for message in messages],
            tools=as_json(tools) or None,
            tokenize=False,
            add_generation_prompt=prompt,
        )
        assert renderer.text(ours) == theirs


@each
def test_what_it_writes_is_read_back(family: Family) -> None:
    renderer, _ = renderer_of(family)
    for messages, _ in conversations(dataclasses.replace(family, calls=2), 40):
        for message in messages:
            if message.role == "assistant":
                read = renderer.parse(renderer.reply(message), "assistant")
                assert read.unparsed is None
                assert [(one.name, one.arguments) for one in read.tool_calls] == [
                    (one.name, one.arguments) for one in message.tool_calls
                ]


PARTS = (
    *(
        "\ue000",
        "<",
        "|>",
        "im_",
        "end",
        "<|im_end|>",
        "<|im_start|>",
        "</s>",
        "<s>",
        "[INST]",
        "INST]",
        "[TOOL_CALLS]",
    ),
    *("<tool_call>", "</tool_call>", "<start_of_turn>", "<bos>", "\ud800", "{{ x }}", "{%", "é", "\0", "\n", " "),
)


@each
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_a_mark_that_anybody_spells_out_stays_text(family: Family, data: st.DataObject) -> None:
    renderer, _ = renderer_of(family)

    def control(text: st.SearchStrategy[str]) -> list[int]:
        def said() -> str:
            return "a" + data.draw(text)

        call = ToolCall("weather", {said(): said(), "k": [said(), {"z": said()}]}, "call00001")
        messages = (
            Message("system", said()),
            Message("user", said()),
            Message("assistant", said(), tool_calls=(call,)),
            Message("tool", said(), tool_call_id="call00001", name="weather"),
            Message("assistant", said()),
            Message("user", said()),
        )
        schema = {"type": "object", "properties": {said(): {"type": "string", "description": said()}}}
        ids = renderer.prompt(messages, (ToolSpec("weather", said(), schema),), "assistant")
        return [one for one in ids if one in renderer.control_ids]

    hostile = st.lists(st.sampled_from(PARTS), max_size=8).map("".join)
    assert control(hostile) == control(st.just("x"))


@pytest.mark.parametrize("family", NATIVE, ids=str)
def test_such_a_family_is_told_on_screen(family: Family) -> None:
    found = recognize(families.tokenizer(family))
    assert found.name == TEMPLATE
    assert (
        found.why == "no format that is known renders as the model's own template, so that itself does: it only appends"
    )


def test_calls_that_are_not_read_are_told_in_hermes_format() -> None:
    found = recognize(families.tokenizer(IN_TEXT[1]))
    assert found.name == "chatml"
    assert "but for tools, which are told in Hermes' format instead: its calls are written in a way that" in found.why


def test_a_template_whose_chats_are_a_known_family_s_and_whose_tools_are_not_serves_itself() -> None:
    tokenizer = families.tokenizer(next(one for one in families.FAMILIES if one.file == "qwen3_instruct_2507.jinja"))
    tokenizer.chat_template = tokenizer.chat_template.replace("# Tools", "# Functions").replace("tool_call>", "call>")
    found = recognize(tokenizer)
    assert found.name == TEMPLATE
    assert found.renderer.call_syntax.open == "<call>\n"


def test_a_template_that_writes_calls_otherwise_once_others_follow_is_not_used_for_them() -> None:
    found = recognize(families.tokenizer(APRIEL))
    assert found.name == TEMPLATE
    assert "tools are told in Hermes' format: it rewrites what came before" in found.why


def test_tokens_of_a_family_whose_calls_are_known_serve_where_the_template_s_cannot(llama3_tokenizer) -> None:
    tokenizer = copy.deepcopy(llama3_tokenizer)
    trl = next(one for one in families.FAMILIES if one.file == "llama3_1.jinja")
    tokenizer.chat_template = families.template(trl).replace("Today Date", "The day")
    tokenizer.init_kwargs.pop("rolecraft_renderer", None)
    found = recognize(tokenizer)
    assert found.name == "llama3"
    assert "own template differs: after" in found.why
    assert "only supports single tool-calls" in found.why


def plain(template: str) -> Any:
    tokenizer = train(QWEN_SPLIT, ["<s>", "</s>"], (), bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = template
    return tokenizer


ALPACA = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}### Response: {{ m.content }}{{ eos_token }}"
    "{% else %}### {{ m.role }}: {{ m.content }}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}### Response: {% endif %}"
)


def test_a_family_without_tokens_of_its_own_that_knows_no_tools_is_told_them_in_hermes_format() -> None:
    found = recognize(plain(ALPACA))
    assert found.name == TEMPLATE
    assert "tools are told in Hermes' format: its template tells no tools" in found.why
    call = Message("assistant", "so", tool_calls=(ToolCall("now", {}),))
    text = found.renderer.text(found.renderer.prompt((ASKED, call, Message("tool", "noon")), TOOLS, "assistant"))
    assert text.startswith("<s>### system: # Tools\n\nYou may call one or more functions")
    assert text.endswith(
        '### user: q\n### Response: so\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call></s>'
        "### user: <tool_response>\nnoon\n</tool_response>\n### Response: "
    )


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (
            ALPACA.replace("{% for m in messages %}", "{{ messages | length }}{% for m in messages %}"),
            "rewrites what came",
        ),
        (ALPACA.replace("{{ m.content }}\n", "{{ m.content[:6] }}\n"), "leaves out 'What is 2"),
        (ALPACA.replace("{{ eos_token }}", "\n"), "no token ends a reply"),
        (ALPACA.replace("{% if add_generation_prompt %}### Response: {% endif %}", ""), "does not announce the reply"),
        ("{{ raise_exception('never') }}", "it fails: TemplateError: never"),
    ],
    ids=["counts", "cuts", "endless", "unannounced", "raises"],
)
def test_a_template_that_cannot_serve_is_refused_with_the_reason(template: str, why: str) -> None:
    with pytest.raises(ContractError, match=f"own template cannot serve: .*{why}"):
        recognize(plain(template))


def test_it_knows_no_speaker_but_the_assistant() -> None:
    renderer = recognize(plain(ALPACA)).renderer
    with pytest.raises(DataError, match=r"'reasoner'.*--team single"):
        renderer.prompt((ASKED,), (), "reasoner")
    with pytest.raises(DataError, match="'reasoner'"):
        renderer.render((ASKED, Message("assistant", "x", speaker="reasoner")))


def test_a_conversation_that_the_template_refuses_is_told_in_its_words() -> None:
    renderer, _ = renderer_of(IN_TEXT[0])
    with pytest.raises(DataError, match=r"takes no such conversation: .*must alternate"):
        renderer.prompt((ASKED, ASKED), (), "assistant")


def test_an_adapter_s_contract_holds_the_template_it_was_trained_on() -> None:
    made = contract.make(("base", "c", "w"), recognize(plain(ALPACA)).renderer)
    assert made.renderer == TEMPLATE
    contract.check(made, made, recognize(plain(ALPACA)).renderer)
    other = recognize(plain(ALPACA.replace("Response", "Answer"))).renderer
    with pytest.raises(ContractError, match="came out otherwise"):
        contract.check(made, contract.make(("base", "c", "w"), other), other)


SWITCHED = ALPACA.replace("{{ bos_token }}{% for", "{{ bos_token }}{% if enable_thinking %}Think.\n{% endif %}{% for")


def test_a_template_s_own_switch_for_thinking_is_used() -> None:
    asked = {think: recognize(plain(SWITCHED), think=think) for think in (None, True)}
    texts = [one.renderer.text(one.renderer.prompt((ASKED,), (), "assistant")) for one in asked.values()]
    assert texts == ["<s>### user: q\n### Response: ", "<s>Think.\n### user: q\n### Response: "]


def test_a_template_without_a_switch_for_thinking_is_told() -> None:
    with pytest.raises(
        ContractError, match=r"own template has no switch for thinking \(enable_thinking\): .*--no-think"
    ):
        recognize(plain(ALPACA), think=False)


STRICT = """{{ bos_token }}{% for t in tools or [] %}{{ t | tojson }}{% endfor -%}
{%- set ns = namespace(open=0, last='') -%}
{%- for m in messages -%}
{%- if m.role == 'tool' and ns.open == 0 or m.role != 'tool' and (ns.open or m.role == ns.last) -%}
{{ raise_exception('not the turn of ' + m.role) }}
{%- endif -%}
{%- set ns.open = ns.open - 1 if m.role == 'tool' else m.tool_calls | length if m.tool_calls else 0 -%}
{%- set ns.last = 'user' if m.role == 'tool' else m.role -%}
[{{ m.role }}{% if m.role == 'tool' %} {{ m.tool_call_id }}{% endif %}]{{ m.content }}
{%- for c in m.tool_calls or [] -%}
{%- if c.id | length != 9 -%}{{ raise_exception('ids have nine characters') }}{%- endif -%}
<call>{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}, "id": "{{ c.id }}"}</call>
{%- endfor -%}
{%- if m.role == 'assistant' %}{{ eos_token }}{% endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}[assistant]{% endif -%}"""


def test_what_an_agent_is_told_beside_answers_is_put_where_a_strict_template_takes_it() -> None:
    renderer = recognize(plain(STRICT)).renderer
    assert renderer.call_syntax.open == "<call>"
    calls = (ToolCall("now", {}, "call_0"), ToolCall("now", {"zone": "UTC"}, "call_1"))
    played = (
        ASKED,
        Message("assistant", unparsed="<call>{}</call>"),
        Message("tool", "error: no name", failed=True),
        Message("assistant", tool_calls=calls),
        Message("tool", "late", tool_call_id="call_1", name="now"),
        Message("tool", "noon", tool_call_id="call_0", name="now"),
        Message("tool", "note: so it was before"),
    )
    text = renderer.text(renderer.prompt(played, TOOLS, "assistant"))
    first, second = re.findall(r'"id": "(\w{9})"', text)
    assert "[assistant]<call>{}</call></s>[user]error: no name[assistant]<call>" in text
    assert text.endswith(f"</s>[tool {second}]late[tool {first}]noon\nnote: so it was before[assistant]")
    assert (
        renderer.render(played[:4], TOOLS).ids
        == renderer.render(played, TOOLS).ids[: len(renderer.render(played[:4], TOOLS).ids)]
    )


def test_answers_without_ids_are_those_of_the_calls_in_their_order() -> None:
    renderer = recognize(plain(STRICT)).renderer
    called = Message("assistant", tool_calls=(ToolCall("now", {}), ToolCall("now", {"zone": "UTC"})))
    text = renderer.text(
        renderer.prompt((ASKED, called, Message("tool", "a"), Message("tool", "b")), TOOLS, "assistant")
    )
    first, second = re.findall(r'"id": "(\w{9})"', text)
    assert first != second
    assert text.endswith(f"[tool {first}]a[tool {second}]b[assistant]")
