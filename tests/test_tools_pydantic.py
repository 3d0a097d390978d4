"""Models of pydantic are parameters and answers, with their own schema and checks, and are never needed."""

from __future__ import annotations

import asyncio
import enum
import json
import subprocess
import sys
from typing import Annotated, Any

import pytest

from rolecraft.errors import UserError
from rolecraft.tools import Tool, Toolbox, tool
from rolecraft.types import Observation, ToolCall

pydantic = pytest.importorskip("pydantic")


class Unit(enum.Enum):
    KM = "km"
    MILE = "mi"


class Item(pydantic.BaseModel):
    name: str = pydantic.Field(description="what it is called", max_length=5)
    unit: Unit = Unit.KM
    parts: int = 2

    @pydantic.field_validator("parts")
    @classmethod
    def check(cls, parts: int) -> int:
        if parts % 2:
            raise ValueError("must be even")
        return parts


class Order(pydantic.BaseModel):
    items: list[Item]


class Tree(pydantic.BaseModel):
    children: list[Tree]


seen: list[list[Order]] = []


@tool
def place(orders: Annotated[list[Order], "what is wanted"]) -> str:
    """Place orders."""
    seen.append(orders)
    return "placed"


@tool
def give(n: Annotated[int, pydantic.Field(ge=1, description="how many")]) -> Item:
    """Give items."""
    return Item(name="a" * n)


def answer(member: Tool, **arguments: Any) -> Observation:
    return asyncio.run(Toolbox([member]).call(ToolCall(member.spec.name, arguments)))


def test_a_model_brings_its_own_schema_without_references():
    order = place.spec.parameters["properties"]["orders"]["items"]
    assert order["properties"]["items"]["items"]["properties"]["name"]["description"] == "what it is called"
    assert "$ref" not in json.dumps(place.spec.parameters)


def test_an_argument_arrives_as_a_model():
    assert answer(place, orders=[{"items": [{"name": "a", "unit": "mi"}]}]) == Observation("placed")
    assert seen[-1] == [Order(items=[Item(name="a", unit=Unit.MILE)])]


def test_a_misfit_and_a_models_own_check_name_the_argument():
    long = answer(place, orders=[{"items": [{"name": "toolong"}]}])
    assert long.text == "error: place: 'orders[0].items[0].name': 'toolong' is too long"
    odd = answer(place, orders=[{"items": [{"name": "a", "parts": 3}]}])
    wanted = "'orders[0].items[0].parts' to be right (Value error, must be even); got '3'"
    assert odd == Observation(f"error: place needs {wanted}", failed=True)


def test_a_fields_bounds_are_told_and_kept():
    assert give.spec.parameters["properties"]["n"]["minimum"] == 1
    assert answer(give, n=0).text.startswith("error: give: 'n': 0 is less than the minimum of 1")


def test_a_model_that_is_returned_is_json():
    assert answer(give, n=2) == Observation('{"name": "aa", "unit": "km", "parts": 2}')


def test_a_model_that_nests_itself_is_named():
    def plant(tree: Annotated[Tree, "a tree"]) -> None:
        """Plant it."""

    with pytest.raises(UserError, match="parameter 'tree' of tool 'plant' holds a Tree that nests itself"):
        tool(plant)


def test_tools_do_not_import_pydantic():
    script = "import sys, rolecraft.tools as t; t.find('calculator'); print('pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "False\n"
