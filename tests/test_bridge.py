"""Code calls an episode's tools over the bridge, and no abuse of it reaches a tool, a limit or the next step."""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from abuses import ABUSES, LOST, PRELUDE, Abuse
from several import Counter

from rolecraft import bridge
from rolecraft.codeblocks import CODE
from rolecraft.errors import SettingsError
from rolecraft.sandbox import layers, process
from rolecraft.tools import Toolbox, ToolFailure, tool
from rolecraft.types import Message, Observation, ToolCall, ToolSpec

pytestmark = pytest.mark.skipif(not layers()["seccomp"], reason="no system-call filter on this machine")

LIMITS = bridge.Settings(seconds=2.0, memory_mb=96, output_chars=600, calls=8, call_seconds=1.5)


class World:
    """Tools that count their calls."""

    def __init__(self) -> None:
        self.called: list[str] = []

    @tool
    def add(self, a: int, b: int) -> int:
        """Add two numbers.

        Args:
            a: one
            b: the other
        """
        self.called.append("add")
        if a == 13:
            raise ToolFailure("13 is bad luck")
        return a + b

    @tool
    def slow(self) -> str:
        """Take a while."""
        self.called.append("slow")
        time.sleep(0.4)
        return "done"

    @tool
    def halting(self) -> str:
        """Take longer than what calls it computes."""
        time.sleep(1.2)
        return "done"

    @tool
    def endless(self) -> str:
        """Take for ever."""
        self.called.append("endless")
        time.sleep(5)
        return "done"

    @tool
    def hostile(self) -> str:
        """Answer with code."""
        return "__import__('os').system('true')"

    @tool
    def forged(self) -> str:
        """Answer with what looks like an answer of the host's."""
        return "[false, 42]"

    @tool
    def big(self) -> str:
        """Answer much."""
        return "x" * 1_000_000

    @tool
    def deep(self) -> str:
        """Answer with lists in lists."""
        return "[" * 5_000 + "]" * 5_000


def boxed(world: World, settings: bridge.Settings = LIMITS) -> bridge.CodeBox:
    names = ("add", "slow", "halting", "endless", "hostile", "forged", "big", "deep")
    return bridge.CodeBox(Shared([getattr(world, name) for name in names], output_chars=2_000_000), settings)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def box(world: World) -> Iterator[bridge.CodeBox]:
    opened = boxed(world)
    yield opened
    opened.close()


def run(box: bridge.CodeBox, code: str) -> Observation:
    return asyncio.run(box.call(ToolCall("python", {"code": code})))


@pytest.mark.parametrize("abuse", ABUSES, ids=lambda abuse: abuse.name)
def test_an_abuse_of_the_bridge_reaches_nothing(abuse: Abuse, box, world):
    began = time.monotonic()
    found = run(box, PRELUDE + abuse.code)
    assert time.monotonic() - began < 15
    assert abuse.seen in found.text
    assert found.answer == abuse.answer
    assert len(found.text) <= LIMITS.output_chars + 300
    assert len(world.called) <= abuse.calls
    made = len(world.called)
    time.sleep(0.1)
    assert len(world.called) == made  # nothing runs on between steps
    after = run(box, "print(add(40, 2))")
    assert after.text == "42" or LOST in after.text
    assert run(box, "print(add(40, 2))").text == "42"
    assert world.called[made:] in (["add", "add"], ["add"])


def test_there_are_more_than_thirty_of_them():
    assert len({abuse.code for abuse in ABUSES}) >= 30


def test_variables_stay_and_the_last_value_is_told(box, world):
    assert run(box, "n = add(2, 3)\nn").text == "5"
    assert run(box, "print('so', n + 1)\nn * 2").text == "so 6\n10"
    assert run(box, "m = 1").text.startswith("nothing printed")
    assert world.called == ["add"]


def test_the_calls_of_a_step_and_its_answer_are_told(box):
    found = run(box, "x = add(2, b=3)\nfinal_answer({'sum': x, 'of': (2, 3)})\nadd(1, 1)")
    assert [(call.name, call.arguments, result.text) for call, result in found.calls] == [
        ("add", {"a": 2, "b": 3}, "5")
    ]
    assert found.answer == '{"sum":5,"of":[2,3]}'
    assert not found.failed


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ("18", "18"),
        ("18.5", "18.5"),
        ("'a word'", "a word"),
        ("True", "true"),
        ("None", ""),
        ("{1}", "[1]"),
        ("__import__('fractions').Fraction(1, 2)", "0.5"),
        ("__import__('datetime').date(2024, 1, 2)", "2024-01-02"),
    ],
)
def test_an_answer_is_told_as_text(box, value, answer):
    assert run(box, f"final_answer({value})").answer == answer


def test_a_tools_error_can_be_caught_or_read(box):
    caught = run(box, "try:\n    add(13, 1)\nexcept ToolError as error:\n    print('so:', error)")
    assert (caught.text, caught.failed) == ("so: 13 is bad luck", False)
    read = run(box, "print('first')\nadd(13, 1)")
    assert read.text == "error: ToolError: 13 is bad luck (line 2); printed before it: first"
    assert read.failed


def test_functions_are_there_anew_in_each_step(box):
    assert run(box, "keep = add\nadd = 3\nadd").text == "3"
    assert run(box, "print(add(1, 1), keep(2, 2))").text == "2 4"


def test_what_is_printed_is_bounded(box):
    assert run(box, "print('x' * 5000)").text.endswith("(cut at 600 characters)")


def test_there_is_only_python(box):
    assert box.specs == (CODE,)
    assert asyncio.run(box.call(ToolCall("add", {"a": 1, "b": 2}))).failed
    assert asyncio.run(box.call(ToolCall("python", {"code": 3}))).failed


def test_a_branch_has_the_variables_and_leaves_its_source_as_it_was(box, world):
    run(box, "n = [add(1, 2)]")
    branch = box.branch()
    assert run(branch, "n.append(9)\nn").text == "[3, 9]"
    assert run(box, "n").text == "[3]"
    assert world.called == ["add"]  # its steps ran again, the tool did not
    branch.close()


def test_a_branch_that_is_committed_is_gone_on_with(box):
    run(box, "n = 1")
    branch = box.branch()
    run(branch, "n += 1")
    branch.commit()
    branch.close()
    assert run(box, "n").text == "2"


def counting() -> tuple[bridge.CodeBox, Counter]:
    tool = Counter()
    return bridge.CodeBox(Toolbox([tool]), LIMITS), tool


def open_copies(tool: Counter) -> list[int]:
    return [copy.value for copy in tool.copies if not copy.closed]


@pytest.mark.parametrize("copied", ["branch", "fork"])
def test_a_copy_that_is_closed_closes_the_tools_that_it_copied(copied):
    box, tool = counting()
    run(box, "add(by=1)")
    copy = getattr(box, copied)()
    assert run(copy, "add(by=5)").text == "'n is 6'"
    assert sorted(open_copies(tool)) == [1, 6]
    copy.close()
    assert open_copies(tool) == [1]
    box.close()
    assert open_copies(tool) == [1]  # those are closed by whoever opened them


def test_the_tools_of_branches_that_are_committed_stay_and_all_others_close():
    box, tool = counting()
    run(box, "add(by=1)")
    first = box.branch()
    run(first, "add(by=10)")
    second = first.branch()
    assert run(second, "add(by=100)").text == "'n is 111'"
    second.commit()
    for branch in (second, first):
        branch.close()
    assert open_copies(tool) == [111]
    assert run(box, "add(by=1)").text == "'n is 112'"
    assert box.state() == {"add": 112}
    box.close()


class Shared(Toolbox):
    """Tools with state that cannot be copied, and need not be here."""

    def branch(self) -> Shared:
        return self

    def commit(self) -> None:
        pass


OTHERWISE = "import os\nn = 1\nx = add(int.from_bytes(os.urandom(3), 'big'), 1)"


def test_a_step_that_does_not_run_again_costs_its_copy_the_variables_and_no_run(box, world):
    run(box, OTHERWISE)
    branch = box.branch()
    found = run(branch, "add(1, 1)")
    assert found.failed
    assert "this step did not run: the variables of those before it are lost" in found.text
    assert world.called == ["add"]
    assert "NameError" in run(branch, "n").text
    assert run(box, "n").text == "1"
    branch.commit()
    branch.close()
    assert "NameError" in run(box, "n").text  # as it was told


def test_a_step_that_makes_fewer_calls_than_before_did_not_run_again(box):
    run(box, "import os\nif os.path.exists('x') < 1: n = add(1, 1)")
    box._steps[0].code = "n = 0"
    assert "1 of its 1 calls were not made" in run(box.branch(), "n").text


def test_a_call_whose_text_is_empty_is_no_known_one(box):
    run(box, "import os\nif os.path.exists('x') < 1: n = 1")
    box._steps[0].code = PRELUDE + "by_hand('')\nhear()"
    assert "did not run again" in run(box.branch(), "n").text


def test_a_cancelled_step_calls_nothing_any_more(box, world):
    async def cancelled() -> tuple[int, int]:
        step = asyncio.ensure_future(box.call(ToolCall("python", {"code": "while True: add(1, 1)"})))
        while not world.called:
            await asyncio.sleep(0.001)
        step.cancel()
        with pytest.raises(asyncio.CancelledError):
            await step
        made = len(world.called)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(box.close)
        return made, len(world.called)

    before, after = asyncio.run(cancelled())
    assert before <= after <= before + 1  # one that had begun


def test_a_step_that_begins_after_its_episode_opens_nothing(world):
    box = boxed(world)

    async def cancelled() -> None:
        with box._lock:
            step = asyncio.ensure_future(box.call(ToolCall("python", {"code": "add(1, 1)"})))
            await asyncio.sleep(0.05)
            step.cancel()
            await asyncio.gather(step, return_exceptions=True)
        await asyncio.sleep(0.3)

    asyncio.run(cancelled())
    assert box._session is None
    assert world.called == []


class Bump:
    """A tool with state, which each branch copies when it first calls it."""

    spec = ToolSpec("bump", "count", {"type": "object", "properties": {"from": {"type": "integer"}}})

    def call(self, arguments) -> str:
        return str(arguments.get("from", 0) + 1)

    def fork(self) -> Bump:
        return Bump()

    def state(self) -> None:
        return None

    def close(self) -> None:
        pass


def test_steps_at_once_leave_the_tools_the_threads_that_they_need():
    async def at_once() -> list[Observation]:
        asyncio.get_running_loop().set_default_executor(concurrent.futures.ThreadPoolExecutor(2))
        calls = (branch.call(ToolCall("python", {"code": "bump()"})) for branch in branches)
        return await asyncio.gather(*calls)

    box = bridge.CodeBox(Toolbox([Bump()]), LIMITS)
    branches = [box.branch() for _ in range(3)]
    found = asyncio.run(at_once())
    for branch in branches:
        branch.close()
    assert [one.text for one in found] == ["1", "1", "1"]


def test_a_parameter_whose_name_python_has_another_use_for_breaks_nothing():
    box = bridge.CodeBox(Toolbox([Bump()]), LIMITS)
    assert run(box, "bump(2), bump(**{'from': 3}), bump()").text == "(3, 4, 1)"
    box.close()


def test_an_answer_has_no_half_characters(box):
    found = run(box, PRELUDE + r"""by_hand('["final_answer", {"answer": "x\\ud800"}]'); hear()""")
    assert found.answer == "x?"


def test_what_the_calls_of_a_step_say_is_bounded(world):
    box = boxed(world, replace(LIMITS, calls=32))
    found = run(
        box, "for _ in range(20):\n    try: add('x' * 30_000, 1)\n    except ToolError as e: print(str(e)[:20])"
    )
    box.close()
    assert len(found.calls) == 8
    assert "this step has sent" in found.text


def test_code_does_not_compute_while_the_host_answers(box):
    begin = "import time\nbegan = time.process_time()\nend = time.monotonic() + 1\nby_hand('[\"halting\", {}]')"
    spin = "while time.monotonic() < end: pass\nprint(time.process_time() - began)"
    assert float(run(box, f"{PRELUDE}{begin}\n{spin}").text) < 0.5


def test_a_channel_that_nobody_reads_costs_the_host_nothing(box, monkeypatch):
    asked = []
    send = process._Process._send
    monkeypatch.setattr(process._Process, "_send", lambda self, unsent: asked.append(1) or send(self, unsent))
    code = "import ctypes, time\nctypes.CDLL(None).shutdown(3, 0)\nby_hand('[]')\ntime.sleep(0.5)"
    run(box, PRELUDE + code)
    assert len(asked) < 20


def test_a_record_has_the_calls_that_the_code_made():
    found = Observation("5", calls=((ToolCall("add", {"a": 2}), Observation("5")),), answer="5")
    reply = Message("assistant", "```python\n...\n```", (ToolCall("python", {"code": "..."}, "call_0"),), speaker="a")
    said, result, closing = bridge.record(reply, reply.tool_calls[0], found)
    assert said.content == reply.content
    assert [call.id for call in said.tool_calls] == [result.tool_call_id] == ["call_0_0"]
    assert (closing.content, closing.weight, closing.tool_calls) == ("5", 0.0, ())


def test_limits_that_bound_nothing_are_refused():
    with pytest.raises(SettingsError, match=r"bridge\.calls is 0"):
        bridge.Settings(calls=0)
