"""A tool's parameters have the types that people write, and its arguments arrive as those."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import enum
import json
import pathlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from typing import Annotated, Any, Literal, NamedTuple, NewType, NotRequired, TypedDict

import jsonschema
import pytest

from rolecraft import renderers
from rolecraft.errors import UserError
from rolecraft.grammar import Wanted, write
from rolecraft.grammar.shapes import Limits
from rolecraft.tools import Tool, Toolbox, tool
from rolecraft.types import Observation, ToolCall


class Unit(enum.Enum):
    KM = "km"
    MILE = "mi"


class Priority(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Colour(enum.StrEnum):
    RED = "red"


class Odd(enum.Enum):
    PAIR = (1, 2)
    TEXT = "t"


@dataclass
class Point:
    """A place.

    Attributes:
        x: to the right
    """

    x: float
    y: float = 0.0

    def __post_init__(self) -> None:
        if self.x > 1000:
            raise ValueError("x is beyond the map")


@dataclass
class Trip:
    start: Point
    stops: list[Point] = field(default_factory=list)
    unit: Unit = Unit.KM
    day: datetime.date | None = None


class Options(TypedDict, total=False):
    limit: int
    note: Annotated[str, "a remark"]


class Query(TypedDict):
    text: str
    options: NotRequired[Options]


class Size(NamedTuple):
    width: int
    height: int = 1


@dataclass
class Held:
    x: int
    y: InitVar[int]
    total: int = field(init=False)

    def __post_init__(self, y: int) -> None:
        self.total = self.x + y


@dataclass
class Knot:
    next: Knot | None


UserId = NewType("UserId", int)
UTC = datetime.UTC
ID = "123e4567-e89b-12d3-a456-426614174000"


def taking(hint: Any, *default: Any) -> tuple[Tool, list[Any]]:
    """A tool with one parameter of a type, and the list of what it was called with."""
    seen: list[Any] = []

    def take(x: Any) -> str:
        """Take it.

        Args:
            x: something
        """
        seen.append(x)
        return "taken"

    take.__annotations__["x"] = hint
    take.__defaults__ = default
    return tool(take), seen


def answer(member: Tool, arguments: Any) -> Observation:
    return asyncio.run(Toolbox([member]).call(ToolCall(member.spec.name, arguments)))


@pytest.mark.parametrize(
    ("hint", "given", "meant"),
    [
        (Unit, "mi", Unit.MILE),
        (Priority, "HIGH", Priority.HIGH),
        (Colour, "red", Colour.RED),
        (Odd, "PAIR", Odd.PAIR),
        (Literal["a", 3, None], None, None),
        (Literal[Unit.KM, "x"], "km", Unit.KM),
        (Literal[True, 1], 1, 1),
        (Literal[1, True], True, True),
        (Held, {"x": 1, "y": 2}, Held(1, 2)),
        (Point, {"x": 1}, Point(1.0)),
        (
            Trip,
            {"start": {"x": 1}, "stops": [{"x": 2, "y": 3}], "unit": "mi", "day": "2031-05-31"},
            Trip(Point(1.0), [Point(2.0, 3.0)], Unit.MILE, datetime.date(2031, 5, 31)),
        ),
        (Query, {"text": "a"}, {"text": "a"}),
        (Query, {"text": "a", "options": {"limit": 2.0}}, {"text": "a", "options": {"limit": 2}}),
        (Size, {"width": 3}, Size(3)),
        (UserId, 7, 7),
        (list[Unit], ["km"], [Unit.KM]),
        (Sequence[int], [1], [1]),
        (set[str], ["a", "a"], {"a"}),
        (frozenset[Unit], ["km"], frozenset([Unit.KM])),
        (tuple[int, Unit], [1, "km"], (1, Unit.KM)),
        (tuple[float, ...], [1, 2], (1.0, 2.0)),
        (dict[str, Point], {"a": {"x": 1}}, {"a": Point(1.0)}),
        (Mapping[Unit, int], {"km": 1}, {Unit.KM: 1}),
        (Point | list[Point] | None, [{"x": 1}], [Point(1.0)]),
        (datetime.date | str, "tomorrow", "tomorrow"),
        (int | float, 2.5, 2.5),
        (Any, {"a": [None]}, {"a": [None]}),
        (datetime.datetime, "2031-05-31T14:30:00Z", datetime.datetime(2031, 5, 31, 14, 30, tzinfo=UTC)),
        (datetime.time, "14:30", datetime.time(14, 30)),
        (uuid.UUID, ID, uuid.UUID(ID)),
        (pathlib.Path, "a/b", pathlib.Path("a/b")),
        (decimal.Decimal, "12.50", decimal.Decimal("12.50")),
    ],
    ids=str,
)
def test_an_argument_arrives_as_the_type_that_the_parameter_has(hint: Any, given: Any, meant: Any):
    member, seen = taking(hint)
    jsonschema.Draft202012Validator.check_schema(member.spec.parameters)
    assert json.loads(json.dumps(member.spec.parameters)) == member.spec.parameters
    assert answer(member, {"x": given}) == Observation("taken")
    assert seen == [meant]
    assert type(seen[0]) is type(meant)


@pytest.mark.parametrize(
    ("hint", "given", "text"),
    [
        (Unit, "m", "take needs 'x' to be one of 'km', 'mi'; got 'm'"),
        (Priority, 2, "take needs 'x' to be one of 'LOW', 'HIGH'; got 2"),
        (Point, {"y": 1}, "take needs 'x' in 'x'; got {\"y\": 1}"),
        (Trip, {"start": {"x": "a"}}, "take needs 'x.start.x' to be a number; got 'a'"),
        (Point, {"x": 1, "z": 2}, "take: 'x': Additional properties are not allowed ('z' was unexpected)"),
        (Point, {"x": 2000}, "take needs 'x' to be a Point (x is beyond the map); got {'x': 2000}"),
        (datetime.date, "31.5.", "take needs 'x' to be a date like 2031-05-31; got '31.5.'"),
        (list[datetime.date], ["2031-05-31", "?"], "take needs 'x[1]' to be a date like 2031-05-31; got '?'"),
        (Trip, {"start": {"x": 1}, "day": "?"}, "take needs 'x.day' to be a date like 2031-05-31; got '?'"),
        (decimal.Decimal, "NaN", "take needs 'x' to be a decimal number as text, like '12.50'; got 'NaN'"),
        (uuid.UUID, "7", f"take needs 'x' to be a UUID like {ID}; got '7'"),
        (tuple[int, int], [1], "take: 'x': [1] is too short"),
        (Mapping[Unit, int], {"m": 1}, "take: 'x': Additional properties are not allowed ('m' was unexpected)"),
    ],
    ids=str,
)
def test_a_misfit_names_the_argument_and_what_it_may_be(hint: Any, given: Any, text: str):
    member, seen = taking(hint)
    assert answer(member, {"x": given}) == Observation(f"error: {text}", failed=True)
    assert seen == []


def test_a_record_tells_its_fields_what_must_be_given_and_what_they_default_to():
    schema = taking(Trip)[0].spec.parameters["properties"]["x"]
    assert schema["required"] == ["start"]
    assert schema["properties"]["unit"] == {"type": "string", "enum": ["km", "mi"], "default": "km"}
    start = schema["properties"]["start"]
    assert start["properties"]["x"] == {"type": "number", "description": "to the right"}
    assert taking(Query)[0].spec.parameters["properties"]["x"]["required"] == ["text"]
    assert taking(Options)[0].spec.parameters["properties"]["x"]["properties"]["note"]["description"] == "a remark"


@pytest.mark.parametrize(
    ("hint", "form"), [(datetime.date, "date"), (datetime.datetime, "date-time"), (uuid.UUID, "uuid")]
)
def test_text_with_a_form_says_so(hint: Any, form: str):
    assert taking(hint)[0].spec.parameters["properties"]["x"] == {
        "type": "string",
        "format": form,
        "description": "something",
    }


@pytest.mark.parametrize("hint", [Trip, Query, Size, Priority, tuple[int, Unit], Mapping[Unit, int], set[uuid.UUID]])
def test_a_grammar_can_hold_a_call_to_a_types_schema(hint: Any, nano_tokenizer: Any):
    wanted = Wanted((taking(hint)[0].spec,), "required")
    assert write(renderers.find(nano_tokenizer), wanted, Limits()).ignored == ()


def test_a_default_is_told_as_json_and_used_as_it_is():
    member, seen = taking(Priority, Priority.LOW)
    assert member.spec.parameters["properties"]["x"]["default"] == "LOW"
    assert not answer(member, {}).failed
    assert seen == [Priority.LOW]
    assert "default" not in taking(object, object())[0].spec.parameters["properties"]["x"]


@pytest.mark.parametrize(
    ("hint", "told"),
    [
        (Knot, "holds a Knot that nests itself"),
        (dict[int, str], "is a dict whose keys are no text"),
        (complex, "is a complex, which JSON cannot carry; use str"),
        (list[bytes], "is a bytes, which JSON cannot carry"),
    ],
)
def test_a_type_that_no_model_can_be_told_of_is_named(hint: Any, told: str):
    with pytest.raises(UserError, match=f"parameter 'x' of tool 'take'.*{told}"):
        taking(hint)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Point(1.0), '{"x": 1.0, "y": 0.0}'),
        ([Unit.KM, Priority.LOW], '["km", "LOW"]'),
        (Colour.RED, "red"),
        (datetime.date(2031, 5, 31), "2031-05-31"),
        ({"at": datetime.datetime(2031, 5, 31, tzinfo=UTC)}, '{"at": "2031-05-31T00:00:00+00:00"}'),
        ({Unit.KM: decimal.Decimal("1.50")}, '{"km": "1.50"}'),
        ((Size(1), {3}), '[{"width": 1, "height": 1}, [3]]'),
        (pathlib.PurePosixPath("a/b"), "a/b"),
        ([None, True], "[null, true]"),
    ],
    ids=str,
)
def test_an_answer_of_pythons_own_kinds_is_json(value: Any, text: str):
    @tool
    def give() -> Any:
        """Give it."""
        return value

    assert answer(give, {}) == Observation(text)
