"""The episode, with a scripted engine and real tools."""

import asyncio
import functools
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from rolecraft import agent, team, wire
from rolecraft.errors import ContextFull, EngineError
from rolecraft.tools import Toolbox, tool
from rolecraft.types import Completion, Environment, Message, Prompt, Task, ToolCall, Turn, Verdict


@tool
def add(x: int, y: int) -> int:
    """Add two numbers.

    Args:
        x: the first
        y: the second
    """
    return x + y


class Scripted:
    """Answers from a script and remembers what it was asked."""

    def __init__(self, replies: Sequence[Message | Exception], stop="end", delay=0.0):
        self.replies, self.stop, self.delay, self.asked = list(replies), stop, delay, []

    async def complete(self, prompt: Prompt):
        self.asked.append(prompt)
        await asyncio.sleep(self.delay)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, Exception):
            raise reply
        message = replace(reply, speaker=prompt.speaker)
        return (Completion(message, Turn(message, prompt.speaker, stop=self.stop)),)


def call(x, y):
    return Message("assistant", tool_calls=(ToolCall("add", {"x": x, "y": y}),))


def says(text):
    return Message("assistant", text)


def opener(closed=None, name="t", closing_seconds=0.0):
    def judge(trajectory):
        return Verdict(1.0 if "5" in trajectory.messages[-1].content else 0.0)

    class Box(Toolbox):
        def close(self):
            time.sleep(closing_seconds)
            super().close()
            if closed is not None:
                closed.append(name)

    task = Task(name, (Message("user", "2+3?"),), Toolbox([add]).specs)
    return lambda: Environment(task, Box([add]), judge)


def run(engine, team_name="single", settings=agent.Settings(), **options):
    chosen = team.find(team_name, instructions=False)
    return asyncio.run(agent.episode(opener()(), chosen, engine, settings, **options))


def test_what_ended_together_with_one_that_failed_is_not_lost():
    async def ends(number):
        await asyncio.sleep(0)
        if number == 0:
            raise EngineError("no memory")
        return number

    async def collect(results):
        async for one in agent.at_once([functools.partial(ends, number) for number in range(8)], 8):
            results.add(one)

    for _ in range(5):  # in which order those that ended together come is chance
        results = set()
        with pytest.raises(EngineError, match="no memory"):
            asyncio.run(collect(results))
        assert results == {1, 2, 3, 4, 5, 6, 7}


def test_ids_that_a_model_wrote_are_kept_where_each_call_has_its_own():
    def ids(*given, tokens=(7,)):
        calls = tuple(ToolCall("add", {"x": place, "y": 1}, name) for place, name in enumerate(given))
        record = run(Scripted([Message("assistant", tool_calls=calls, ids=tokens), says("5")]))
        answers = [message.tool_call_id for message in record.messages if message.role == "tool"]
        assert answers == [one.id for one in record.messages[1].tool_calls]
        return answers

    assert ids("abc123xyz", "def456uvw") == ["abc123xyz", "def456uvw"]
    assert ids("abc123xyz", "abc123xyz") == ["call_0", "call_1"]
    assert ids("abc123xyz", "") == ["call_0", "call_1"]
    assert ids("abc123xyz", "def456uvw", tokens=None) == ["call_0", "call_1"]


def test_a_call_is_run_and_its_result_told():
    record = run(Scripted([call(2, 3), says("It is 5.")]))
    assert [m.role for m in record.messages] == ["user", "assistant", "tool", "assistant"]
    assert record.messages[2] == Message("tool", "5", tool_call_id="call_0", name="add")
    assert record.verdict == Verdict(1.0)
    assert record.stop == "answered"


def test_three_roles_take_their_turns():
    script = [says("I add. Next: executor."), call(2, 3), says("Done. Next: summarizer."), says("5")]
    record = run(Scripted(script), "mor")
    assert [t.speaker for t in record.turns] == ["reasoner", "executor", "reasoner", "summarizer"]


@tool
def look_up(name: str) -> str:
    """Look a number up.

    Args:
        name: whose number
    """
    if name == "Ada":
        raise ValueError("42")
    return "error: 42"


def test_a_summarizer_and_the_record_are_told_an_error_as_an_error_and_a_result_as_a_result():
    both = tuple(ToolCall("look_up", {"name": name}) for name in ("Ada", "Bo"))
    engine = Scripted(
        [says("Next: executor."), Message("assistant", tool_calls=both), says("Next: summarizer."), says("5")]
    )
    box = Toolbox([look_up])
    environment = Environment(Task("t", (Message("user", "?"),), box.specs), box, lambda record: Verdict(0.0))
    record = asyncio.run(agent.episode(environment, team.find("mor"), engine))
    seen = [m for m in engine.asked[-1].messages if m.role == "tool"]
    assert engine.asked[-1].speaker == "summarizer"
    assert [(m.content, m.failed) for m in seen] == [("error: ValueError: 42", True), ("error: 42", False)]
    written = wire.trajectory_to_json(record)["messages"]
    assert [m.get("failed") for m in written if m["role"] == "tool"] == [True, None]


def test_what_is_told_of_a_call_that_was_not_written_is_a_failure():
    broken = Message("assistant", unparsed="{")
    assert run(Scripted([broken, says("5")])).messages[2].failed


def test_parallel_calls_are_answered_in_order():
    both = Message("assistant", tool_calls=(ToolCall("add", {"x": 1, "y": 1}), ToolCall("add", {"x": 2, "y": 2})))
    record = run(Scripted([both, says("5")]))
    assert [(m.content, m.tool_call_id) for m in record.messages[2:4]] == [("2", "call_0"), ("4", "call_1")]


def judged_by_calls(engine, team_name="single"):
    environment = replace(opener()(), calls_only=True)
    return asyncio.run(agent.episode(environment, team.find(team_name, instructions=False), engine))


def test_where_calls_alone_are_judged_none_runs_and_the_episode_ends_with_the_first_reply_that_has_some():
    both = Message("assistant", tool_calls=tuple(ToolCall("add", {"x": 1, "y": n}) for n in range(9)))
    record = judged_by_calls(Scripted([both]))
    assert [m.role for m in record.messages] == ["user", "assistant"]
    assert len(record.messages[1].tool_calls) == 9
    assert record.stop == "answered"
    team_record = judged_by_calls(Scripted([says("I add. Next: executor."), call(2, 3)]), "mor")
    assert [turn.speaker for turn in team_record.turns] == ["reasoner", "executor"]


def test_where_calls_alone_are_judged_one_that_cannot_be_read_and_an_answer_end_it_as_well():
    broken = judged_by_calls(Scripted([Message("assistant", unparsed="{")]))
    assert [m.role for m in broken.messages] == ["user", "assistant"]
    assert judged_by_calls(Scripted([says("5")])).stop == "answered"


def test_a_malformed_call_is_answered_with_what_is_wrong_and_the_episode_goes_on():
    broken = Message("assistant", unparsed='{"name":')
    record = run(Scripted([broken, says("5")]), explain=lambda text: f"{text} is cut off")
    assert record.messages[2].content == 'error: {"name": is cut off'
    assert record.stop == "answered"


def test_good_calls_beside_a_malformed_one_are_run():
    mixed = replace(call(2, 3), unparsed="{")
    record = run(Scripted([mixed, says("5")]))
    assert [m.content[:5] for m in record.messages[2:4]] == ["5", "error"]


def test_an_executor_that_calls_nothing_is_told_so():
    record = run(Scripted([says("Next: executor."), says("um"), says("Next: summarizer."), says("5")]), "mor")
    assert record.messages[3].content == "error: no call was written"


def test_an_episode_that_its_team_gives_up_has_no_answer():
    planner = "The sum of 2 and 3 is 5, which is no answer. Next: give up."
    record = run(Scripted([says(planner)]), "alpha_umi")
    assert (record.stop, len(record.turns)) == ("gave_up", 1)
    concluded = run(Scripted([says("It is known. Next: conclusion."), says("5")]), "alpha_umi")
    assert (concluded.stop, concluded.messages[-1].speaker) == ("answered", "summarizer")


def test_each_role_is_asked_with_the_tools_and_the_last_word_that_are_its():
    engine = Scripted([says("Add them. Next: caller."), call(2, 3), says("Done. Next: conclusion."), says("5")])
    asyncio.run(agent.episode(opener()(), team.find("alpha_umi"), engine))
    told = [(prompt.speaker, bool(prompt.tools), prompt.messages[-1].role) for prompt in engine.asked]
    assert told == [(who, who != "summarizer", "user") for who in ("planner", "caller", "planner", "summarizer")]
    assert "Add them. Next: caller." in engine.asked[1].messages[-1].content
    assert [message.role for message in engine.asked[1].messages] == ["system", "user", "user"]


def test_the_same_call_again_and_again_ends_the_episode():
    record = run(Scripted([call(2, 3)]), settings=agent.Settings(max_repeats=2, max_turns=50))
    assert record.stop == "repeated_call"
    assert len(record.turns) == 3


def test_turns_are_bounded():
    replies = [call(i, i) for i in range(20)]
    assert run(Scripted(replies), settings=agent.Settings(max_turns=4)).stop == "max_turns"


def test_a_reply_cut_by_length_ends_the_episode():
    assert run(Scripted([says("5")], stop="length")).stop == "length"


def test_a_full_context_is_data_but_a_broken_engine_raises():
    assert run(Scripted([ContextFull("full")])).stop == "length"
    with pytest.raises(EngineError):
        run(Scripted([EngineError("down")]))


def test_calls_beyond_the_limit_are_dropped():
    many = Message("assistant", tool_calls=tuple(ToolCall("add", {"x": i, "y": 0}) for i in range(9)))
    record = run(Scripted([many, says("5")]), settings=agent.Settings(max_calls_per_turn=2))
    assert len(record.messages[1].tool_calls) == 2


def test_unless_constrained_an_engine_is_told_nothing_of_what_replies_may_be():
    engine = Scripted([says("I add. Next: executor."), call(2, 3), says("Next: summarizer."), says("5")])
    run(engine, "mor")
    assert {(prompt.choice, prompt.next_roles) for prompt in engine.asked} == {("auto", ())}


def test_constrained_each_role_is_held_to_its_part():
    engine = Scripted([says("I add. Next: executor."), call(2, 3), says("Next: summarizer."), says("5")])
    run(engine, "mor", agent.Settings(constrained=True))
    named = ("executor", "summarizer")
    asked = [(prompt.speaker, prompt.choice, prompt.next_roles) for prompt in engine.asked]
    assert asked[:2] == [("reasoner", "none", named), ("executor", "required", ())]
    assert asked[2:] == [("reasoner", "none", named), ("summarizer", "none", ())]


def test_without_tools_nobody_is_asked_for_a_call():
    engine = Scripted([says("Next: summarizer."), says("5")])
    bare = replace(opener()(), task=Task("t", (Message("user", "2+3?"),)))
    settings = agent.Settings(constrained=True)
    asyncio.run(agent.episode(bare, team.find("mor"), engine, settings))
    assert [(p.choice, p.next_roles) for p in engine.asked] == [("none", ("summarizer",)), ("none", ())]


@pytest.mark.parametrize(("second", "after"), [((2, 3), ("summarizer",)), ((9, 9), ("executor", "summarizer"))])
def test_after_a_call_whose_answer_stood_there_already_nobody_is_asked_for_another(second, after):
    on = says("I add. Next: executor.")
    engine = Scripted([on, call(2, 3), on, call(*second), says("Next: summarizer."), says("5")])
    run(engine, "mor", agent.Settings(constrained=True, skip_repeats=True))
    reasoner = [prompt.next_roles for prompt in engine.asked if prompt.speaker == "reasoner"]
    assert reasoner == [("executor", "summarizer"), ("executor", "summarizer"), after]


def test_a_plain_agent_is_free_to_call_or_to_answer():
    engine = Scripted([call(2, 3), says("5")])
    run(engine, settings=agent.Settings(constrained=True))
    assert {(prompt.choice, prompt.next_roles) for prompt in engine.asked} == {("auto", ())}


def collect(openers, engine, **options):
    async def gather():
        return [t async for t in agent.play(openers, team.find("single", instructions=False), engine, **options)]

    return asyncio.run(gather())


def test_play_yields_every_episode_and_closes_every_world():
    closed = []
    records = collect([opener(closed, f"t{i}") for i in range(7)], Scripted([says("5")]), concurrency=3)
    assert sorted(r.id for r in records) == sorted(closed) == [f"t{i}" for i in range(7)]


def test_play_never_runs_more_than_asked():
    running, most = [0], [0]

    class Counting(Scripted):
        async def complete(self, prompt):
            running[0] += 1
            most[0] = max(most[0], running[0])
            try:
                return await super().complete(prompt)
            finally:
                running[0] -= 1

    collect([opener(name=f"t{i}") for i in range(10)], Counting([says("5")], delay=0.01), concurrency=3)
    assert most[0] == 3


def test_a_failing_engine_stops_play_and_closes_the_worlds():
    opened, closed = [], []

    def opening(name):
        opened.append(name)
        return opener(closed, name)()

    openers = [functools.partial(opening, f"t{i}") for i in range(4)]
    with pytest.raises(EngineError):
        collect(openers, Scripted([EngineError("down")]), concurrency=2)
    assert sorted(opened) == sorted(closed)


def test_a_world_that_waits_to_be_closed_when_play_stops_is_closed():
    closed = []
    openers = [opener(closed, f"t{i}", closing_seconds=0.1) for i in range(3)]

    async def play() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))  # the others wait for its one thread
        engine = Scripted([EngineError("down")])
        async for _ in agent.play(openers, team.find("single"), engine, concurrency=3):
            pass

    with pytest.raises(EngineError):
        asyncio.run(play())
    assert sorted(closed) == ["t0", "t1", "t2"]


def test_seeds_depend_on_the_place_not_on_the_order_of_admission():
    seeds = []
    for concurrency in (1, 5):
        records = collect([opener(name=f"t{i}") for i in range(5)], Scripted([says("5")]), concurrency=concurrency)
        seeds.append({r.id: r.seed for r in records})
    assert seeds[0] == seeds[1]


def test_a_state_that_takes_its_time_does_not_hold_the_event_loop():
    class Slow(Toolbox):
        def state(self):
            time.sleep(0.5)
            return {"add": 7}

    task = Task("t", (Message("user", "2+3?"),), Toolbox([add]).specs)
    environment = Environment(task, Slow([add]), lambda trajectory: Verdict(1.0))

    async def beside():
        pauses, playing = (
            [],
            asyncio.ensure_future(
                agent.episode(environment, team.find("single", instructions=False), Scripted([says("5")]))
            ),
        )
        while not playing.done():
            before = time.monotonic()
            await asyncio.sleep(0.01)
            pauses.append(time.monotonic() - before)
        return playing.result(), max(pauses)

    record, pause = asyncio.run(beside())
    assert record.final_state == {"add": 7}
    assert pause < 0.4


def unread(text, unparsed=None, calls=()):
    """Return a reply that was read leniently."""
    return Message("assistant", tool_calls=calls, unparsed=unparsed, strict=says(text))


@pytest.mark.parametrize(
    ("team_name", "strict_calls", "lenient"),
    [("single", False, {"assistant"}), ("single", True, set()), ("mor", False, {"executor"})],
)
def test_only_roles_that_call_tools_are_read_leniently(team_name, strict_calls, lenient):
    replies = [says("Next: executor."), call(2, 3), says("Next: summarizer."), says("5")]
    engine = Scripted(replies if team_name == "mor" else replies[1::2])
    run(engine, team_name, agent.Settings(strict_calls=strict_calls))
    assert {prompt.speaker for prompt in engine.asked if prompt.lenient} == lenient


def test_a_verdict_tells_what_a_strict_reading_had_scored():
    record = run(Scripted([unread("add(x=2, y=3)", calls=call(2, 3).tool_calls), says("5")]))
    assert record.verdict == Verdict(1.0, "", {"strict": 0.0})
    assert run(Scripted([call(2, 3), says("5")])).verdict == Verdict(1.0)


def test_a_model_is_told_what_was_wrong_with_a_call_in_any_form():
    record = run(Scripted([unread("add(2, 3)", unparsed="add(2, 3)"), says("5")]))
    told = record.messages[2]
    assert told.failed
    assert "write each argument of 'add' with its name" in told.content
    assert record.stop == "answered"
