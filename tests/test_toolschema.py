"""Keys of a tool's arguments are found wherever a schema lists them, and nulls go where it has no place for them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecraft import toolschema

A, B = {"type": "string"}, {"type": "integer"}
PAIR = {"type": "object", "properties": {"a": A, "b": B}, "required": ["a"]}
PLAIN = {"type": "object", "properties": {"a": A}, "required": ["a"]}
REST = {"type": "object", "properties": {"b": B}}
SEEN_THROUGH = {
    "plain": PAIR,
    "allOf": {"allOf": [PLAIN, REST]},
    "beside allOf": {**PLAIN, "allOf": [REST]},
    "$ref": {"$ref": "#/$defs/x", "$defs": {"x": PAIR}},
    "$ref in allOf": {"allOf": [{"$ref": "#/definitions/x~1y"}, REST], "definitions": {"x/y": PLAIN}},
    "anyOf": {"anyOf": [PAIR, PLAIN]},
    "oneOf of refs": {"oneOf": [{"$ref": "#/$defs/x"}, {"$ref": "#/$defs/x"}], "$defs": {"x": PAIR}},
    "a circle": {"allOf": [{"$ref": "#"}], **PAIR},
    "then": {**PLAIN, "if": {"properties": {"a": {"const": "x"}}}, "then": REST},
}


@pytest.mark.parametrize("schema", SEEN_THROUGH.values(), ids=SEEN_THROUGH)
def test_keys_are_seen_through_what_combines_schemas(schema):
    assert toolschema.properties(schema) == {"a": A, "b": B}
    assert toolschema.required(schema) == ("a",)


def test_of_alternatives_only_what_all_require_is_required():
    schema = {"anyOf": [{"required": ["a", "b"]}, {"required": ["b", "c"]}], "required": ["d"]}
    assert toolschema.required(schema) == ("d", "b")


def test_a_schema_is_open_where_any_part_says_so():
    assert toolschema.is_open({"allOf": [PLAIN, {"additionalProperties": {"type": "string"}}]})
    assert toolschema.is_open({"patternProperties": {"^x": A}})
    assert not toolschema.is_open({**PLAIN, "additionalProperties": False})


@pytest.mark.parametrize(
    "schema",
    [
        {},
        True,
        {"type": ["string", "null"]},
        {"enum": ["a", None]},
        {"const": None},
        {"anyOf": [A, {"type": "null"}]},
        {"type": "string", "nullable": True},
        {"allOf": [{}, {"type": "null"}]},
        {"$ref": "#/$defs/x", "$defs": {"x": {"type": "null"}}},
    ],
)
def test_a_schema_that_allows_null_is_known(schema):
    assert toolschema.allows_null(schema)


@pytest.mark.parametrize(
    "schema",
    [False, A, {"enum": ["a"]}, {"const": 1}, {"anyOf": [A, B]}, {"allOf": [{}, A]}, {"$ref": "#"}, {"$ref": "#/x"}],
)
def test_a_schema_that_does_not_allow_null_is_known(schema):
    assert not toolschema.allows_null(schema)


def test_padded_arguments_lose_their_nulls_at_every_depth():
    inner = {"type": "object", "properties": {"x": A, "y": {"type": ["string", "null"]}}}
    schema = {
        "type": "object",
        "properties": {"one": inner, "many": {"type": "array", "items": inner}, "a": A},
        "allOf": [{"properties": {"free": {"type": "object", "additionalProperties": True}}}],
    }
    padded = {"x": None, "y": None, "z": None}
    arguments = {"one": padded, "many": [padded, None], "a": None, "other": None, "free": {"k": None}}
    assert toolschema.without_nulls(schema, arguments) == {
        "one": {"y": None},
        "many": [{"y": None}, None],
        "free": {"k": None},
    }


def test_padded_schemas_lose_their_nulls_at_every_depth():
    padded = {"type": "string", "enum": None, "items": None, "default": None, "const": None}
    schema = {"type": "object", "properties": {"a": {**padded, "anyOf": [padded]}, "b": None}, "$defs": {"c": padded}}
    assert toolschema.without_padding(schema) == {
        "type": "object",
        "properties": {"a": {"type": "string", "anyOf": [A]}},
        "$defs": {"c": A},
    }


def test_a_null_that_means_something_stays_in_a_schema():
    nullable = {"anyOf": [A, {"type": "null"}], "default": None}
    schema = {"type": "object", "properties": {"a": nullable, "b": {"enum": ["x", None]}, "c": {"const": None}}}
    assert toolschema.without_padding(schema) == schema


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ([], r"is list \[\]; it must be a JSON Schema of type object"),
        ("object", "is str 'object'"),
        ({"type": "string"}, "has type str 'string'; a tool's arguments are an object"),
        ({"properties": ["a"]}, r"has at 'properties' list \['a'\]; it must be an object with a schema"),
        ({"properties": {"a": "string"}}, "has at 'properties.a' str 'string'; a schema is an object"),
        ({"properties": {"a": {"properties": 1}}}, "has at 'properties.a.properties' int 1"),
        ({"required": "a"}, "has at 'required' str 'a'; it must be a list of names"),
        ({"required": [1]}, "a list of names"),
        ({"properties": {"a": {"required": True}}}, "has at 'properties.a.required' bool True"),
        ({"properties": {"a": {"type": "str"}}}, "has at 'properties.a.type' str 'str'; it must be one of string, "),
        ({"properties": {"a": {"type": []}}}, "properties.a.type"),
        ({"properties": {"a": {"enum": "x"}}}, "a list of values"),
        ({"anyOf": []}, "a list of at least one schema"),
        ({"allOf": [{"items": [1]}]}, r"has at 'allOf\[0\].items\[0\]' int 1"),
        ({"$ref": 1}, "it must be text"),
    ],
)
def test_a_malformed_schema_is_told_with_its_place(schema, said):
    assert re.search(said, toolschema.fault(schema) or "")


@pytest.mark.parametrize("schema", [*SEEN_THROUGH.values(), {"properties": {"a": True, "b": {"items": [A, B]}}}, {}])
def test_a_usable_schema_has_no_fault(schema):
    assert toolschema.fault(schema) is None


def deep(times):
    schema = {"type": "string"}
    for _ in range(times):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def test_a_schema_nested_without_end_is_told():
    assert toolschema.fault(deep(30)) is None
    assert toolschema.fault(deep(5000)) == "is nested more than 64 deep"


@pytest.mark.parametrize("keyword", ["allOf", "anyOf"])
def test_references_that_double_at_every_step_are_followed_once(keyword):
    steps = {f"s{i}": {keyword: [{"$ref": f"#/$defs/s{i + 1}"}] * 2} for i in range(25)}
    inner = {**PLAIN, "additionalProperties": {"$ref": "#/$defs/s0"}}
    schema = {"$ref": "#/$defs/s0", "$defs": {**steps, "s25": inner}}
    value = {"a": "x"}
    for _ in range(30):
        value = {"k": value, "n": None}
    assert toolschema.properties(schema) == {"a": A}
    assert toolschema.required(schema) == ("a",)
    assert not toolschema.allows_null(schema)
    assert "n" not in toolschema.without_nulls(schema, value)


KEYS = st.sampled_from(
    "type properties required items anyOf allOf enum const default $ref additionalProperties patternProperties".split()
)
WORDS = st.sampled_from(["string", "object", "null", "a", "#", "#/properties/a", "#/anyOf/0"])
SCHEMAS = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | WORDS, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(KEYS, SCHEMAS, max_size=4), SCHEMAS)
def test_any_schema_and_arguments_are_read_without_an_error(schema, arguments):
    toolschema.fault(schema)
    clean = toolschema.without_padding(schema)
    assert toolschema.without_padding(clean) == clean
    for one in (schema, clean):
        assert set(toolschema.properties(one)) >= set()
        toolschema.required(one)
        toolschema.is_open(one)
        if isinstance(arguments, dict):
            kept = toolschema.without_nulls(one, arguments)
            assert toolschema.without_nulls(one, kept) == kept
