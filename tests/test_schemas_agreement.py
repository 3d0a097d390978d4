"""What the judge of calls accepts can be written under a grammar, and what a grammar writes the judge accepts."""

from __future__ import annotations

import json
import random
from pathlib import Path

import any_schema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecraft import renderers
from rolecraft.engine.matcher import Grammars, Settings
from rolecraft.errors import DataError
from rolecraft.grammar import Wanted, write
from rolecraft.grammar.shapes import Limits
from rolecraft.judges import calls
from rolecraft.types import Message, Task, ToolCall, ToolSpec, Trajectory

CASES = Path(__file__).parents[2] / "shared/cases/schemas.json"
DRAFTS = [None, *(f"http://json-schema.org/draft-0{number}/schema#" for number in (4, 6, 7))]
DRAFTS += [f"https://json-schema.org/draft/{name}/schema" for name in ("2019-09", "2020-12")]


def judged(schema, arguments):
    """Return the judge's verdict on one call."""
    asked, answer = Message("user", "?"), Message("assistant", tool_calls=(ToolCall("f", arguments),))
    tools = (ToolSpec("f", "", schema),)
    return calls.judge(Trajectory("t", Task("t", (asked,), tools), (asked, answer)))


@pytest.fixture(scope="module")
def grammars(nano_tokenizer):
    return Grammars(renderers.find(nano_tokenizer), nano_tokenizer, len(nano_tokenizer), Settings())


@pytest.fixture(scope="module")
def writable(grammars, nano_tokenizer):
    """A function that tells whether a call with these arguments follows the grammar of its tool."""
    renderer = renderers.find(nano_tokenizer)

    def ask(schema, arguments):
        matcher = grammars.start(Wanted((ToolSpec("f", "", schema),), "required", parallel=False))
        return any_schema.follows(matcher, renderer.reply(Message("assistant", tool_calls=(ToolCall("f", arguments),))))

    return ask


def of(**properties):
    return {"type": "object", "properties": properties, "required": list(properties)}


def some(**properties):
    return {"type": "object", "properties": properties}


TEXT = {"type": "string"}
TREE = {"type": "object", "properties": {"v": TEXT, "next": {"$ref": "#/definitions/T"}}, "required": ["v"]}
KINDS = {
    "required in branches": (
        {**some(a=TEXT, b=TEXT), "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
        [{"a": "x"}, {"b": "x"}, {"a": "x", "b": "y"}],
        [{}],
    ),
    "one of two": (
        {**some(a=TEXT, b=TEXT, c=TEXT), "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
        [{"a": "x"}, {"b": "x", "c": "y"}],
        [{}, {"a": "x", "b": "y"}],
    ),
    "keys in branches": (
        {"type": "object", "anyOf": [of(a=TEXT), of(b={"type": "integer"})]},
        [{"a": "x"}, {"b": 1}, {"a": "x", "b": 1}],
        [{}, {"a": "x", "b": "y"}, {"a": "x", "c": 1}],
    ),
    "keys of a branch and of the whole": (
        {**of(kind={"enum": ["a", "b"]}), "oneOf": [of(kind={"const": "a"}, x=TEXT), of(kind={"const": "b"})]},
        [{"kind": "a", "x": "y"}, {"kind": "b"}],
        [{"kind": "a"}, {"kind": "b", "x": "y"}, {"kind": "c"}],
    ),
    "a reference at the root that recurs": (
        {"$ref": "#/definitions/T", "definitions": {"T": TREE}},
        [{"v": "a"}, {"v": "a", "next": {"v": "b", "next": {"v": "c"}}}],
        [{}, {"v": "a", "next": {}}],
    ),
    "beside a reference": (
        {**of(a={"$ref": "#/$defs/short", "minLength": 2}), "$defs": {"short": {"type": "string", "maxLength": 3}}},
        [{"a": "ab"}],
        [{"a": "a"}, {"a": "abcd"}],
    ),
    "not beside one in draft 7": (
        {
            "$schema": DRAFTS[3],
            **of(a={"$ref": "#/definitions/short", "minLength": 2}),
            "definitions": {"short": {"type": "string", "maxLength": 3}},
        },
        [{"a": "a"}],
        [{"a": "abcd"}],
    ),
    "everything at the root": (
        {"allOf": [{"$ref": "#/definitions/A"}, some(b=TEXT)], "definitions": {"A": of(a=TEXT)}},
        [{"a": "x"}, {"a": "x", "b": "y"}],
        [{}, {"b": "y"}, {"a": "x", "c": "y"}],
    ),
    "a tuple": (
        of(a={"type": "array", "items": [{"type": "integer"}, TEXT], "additionalItems": False, "minItems": 2}),
        [{"a": [1, "x"]}],
        [{"a": [1]}, {"a": ["x", 1]}, {"a": [1, "x", 2]}],
    ),
    "boolean bounds": (
        of(a={"type": "integer", "minimum": 1, "exclusiveMinimum": True, "maximum": 3, "exclusiveMaximum": False}),
        [{"a": 2}, {"a": 3}],
        [{"a": 1}, {"a": 4}],
    ),
    "keys that depend on others": (
        {**some(a=TEXT, b=TEXT), "dependencies": {"a": ["b"]}},
        [{}, {"b": "x"}, {"a": "x", "b": "y"}],
        [{"a": "x"}],
    ),
    "schemas that depend on keys": (
        {**some(a=TEXT, b=TEXT), "dependentSchemas": {"a": of(b={"maxLength": 1})}},
        [{}, {"b": "xx"}, {"a": "x", "b": "y"}],
        [{"a": "x"}, {"a": "x", "b": "yy"}],
    ),
    "nullable": (
        of(a={"type": "string", "nullable": True}, b={"enum": ["x"], "nullable": True}),
        [{"a": None, "b": None}, {"a": "y", "b": "x"}],
        [{"a": 1, "b": "x"}, {"a": "y", "b": "y"}],
    ),
    "an anchor": (
        {**of(a={"$ref": "#short"}), "$defs": {"x": {"$anchor": "short", "maxLength": 1, "type": "string"}}},
        [{"a": "x"}],
        [{"a": "xx"}],
    ),
    "a key that is required and not described": (
        {"type": "object", "required": ["a"]},
        [{"a": "x"}, {"a": [1, None]}],
        [{}, {"b": 1}],
    ),
    "letters": (
        of(a={"type": "string", "pattern": r"^\p{L}[\p{L}\d' -]*$"}),
        [{"a": "Zoë 2"}],
        [{"a": "2"}, {"a": ""}],
    ),
    "no letters": (of(a={"type": "string", "pattern": r"^[^\p{L}]+$"}), [{"a": "2 4"}], [{"a": "é"}]),
    "a mail address": (
        of(a={"type": "string", "pattern": r"^[\w-\.]+@([\w-]+\.)+[\w-]{2,4}$"}),
        [{"a": "ann.b@mail.example.com"}],
        [{"a": "ann"}],
    ),
    "an escaped slash": (of(a={"type": "string", "pattern": r"^https?:\/\/\S+$"}), [{"a": "http://x"}], [{"a": "x"}]),
    "no arguments": ({"type": "object", "properties": {}}, [{}], [{"a": 1}]),
    "nothing said": ({}, [{}], [{"a": 1}]),
    "strictly no arguments": ({"type": "object", "additionalProperties": False}, [{}], [{"a": 1}]),
    "strict": ({**of(a=TEXT), "additionalProperties": False, "$schema": DRAFTS[4]}, [{"a": "x"}], [{"a": "x", "b": 1}]),
}


@pytest.mark.parametrize(("schema", "fit", "misfit"), KINDS.values(), ids=KINDS)
def test_what_fits_can_be_written_and_passes_and_nothing_else(writable, schema, fit, misfit):
    agrees(writable, schema, fit, misfit)


def agrees(writable, schema, fit, misfit):
    """Assert that grammar and judge take what fits, and refuse what does not."""
    for arguments in fit:
        assert judged(schema, arguments).score == 1, (arguments, judged(schema, arguments).reason)
        assert writable(schema, arguments), arguments
    for arguments in misfit:
        assert judged(schema, arguments).score == 0, arguments
        assert not writable(schema, arguments), arguments


def test_the_shared_cases_are_written_and_judged_as_they_say(writable):
    if not CASES.exists():
        pytest.skip("no ../shared/cases: the public cases are not here")
    for case in json.loads(CASES.read_text(encoding="utf-8")):
        agrees(writable, case["parameters"], case["fit"], case["misfit"])


@pytest.mark.parametrize("schema", [{}, some(), {**some(), "additionalProperties": False}])
def test_a_call_without_arguments_ends_at_once(grammars, nano_tokenizer, schema):
    renderer = renderers.find(nano_tokenizer)
    matcher = grammars.start(Wanted((ToolSpec("f", "", schema),), "required", parallel=False))
    reply = renderer.reply(Message("assistant", tool_calls=(ToolCall("f", {}),)))
    assert tuple(matcher.forced()) == reply


@pytest.mark.parametrize(("pattern", "name"), [("^(?!b)", "a look-ahead"), (r"^(a|b)\1$", "a back reference")])
def test_a_pattern_beyond_masks_is_told_by_name_and_the_judge_still_keeps_it(grammars, nano_tokenizer, pattern, name):
    tool = ToolSpec("f", "", of(a={"type": "string", "pattern": pattern}))
    wanted = Wanted((tool,), "required", parallel=False)
    renderer = renderers.find(nano_tokenizer)
    with pytest.raises(DataError, match=rf"parameters\.properties\.a\.pattern \(has {name}\)"):
        write(renderer, wanted, Limits())
    assert write(renderer, wanted, Limits(), "ignore").ignored
    ignoring = Grammars(renderer, nano_tokenizer, len(nano_tokenizer), Settings(on_unsupported="ignore"))
    with pytest.warns(UserWarning, match=name):
        matcher = ignoring.start(wanted)
    assert any_schema.follows(matcher, renderer.reply(Message("assistant", tool_calls=(ToolCall("f", {"a": "b"}),))))
    assert judged(tool.parameters, {"a": "aa"}).score == 1
    assert "does not match" in judged(tool.parameters, {"a": "b"}).reason


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"type": "object", "properties": ["a"]}, "malformed at properties"),
        ({"type": "object", "properties": None}, "malformed at properties"),
        ({"type": "object", "required": None}, "malformed at required"),
        (of(a={"type": "string", "required": True}), "malformed at properties.a.required"),
        (of(a={"type": "float"}), "malformed at properties.a.type"),
        (of(a={"$ref": None}), "malformed at properties.a.$ref"),
        (of(a={"items": [None]}), "malformed at properties.a.prefixItems.0"),
        (of(a={"pattern": r"^\p{Nothing}$"}), "malformed at properties.a.pattern"),
        ({"dependencies": {"a": "b"}}, "malformed at dependentSchemas.a"),
        ({"patternProperties": {"(": {}}}, "malformed at patternProperties"),
        ({"anyOf": None}, "malformed at anyOf"),
        ({"$schema": 7}, "malformed at $schema"),
        ({"$defs": [], "$ref": "#/$defs/0"}, "leads nowhere"),
    ],
)
def test_a_malformed_schema_is_told_by_its_place(writable, schema, place):
    with pytest.raises(DataError) as caught:
        writable(schema, {})
    assert place in str(caught.value)
    assert place in judged(schema, {}).reason


@pytest.mark.parametrize("seed", range(40))
def test_a_schema_in_older_words_has_the_grammar_it_has_in_new_ones(nano_tokenizer, seed):
    renderer, limits = renderers.find(nano_tokenizer), Limits(text=8, items=3, digits=4, places=2, depth=1)
    schema = any_schema.parameters(random.Random(seed))

    def grammar(parameters):
        try:
            return write(renderer, Wanted((ToolSpec("f", "", parameters),), "required"), limits).text
        except DataError as error:
            return "no arguments" if "admits no arguments" in str(error) else "refused"

    wanted = grammar(schema)
    for draft in DRAFTS[:-1]:
        assert grammar(any_schema.older(schema, draft)) == wanted


VALUES = [*(-1, 0, 1, 2, 3, 1.5, "", "a", "ñ", "ab", "1", None, True), *([], [1], [1, "a"], {}, {"k": 1})]
LEAVES = [
    {"type": "integer", "minimum": 0},
    {"type": "integer", "minimum": 0, "exclusiveMinimum": True, "maximum": 3, "exclusiveMaximum": True},
    {"type": "number", "maximum": 2},
    {"type": "string", "pattern": r"^\p{L}+$"},
    {"type": "string", "maxLength": 1, "nullable": True},
    {"type": ["string", "null"], "pattern": r"^\w*$"},
    {"type": "array", "items": [{"type": "integer"}, TEXT], "additionalItems": False},
    {"type": "array", "items": {"type": "integer"}, "maxItems": 1},
    {"enum": ["a", 1, None, [1]]},
    {"const": {}},
    {"type": "boolean"},
    {"type": "object", "additionalProperties": {"type": "integer"}},
    {"$ref": "#/definitions/short"},
    {"$ref": "#/definitions/short", "nullable": True},
    {},
]
DEFINITIONS = {"short": {"type": "string", "maxLength": 1}}
leaves = st.sampled_from(LEAVES)
unions = st.lists(leaves, min_size=1, max_size=2).map(lambda parts: {"anyOf": parts})


@st.composite
def parameters(draw):
    """Draw the schema of a tool with the arguments a, b and c, some of which are said in branches."""
    described = {name: draw(leaves | unions) for name in draw(st.sets(st.sampled_from("abc")).map(sorted))}
    required = draw(st.sets(st.sampled_from(sorted(described)))) if described else set()
    schema = {"type": "object", "properties": described, "required": sorted(required), "definitions": DEFINITIONS}
    if len(described) > 1:
        first, second, *_ = described
        rule = draw(st.sampled_from(("", "anyOf", "oneOf", "dependencies", "allOf")))
        choices = [{"required": [first]}, {"required": [second]}]
        schema |= {"": {}, "dependencies": {rule: {first: [second]}}}.get(rule, {rule: choices})
    return schema


@given(parameters(), st.dictionaries(st.sampled_from("abc"), st.sampled_from(VALUES)))
@settings(max_examples=120, deadline=None)
def test_the_judge_accepts_exactly_what_can_be_written(writable, schema, arguments):
    ordered = {name: arguments[name] for name in "abc" if name in arguments}
    try:
        can_be_written = writable(schema, ordered)
    except DataError as error:
        can_be_written = "admits no arguments" not in str(error)
    assert can_be_written == (judged(schema, ordered).score == 1), judged(schema, ordered).reason
