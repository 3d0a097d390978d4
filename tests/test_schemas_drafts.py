from __future__ import annotations

import pytest

from rolecraft.schemas import Unusable, usable

DRAFT = "http://json-schema.org/draft-{}/schema#"
NEWEST = "https://json-schema.org/draft/2020-12/schema"


def of(schema):
    """Return what becomes of a property's schema."""
    return usable({"properties": {"x": schema}})["properties"]["x"]


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ({"items": [{}, True]}, {"prefixItems": [{}, True]}),
        ({"items": [{}], "additionalItems": False}, {"prefixItems": [{}], "items": False}),
        ({"items": {}, "additionalItems": False}, {"items": {}}),
        ({"minimum": 1, "exclusiveMinimum": True}, {"minimum": 1, "exclusiveMinimum": 1}),
        ({"maximum": 1, "exclusiveMaximum": False}, {"maximum": 1}),
        ({"exclusiveMinimum": True}, {}),
        ({"exclusiveMinimum": 1}, {"exclusiveMinimum": 1}),
        ({"dependencies": {"a": ["b"], "c": {}}}, {"dependentRequired": {"a": ["b"]}, "dependentSchemas": {"c": {}}}),
        ({"type": "string", "nullable": True}, {"type": ["string", "null"]}),
        ({"type": "string", "nullable": False}, {"type": "string"}),
        ({"enum": ["a"], "nullable": True}, {"anyOf": [{"enum": ["a"]}, {"type": "null"}]}),
        ({"items": {"items": [{}]}}, {"items": {"prefixItems": [{}]}}),
        ({"anyOf": [{"items": [{}]}]}, {"anyOf": [{"prefixItems": [{}]}]}),
        ({"const": {"items": [{}]}}, {"const": {"items": [{}]}}),
        (
            {"properties": {"nullable": {}, "id": {}, "$ref": {}}},
            {"properties": {"nullable": {}, "id": {}, "$ref": {}}},
        ),
    ],
)
def test_without_a_declared_draft_a_keyword_means_what_its_own_draft_says(given, made):
    assert of(given) == made


@pytest.mark.parametrize(
    ("draft", "given", "made"),
    [
        ("04", {"minimum": 1, "exclusiveMinimum": True}, {"minimum": 1, "exclusiveMinimum": 1}),
        ("04", {"const": 1, "type": "integer"}, {"type": "integer"}),
        ("06", {"const": 1, "if": {}}, {"const": 1}),
        ("07", {"items": [{}], "prefixItems": [False]}, {"prefixItems": [{}]}),
        ("07", {"type": "string", "nullable": True}, {"type": "string"}),
        ("07", {"dependentRequired": {"a": ["b"]}}, {}),
        ("07", {"$ref": "#", "maximum": 3}, {"$ref": "#"}),
    ],
)
def test_a_declared_draft_has_its_own_keywords_and_no_others(draft, given, made):
    root = {"$schema": DRAFT.format(draft), "properties": {"x": given}}
    assert usable(root)["properties"]["x"] == made


def test_the_newest_drafts_are_read_as_declared():
    assert usable({"$schema": NEWEST, "prefixItems": [{}]}) == {"prefixItems": [{}]}
    with pytest.raises(Unusable, match=r"malformed at items"):
        usable({"$schema": NEWEST, "items": [{}]})
    older = {"$schema": "https://json-schema.org/draft/2019-09/schema", "items": [{}], "$recursiveRef": "#"}
    assert usable(older) == {"prefixItems": [{}], "$ref": "#"}


def test_a_draft_that_is_not_read_is_named():
    with pytest.raises(Unusable, match=r"draft-03, which is not read; write it in one of draft-04"):
        usable({"$schema": DRAFT.format("03")})


STRING = {"type": "string"}


@pytest.mark.parametrize(
    ("reference", "rest"),
    [
        ("#/$defs/a", {"$defs": {"a": STRING}}),
        ("#/definitions/a", {"definitions": {"a": STRING}}),
        ("#/components/schemas/a", {"components": {"schemas": {"a": STRING}}}),
        ("#/properties/y/items/0", {"properties": {"y": {"items": [STRING]}}}),
        ("#/$defs/a~1b%25", {"$defs": {"a/b%": STRING}}),
        ("#name", {"$defs": {"a": STRING | {"$anchor": "name"}}}),
        ("#name", {"definitions": {"a": STRING | {"$id": "#name"}}}),
        ("#name", {"definitions": {"a": STRING | {"id": "#name"}}}),
        ("a.json", {"$id": "https://example.com/tool.json", "$defs": {"a": STRING | {"$id": "a.json"}}}),
        ("https://example.com/tool.json#/$defs/a", {"$id": "https://example.com/tool.json", "$defs": {"a": STRING}}),
    ],
)
def test_a_reference_to_anything_inside_is_followed(reference, rest):
    made = usable({"allOf": [{"$ref": reference}], **rest})
    assert list(made["$defs"].values()) == [STRING]


def test_a_dynamic_reference_with_one_target_is_a_reference():
    anchored = {"$defs": {"a": {"$dynamicAnchor": "node", "type": "string"}}}
    assert usable({"allOf": [{"$dynamicRef": "#node"}], **anchored})["$defs"] == {"a": STRING}
    both = {"$defs": {**anchored["$defs"], "b": {"$dynamicAnchor": "node"}}}
    with pytest.raises(Unusable, match="several places"):
        usable({"allOf": [{"$dynamicRef": "#node"}], **both})


def test_what_is_beside_a_reference_counts_where_the_draft_says_so():
    made = usable({"properties": {"x": {"$ref": "#/$defs/a", "maxLength": 3}}, "$defs": {"a": STRING}})
    assert made["properties"]["x"] == {"$ref": "#/$defs/a", "maxLength": 3}


def test_a_schema_that_is_modern_already_stays_as_it_is():
    schema = {"type": "object", "properties": {"a": {"prefixItems": [{"const": None}]}}, "required": ["a"]}
    assert usable(schema) == schema
    assert usable(usable({"properties": {"a": {"$ref": "#"}}})) == {"properties": {"a": {"$ref": "#"}}}
