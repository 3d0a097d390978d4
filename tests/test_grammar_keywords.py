from __future__ import annotations

from decimal import Decimal

import pytest

from rolecraft.grammar import keywords
from rolecraft.grammar.keywords import Part
from rolecraft.grammar.patterns import Bound


def parts(*schemas):
    return tuple(Part(schema, f"at{place}") for place, schema in enumerate(schemas))


def test_the_kinds_that_all_parts_allow():
    assert keywords.named_kinds(parts({"type": "number"}, {"type": ["integer", "string"]})) == {"integer"}
    assert keywords.named_kinds(parts({"type": "string"}, {"type": "null"})) == frozenset()
    assert keywords.named_kinds(parts({"minimum": 1})) is None


def test_keywords_tell_the_kind_they_are_about():
    assert keywords.implied_kinds(parts({"minLength": 1}, {"properties": {}})) == {"string", "object"}
    assert keywords.implied_kinds(parts({"minimum": 1})) == {"integer", "real"}
    assert keywords.implied_kinds(parts({"description": "anything"})) is None


@pytest.mark.parametrize(
    ("value", "kind"),
    [(None, "null"), (True, "boolean"), (2, "integer"), (2.0, "integer"), (2.5, "real"), ("", "string"), ([], "array")],
)
def test_a_value_has_a_kind(value, kind):
    assert keywords.kind_of(value) == kind


def test_literals_are_those_that_every_part_has():
    assert keywords.literals(parts({"enum": [1, "a", None]}, {"enum": ["a", None]}, {"const": "a"})) == ["a"]
    assert keywords.literals(parts({"enum": [True]}, {"const": 1})) == []
    assert keywords.literals(parts({"type": "string"})) is None


@pytest.mark.parametrize(
    ("value", "fine"),
    [("é", True), ("\ud800", False), ({"\udfff": 1}, False), ([["a"]], False), (["a"], True), (10**400, False)],
)
def test_a_literal_that_no_reply_could_hold_is_told(value, fine):
    assert keywords.writable(value) is fine


def test_counts_are_the_narrowest_and_never_beyond_the_cap():
    assert keywords.counts(parts({"minLength": 2, "maxLength": 9}, {"maxLength": 5}), "Length", 256, 4096) == (2, 5)
    assert keywords.counts(parts({"minLength": 300}), "Length", 256, 4096) == (300, 300)
    assert keywords.counts(parts({"maxLength": 10**9}), "Length", 256, 4096) == (0, 4096)
    assert keywords.counts((), "Items", 16, 256) == (0, 16)


def test_bounds_are_the_narrowest():
    low, high = keywords.bounds(parts({"minimum": 1, "maximum": 7.5}, {"exclusiveMinimum": 1, "exclusiveMaximum": 7.5}))
    assert (low, high) == (Bound(Decimal(1), open=True), Bound(Decimal("7.5"), open=True))
    assert keywords.bounds(parts({})) == (None, None)


@pytest.mark.parametrize(
    ("low", "high", "step", "ends"),
    [
        (Bound(Decimal("0.5")), Bound(Decimal("3.5")), 0, (1, 3)),
        (Bound(Decimal(1), open=True), Bound(Decimal(3), open=True), 0, (2, 2)),
        (Bound(Decimal(1)), Bound(Decimal(20)), 7, (7, 14)),
        (Bound(Decimal(7), open=True), Bound(Decimal(14), open=True), 7, None),
        (Bound(Decimal(-9)), Bound(Decimal(-8)), 5, None),
    ],
)
def test_the_integers_of_a_range(low, high, step, ends):
    assert keywords.whole(low, high, step) == ends


_CAT = {"type": "object", "properties": {"kind": {"const": "cat"}}, "required": ["kind"]}
_DOG = {"type": "object", "properties": {"kind": {"const": "dog"}}, "required": ["kind"]}


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        ({"type": "string"}, {"type": "array"}, True),
        ({"type": "integer"}, {"type": "number"}, False),
        ({"type": "string"}, {"minimum": 3}, False),
        ({"const": 1}, {"const": 1.0}, False),
        ({"const": "a"}, {"enum": ["b", "c"]}, True),
        ({"const": "a"}, {"type": "integer"}, True),
        ({"const": "a"}, {"type": "string"}, False),
        (_CAT, _DOG, True),
        (_CAT, {**_DOG, "required": []}, False),
        (_CAT, {"type": "object", "properties": {"x": {}}, "additionalProperties": False}, True),
        ({"properties": {"a": {}}}, {"properties": {"b": {}}}, False),
    ],
)
def test_schemas_are_apart_only_if_it_is_certain(one, other, apart):
    assert keywords.apart(parts(one), parts(other)) is apart
    assert keywords.apart(parts(other), parts(one)) is apart


def test_what_is_said_of_a_key_comes_from_its_schema_or_from_that_of_all_others():
    both = parts({"properties": {"a": {"type": "string"}}}, {"properties": {"b": {}}, "additionalProperties": {"x": 1}})
    assert [part.where for part in keywords.about(both, "a")] == ["at0.properties.a", "at1.additionalProperties"]
    assert [part.where for part in keywords.about(both, "b")] == ["at1.properties.b"]
    assert [part.where for part in keywords.others(both)] == ["at1.additionalProperties"]


def test_different_paths_never_read_alike():
    assert {keywords.path_step(key) for key in ("a", "a.b", "['a']", "")} == {".a", "['a.b']", "[\"['a']\"]", "['']"}
