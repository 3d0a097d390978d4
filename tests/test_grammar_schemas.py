from __future__ import annotations

import json
import time

import any_schema
import pytest

from rolecraft import renderers
from rolecraft.engine.matcher import Grammars, Settings
from rolecraft.errors import DataError
from rolecraft.grammar import Wanted, write
from rolecraft.grammar.shapes import Limits
from rolecraft.types import ToolSpec


@pytest.fixture(scope="module")
def admits(nano_tokenizer):
    """A function that tells whether arguments, or their JSON, are within a schema's grammar."""
    renderer = renderers.find(nano_tokenizer)

    def ask(schema, arguments, **limits):
        text = json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))
        text = arguments if isinstance(arguments, str) else text
        grammars = Grammars(renderer, nano_tokenizer, len(nano_tokenizer), Settings(Limits(**limits)))
        matcher = grammars.start(Wanted((ToolSpec("f", "", schema),), "required", parallel=False))
        ids = nano_tokenizer.encode(f'{{"name":"f","args":{text}}}', add_special_tokens=False)
        return any_schema.follows(matcher, [*ids, renderer.end_id])

    return ask


@pytest.fixture(scope="module")
def refused(nano_tokenizer):
    """A function that returns why schemas are refused."""
    renderer = renderers.find(nano_tokenizer)

    def ask(*schemas):
        with pytest.raises(DataError) as caught:
            write(renderer, Wanted(tuple(ToolSpec(f"f{i}", "", s) for i, s in enumerate(schemas))), Limits())
        return str(caught.value)

    return ask


def of(**properties):
    return {"type": "object", "properties": properties, "required": list(properties)}


def some(**properties):
    return {"type": "object", "properties": properties}


NODE = {"name": {"type": "string"}, "kids": {"type": "array", "items": {"$ref": "#/$defs/node"}}}
TREE = {**of(top={"$ref": "#/$defs/node"}), "$defs": {"node": {**some(**NODE), "required": ["name"]}}}


@pytest.mark.parametrize(
    ("schema", "value", "fits"),
    [
        ({"type": "string"}, 'ü😀漢"\\\n\t', True),
        ({"type": "string"}, 1, False),
        ({"type": "string", "minLength": 2}, "a", False),
        ({"type": "string", "minLength": 2, "maxLength": 3}, "é😀", True),
        ({"type": "string", "maxLength": 1}, '"', True),
        ({"type": "string", "maxLength": 1}, "ab", False),
        ({"type": "string", "pattern": "^[A-Z]{2}$"}, "AB", True),
        ({"type": "string", "pattern": "^[A-Z]{2}$"}, "ABC", False),
        ({"type": "string", "pattern": "b"}, "abc", True),
        ({"type": "string", "pattern": '"'}, 'say "hi"', True),
        ({"type": "string", "pattern": r"^\W$"}, "-", True),
        ({"type": "string", "pattern": r"^\W$"}, "é", False),
        ({"type": "string", "pattern": r"^\w$"}, "é", False),
        ({"type": "string", "pattern": r"^\d$"}, "٣", False),
        ({"type": "string", "pattern": r"^\p{L}+$"}, "añ", True),
        ({"type": "string", "pattern": r"^\p{L}+$"}, "a1", False),
        ({"type": "string", "pattern": "^a", "enum": ["ab", "b"]}, "ab", True),
        ({"type": "string", "pattern": "^a", "enum": ["ab", "b"]}, "b", False),
        ({"type": "integer"}, -3, True),
        ({"type": "integer"}, 1.5, False),
        ({"type": "integer", "minimum": 1, "maximum": 12}, 12, True),
        ({"type": "integer", "minimum": 1, "maximum": 12}, 13, False),
        ({"type": "integer", "exclusiveMinimum": 0}, 0, False),
        ({"type": "integer", "multipleOf": 5}, 35, True),
        ({"type": "integer", "multipleOf": 5}, 36, False),
        ({"type": "number"}, 1e-5, True),
        ({"type": "number"}, 1e16, True),
        ({"type": "number"}, -0.0, True),
        ({"type": "number", "minimum": 0}, 0.25, True),
        ({"type": "number", "minimum": 0, "maximum": 1}, 1.01, False),
        ({"type": "boolean"}, True, True),
        ({"type": "null"}, None, True),
        ({"type": ["integer", "null"]}, None, True),
        ({"enum": ["a", 'b"', 3, None, {"k": [1]}]}, 'b"', True),
        ({"enum": ["a", 'b"', 3, None, {"k": [1]}]}, {"k": [1]}, True),
        ({"enum": ["a", 'b"', 3, None, {"k": [1]}]}, "c", False),
        ({"enum": [1, 2, 3], "minimum": 2}, 1, False),
        ({"enum": ["a", "abc"], "minLength": 2}, "a", False),
        ({"const": []}, [], True),
        ({"type": "array", "items": {"type": "integer"}}, [1, 2], True),
        ({"type": "array", "items": {"type": "integer"}}, [1, "a"], False),
        ({"type": "array", "minItems": 1}, [], False),
        ({"type": "array", "items": {"type": "integer"}, "maxItems": 2}, [1, 2, 3], False),
        ({"prefixItems": [{"type": "integer"}, {"type": "string"}], "items": False}, [1, "a"], True),
        ({"prefixItems": [{"type": "integer"}, {"type": "string"}], "items": False}, [1], True),
        ({"prefixItems": [{"type": "integer"}], "items": {"type": "null"}}, [1, None], True),
        ({"prefixItems": [{"type": "integer"}], "items": False}, [1, 2], False),
        (of(a={"type": "integer"}, b={"type": "integer"}), {"a": 1, "b": 2}, True),
        (of(a={"type": "integer"}, b={"type": "integer"}), {"a": 1}, False),
        (some(a={"type": "integer"}, b={"type": "integer"}), {"b": 2}, True),
        (some(a={"type": "integer"}, b={"type": "integer"}), {}, True),
        ({**some(a={}, b={}), "minProperties": 1}, {}, False),
        ({**some(a={}, b={}), "minProperties": 1}, {"b": 1}, True),
        (some(a={"type": "integer"}), {"z": 1}, False),
        ({**some(a={"type": "integer"}), "additionalProperties": {"type": "null"}}, {"a": 1, "z": None}, True),
        ({**some(a={"type": "integer"}), "additionalProperties": {"type": "null"}}, {"a": None}, False),
        ({"type": "object", "additionalProperties": False}, {}, True),
        ({"type": "object", "additionalProperties": False}, {"z": 1}, False),
        ({"type": "object"}, {"any": ["thing", {"nested": None}]}, True),
        ({"type": "object", "minProperties": 2}, {"a": 1}, False),
        ({"type": "object", "maxProperties": 1}, {"a": 1, "b": 2}, False),
        ({}, {"any": ["thing", 1.5]}, True),
        (True, "x", True),
        ({"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "integer"}}]}, [3], True),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}], "maximum": 3}, 4, False),
        ({"oneOf": [{"type": "integer"}, {"type": "string"}]}, "a", True),
        ({"allOf": [{"type": "integer"}, {"minimum": 3}, {"maximum": 5}]}, 4, True),
        ({"allOf": [{"type": "integer"}, {"minimum": 3}, {"maximum": 5}]}, 6, False),
        ({"allOf": [some(a={"type": "integer"}), of(a={"maximum": 2})]}, {"a": 3}, False),
        ({"type": "string", "format": "date", "title": "T", "x-unit": "day"}, "any text", True),
    ],
)
def test_an_argument_is_admitted_as_its_schema_says(admits, schema, value, fits):
    assert admits(of(x=schema), {"x": value}) is fits


@pytest.mark.parametrize(
    ("schema", "spelling", "fits"),
    [
        ({"type": "number"}, "1e5", True),
        ({"type": "number"}, "1E+5", True),
        ({"type": "number"}, "-0", True),
        ({"type": "number"}, "1e999", False),
        ({"type": "number"}, "01", False),
        ({"type": "number"}, ".5", False),
        ({"type": "number"}, "NaN", False),
        ({"type": "number", "minimum": 1e-10, "maximum": 2e-10}, "0.0000000002", True),
        ({"type": "integer"}, "9" * 16, False),
        ({"type": "integer", "minimum": 10**15}, "1" + "0" * 15, True),
        ({"type": "string"}, '"\\u00e9"', False),
        ({"type": "string"}, '"\\/"', False),
        ({"type": "string"}, '"a\nb"', False),
        ({"type": "array"}, "[1,]", False),
        ({"type": "object"}, '{"a":1,"a":2}', False),
        ({"type": "object"}, '{"a":1,"b":{"a":2}}', True),
        ({"type": "object"}, '{"a":1, "b":2}', False),
    ],
)
def test_a_value_has_one_spelling_and_an_end(admits, schema, spelling, fits):
    assert admits(of(x=schema), f'{{"x":{spelling}}}') is fits


def test_the_arguments_of_a_tool_are_those_its_schema_lists(admits):
    assert admits({"type": "object"}, {})
    assert not admits({"type": "object"}, {"a": 1})
    assert admits({"type": "object", "additionalProperties": {"type": "integer"}}, {"a": 1, "b": 2})
    assert not admits({"type": "object", "additionalProperties": {"type": "integer"}}, {"a": 1.5})


def test_keys_come_in_the_order_of_the_schema(admits):
    schema = of(b={"type": "integer"}, a={"type": "integer"})
    assert admits(schema, {"b": 1, "a": 2})
    assert not admits(schema, {"a": 2, "b": 1})


def test_a_schema_that_enters_itself_ends_at_the_limit(admits):
    deep = {"name": "a", "kids": [{"name": "b", "kids": [{"name": "c"}]}]}
    assert admits(TREE, {"top": deep}, depth=2)
    assert not admits(TREE, {"top": deep}, depth=1)
    assert not admits(TREE, {"top": {"kids": []}}, depth=2)


def test_what_a_schema_leaves_open_ends_at_the_limits(admits):
    assert admits(of(x={"type": "string"}), {"x": "a" * 5}, text=5)
    assert not admits(of(x={"type": "string"}), {"x": "a" * 6}, text=5)
    assert admits(of(x={"type": "string", "maxLength": 9}), {"x": "a" * 9}, text=5)
    assert not admits(of(x={"type": "array"}), {"x": [1] * 4}, items=3)
    assert admits(of(x={"type": "array", "minItems": 5}), {"x": [1] * 5}, items=3)
    assert not admits(of(x={"type": "integer"}), {"x": 12345}, digits=4)
    assert not admits(of(x={"type": "number"}), {"x": 0.12345}, places=4)


def test_branches_that_a_key_tells_apart_exclude_each_other(admits):
    one, two = (of(kind={"const": kind}, **{kind: {"type": "integer"}}) for kind in ("one", "two"))
    schema = of(x={"oneOf": [one, two]})
    assert admits(schema, {"x": {"kind": "two", "two": 2}})
    assert not admits(schema, {"x": {"kind": "two", "one": 2}})


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"type": "array", "uniqueItems": True}, "x.uniqueItems"),
        ({"type": "array", "items": {"type": "array", "contains": {}}}, "x.items.contains"),
        ({"not": {"type": "string"}}, "x.not"),
        ({"anyOf": [{"type": "string"}, {"if": {}, "then": {}}]}, "x.anyOf[1].if"),
        ({"oneOf": [{"type": "number"}, {"type": "integer"}]}, "x.oneOf (two of its branches may hold at once)"),
        ({"oneOf": [some(a={}), some(b={})]}, "x.oneOf"),
        ({"type": "number", "multipleOf": 0.1}, "x.multipleOf"),
        ({"type": "string", "pattern": "(?=a)b"}, "x.pattern (has a look-ahead)"),
        ({"type": "object", "patternProperties": {"^a": {}}}, "x.patternProperties"),
        ({**some(a={}, b={}), "minProperties": 2}, "x.minProperties (some keys are optional)"),
        ({**some(a={}, b={}), "maxProperties": 1}, "x.maxProperties (some keys are optional)"),
        (of(**{"a key": {"not": {}}}), "x.properties['a key'].not"),
    ],
)
def test_an_unsupported_keyword_is_named_with_its_path(refused, schema, path):
    assert f"tools[1].parameters.properties.{path}" in refused(some(a={}), of(x=schema))


def test_an_unsupported_keyword_behind_a_reference_is_named_where_it_stands(refused):
    schema = {**of(x={"$ref": "#/$defs/list"}), "$defs": {"list": {"type": "array", "uniqueItems": True}}}
    assert "tools[0].parameters.$defs.list.uniqueItems" in refused(schema)


def test_keywords_that_never_apply_are_not_refused(admits):
    assert admits(of(x={"type": "array", "uniqueItems": False, "items": {}}), {"x": [1, 1]})
    assert admits(of(x={"type": "array", "uniqueItems": True, "maxItems": 1}), {"x": [1]})
    assert admits({**of(x={}), "$defs": {"unused": {"not": {}}}}, {"x": 1})


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (of(x={"$ref": "http://example.com/x"}), "nothing is fetched"),
        (of(x={"$ref": "#/$defs/none"}), "leads nowhere"),
        (of(x={"type": "strin"}), "malformed at properties.x.type"),
        (of(x={"type": "string", "pattern": "["}), "malformed at properties.x.pattern"),
        (of(x={"type": "integer", "minimum": 5, "maximum": 3}), "admits no arguments"),
        (of(x={"type": "string", "minLength": 10**9, "maxLength": 5}), "admits no arguments"),
        (of(x={"type": "integer", "minimum": 10**40, "maximum": 5}), "admits no arguments"),
        (of(x=False), "admits no arguments"),
        ({"type": "string"}, "admits no arguments"),
        ({**of(x={"$ref": "#/$defs/a"}), "$defs": {"a": of(x={"$ref": "#/$defs/a"})}}, "admits no arguments"),
        ({"type": "object", "allOf": [{"anyOf": [some(a={})] * 4}] * 9}, "too large"),
    ],
)
def test_a_schema_that_admits_nothing_or_cannot_be_read_is_told(refused, schema, reason):
    assert "tools[0].parameters: the schema" in (told := refused(schema))
    assert reason in told


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({"type": "string", "minLength": 5000}, "minLength is 5000, and the most is 4096"),
        ({"type": "array", "minItems": 300, "items": {}}, "minItems is 300, and the most is 256"),
        (
            {"type": "object", "minProperties": 999, "additionalProperties": {}},
            "minProperties is 999, and the most is 256",
        ),
        ({"type": "integer", "minimum": 10**40}, "minimum is 1e+40, and numbers have at most 18 digits"),
        (
            {"type": "number", "exclusiveMaximum": -1e30},
            "exclusiveMaximum is -1e+30, and numbers have at most 18 digits",
        ),
    ],
)
def test_what_is_possible_and_beyond_a_grammars_bounds_is_told_by_path_value_and_bound(refused, schema, told):
    said = refused(of(x=schema))
    assert f"tools[0].parameters.properties.x.{told}" in said
    assert "a grammar admits no arguments so large" in said


def test_a_key_that_is_too_long_is_told_with_its_length(refused):
    assert "tools[0].parameters.required has a key of 300 characters ('kkkk" in refused(of(**{"k" * 300: {}}))


def test_as_many_keys_may_be_required_as_a_schema_lists(admits):
    keys = [f"k{place}" for place in range(300)]
    schema = of(**{key: {"const": 1} for key in keys})
    assert admits(schema, dict.fromkeys(keys, 1))
    assert not admits(schema, dict.fromkeys(keys[:-1], 1))


def _nested(depth):
    schema = {"type": "string"}
    for _ in range(depth):
        schema = some(a=schema)
    return schema


_MUTUAL = {key: some(**{other: {"$ref": f"#/$defs/{other}"} for other in "ABCDE"}) for key in "ABCDE"}
_LONG_TEXTS = {"type": "array", "items": {"type": "string", "maxLength": 4000}, "maxItems": 200}


@pytest.mark.parametrize(
    "schema",
    [
        _nested(40),
        some(a={"$ref": "#"}, b={"$ref": "#"}, c={"$ref": "#"}, d={"$ref": "#"}),
        {**some(a={"$ref": "#/$defs/A"}), "$defs": _MUTUAL},
        some(**{f"k{i}": {"enum": [f"v{j}" for j in range(200)]} for i in range(30)}),
        some(**{f"k{i}": {"type": "string", "pattern": f"^(a|b)*c{{{i}}}$"} for i in range(1, 40)}),
        of(x={"type": "array", "items": _LONG_TEXTS}),
        of(x={"enum": ["x" * 50_000]}),
        some(**{key: {} for key in ('a"b', "a\nb", "a/b", "%json {", "<[2]>", "\x00", "é😀", "", "\\")}),
    ],
    ids=["deep", "recursive", "mutual", "long", "patterns", "lists", "literal", "names"],
)
def test_a_hostile_schema_is_soon_made_a_grammar(admits, schema):
    began = time.perf_counter()
    assert not admits(schema, "[]")
    assert time.perf_counter() - began < 30


def test_names_that_mean_something_to_a_grammar_are_only_names(admits):
    schema = of(**{name: {"enum": [name]} for name in ('a"b', "a/b", "%json {", "<[2]>", "a\nb", "|", "~x", "\\", "é")})
    arguments = {name: name for name in schema["properties"]}
    assert admits(schema, arguments)
    assert not admits(schema, arguments | {"|": "x"})
