"""Which answers make an episode, and which episodes are tries at one task, by names and by conversations."""

from __future__ import annotations

import json

import pytest

from rolecraft.errors import DataError
from rolecraft.store.served import Answer
from rolecraft.train import episodes
from rolecraft.types import Message, Task, ToolCall, Trajectory, Turn

ASKED = Message("user", "Who?")


def call(name: str) -> Message:
    return Message("assistant", tool_calls=(ToolCall("find", {}, name),), speaker="executor")


def answer(name: str, *before: Message, said: Message | None = None, **told) -> Answer:
    reply = said or Message("assistant", "Quil.", speaker="summarizer")
    turn = Turn(reply, "summarizer", (1,), (2,), (-0.5,))
    record = Trajectory(name, Task("", before), (*before, reply), (turn,))
    return Answer(**{"id": name, "episode": "", "task": "", "model": "m", "temperature": 1.0, "record": record, **told})


def went_on(first: Answer, *more: Message) -> tuple[Message, ...]:
    return (*first.record.messages, *more)


def shape(*answers: Answer) -> dict[str, list[str]]:
    return {one.name: [each.id for each in one.answers] for one in episodes.episodes(answers)}


def test_a_name_joins_answers_whatever_they_say():
    assert shape(
        answer("a", ASKED, episode="one"), answer("b", Message("user", "?"), episode="one"), answer("c", ASKED)
    ) == {"one": ["a", "b"], "c": ["c"]}


def test_a_call_that_is_answered_joins_its_conversation_though_others_began_alike():
    first, second = (answer(name, ASKED, said=call(f"call_{name}")) for name in "ab")
    after = [answer(name + "2", *went_on(one, Message("tool", "x", tool_call_id=f"call_{name}")))
             for name, one in (("b", second), ("a", first))]  # fmt: skip
    assert shape(first, second, *after) == {"a": ["a", "a2"], "b": ["b", "b2"]}


def test_a_harness_that_sends_only_the_end_of_a_conversation_is_known_by_the_call():
    first = answer("a", ASKED, said=call("call_a"))
    short = (Message("user", "in short"), call("call_a"), Message("tool", "x", tool_call_id="call_a"))
    assert shape(first, answer("a2", *short)) == {"a": ["a", "a2"]}


def test_words_join_a_conversation_only_where_one_has_them():
    first, other = answer("a", ASKED), answer("b", ASKED)
    on = answer("c", *went_on(first, Message("user", "Sure?")))
    assert shape(first, on) == {"a": ["a", "c"]}
    assert shape(first, other, on) == {"a": ["a"], "b": ["b"], "c": ["c"]}


def test_an_answer_that_its_client_never_got_is_left_out():
    lost, used = (answer(name, ASKED, episode="e", said=call(f"call_{name}")) for name in "ab")
    on = answer("c", *went_on(used, Message("tool", "x", tool_call_id="call_b")), episode="e")
    assert shape(lost, used, on) == {"e": ["b", "c"]}
    assert shape(used, lost, on) == {"e": ["b", "c"]}
    assert shape(lost, used) == {"e": ["b"]}


def test_an_episode_that_is_played_anew_under_its_name_is_the_last_one():
    first, again = (answer(name, ASKED, episode="e", said=call(f"call_{name}")) for name in "ab")
    on = [answer(name + "2", *went_on(one, Message("tool", "x", tool_call_id=f"call_{name}")), episode="e")
          for name, one in (("a", first), ("b", again))]  # fmt: skip
    assert shape(first, on[0], again, on[1]) == {"e": ["b", "b2"]}


def test_an_episode_that_is_played_anew_may_end_sooner_than_before():
    first, again = answer("a", ASKED, episode="e", said=call("call_a")), answer("b", ASKED, episode="e")
    on = answer("a2", *went_on(first, Message("tool", "x", tool_call_id="call_a")), episode="e")
    assert shape(first, on, again) == {"e": ["b"]}


def test_words_are_those_that_a_client_knows():
    thoughts = [Message("assistant", said, speaker="reasoner") for said in ("One.", "Two.")]
    first, other = (answer(name, ASKED, thought) for name, thought in zip("ab", thoughts, strict=True))
    on = answer("c", *went_on(other, Message("user", "Sure?")))
    assert shape(first, other, on) == {"a": ["a"], "b": ["b"], "c": ["c"]}
    reminded = answer("d", Message("system", "Earlier: x."), *went_on(first, Message("user", "Sure?")))
    assert shape(first, reminded) == {"a": ["a", "d"]}


def test_tries_at_a_task_are_a_group_by_its_name_or_else_by_how_they_begin():
    named = episodes.episodes([answer("a", ASKED, task="t"), answer("b", Message("user", "?"), task="t")])
    assert episodes.groups(named) == [0, 0]
    plain = episodes.episodes([answer("a", ASKED), answer("b", Message("user", "?")), answer("c", ASKED)])
    assert episodes.groups(plain) == [0, 1, 0]


def test_the_whole_of_an_episode_has_the_turns_of_all_its_answers():
    first = answer("a", ASKED, said=call("call_a"), episode="e", task="t")
    on = answer("c", *went_on(first, Message("tool", "x", tool_call_id="call_a")), episode="e", task="t")
    (one,) = episodes.episodes([first, on])
    assert (one.whole.id, one.whole.task.id, len(one.whole.turns), one.whole.stop) == ("e", "t", 2, "answered")
    assert one.whole.task.messages == (ASKED,)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"episode": "a", "reward": "much"}], r"rewards.jsonl:1: .*'reward' is str 'much'; write a number"),
        ([{"episode": "a", "reward": True}], r"'reward' is bool True; write a number"),
        ([{"episode": "a", "reward": 1}, {"episode": "a", "reward": 0}], r"jsonl:2: episode 'a' is rewarded a second"),
        ([{"episode": "a", "rewards": 1}], r"unknown key 'rewards'; did you mean 'reward'"),
        ([{"episode": "a", "reward": 1e999}], "not"),
        ([], "no rows"),
    ],
)
def test_a_reward_that_cannot_be_meant_is_told_with_its_line(tmp_path, rows, told):
    path = tmp_path / "rewards.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=told):
        episodes.rewards(path)


def test_a_reward_of_no_episode_is_refused_and_an_episode_without_one_left_out(tmp_path):
    found = episodes.episodes([answer("a", ASKED), answer("b", ASKED)])
    assert [one.name for one in episodes.rewarded(found, {"b": 1.0}, tmp_path / "r.jsonl", tmp_path)] == ["b"]
    with pytest.raises(DataError, match=r"r\.jsonl: episode 'z' is none of the 2 that .* holds .*first answer"):
        episodes.rewarded(found, {"z": 1.0}, tmp_path / "r.jsonl", tmp_path)
