"""Calls are right when they name a tool and fit its schema; no schema and no arguments can hang or crash the check."""

from __future__ import annotations

import time

import pytest

from rolecraft.judges import calls
from rolecraft.types import Message, Task, ToolCall, ToolSpec, Trajectory

WEATHER = ToolSpec(
    "weather",
    "weather of a city",
    {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
        "required": ["city"],
    },
)


def played(*messages, tools=(WEATHER,)):
    return Trajectory("t", Task("t", (Message("user", "?"),), tools), (Message("user", "?"), *messages))


def calling(*made, unparsed=None):
    return Message("assistant", tool_calls=made, unparsed=unparsed)


def judged(schema, **arguments):
    return calls.judge(played(calling(ToolCall("f", arguments)), tools=(ToolSpec("f", "", schema),)))


def of(**properties):
    return {"type": "object", "properties": properties}


def test_a_right_call_scores_one():
    assert calls.judge(played(calling(ToolCall("weather", {"city": "Forlì", "days": 2})))).score == 1


def test_no_calls_score_one_with_the_reason():
    verdict = calls.judge(played(Message("assistant", "hello")))
    assert (verdict.score, verdict.reason) == (1.0, "no calls")


def test_the_score_is_the_share_of_right_calls():
    good, bad = ToolCall("weather", {"city": "a"}), ToolCall("wether", {})
    verdict = calls.judge(played(calling(good, bad), calling(good, unparsed="{")))
    assert verdict.score == 0.5
    assert verdict.parts == {"parsed": 0.75, "known": 0.5, "fitting": 0.5}


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (ToolCall("wether", {}), "did you mean 'weather'"),
        (ToolCall("zzz", {}), "tools: weather"),
        (ToolCall("weather", {}), "needs 'city'"),
        (ToolCall("weather", {"city": 3}), "needs 'city' to be a string; got 3"),
        (ToolCall("weather", {"city": "a", "days": 0}), "'days'"),
        (ToolCall("weather", {"city": "a", "unit": "C"}), "not 'unit'"),
    ],
)
def test_a_wrong_call_is_told_with_its_message(call, said):
    verdict = calls.judge(played(calling(call)))
    assert verdict.score == 0
    assert verdict.reason.startswith("1 of 1 calls are wrong: messages[1]: ")
    assert said in verdict.reason


def test_undeclared_arguments_fit_where_the_schema_allows_them():
    assert judged({"type": "object", "additionalProperties": True}, x=1).score == 1


def test_calls_before_the_episode_are_not_judged():
    opening = (Message("user", "?"), calling(ToolCall("nonsense", {})), Message("user", "?"))
    trajectory = Trajectory("t", Task("t", opening, (WEATHER,)), (*opening, Message("assistant", "x")))
    assert calls.judge(trajectory).reason == "no calls"


def test_faults_tell_place_name_and_kind():
    (fault,) = calls.faults(played(calling(ToolCall("weather", {}))))
    assert (fault.place, fault.name, fault.kind) == (1, "weather", "arguments")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "dict"},
        {"type": "object", "properties": ["a"]},
        {"type": "object", "required": "a"},
        of(a={"type": "float"}),
        of(a=None),
        of(a={"pattern": "("}),
        of(a={"pattern": 3}),
        {"$ref": 3},
    ],
)
def test_a_malformed_schema_is_a_reason(schema):
    verdict = judged(schema, a="x")
    assert verdict.score == 0
    assert "the schema of f is malformed" in verdict.reason


@pytest.mark.parametrize("reference", ["http://localhost:9/x.json", "file:///etc/passwd", "other.json#/a", "#name"])
def test_nothing_outside_a_schema_is_fetched(reference):
    assert "nothing is fetched" in judged(of(a={"$ref": reference}), a=1).reason


def test_a_reference_inside_the_schema_is_followed():
    schema = of(a={"$ref": "#/$defs/x~1y"}) | {"$defs": {"x/y": {"type": "integer"}}}
    assert judged(schema, a=1).score == 1
    assert "an integer" in judged(schema, a="1").reason


def test_a_reference_that_leads_nowhere_is_a_reason():
    assert "leads nowhere" in judged(of(a={"$ref": "#/$defs/x"}), a=1).reason


def test_a_recursive_schema_checks_what_it_can_reach():
    schema = of(value={"type": "integer"}, next={"$ref": "#"})
    assert judged(schema, value=1, next={"value": 2, "next": {"value": 3}}).score == 1
    assert judged(schema, value=1, next={"value": 2, "next": {"value": "3"}}).score == 0


def test_a_property_may_be_named_like_a_keyword():
    schema = of(**{"$ref": {"type": "string"}, "pattern": {"type": "string"}})
    assert judged(schema, **{"$ref": "x", "pattern": "("}).score == 1


def nested(depth):
    value: dict = {}
    for _ in range(depth):
        value = {"a": value}
    return value


def doubling(levels):
    defs = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(levels)}
    return of(a={"$ref": "#/$defs/d0"}) | {"$defs": {**defs, f"d{levels}": {"type": "integer"}}}


def chained(levels):
    """Return a schema each of whose levels refers to the level below, where it is again."""
    schema: dict = {}
    for level in range(levels, 0, -1):
        path = "/properties/a" * level
        schema = {"properties": {"a": schema}, "anyOf": [{"$ref": f"#/$defs/a{path}"}]}
    return schema


HOSTILE = {
    "doubling references": (doubling(60), {"a": 1}),
    "endless reference": ({"$ref": "#"}, {"a": 1}),
    "wide recursion": (of(a={"allOf": [{"$ref": "#"}, {"$ref": "#"}]}), nested(14)),
    "slow pattern": (of(a={"pattern": "^(a+)+$"}), {"a": "a" * 60 + "!"}),
    "slow alternatives": (of(a={"pattern": "(a|a)*b"}), {"a": "a" * 60}),
    "many repeats": (of(a={"pattern": "a*" * 30 + "b"}), {"a": "a" * 300}),
    "slow property pattern": ({"patternProperties": {"^(a+)+$": {}}}, {"a" * 60 + "!": 1}),
    "unique objects": (of(a={"uniqueItems": True}), {"a": [{"i": i} for i in range(30_000)]}),
    "deep arguments": (of(a={}), nested(20_000)),
    "deep schema": (nested(5_000), {}),
    "wide schema": (of(a={"anyOf": [{"minLength": i} for i in range(50_000)]}), {"a": "x"}),
    "many large patterns": (of(**{f"k{i}": {"pattern": f"a{{40000}}{i}"} for i in range(300)}), {}),
    "many properties": (of(**{f"k{i}": {"pattern": rf"\p{{{'_' * (i % 50)}L}}{i}"} for i in range(300)}), {}),
    "patterns beside each other": (
        of(**{f"k{i}": {"pattern": "^(a{1,99}){1,99}b"} for i in range(99)}),
        {f"k{i}": "a" * 999 for i in range(99)},
    ),
    "definitions within each other": (
        {"$ref": "#/$defs/a", "$defs": {"a": chained(90)}},
        {},
    ),
    "long name": (of(), {"a" * 1_000_000: 1}),
}


@pytest.mark.parametrize(("schema", "arguments"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_schemas_and_arguments_are_checked_in_bounded_time(schema, arguments):
    trajectory = played(calling(ToolCall("f", arguments)), tools=(ToolSpec("f", "", schema),))
    start = time.process_time()
    verdict = calls.judge(trajectory)
    assert time.process_time() - start < 5
    assert len(verdict.reason) < 1000


@pytest.mark.parametrize(
    ("pattern", "right", "wrong"),
    [
        (r"^\d{4}-\d{2}-\d{2}$", "2024-05-12", "12.5."),
        ("^[A-Z]+$", "ABC", "abc"),
        (r"^[\w.+-]+@[\w-]+$", "a@b", "ab"),
    ],
)
def test_an_ordinary_pattern_is_checked(pattern, right, wrong):
    schema = of(a={"type": "string", "pattern": pattern}, note={"type": "string"})
    assert judged(schema, a=right).score == 1
    assert judged(schema, a=wrong).score == 0
