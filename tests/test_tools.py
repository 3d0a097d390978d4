"""A function becomes a tool, and a toolbox runs a model's calls within bounds, whatever they are."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecraft import tools
from rolecraft.errors import NotForkable, NotFound, SettingsError, UserError
from rolecraft.tools import Tool, Toolbox, ToolFailure, find, load_tools, misfit, tool
from rolecraft.types import Observation, ToolCall, ToolSpec


@tool
def convert(amount: float, unit: Literal["km", "mi"] = "km", tags: list[str] | None = None) -> str:
    """Convert a length.

    The text goes on in
    a second paragraph.

    Args:
        amount: how much,
            in the unit
        unit (str): of what
        tags: words to keep

    Returns:
        the length: not a parameter
    """
    return f"{amount!r} {unit} {tags}"


@tool
def count(n: int, exact: bool = True) -> int:
    """Count.

    Args:
        n: how many
        exact: or about
    """
    return n + 1 if exact else n


@tool
async def slowly(text: Annotated[str, "what to say"]) -> str:
    """Say it later."""
    await asyncio.sleep(0.01)
    return text.upper()


@tool
def table(rows: list[dict[str, int]], key: int | str, note: Annotated[str | None, "remark"]) -> dict[str, Any]:
    """Take nested values.

    Args:
        rows: the rows
        key: the key
    """
    return {"rows": rows, "key": key, "note": note}


class Counter:
    """A tool with state, as small as one can be."""

    def __init__(self, value: int = 0) -> None:
        self.value = value
        self.closed = 0

    @property
    def spec(self) -> ToolSpec:
        return ToolSpec("counter", "adds one")

    def call(self, arguments: Mapping[str, Any]) -> str:
        self.value += 1
        return str(self.value)

    def fork(self) -> Counter:
        return Counter(self.value)

    def state(self) -> int:
        return self.value

    def close(self) -> None:
        self.closed += 1


class Stuck(Counter):
    """A tool that cannot be forked, nor closed without complaint."""

    @property
    def spec(self) -> ToolSpec:
        return ToolSpec("stuck", "stays")

    def fork(self) -> Counter:
        raise NotForkable("stuck stays where it is")

    def close(self) -> None:
        raise OSError("will not close")


def answer(member: Any, arguments: Any, name: str = "", **bounds: Any) -> Observation:
    toolbox = Toolbox([member], **bounds)
    return asyncio.run(toolbox.call(ToolCall(name or member.spec.name, arguments)))


def made_from(body: Any, name: str = "sample", doc: str | None = "Do it.") -> Tool:
    """A tool whose call runs `body()`."""

    def function() -> Any:
        return body()

    function.__name__, function.__doc__ = name, doc
    return tool(function)


# The spec of a function


def test_description_is_the_docstring_before_its_sections():
    assert convert.spec.description == "Convert a length. The text goes on in a second paragraph."


def test_parameter_descriptions_come_from_args():
    properties = convert.spec.parameters["properties"]
    assert [p["description"] for p in properties.values()] == ["how much, in the unit", "of what", "words to keep"]


def test_parameter_descriptions_come_from_annotated():
    assert slowly.spec.parameters["properties"]["text"] == {"type": "string", "description": "what to say"}


def test_literal_becomes_an_enumeration():
    schema = convert.spec.parameters["properties"]["unit"]
    assert schema == {"type": "string", "enum": ["km", "mi"], "description": "of what", "default": "km"}


def test_parameters_with_a_default_are_optional():
    assert convert.spec.parameters["required"] == ["amount"]


def test_nested_types_become_nested_schemas():
    properties = table.spec.parameters["properties"]
    assert properties["rows"]["items"] == {"type": "object", "additionalProperties": {"type": "integer"}}
    assert properties["key"]["anyOf"] == [{"type": "integer"}, {"type": "string"}]


def test_a_null_that_must_be_given_stays_in_the_schema():
    assert {"type": "null"} in table.spec.parameters["properties"]["note"]["anyOf"]


@pytest.mark.parametrize("member", [convert, count, slowly, table], ids=lambda member: member.spec.name)
def test_specs_are_valid_json_schema_and_json(member: Tool):
    jsonschema.Draft202012Validator.check_schema(member.spec.parameters)
    assert json.loads(json.dumps(member.spec.parameters)) == member.spec.parameters


def test_a_tool_stays_callable_in_python():
    assert count(3) == 4


def test_a_parameter_without_a_type_is_named():
    def f(x):
        """Do it.

        Args:
            x: something
        """

    with pytest.raises(UserError, match=r"parameter 'x' of tool 'f' has no type; annotate it, for example x: str"):
        tool(f)


def test_a_parameter_without_a_description_is_named():
    def f(x: int):
        """Do it."""

    with pytest.raises(UserError, match=r"parameter 'x' of tool 'f' is not described; add 'x: ...' under 'Args:'"):
        tool(f)


def test_a_function_without_a_docstring_is_named():
    with pytest.raises(UserError, match="tool 'sample' has no docstring"):
        made_from(str, doc=None)


def test_a_documented_stranger_is_named():
    def f(x: int):
        """Do it.

        Args:
            x: a number
            y: gone since
        """

    with pytest.raises(UserError, match="tool 'f' documents 'y', which is not one of its parameters"):
        tool(f)


def test_a_type_that_json_lacks_is_named_with_those_it_has():
    def f(x: Annotated[bytes, "raw"]):
        """Do it."""

    with pytest.raises(UserError, match=r"parameter 'x' of tool 'f' is a bytes, which JSON cannot carry; use str"):
        tool(f)


def test_parameters_without_names_are_refused():
    def f(*values: int):
        """Do it.

        Args:
            values: numbers
        """

    with pytest.raises(UserError, match="parameter 'values' of tool 'f' must be passable by name"):
        tool(f)


def test_a_name_that_no_api_takes_is_refused():
    with pytest.raises(UserError, match="'größe' cannot be a tool's name"):
        made_from(str, name="größe")


# Calls that fit


def test_a_good_call_is_answered():
    assert answer(count, {"n": 2}) == Observation("3")


def test_async_functions_are_awaited():
    assert answer(slowly, {"text": "hi"}) == Observation("HI")


def test_whole_floats_are_integers_for_an_integer_parameter():
    assert answer(count, {"n": 2.0}) == Observation("3")


def test_integers_are_floats_for_a_float_parameter():
    assert answer(convert, {"amount": 2}).text.startswith("2.0 ")


def test_null_leaves_out_what_a_schema_reaches_by_reference():
    properties = {"x": {"enum": ["a"]}, "y": {"$ref": "#/$defs/null"}}
    inner = {"type": "object", "properties": properties}
    spec = ToolSpec("t", "d", {"allOf": [{"$ref": "#/$defs/in"}], "$defs": {"in": inner, "null": {"type": "null"}}})
    assert answer(Tool(spec, lambda **given: given), {"x": None, "y": None}) == Observation('{"y": null}')


def test_null_leaves_an_optional_parameter_out():
    assert answer(convert, {"amount": 1.5, "unit": None, "tags": None}) == Observation("1.5 km None")


def test_answers_that_are_no_text_are_json():
    rows = [{"ü": 1}]
    assert json.loads(answer(table, {"rows": rows, "key": "a", "note": None}).text)["rows"] == rows


def test_an_answer_of_nothing_says_done():
    assert answer(made_from(lambda: None), {}) == Observation("done")


# Calls that do not fit


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "error: count needs 'n'; got nothing"),
        ({"name": 1}, "error: count needs 'n'; got 'name'"),
        ({"n": 1, "m": 2}, "error: count takes 'n', 'exact'; not 'm'"),
        ({"n": "three"}, "error: count needs 'n' to be an integer; got 'three'"),
        ({"n": 1.5}, "error: count needs 'n' to be an integer; got 1.5"),
        ({"n": True}, "error: count needs 'n' to be an integer; got true"),
        ({"n": 1, "exact": 1}, "error: count needs 'exact' to be true or false; got 1"),
        ({"n": None}, "error: count needs 'n' to be an integer; got null"),
        ([1], "error: count needs its arguments as one object; got [1]"),
        (None, "error: count needs its arguments as one object; got null"),
    ],
)
def test_a_misfit_is_told_in_one_line_that_names_what_is_expected(arguments: Any, text: str):
    assert answer(count, arguments) == Observation(text, failed=True)


def test_a_float_parameter_refuses_a_truth_value():
    assert answer(convert, {"amount": True}).text == "error: convert needs 'amount' to be a number; got true"


def test_an_enumeration_tells_its_values():
    observation = answer(convert, {"amount": 1, "unit": "m"})
    assert observation.text == "error: convert needs 'unit' to be one of 'km', 'mi'; got 'm'"


def test_a_misfit_inside_a_list_tells_its_place():
    observation = answer(convert, {"amount": 1, "tags": ["a", 2]})
    assert observation.text == "error: convert needs 'tags[1]' to be a string; got 2"


def test_a_union_tells_all_its_types():
    observation = answer(table, {"rows": [], "key": 1.5, "note": None})
    assert observation.text == "error: table needs 'key' to be an integer or a string; got 1.5"


def test_a_misfit_inside_a_unions_list_tells_its_place():
    union = {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]}
    spec = ToolSpec("s", "d", {"type": "object", "properties": {"x": union}})
    assert misfit(spec, {"x": ["a", 2]}) == "s needs 'x[1]' to be a string; got 2"


def test_schemas_that_are_true_take_anything():
    spec = ToolSpec("s", "d", {"type": "object", "properties": {"x": True, "y": {"type": "array", "items": True}}})
    assert answer(Tool(spec, lambda **given: given), {"x": None, "y": [1]}) == Observation('{"x": null, "y": [1]}')


def test_other_schema_rules_are_told_too():
    spec = ToolSpec("s", "d", {"type": "object", "properties": {"n": {"type": "integer", "maximum": 3}}})
    assert misfit(spec, {"n": 4}) == "s: 'n': 4 is greater than the maximum of 3"


def test_extra_arguments_are_fine_where_the_schema_says_so():
    assert misfit(ToolSpec("s", "d", {"type": "object", "additionalProperties": True}), {"x": 1}) is None


def test_a_reference_to_elsewhere_is_never_fetched():
    spec = ToolSpec("s", "d", {"type": "object", "properties": {"x": {"$ref": "http://127.0.0.1:9/schema"}}})
    observation = answer(Tool(spec, str), {"x": 1})
    assert observation.failed
    assert "nothing is fetched" in observation.text


def test_an_unknown_tool_is_told_those_there_are():
    toolbox = Toolbox([count, convert])
    observation = asyncio.run(toolbox.call(ToolCall("cuont", {})))
    assert observation == Observation("error: no tool 'cuont'; tools: count, convert", failed=True)


# Hostile and broken calls


def test_deeply_nested_arguments_are_refused_without_recursion():
    nested: dict[str, Any] = {}
    for _ in range(100_000):
        nested = {"n": nested}
    assert answer(count, nested).text == "error: the arguments of count are nested more than 16 deep; send flat ones"


def test_huge_arguments_are_refused():
    observation = answer(slowly, {"text": "x" * 200_000})
    assert observation.text == "error: the arguments of slowly are longer than 100000 characters; send shorter ones"


def test_huge_names_do_not_make_huge_errors():
    assert len(answer(slowly, {"x" * 50_000: 1}).text) < 300
    assert len(answer(slowly, {}, name="x" * 50_000).text) < 300


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.sampled_from(["rows", "key", "note", "other"]), json_values) | json_values)
def test_any_json_gets_an_answer_that_can_be_written(arguments: Any):
    observation = answer(table, arguments)
    assert len(observation.text.encode()) < 10_000


def test_lone_surrogates_leave_an_answer_that_can_be_written():
    assert answer(slowly, {"text": "a\ud800"}).text == "A?"


def test_long_answers_are_cut_with_a_note():
    observation = answer(made_from(lambda: "x" * 5000), {}, output_chars=100)
    assert len(observation.text) == 100
    assert observation.text.endswith("xxx... (cut, 5000 characters)")


def test_a_tools_own_failure_is_told_as_it_is():
    def fail() -> str:
        raise ToolFailure("no such\n company")

    assert answer(made_from(fail), {}) == Observation("error: no such company", failed=True)


@pytest.mark.parametrize("error", [ValueError("bad value"), SystemExit("bad value"), RecursionError("bad value")])
def test_a_tools_exception_is_an_observation(error: BaseException):
    def fail() -> str:
        raise error

    assert answer(made_from(fail), {}) == Observation(f"error: {type(error).__name__}: bad value", failed=True)


def test_a_result_that_begins_like_an_error_is_not_a_failure():
    assert answer(made_from(lambda: "error: 42"), {}) == Observation("error: 42")


class Mute(Exception):
    """An error whose text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ToolFailure("42"), "error: 42"),
        (ToolFailure(), "error: sample failed and does not say why"),
        (ValueError("a\n  b"), "error: ValueError: a b"),
        (Mute(), "error: Mute"),
    ],
)
def test_whatever_a_tool_raises_reads_as_an_error(error: BaseException, text: str):
    def fail() -> str:
        raise error

    assert answer(made_from(fail), {}, seconds=5) == Observation(text, failed=True)


def test_an_answer_that_is_no_json_is_an_observation():
    loop: list[Any] = []
    loop.append(loop)
    assert answer(made_from(lambda: loop), {}).failed


# Bounds in time


def test_a_hung_tool_is_answered_in_time():
    started, release = time.monotonic(), threading.Event()
    observation = answer(made_from(lambda: release.wait(30), name="hang"), {}, seconds=0.1)
    release.set()
    assert observation == Observation("error: hang did not answer within 0.1 seconds", failed=True)
    assert time.monotonic() - started < 5


def test_a_hung_tool_does_not_hold_up_another():
    release = threading.Event()
    toolbox = Toolbox([made_from(lambda: release.wait(30), name="hang"), count], seconds=0.5)

    async def both() -> tuple[Observation, float]:
        hung = asyncio.create_task(toolbox.call(ToolCall("hang", {})))
        await asyncio.sleep(0.05)
        started = time.monotonic()
        observation = await toolbox.call(ToolCall("count", {"n": 1}))
        elapsed = time.monotonic() - started
        await hung
        return observation, elapsed

    observation, elapsed = asyncio.run(both())
    release.set()
    assert observation == Observation("2")
    assert elapsed < 0.4


def test_a_tool_that_hangs_again_and_again_is_switched_off():
    release, calls = threading.Event(), []
    hang = made_from(lambda: (calls.append(1), release.wait(30)), name="hang")
    toolbox = Toolbox([hang], seconds=0.02)

    async def often() -> list[Observation]:
        return [await toolbox.call(ToolCall("hang", {})) for _ in range(5)]

    observations = asyncio.run(often())
    release.set()
    assert observations[-1].text == "error: hang is off: it did not answer 3 times; go on without it"
    assert len(calls) == 3


def test_a_hung_tool_does_not_keep_the_process_from_ending():
    script = """
import asyncio, time
from rolecraft.tools import Toolbox, tool
from rolecraft.types import ToolCall
@tool
def hang() -> str:
    "Hang."
    time.sleep(600)
print(asyncio.run(Toolbox([hang], seconds=0.1).call(ToolCall("hang", {}))).text)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "error: hang did not answer within 0.1 seconds\n"


def test_an_answer_after_the_loop_is_gone_is_dropped_quietly():
    release = threading.Event()
    before = threading.active_count()
    answer(made_from(lambda: release.wait(30)), {}, seconds=0.02)
    release.set()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before  # an exception in the thread would fail this test as a warning


# State


def test_a_fork_goes_its_own_way():
    toolbox = Toolbox([Counter(), tool(count, pure=True)])
    asyncio.run(toolbox.call(ToolCall("counter", {})))
    fork = toolbox.fork()
    asyncio.run(fork.call(ToolCall("counter", {})))
    assert (toolbox.state(), fork.state()) == ({"counter": 1}, {"counter": 2})


def test_a_state_that_comes_too_late_is_told_as_missed():
    release = threading.Event()

    class Late(Counter):
        def state(self) -> Any:
            release.wait(30)

    started = time.monotonic()
    assert Toolbox([Late()], seconds=0.1).state() == {"counter": {"missed": "no state within 0.1 seconds"}}
    release.set()
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("error", "why"),
    [(ToolFailure("no rows"), "ToolFailure: no rows"), (SystemExit("out"), "SystemExit: out"), (OSError(), "OSError")],
)
def test_a_state_that_raises_is_told_as_missed_beside_the_others(error: BaseException, why: str):
    class Fails(Stuck):
        def state(self) -> Any:
            raise error

    assert Toolbox([Fails(), Counter(3), count]).state() == {"stuck": {"missed": why}, "counter": 3}


def test_a_fork_that_fails_leaves_nothing_open():
    forked = Counter()

    class Forks(Counter):
        def fork(self) -> Counter:
            return forked

    with pytest.raises(NotForkable, match="stays where it is"):
        Toolbox([Forks(), Stuck()]).fork()
    assert forked.closed == 1


def test_a_fork_keeps_the_bounds():
    sample = tool(made_from(lambda: "x" * 99), pure=True)
    for copy in (Toolbox([sample], output_chars=50).fork(), Toolbox([sample], output_chars=50).branch()):
        assert len(asyncio.run(copy.call(ToolCall("sample", {}))).text) == 50


def test_a_function_that_is_not_known_to_be_pure_is_not_forked():
    toolbox = Toolbox([Counter(), count])
    for copy in (toolbox.fork, toolbox.branch):
        with pytest.raises(NotForkable, match=r"'count' may change something.*write @tool\(pure=True\) above it"):
            copy()


def counted(toolbox: Toolbox) -> str:
    return asyncio.run(toolbox.call(ToolCall("counter", {}))).text


def test_a_branch_goes_its_own_way_and_copies_nothing_before_it_is_called():
    forked = list[Counter]()

    class Forks(Counter):
        def fork(self) -> Counter:
            forked.append(super().fork())
            return forked[-1]

    toolbox = Toolbox([Forks(4)])
    branch = toolbox.branch()
    assert (branch.specs, branch.state(), forked) == (toolbox.specs, {"counter": 4}, [])
    assert (counted(branch), counted(branch), len(forked)) == ("5", "6", 1)
    assert (toolbox.state(), branch.state()) == ({"counter": 4}, {"counter": 6})
    branch.close()
    assert forked[0].closed == 1


def test_a_pure_tool_is_called_where_it_is():
    class Pure(Counter):
        @property
        def spec(self) -> ToolSpec:
            return ToolSpec("counter", "adds one", pure=True)

        def fork(self) -> Counter:
            raise AssertionError

    assert counted(Toolbox([Pure()]).branch().branch()) == "1"


def test_a_committed_branch_of_a_branch_is_what_the_toolbox_goes_on_with():
    first = Counter()
    toolbox = Toolbox([first, tool(count, pure=True)])
    branch = toolbox.branch()
    counted(branch)
    inner = branch.branch()
    counted(inner)
    inner.commit()
    inner.close()
    branch.close()
    assert (toolbox.state(), first.closed) == ({"counter": 2}, 1)
    assert counted(toolbox) == "3"


def test_a_branch_that_was_not_called_changes_nothing_when_it_is_committed():
    first = Counter(3)
    toolbox = Toolbox([first])
    toolbox.branch().branch().commit()
    toolbox.commit()
    assert (toolbox.state(), first.closed) == ({"counter": 3}, 0)


def test_a_fork_of_a_branch_has_its_state():
    toolbox = Toolbox([Counter()])
    branch = toolbox.branch()
    counted(branch)
    assert counted(branch.fork()) == "2"


def test_a_tool_that_turns_out_not_to_be_copied_is_no_observation():
    branch = Toolbox([Stuck()]).branch()
    with pytest.raises(NotForkable, match="stays where it is"):
        asyncio.run(branch.call(ToolCall("stuck", {})))


def test_several_calls_of_a_branch_at_once_share_one_copy():
    forked = list[Counter]()

    class Slow(Counter):
        def fork(self) -> Counter:
            time.sleep(0.02)
            forked.append(super().fork())
            return forked[-1]

    branch = Toolbox([Slow()]).branch()

    async def both() -> None:
        await asyncio.gather(*(branch.call(ToolCall("counter", {})) for _ in range(4)))

    asyncio.run(both())
    assert len(forked) == 1


def test_closing_closes_every_tool_though_one_fails():
    counter = Counter()
    toolbox = Toolbox([counter, Stuck()])
    with pytest.raises(OSError, match="will not close"):
        toolbox.close()
    assert counter.closed == 1


def test_two_tools_of_one_name_are_refused():
    with pytest.raises(UserError, match="two tools are called 'count'; rename one"):
        Toolbox([count, count])


@pytest.mark.parametrize("bounds", [{"seconds": 0}, {"seconds": float("nan")}, {"output_chars": 0}])
def test_a_toolbox_without_time_or_room_is_refused(bounds: dict[str, Any]):
    with pytest.raises(UserError, match="needs time and room"):
        Toolbox([count], **bounds)


def test_specs_keep_the_order_given():
    assert [spec.name for spec in Toolbox([slowly, count]).specs] == ["slowly", "count"]


# A user's own file


def write(path: Any, text: str) -> Any:
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def test_tools_of_a_file_are_loaded_in_order(tmp_path):
    path = write(
        tmp_path / "mine.py",
        '''
        from rolecraft.tools import tool

        @tool
        def second() -> str:
            """Come first."""
            return "2"

        @tool
        def first() -> str:
            """Come second."""
            return "1"

        def helper():
            return 3
        ''',
    )
    assert [member.spec.name for member in load_tools(path)] == ["second", "first"]


def test_a_file_with_state_is_opened_with_its_settings(tmp_path):
    path = write(
        tmp_path / "mine.py",
        """
        from dataclasses import dataclass
        from rolecraft.tools.calculator import calculator as _calculator

        @dataclass(frozen=True)
        class Settings:
            spare: bool = False

        def open(settings):
            return _calculator if settings.spare else None
        """,
    )
    assert find(path, {"spare": True})[-1].spec.name == "calculator"


def test_a_file_without_a_tool_says_where_to_put_it(tmp_path):
    path = write(tmp_path / "mine.py", "def add(x):\n    return x\n")
    with pytest.raises(UserError, match=r"no @tool in .*mine.py: put it above 'add'"):
        load_tools(path)


def test_an_error_in_a_users_file_names_file_and_line(tmp_path):
    path = write(tmp_path / "mine.py", "import json\n\njson.loads('{')\n")
    with pytest.raises(UserError, match=r"mine.py, line 3: JSONDecodeError: Expecting property name"):
        load_tools(path)


def test_a_syntax_error_in_a_users_file_names_file_and_line(tmp_path):
    path = write(tmp_path / "mine.py", "x = 1\ndef f(:\n")
    with pytest.raises(UserError, match=r"mine.py, line 2: SyntaxError"):
        load_tools(path)


def test_an_error_is_told_of_a_relative_path_and_of_a_neighbour(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mine.py", "x = 1\nfrom helpers import y\n")
    write(tmp_path / "helpers.py", "\n\ny = 1 / 0\n")
    with pytest.raises(UserError, match=r"^helpers.py, line 3: ZeroDivisionError"):
        load_tools(Path("mine.py"))
    write(tmp_path / "other.py", "x = 1\n1 / 0\n")
    with pytest.raises(UserError, match=r"^other.py, line 2: ZeroDivisionError"):
        load_tools(Path("other.py"))


def test_a_tool_without_types_in_a_users_file_names_file_and_line(tmp_path):
    path = write(
        tmp_path / "mine.py",
        '''
        from rolecraft.tools import tool

        @tool
        def add(x):
            """Add."""
        ''',
    )
    with pytest.raises(UserError, match=r"mine.py, line 4: parameter 'x' of tool 'add' has no type"):
        load_tools(path)


def test_a_users_file_that_exits_is_an_error_not_an_exit(tmp_path):
    path = write(tmp_path / "mine.py", "raise SystemExit(3)\n")
    with pytest.raises(UserError, match=r"line 1: SystemExit: 3"):
        load_tools(path)


def test_an_absent_file_is_not_found(tmp_path):
    with pytest.raises(NotFound, match="no file"):
        load_tools(tmp_path / "mine.py")


def test_a_path_that_is_no_python_file_is_not_found(tmp_path):
    with pytest.raises(NotFound, match="is no Python file"):
        load_tools(tmp_path / "mine.txt")


def test_a_member_is_found_by_name():
    assert [member.spec.name for member in find("calculator")] == ["calculator"]


def test_a_members_settings_are_checked():
    with pytest.raises(SettingsError, match=r"unknown key 'max_row' in sql. Did you mean 'max_rows'\?"):
        find("sql", {"max_row": 3})


def test_settings_for_a_tool_that_has_none_are_refused():
    with pytest.raises(UserError, match="takes no settings; got 'digits'"):
        find("calculator", {"digits": 3})


# The folder


def test_no_file_of_the_folder_imports_its_init():
    """The members need the contract alone: a circle through `__init__` would make the order of imports matter."""
    folder = Path(tools.__file__).parent
    init = re.compile(r"^ *(from rolecraft\.tools import|from rolecraft import .*\btools\b)", re.M)
    assert [path.name for path in folder.glob("*.py") if init.search(path.read_text("utf-8"))] == []
