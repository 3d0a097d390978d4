from __future__ import annotations

import copy
import io
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console
from tokenizers import AddedToken

from rolecraft.errors import DataError
from rolecraft.examples import Budget, Example, audit, budget, build, build_all, describe, label_page, label_text
from rolecraft.renderers import Renderer, find
from rolecraft.team import Role
from rolecraft.team import find as find_team
from rolecraft.types import Message, Task, ToolCall, ToolSpec, Trajectory, Turn

TOOLS = (ToolSpec("read_debt", "debt of a company", {"type": "object", "properties": {"key": {"type": "string"}}}),)
MOR = find_team("mor", instructions=False)
APART = replace(MOR, roles=tuple(Role(name, f"You are the {name}.") for name in MOR.speakers))
CALL = Message("assistant", tool_calls=(ToolCall("read_debt", {"key": "Plalples"}),), speaker="executor")
EPISODE = (
    Message("user", "I need the debt for Plalples."),
    Message("assistant", "I need the debt of Plalples. Next: executor.", speaker="reasoner"),
    CALL,
    Message("tool", "3809"),
    Message("assistant", "I have the result. Next: summarizer.", speaker="reasoner"),
    Message("assistant", "The debt of Plalples is 3809.", speaker="summarizer"),
)


@pytest.fixture(scope="session", params=["nano", "hermes", "llama3", "phi3"])
def renderer(request: pytest.FixtureRequest) -> Renderer:
    return find(request.getfixturevalue(f"{request.param}_tokenizer"), request.param)


@pytest.fixture(scope="session")
def nano(nano_tokenizer) -> Renderer:
    return find(nano_tokenizer)


def trajectory(messages: Sequence[Message] = EPISODE, id: str = "debt-1") -> Trajectory:
    return Trajectory(id, Task(id, tuple(messages[:1]), TOOLS), tuple(messages))


def trained_text(example: Example, renderer: Renderer) -> str:
    return renderer.text([i for i, weight in zip(example.ids, example.weights, strict=True) if weight > 0])


def changed(example: Example, place: int, weight: float) -> Example:
    weights = list(example.weights)
    weights[place] = weight
    return replace(example, weights=tuple(weights))


def test_a_team_with_one_view_gets_one_example(renderer: Renderer) -> None:
    (example,) = build(trajectory(), MOR, renderer)
    rendered = renderer.render(EPISODE, TOOLS)
    length = len(example.ids)
    assert (example.ids, example.weights, example.speakers) == (
        rendered.ids[:length],
        rendered.weights[:length],
        rendered.speakers[:length],
    )
    assert sum(example.weights) == sum(rendered.weights)


def test_views_that_differ_get_an_example_for_each_role(renderer: Renderer) -> None:
    examples = build(trajectory(), APART, renderer)
    assert len(examples) == 3
    trained = [{s for s, w in zip(e.speakers, e.weights, strict=True) if w > 0} for e in examples]
    assert trained == [{name} for name in MOR.speakers]
    assert sum(sum(example.weights) for example in examples) == sum(renderer.render(EPISODE, TOOLS).weights)


def test_a_role_sees_in_training_what_it_sees_in_play(renderer: Renderer) -> None:
    executor = build(trajectory(), APART, renderer)[1]
    prompt = renderer.prompt(APART.role("executor").view(EPISODE[:2]), TOOLS, "executor")
    assert executor.ids == prompt + renderer.reply(CALL)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_reply_is_trained_once_in_any_team(renderer: Renderer, data: st.DataObject) -> None:
    speakers = st.sampled_from(MOR.speakers)
    reply = st.builds(
        Message,
        st.just("assistant"),
        st.sampled_from(["yes", "no", ""]),
        speaker=speakers,
        weight=st.sampled_from([None, 0, 2]),
    )
    context = st.builds(Message, st.sampled_from(["user", "tool"]), st.sampled_from(["a", "b"]))
    messages = tuple(data.draw(st.lists(st.one_of(reply, context), max_size=8)))
    told = data.draw(st.lists(st.sampled_from(["", "x"]), min_size=3, max_size=3))
    team = replace(MOR, roles=tuple(map(Role, MOR.speakers, told)))
    examples = build(trajectory(messages), team, renderer)
    expected = sum(sum(renderer.render((message,)).weights) for message in messages if message.role == "assistant")
    assert sum(sum(example.weights) for example in examples) == expected
    if examples:
        audit(examples, renderer, team)


def test_ids_that_a_model_wrote_are_trained_as_they_are(nano: Renderer) -> None:
    spelled = tuple(i for letter in "yes" for i in nano.reply(Message("assistant", letter))[:-1])
    message = nano.parse((*spelled, nano.end_id), "reasoner")
    (example,) = build(trajectory((EPISODE[0], message)), MOR, nano)
    assert example.ids[-4:] == (*spelled, nano.end_id)


def played(renderer: Renderer, forced: Sequence[bool]) -> Trajectory:
    """An episode of which the model wrote the call; `forced` are its tokens from the first."""
    ids = renderer.reply(CALL)
    call = replace(CALL, ids=ids)
    flags = (*forced, *[False] * (len(ids) - len(forced)))
    turn = Turn(call, "executor", token_ids=ids, forced=flags, logprobs=(0.0,) * len(ids))
    record = trajectory([call if message is CALL else message for message in EPISODE])
    return replace(record, turns=(turn,))


def test_forced_tokens_are_trained_unless_they_are_left_out(renderer: Renderer) -> None:
    record = played(renderer, [True, True, False, True])
    (whole,) = build(record, MOR, renderer)
    (example,) = build(record, MOR, renderer, train_forced=False)
    ids = renderer.reply(CALL)
    start = next(i for i in range(len(example.ids)) if example.ids[i : i + len(ids)] == ids)
    assert whole.forced == ()
    assert [place - start for place, left_out in enumerate(example.forced) if left_out] == [0, 1, 3]
    expected = [w if place - start not in (0, 1, 3) else 0.0 for place, w in enumerate(whole.weights)]
    assert list(example.weights) == expected
    audit([whole, example], renderer, MOR)


def test_a_prefix_before_forced_tokens_is_no_forced_token(nano: Renderer) -> None:
    record = played(nano, [True])
    turn = record.turns[0]
    begun = replace(record, turns=(replace(turn, token_ids=turn.token_ids[2:], forced=(*turn.forced[2:-1], True)),))
    (example,) = build(begun, MOR, nano, train_forced=False)
    assert sum(example.forced) == 1
    assert example.ids[example.forced.index(True)] == nano.end_id


def test_a_reply_that_was_forced_whole_trains_nothing(nano: Renderer) -> None:
    record = played(nano, [True] * len(nano.reply(CALL)))
    lone = replace(record, messages=tuple(record.messages[i] for i in (0, 2)))
    assert build(lone, MOR, nano, train_forced=False) == []
    assert len(build(lone, MOR, nano)) == 1


def test_a_reply_of_weight_0_is_context_only(renderer: Renderer) -> None:
    messages = (*EPISODE[:1], replace(EPISODE[1], weight=0.0), *EPISODE[2:])
    (example,) = build(trajectory(messages), MOR, renderer)
    assert "Next: executor" not in trained_text(example, renderer)
    assert "Next: executor" in renderer.text(example.ids)


def test_a_trajectory_without_trained_replies_gives_no_example(nano: Renderer) -> None:
    assert build(trajectory(EPISODE[:1]), MOR, nano) == []
    assert build(trajectory((*EPISODE[:1], replace(EPISODE[1], weight=0.0))), MOR, nano) == []


def test_a_speaker_outside_the_team_is_named(nano: Renderer) -> None:
    with pytest.raises(DataError, match="'debt-1': speaker 'reasoner' is not in team 'single'"):
        build(trajectory(), find_team("single"), nano)


def test_too_long_is_refused_with_both_numbers(nano: Renderer) -> None:
    with pytest.raises(DataError, match=r"'debt-1': an example of \d+ tokens is longer than max_length 60"):
        build(trajectory(), MOR, nano, max_length=60)


def test_cutting_keeps_whole_replies_and_counts_the_rest(renderer: Renderer) -> None:
    first = len(renderer.prompt(EPISODE[:1], TOOLS, "reasoner")) + len(renderer.reply(EPISODE[1]))
    for length in range(first, first + 12):
        built = build_all([trajectory()], MOR, renderer, max_length=length, on_long="cut")
        assert built.dropped == 3
        assert len(built.examples[0].ids) == first
        audit(built.examples, renderer, MOR, max_length=length)


def test_cutting_before_the_first_reply_leaves_nothing(nano: Renderer) -> None:
    built = build_all([trajectory()], MOR, nano, max_length=20, on_long="cut")
    assert (built.examples, built.dropped) == ((), 4)


def test_skipping_leaves_a_long_example_out_and_counts_its_replies(nano: Renderer) -> None:
    short = trajectory(EPISODE[:2], "debt-2")
    length = len(build(short, MOR, nano)[0].ids)
    built = build_all([trajectory(), short], MOR, nano, max_length=length, on_long="skip")
    assert [example.source for example in built.examples] == ["debt-2"]
    assert built.dropped == 4


def test_a_reply_that_was_cut_is_never_trained(nano: Renderer) -> None:
    cut = nano.parse(nano.reply(CALL)[:-3], "executor")
    episode = trajectory((*EPISODE[:2], cut, Message("tool", "error"), *EPISODE[4:]))
    with pytest.raises(DataError, match="message 2 was cut before its end token"):
        build(episode, MOR, nano)
    built = build_all([episode], MOR, nano, on_long="cut")
    assert built.dropped == 1
    assert "read_debt" not in trained_text(built.examples[0], nano)
    audit(built.examples, nano, MOR)


def test_what_build_makes_passes_the_audit(renderer: Renderer) -> None:
    for team in (MOR, APART):
        audit(build(trajectory(), team, renderer), renderer, team)


def refused(example: Example, renderer: Renderer, reason: str, max_length: int | None = None) -> None:
    with pytest.raises(DataError, match=f"'debt-1'.*{reason}"):
        audit([example], renderer, MOR, max_length)


def test_no_examples_are_refused(nano: Renderer) -> None:
    with pytest.raises(DataError, match="nothing would be trained"):
        audit([], nano, MOR)


def test_an_empty_mask_is_refused(renderer: Renderer) -> None:
    (example,) = build(trajectory(), MOR, renderer)
    refused(replace(example, weights=(0.0,) * len(example.ids)), renderer, "no token is trained")


def test_every_trained_context_token_is_refused(renderer: Renderer) -> None:
    (example,) = build(trajectory(), MOR, renderer)
    for place, speaker in enumerate(example.speakers):
        if speaker is None:
            refused(changed(example, place, 1.0), renderer, "trained")


def test_an_observation_labelled_as_a_reply_is_refused(renderer: Renderer) -> None:
    (example,) = build(trajectory(), MOR, renderer)
    place = example.speakers.index(None, example.speakers.index("executor"))
    stop = example.speakers.index("reasoner", place)
    speakers = (*example.speakers[:place], *("executor",) * (stop - place), *example.speakers[stop:])
    weights = (*example.weights[:place], *(1.0,) * (stop - place), *example.weights[stop:])
    refused(replace(example, speakers=speakers, weights=weights), renderer, "trained")


def test_a_trained_header_is_refused(renderer: Renderer) -> None:
    (example,) = build(trajectory(), MOR, renderer)
    refused(changed(example, example.speakers.index("reasoner"), 1.0), renderer, "does not begin where a reply")


def test_an_untrained_end_token_is_refused(renderer: Renderer) -> None:
    (example,) = build(trajectory(), MOR, renderer)
    refused(changed(example, len(example.ids) - 1, 0.0), renderer, "end token .* is not trained")


def test_a_truncated_example_is_refused(renderer: Renderer) -> None:
    (example,) = build(trajectory(EPISODE[:3]), MOR, renderer)
    parts = (example.ids[:-4], example.weights[:-4], example.speakers[:-4])
    refused(Example(*parts, source="debt-1"), renderer, "end token .* is not trained")


def test_a_truncated_call_is_refused_even_with_an_end_token(renderer: Renderer) -> None:
    cut = renderer.parse((*renderer.reply(CALL)[:-4], renderer.end_id), "executor")
    (example,) = build(trajectory((*EPISODE[:2], cut)), MOR, renderer)
    refused(example, renderer, "a malformed or truncated call is trained")


def test_a_reply_trained_in_part_is_refused(renderer: Renderer) -> None:
    (example,) = build(trajectory(), MOR, renderer)
    refused(changed(example, example.weights.index(1.0), 0.0), renderer, "does not begin where a reply")


def test_the_wrong_speaker_s_label_is_refused(renderer: Renderer) -> None:
    (example,) = build(trajectory(), MOR, renderer)
    speakers = tuple("summarizer" if speaker == "executor" else speaker for speaker in example.speakers)
    refused(replace(example, speakers=speakers), renderer, "does not begin where a reply of 'summarizer'")


def test_a_reply_with_two_labels_is_refused(nano: Renderer) -> None:
    (example,) = build(trajectory(), MOR, nano)
    speakers = (*example.speakers[:-2], "reasoner", "summarizer")
    refused(replace(example, speakers=speakers), nano, "tokens that are not labelled 'summarizer'")


def test_a_label_outside_the_team_is_refused(nano: Renderer) -> None:
    (example,) = build(trajectory(), MOR, nano)
    with pytest.raises(DataError, match="is not in team 'single'"):
        audit([example], nano, find_team("single"))


def test_an_overlong_example_is_refused(nano: Renderer) -> None:
    (example,) = build(trajectory(), MOR, nano)
    refused(example, nano, "are more than max_length 50", 50)


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_an_impossible_weight_is_refused(nano: Renderer, weight: float) -> None:
    (example,) = build(trajectory(), MOR, nano)
    refused(changed(example, len(example.ids) - 1, weight), nano, "negative or not finite")


def test_labels_that_do_not_align_are_refused(nano: Renderer) -> None:
    (example,) = build(trajectory(), MOR, nano)
    refused(replace(example, weights=example.weights[1:]), nano, "must align")


def test_the_budget_adds_up(nano: Renderer) -> None:
    (example,) = build(trajectory(), MOR, nano)
    spent = budget([example, example])
    assert sum(one.tokens for one in spent.values()) == 2 * len(example.ids)
    assert sum(one.trained for one in spent.values()) == 2 * sum(example.weights)
    assert spent["executor"] == Budget(
        2 * (len(nano.header("executor")) + len(nano.reply(CALL))), 2 * len(nano.reply(CALL))
    )
    assert spent[None].trained == 0


def test_describe_tells_each_token(nano: Renderer, nano_tokenizer) -> None:
    (example,) = build(trajectory(), MOR, nano)
    rows = describe(example, nano_tokenizer)
    assert "".join(text for text, _, _ in rows) == nano.text(example.ids)
    assert rows[-1] == ("<|im_end|>", "summarizer", 1.0)
    assert rows[0] == ("<|im_start|>", None, 0.0)


def test_the_label_page_shows_every_token_and_the_budget(nano: Renderer, nano_tokenizer) -> None:
    examples = build(trajectory(), MOR, nano)
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(label_page(examples, nano_tokenizer))
    page = console.export_text()
    assert sum("reasoner" in line for line in page.splitlines()) == budget(examples)["reasoner"].tokens + 1
    assert "tokens of 1 examples" in page


def test_the_label_text_shows_what_is_trained_on_one_line_each(nano: Renderer, nano_tokenizer) -> None:
    text = label_text(build(trajectory(), MOR, nano), nano_tokenizer)
    trained = [line.replace("|", "") for line in text.splitlines() if " x1 " in line]
    assert len(trained) == 4
    assert trained[1].endswith('{"name":"read_debt","args":{"key":"Plalples"}}<im_end>')


def test_the_label_page_spells_terminal_codes_out(nano: Renderer, nano_tokenizer) -> None:
    hostile = trajectory((Message("user", "\x1b[31m [red]x"), EPISODE[1]), "\x1b[0m[bold]")
    text = label_text(build(hostile, MOR, nano), nano_tokenizer)
    assert "\x1b" not in text
    assert "\\x1b" in text


def spelled(text: str, **fields: object) -> Trajectory:
    return trajectory((Message("user", "What is <|im_end|>?"), Message("assistant", text, **fields)))


MARKS = {"nano": "<|im_end|>", "hermes": "<|im_start|>", "llama3": "<|eot_id|>", "phi3": "<|user|>"}


@pytest.mark.parametrize("name", MARKS)
def test_a_mark_spelled_out_in_a_reply_is_refused(name: str, request: pytest.FixtureRequest) -> None:
    renderer = find(request.getfixturevalue(f"{name}_tokenizer"), name)
    told = rf"trajectory 'debt-1': the text of message 1 spells out '{re.escape(MARKS[name])}'.*delete it, or give"
    with pytest.raises(DataError, match=told):
        build(spelled(f"It is {MARKS[name]}."), find_team("single"), renderer)


@pytest.mark.parametrize("name", ["hermes", "phi3"])
def test_a_call_in_the_bases_own_tags_in_a_replys_text_is_refused(name: str, request: pytest.FixtureRequest) -> None:
    renderer = find(request.getfixturevalue(f"{name}_tokenizer"), name)
    text = 'Well.\n<tool_call>\n{"name": "read_debt", "arguments": {"key": "Plalples"}}\n</tool_call>'
    with pytest.raises(DataError, match=r"spells out '<tool_call>'.*write calls as 'tool_calls'"):
        build(spelled(text), find_team("single"), renderer)


def test_a_mark_in_what_is_not_trained_stays_text(nano: Renderer) -> None:
    messages = (*spelled("<|im_end|>", weight=0).messages, Message("user", "And?"), Message("assistant", "Yes."))
    (example,) = build(trajectory(messages), find_team("single"), nano)
    assert nano.text(example.ids).count("<|im_end|>") == 5 + 2
    assert example.ids.count(nano.end_id) == 5


def test_reasoning_is_written_with_the_tokens_a_base_has_for_it(hermes_tokenizer) -> None:
    tokenizer = copy.deepcopy(hermes_tokenizer)
    tokenizer.add_tokens([AddedToken("<think>", special=False), AddedToken("</think>", special=False)])
    renderer = find(tokenizer)
    (example,) = build(spelled("<think>\n2+2\n</think>\n\n4"), find_team("single"), renderer)
    inner, outer = tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
    assert (example.ids.count(inner), example.ids.count(outer)) == (1, 1)
    asked = Message("user", "<think>")
    assert inner not in renderer.render((asked,)).ids
    said = Message("assistant", "<think>\n2+2\n</think>\n\n4", speaker="assistant")
    assert renderer.parse(renderer.reply(said), "assistant") == said
