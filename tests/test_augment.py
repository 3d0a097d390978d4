"""Rules make other trajectories: seeded, composable, with calls, schemas and reference in accord."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest

from rolecraft import augment, catalog, wire
from rolecraft.augment.pool import subjects
from rolecraft.errors import SettingsError
from rolecraft.importers import NO_TOOL_FITS
from rolecraft.judges import calls
from rolecraft.types import Message, Task, ToolCall, ToolSpec, Trajectory

DIALOGUE = catalog.find("importers", "sgd").convert(catalog.find("importers", "sgd").EXAMPLE)


def tool(name: str, *keys: str, description: str = "does something") -> ToolSpec:
    properties = {key: {"type": "string", "description": f"The {key} wanted (any)"} for key in keys}
    return ToolSpec(name, description, {"type": "object", "properties": properties, "required": list(keys)})


def asked(text: str, name: str = "findFerry", others: tuple[ToolSpec, ...] = (), **arguments: str) -> Trajectory:
    call = ToolCall(name, arguments, "call_0")
    step = {"at": 1, "calls": [{"name": name, "arguments": arguments}], "services": [name]}
    question = Message("user", text)
    task = Task(text, (question,), (tool(name, *arguments), *others), {"services": [name], "steps": [step]})
    return Trajectory(text, task, (question, Message("assistant", tool_calls=(call,))))


POOL = augment.Pool(
    [asked("Weigh my boat Anna", "weighBoat", boat="Anna"), asked("Feed the gulls", "feedGulls")],
    [
        tool(f"get{word}", "x")
        for word in ("FerryPrice", "BoatPrice", "HarbourMap", "CropYield", "SoilDepth", "Ferries")
    ],
)


def made(rules, trajectory, seed=0, pool=POOL):
    return augment.apply(augment.read(rules), trajectory, pool, seed)


def only(rules, trajectory, seed=0, pool=POOL):
    (one,) = made(rules, trajectory, seed, pool)
    return one


EVERY = [{"mask_names": {"share": 1}}, {"hide_tools": {"share": 1}}, {"join_requests": {"share": 1}}]
EVERY += [{"ask_first": {"share": 1}}, "distractors", "steps", "short_results", "without_thoughts"]


@pytest.mark.parametrize("rule", EVERY, ids=str)
@pytest.mark.parametrize("name", catalog.names("importers"))
def test_what_a_rule_makes_of_any_source_keeps_calls_and_tools_in_accord_and_the_input_as_it_was(name, rule):
    module = catalog.find("importers", name)
    before = module.convert(module.EXAMPLE)
    for seed in range(5):
        for one in made([rule], before, seed):
            assert calls.judge(one).score == 1
            assert one.messages[: len(one.task.messages)] == one.task.messages
            assert wire.trajectory_from_json(json.loads(wire.dumps(wire.trajectory_to_json(one)))) == one
            names = {spec.name for spec in one.task.tools}
            for step in one.task.reference.get("steps", ()):
                assert {call["name"] for call in step["calls"]} <= names
                reply = one.messages[step["at"]]
                assert [(c.name, dict(c.arguments)) for c in reply.tool_calls] == [
                    (call["name"], dict(call["arguments"])) for call in step["calls"]
                ]
    assert before == module.convert(module.EXAMPLE)


def test_draws_depend_on_seed_and_row_alone():
    rules = ["distractors", {"mask_names": {"share": 0.5}}]
    rows = [asked(f"Ferry to {n}", to=str(n)) for n in range(30)]
    first = [only(rules, row) for row in rows]
    assert first == [only(rules, row) for row in reversed(rows)][::-1]
    assert first != [only(rules, row, seed=1) for row in rows]


def test_rules_compose_in_their_order_and_the_lineage_names_those_that_changed_something():
    row = asked("Find me a ferry to Oban", to="Oban")
    one = only([{"ask_first": {"share": 1}}, "short_results", {"mask_names": {"share": 1}}], row)
    assert one.lineage == ("ask_first", "mask_names")


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (["mask_name"], "Did you mean 'mask_names'"),
        ([{"mask_names": {"shares": 1}}], "unknown key 'shares'"),
        ([{"mask_names": {"share": 1.5}}], r"mask_names\.share is 1\.5"),
        ([{"hide_tools": {"least": 0}}], "at least 1"),
        ([{"distractors": {"least": 5, "most": 2}}], "least <= most"),
        ([{"join_requests": {"most": 1}}], "at least 2"),
        ([{"steps": {"most": -1}}], "at least something"),
        ([{"short_results": {"most": -1}}], "0 or more"),
        ([{"steps": None, "mask_names": None}], "one name"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_told(told, said):
    with pytest.raises(SettingsError, match=said):
        augment.read(told)


def test_masked_names_are_the_same_wherever_they_stand_and_tell_nothing():
    one = only([{"mask_names": {"share": 1}}], DIALOGUE)
    (spec,) = one.task.tools
    (call,) = [call for message in one.messages for call in message.tool_calls]
    assert call.name == spec.name == one.task.reference["steps"][1]["calls"][0]["name"] != "BookFerry"
    assert set(call.arguments) <= set(spec.parameters["properties"])
    assert not {"date", "passengers", "with_car"} & set(spec.parameters["properties"])
    assert len(spec.parameters["required"]) == 2
    assert set(spec.parameters["required"]) <= set(spec.parameters["properties"])
    assert list(one.task.reference["steps"][1]["accepted"]) == list(call.arguments)
    assert one.task.reference["steps"][0]["asks_for"] == [spec.name]
    assert [m.content for m in one.messages] == [m.content for m in DIALOGUE.messages]


def test_a_name_without_a_description_stays_since_it_tells_all_there_is():
    row = asked("Go", "goAway")
    bare = Trajectory("t", Task("t", row.task.messages, (ToolSpec("goAway", ""),)), row.messages)
    assert only([{"mask_names": {"share": 1}}], bare) == bare


def test_distractors_are_about_something_alike_or_about_nothing_of_it_and_shuffled():
    row = asked("Ferry to Oban", "findFerryPrice", to="Oban")
    near = only([{"distractors": {"least": 3, "most": 3, "near": 1.0}}], row)
    names = {spec.name for spec in near.task.tools} - {"findFerryPrice"}
    assert "getBoatPrice" in names  # alike; getFerryPrice and getFerries might do as well, or say as little
    assert not names & {"getFerryPrice", "getFerries"}
    places = {
        [s.name for s in only(["distractors"], row, seed).task.tools].index("findFerryPrice") for seed in range(30)
    }
    assert len(places) > 2


def test_as_many_tools_are_offered_as_are_told_and_needed_ones_always():
    others = tuple(tool(f"own{n}") for n in range(8))
    row = asked("Ferry to Oban", others=others, to="Oban")
    for seed in range(20):
        one = only([{"distractors": {"least": 2, "most": 4}}], row, seed)
        assert 2 <= len(one.task.tools) <= 4
        assert "findFerry" in {spec.name for spec in one.task.tools}
    one = only([{"distractors": {"least": 4, "most": 4, "own": False}}], row)
    assert not {spec.name for spec in others} & {spec.name for spec in one.task.tools}


def test_a_question_keeps_the_tools_that_it_asks_for():
    for seed in range(10):
        ask = only([{"steps": {"kinds": ["ask"]}}, {"distractors": {"least": 1, "most": 1}}], DIALOGUE, seed)
        assert [spec.name for spec in ask.task.tools] == ["BookFerry"]


def test_where_nothing_fits_no_word_of_an_added_tool_is_in_the_request():
    negative = Trajectory(
        "n",
        Task("n", (Message("user", "what does the soil of a harbour weigh"),)),
        (Message("user", "what does the soil of a harbour weigh"), Message("assistant", NO_TOOL_FITS)),
    )
    for seed in range(20):
        one = only([{"distractors": {"least": 3, "most": 3, "own": False}}], negative, seed)
        assert len(one.task.tools) == 3
        assert not any({"soil", "harbour"} & subjects(spec.name) for spec in one.task.tools)


def test_hidden_tools_leave_the_first_request_and_the_answer_that_none_fits():
    other = tool("bookFerries", "to")
    one = only([{"hide_tools": {"share": 1}}], asked("Ferry to Oban", others=(other, tool("mapRoads")), to="Oban"))
    assert one.messages == (Message("user", "Ferry to Oban"), Message("assistant", NO_TOOL_FITS))
    names = [spec.name for spec in one.task.tools]
    assert "mapRoads" in names
    assert not any("ferr" in name.lower() for name in names)
    assert one.task.reference["steps"] == [{"at": 1, "calls": [], "services": ["findFerry"]}]
    row = only([{"hide_tools": {"share": 1, "own": False}}], DIALOGUE)
    assert [message.role for message in row.messages] == ["system", "user", "assistant"]
    assert "BookFerry" not in {spec.name for spec in row.task.tools}


def test_joined_requests_make_the_calls_of_all_at_once():
    seen = set()
    for seed in range(20):
        one = only([{"join_requests": {"share": 1, "most": 2}}], asked("Ferry to Oban", to="Oban"), seed)
        (reply,) = [m for m in one.messages if m.role == "assistant"]
        assert [call.id for call in reply.tool_calls] == ["call_0", "call_1"]
        assert one.messages[0].content.startswith("Ferry to Oban. ")
        assert {spec.name for spec in one.task.tools} == {call.name for call in reply.tool_calls}
        seen.add(reply.tool_calls[1].name)
    assert seen == {"weighBoat", "feedGulls"}


def test_requests_whose_tools_clash_or_that_are_the_same_are_not_joined():
    row = asked("Ferry to Oban", to="Oban")
    for partner in (asked("Ferry by noon", when="noon"), row):
        assert only([{"join_requests": {"share": 1}}], row, pool=augment.Pool([partner])) == row


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Please find me a ferry to Oban.", "Please find me a ferry."),
        ("Find ferries for Oban on Monday", "Find ferries on Monday"),
        ("Is there one named 'Oban' today?", "Is there one today?"),
    ],
)
def test_a_request_loses_the_value_that_its_call_requires_and_is_asked_for_it(text, left):
    one = only([{"ask_first": {"share": 1}}], asked(text, to="Oban"))
    assert one.messages[0].content == left == one.task.messages[0].content
    assert "to wanted" in one.messages[1].content
    assert "?" in one.messages[1].content
    assert one.task.reference["steps"][0] == {
        "at": 1,
        "calls": [],
        "asks_for": ["findFerry"],
        "services": ["findFerry"],
    }


@pytest.mark.parametrize(
    "text", ["Take Oban or Oban, will you?", "A ferry to Obanville please", "To Oban", "Ferry me there"]
)
def test_a_request_in_which_the_value_is_not_once_and_whole_stays(text):
    row = asked(text, to="Oban")
    assert only([{"ask_first": {"share": 1}}], row) == row


def test_steps_are_dialogues_of_their_own_in_which_the_last_reply_is_trained_alone():
    ask, call = made(["steps"], DIALOGUE)
    assert (ask.messages[-1].content, ask.id) == ("On which day?", "7_00001@2")
    assert call.messages[-1].tool_calls
    assert [m.weight for m in call.messages if m.role == "assistant"] == [0, None]
    assert len(made([{"steps": {"most": 1}}], DIALOGUE)) == 1
    assert len(made([{"steps": {"kinds": ["call"]}}], DIALOGUE)) == 1


def test_results_are_cut_and_thoughts_left_out():
    long = DIALOGUE.messages[5].edited(content=json.dumps([1, 2, 3, 4]))
    broken = DIALOGUE.messages[5].edited(content="[1, 2")
    for message, told in ((long, "[1,2,3]"), (broken, "[1, 2")):
        row = Trajectory("t", DIALOGUE.task, (*DIALOGUE.messages[:5], message))
        assert only(["short_results"], row).messages[-1].content == told
    row = asked("Go")
    thought = row.messages[1].edited(content="<think>\nHm.\n</think>\n\nI go.")
    plain = Trajectory("t", row.task, (row.messages[0], thought))
    assert only(["without_thoughts"], plain).messages[1].content == "I go."


def test_an_empty_pool_leaves_what_cannot_be_drawn():
    row = asked("Ferry to Oban", to="Oban")
    for rule in [*EVERY[1:3], "distractors"]:
        assert only([rule], row, pool=augment.Pool()).task.tools == row.task.tools


def test_the_subject_of_a_name_is_what_it_is_about():
    assert subjects("getFerryPrices") == {"ferry", "price"}
    assert subjects("find_PM_level") == {"pm", "level"}
    assert subjects("search") == {"search"}


NAMES = ("findFerry", "weighBoat", "feedGulls")
GROUP = tuple(
    replace(one, task=replace(one.task, tools=tuple(tool(name) for name in (*order, "rowBoat", "callHarbour"))))
    for one, order in zip(
        (asked("Which ferry goes", NAMES[0]), asked("Weigh it", NAMES[1]), asked("Feed them", NAMES[2])),
        itertools.permutations(NAMES),
        strict=False,
    )
)
"""Three requests for the same tools, which each tells in an order of its own."""


def together(rules, rows=GROUP, seed=0):
    return augment.apply_together(augment.read(rules), rows, POOL, seed)


def test_rows_with_the_same_tools_are_given_the_same_others_in_the_same_order_by_the_same_names():
    rules = ["distractors", {"mask_names": {"share": 1}}]
    assert len({augment.offer(augment.read(rules), one) for one in GROUP}) == 1
    for seed in range(5):
        found = together(rules, seed=seed)
        assert len({repr(one.task.tools) for one in found}) == 1
        assert {spec.name for spec in found[0].task.tools}.isdisjoint(NAMES)
        assert [one.messages[0] for one in found] == [one.messages[0] for one in GROUP]
        assert all(calls.judge(one).score == 1 for one in found)
    assert len({repr(together(rules, seed=seed)[0].task.tools) for seed in range(5)}) == 5


def test_rows_that_lose_what_they_call_are_together_offered_nothing_that_fits_any():
    found = together([{"hide_tools": {"share": 1}}, "distractors"])
    assert len({repr(one.task.tools) for one in found}) == 1
    assert all(one.messages[-1].content == NO_TOOL_FITS for one in found)
    assert {spec.name for spec in found[0].task.tools}.isdisjoint(NAMES)


def test_a_row_that_no_tool_fits_is_not_offered_what_another_of_its_group_is_for():
    none = replace(GROUP[0], id="none", messages=(GROUP[0].messages[0], Message("assistant", NO_TOOL_FITS)))
    none = replace(none, task=replace(none.task, reference={"steps": [{"at": 1, "calls": []}]}))
    found = together([{"distractors": {"own": False}}], (none, *GROUP[1:]))
    (alone,) = [one for one in found if one.id == "none"]
    assert not any("ferry" in spec.name.lower() for spec in alone.task.tools)


def test_a_group_of_one_is_made_what_the_row_alone_is():
    for seed in range(5):
        for one in GROUP:
            assert together(EVERY[1:], (one,), seed) == made(EVERY[1:], one, seed)


def test_where_uncalled_tools_are_left_out_they_do_not_keep_rows_apart():
    rows = [replace(one, task=replace(one.task, tools=one.task.tools[:2])) for one in GROUP]
    rows = [replace(one, messages=(one.messages[0], Message("assistant", NO_TOOL_FITS))) for one in rows]
    rows = [replace(one, task=replace(one.task, reference={"steps": [{"at": 1, "calls": []}]})) for one in rows]
    rules = [{"distractors": {"own": False}}]
    assert len({augment.offer(augment.read(rules), one) for one in rows}) == 1
    assert len({augment.offer(augment.read(["distractors"]), one) for one in rows}) > 1
    assert len({repr(one.task.tools) for one in together(rules, rows)}) == 1
