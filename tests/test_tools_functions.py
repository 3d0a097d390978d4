"""What people have becomes a tool: methods, partials, callable objects, and docstrings of three styles."""

from __future__ import annotations

import asyncio
import functools
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest

from rolecraft.errors import UserError
from rolecraft.tools import Tool, Toolbox, load_tools, tool
from rolecraft.types import Observation, ToolCall

Count = Annotated[int, "how many"]


class Shop:
    def __init__(self, stock: int) -> None:
        self.stock = stock

    @tool
    def take(self, n: Count) -> int:
        """Take some."""
        self.stock -= n
        return self.stock

    @tool
    @staticmethod
    def double(n: Count) -> int:
        """Double it."""
        return 2 * n

    @staticmethod
    @tool
    def triple(n: Count) -> int:
        """Triple it."""
        return 3 * n

    @tool
    @classmethod
    def named(cls, n: Count) -> str:
        """Name the class."""
        return cls.__name__ * n

    def plain(self, n: Count) -> int:
        """Tell the stock."""
        return self.stock + n

    async def later(self, n: Count) -> int:
        """Tell the stock later."""
        return self.stock + n


class Adder:
    """Add a fixed number."""

    def __call__(self, n: Count) -> int:
        return n + 7


def scale(n: int, by: int, unit: str = "km") -> str:
    """Scale it.

    Args:
        n: how many
        by: the factor
        unit: of what
    """
    return f"{n * by} {unit}"


def answer(member: Any, **arguments: Any) -> Observation:
    return asyncio.run(Toolbox([member]).call(ToolCall(member.spec.name, arguments)))


def test_a_bound_method_is_a_tool_of_its_object():
    shop = Shop(5)
    assert answer(tool(shop.plain), n=1) == Observation("6")
    assert answer(tool(shop.later), n=2) == Observation("7")


def test_decorated_methods_are_tools_of_the_object_they_are_taken_from():
    one, other = Shop(5), Shop(50)
    assert answer(one.take, n=1) == Observation("4")
    assert answer(other.take, n=1) == Observation("49")
    assert one.take.spec.parameters["required"] == ["n"]
    assert one.take(1) == 3


def test_static_and_class_methods_are_tools():
    shop = Shop(5)
    found = [answer(member, n=2).text for member in (shop.double, Shop.double, shop.triple, shop.named, Shop.named)]
    assert found == ["4", "4", "6", "ShopShop", "ShopShop"]


def test_two_objects_tools_can_be_told_apart_by_a_name():
    one, other = Shop(5), Shop(50)
    toolbox = Toolbox([tool(one.take, name="take_here"), tool(other.take, name="take_there")])
    assert asyncio.run(toolbox.call(ToolCall("take_there", {"n": 1}))) == Observation("49")


def test_a_partial_tells_only_what_is_left_to_give():
    member = tool(functools.partial(scale, 3, unit="mi"))
    assert list(member.spec.parameters["properties"]) == ["by"]
    assert (member.spec.name, member.spec.description) == ("scale", "Scale it.")
    assert answer(member, by=2) == Observation("6 mi")


def test_a_callable_object_is_a_tool():
    member = tool(Adder(), name="add")
    assert (member.spec.description, answer(member, n=1)) == ("Add a fixed number.", Observation("8"))


def test_a_decorated_function_is_told_by_what_it_wraps():
    @functools.wraps(scale)
    def wrapper(*values: Any, **named: Any) -> str:
        return scale(*values, **named).upper()

    assert answer(tool(wrapper), n=1, by=2) == Observation("2 KM")


def test_a_name_and_a_description_may_be_given():
    @tool(name="get-it", description="Get something.")
    def f() -> str:
        return "it"

    assert (f.spec.name, f.spec.description, answer(f)) == ("get-it", "Get something.", Observation("it"))


def test_a_keyword_is_told_without_the_underscore_that_python_needs():
    @tool
    def pick(class_: Annotated[str, "which"], größe: Annotated[int, "how large"] = 1) -> str:
        """Pick one."""
        return f"{class_} {größe}"

    assert list(pick.spec.parameters["properties"]) == ["class", "größe"]
    assert answer(pick, **{"class": "a", "größe": 2}) == Observation("a 2")


def endless() -> Iterator[int]:
    """Count."""
    yield 1


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda: tool(endless), "tool 'endless' is a generator; .* return a list"),
        (lambda: tool(Shop), "is no function; put @tool above a function or above the methods"),
        (lambda: tool("name"), "'name' is no function"),  # type: ignore[call-overload]
        (lambda: tool(lambda: 1), r"'<lambda>' cannot be a tool's name; .*@tool\(name='...'\)"),
        (lambda: tool(lambda **rest: 1, name="f", description="d"), "parameter 'rest' of tool 'f' must be passable"),
        (lambda: tool(lambda: 1, name="f"), 'tool \'f\' has no docstring; .*add """What it does."""'),
    ],
)
def test_what_is_no_tool_is_told_with_its_remedy(made: Any, told: str):
    with pytest.raises(UserError, match=told):
        made()


def test_a_generator_that_is_returned_is_a_failure_that_says_so():
    member = tool(lambda: (i for i in ()), name="f", description="d")
    assert (
        answer(member).text
        == "error: TypeError: the tool returned a generator, which answers nothing; it must return a list"
    )


GOOGLE = """Scale it.

Args:
    n (int, optional): how many,
        at least one
    by: the factor: a number
    unit: of what

Raises:
    ValueError: never

Note:
    by: nothing of it
"""
NUMPY = """Scale it.

Parameters
----------
n : int
    how many,
    at least one
by : {1, 2}, optional
    the factor: a number
unit
    of what

Returns
-------
str
    by : nothing of it
"""
SPHINX = """Scale it.

:param n: how many,
    at least one
:param int by: the factor: a number
:type by: int
:param unit: of what
:type unit: str
    by: nothing of it
:returns: a text
:rtype: str
"""


@pytest.mark.parametrize("doc", [GOOGLE, NUMPY, SPHINX], ids=["google", "numpy", "sphinx"])
def test_a_docstring_of_any_style_describes_the_parameters(doc: str):
    def copy(n: int, by: int, unit: str = "km") -> str:
        return ""

    copy.__doc__ = doc
    spec = tool(copy).spec
    found = [schema["description"] for schema in spec.parameters["properties"].values()]
    assert (spec.description, found) == ("Scale it.", ["how many, at least one", "the factor: a number", "of what"])


SHOP = '''
from __future__ import annotations
from dataclasses import dataclass
from rolecraft.tools import tool

@dataclass
class Item:
    name: str

class Shop:
    def __init__(self):
        self.taken = []

    @tool
    def take(self, item: Item) -> str:
        """Take one.

        Args:
            item: what
        """
        self.taken.append(item)
        return f"{len(self.taken)} taken"

    @classmethod
    @tool
    def kind(cls) -> str:
        """Tell the kind."""
        return cls.__name__
'''


def test_an_object_in_a_users_file_brings_its_methods(tmp_path: Path):
    path = tmp_path / "mine.py"
    path.write_text(SHOP + "\nshop = Shop()\n", encoding="utf-8")
    take, kind = load_tools(path)
    assert isinstance(take, Tool)
    assert answer(take, item={"name": "a"}) == Observation("1 taken")
    assert answer(kind) == Observation("Shop")


def test_the_page_about_tools_shows_one_that_runs(tmp_path: Path):
    page = (Path(__file__).parents[1] / "docs" / "tools.md").read_text(encoding="utf-8")
    path = tmp_path / "shop.py"
    path.write_text(page.partition("```python\n")[2].partition("```")[0], encoding="utf-8")
    (place,) = load_tools(path)
    assert answer(place, order={"item": "lamp", "day": "2031-05-31"}) == Observation("1")
    refused = answer(place, order={"item": "lamp", "size": "large"})
    assert refused == Observation("error: large ones are sold out; order a small one", failed=True)


def test_a_class_whose_tools_need_an_object_is_named(tmp_path: Path):
    path = tmp_path / "mine.py"
    path.write_text(textwrap.dedent(SHOP), encoding="utf-8")
    with pytest.raises(UserError, match=r"class 'Shop' has tools; make an object of it, shop = Shop\(\)"):
        load_tools(path)
