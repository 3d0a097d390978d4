"""The python tool: state between calls, errors that a model can use, forks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import pytest

from rolecraft.errors import SandboxError, SettingsError
from rolecraft.tools import Toolbox, ToolFailure, ToolLike, find, python
from rolecraft.types import ToolCall


@pytest.fixture
def opened() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def tool(opened: contextlib.ExitStack) -> python.Python:
    try:
        made = python.open(python.Settings(seconds=60.0))
    except SandboxError as error:
        pytest.skip(f"no sandbox here: {error}")
    opened.callback(made.close)
    return made


def failure(tool: python.Python, code: str) -> str:
    with pytest.raises(ToolFailure) as caught:
        tool.call({"code": code})
    return str(caught.value)


def test_it_is_a_tool(tool):
    assert isinstance(tool, ToolLike)
    assert tool.spec.name == "python"
    assert tool.state() is None


def test_state_is_kept_between_calls(tool):
    tool.call({"code": "a = 6"})
    assert tool.call({"code": "print(a * 7)"}) == "42"


def test_a_value_needs_no_print(tool):
    assert tool.call({"code": "2 ** 10"}) == "1024"


def test_silence_is_told(tool):
    assert tool.call({"code": "a = 1"}) == "nothing printed; use print() to see a value"


@pytest.mark.parametrize("fence", ["```python\n{}\n```", "```\n{}\n```", "\n```py\n{}```\n", "{}"])
def test_a_markdown_fence_is_taken_off(tool, fence: str):
    assert tool.call({"code": fence.format("print(1)\nprint(2)")}) == "1\n2"


def test_an_error_is_a_failure_with_its_place(tool):
    assert failure(tool, "a = 1\na / 0") == "ZeroDivisionError: division by zero (line 2)"


def test_a_failure_tells_what_was_printed_before(tool):
    assert failure(tool, "print('begun')\n1 / 0").endswith("(line 2); printed before it: begun")
    assert failure(tool, "print('x' * 1000)\n1 / 0").endswith("... " + "x" * 120)


def test_output_that_was_cut_says_so(opened):
    small = opened.enter_context(contextlib.closing(python.open(python.Settings(seconds=60.0, output_bytes=5))))
    assert small.call({"code": "print('a' * 100)"}) == "aaaaa\n... (cut at 5 bytes)"


def test_a_call_that_takes_too_long_is_a_failure_and_the_tool_goes_on(opened):
    quick = opened.enter_context(contextlib.closing(python.open(python.Settings(seconds=1.0))))
    assert failure(quick, "while True: pass").startswith("timed out after 1 s; the session starts anew")


def test_after_the_end_of_a_session_the_tool_starts_anew(tool):
    tool.call({"code": "a = 1"})
    assert "its variables are lost" in failure(tool, "import os\nos._exit(1)")
    assert "NameError" in failure(tool, "a")


def test_a_fork_has_the_variables_and_is_independent(tool, opened):
    tool.call({"code": "a = [1]\nimport random\nr = random.random()"})
    failure(tool, "a.append(2)\n1 / 0")
    copy = opened.enter_context(contextlib.closing(tool.fork()))
    copy.call({"code": "a.append(3)"})
    assert tool.call({"code": "a"}) == "[1, 2]"
    assert copy.call({"code": "a"}) == "[1, 2, 3]"
    assert copy.call({"code": "r"}) == tool.call({"code": "r"})


def test_a_fork_does_not_run_the_steps_of_a_session_that_ended(tool, opened):
    tool.call({"code": "a = 1"})
    failure(tool, "import os\nos._exit(1)")
    tool.call({"code": "b = 2"})
    copy = opened.enter_context(contextlib.closing(tool.fork()))
    assert copy.call({"code": "b"}) == "2"
    assert "NameError" in failure(copy, "a")


def test_a_step_that_does_not_run_again_costs_its_copy_the_variables_and_no_run(tool, opened):
    number = tool.call({"code": "import os\nn = 1\nos.getpid()"})
    tool.call({"code": f"if os.getpid() != {number}: os._exit(1)"})
    copy = opened.enter_context(contextlib.closing(tool.fork()))
    again = opened.enter_context(contextlib.closing(copy.fork()))
    for one in (copy, again):
        assert failure(one, "n").startswith("this did not run: step 2 did not run again in a copy (the process ended")
        assert "NameError" in failure(one, "n")
    assert tool.call({"code": "n"}) == "1"


def test_a_forks_fork_has_all_the_steps(tool, opened):
    tool.call({"code": "a = 1"})
    first = opened.enter_context(contextlib.closing(tool.fork()))
    first.call({"code": "b = a + 1"})
    second = opened.enter_context(contextlib.closing(first.fork()))
    assert second.call({"code": "a, b"}) == "(1, 2)"


def test_a_toolbox_answers_with_its_errors(tool):
    box = Toolbox([tool], seconds=60.0)
    answer = asyncio.run(box.call(ToolCall("python", {"code": "1 / 0"})))
    assert answer.failed
    assert answer.text == "error: ZeroDivisionError: division by zero (line 1)"


def test_a_closed_tool_is_closed(tool):
    tool.close()
    tool.close()
    with pytest.raises(SandboxError):
        tool.call({"code": "1"})


def test_it_is_found_by_name_with_its_settings(opened):
    try:
        (made,) = find("python", {"seconds": 60.0, "memory_mb": 64})
    except SandboxError as error:
        pytest.skip(f"no sandbox here: {error}")
    opened.callback(made.close)
    assert made.call({"code": "1"}) == "1"
    with pytest.raises(ToolFailure, match="MemoryError"):
        made.call({"code": "x = bytearray(1 << 30)"})


def test_impossible_settings_are_told():
    with pytest.raises(SettingsError, match=r"Limits\.memory_mb is 1"):
        python.open(python.Settings(memory_mb=1))
