"""A checker in a role says yes or no, before an action and after it; what it says is kept, and trains it."""

from __future__ import annotations

import pytest
from several import Counter, calls, play, says

from rolecraft import vetting, wire
from rolecraft.types import Check, Message, Sampling, ToolCall


@pytest.mark.parametrize(
    ("text", "right", "why"),
    [
        ("yes", True, ""),
        ("Yes. No doubt.", True, ""),
        ("no: the column is called amount", False, "the column is called amount"),
        ('{"right": "no", "why": "wrong key"}', False, "wrong key"),
        ('{"right": "no"}', False, "a checker finds it is not right"),
        ("I cannot tell; nobody knows", True, ""),
        ("", True, ""),
    ],
)
def test_the_first_yes_or_no_counts_and_what_follows_a_no(text, right, why):
    found = vetting.read(text)
    assert (found.right, found.why) == (right, why)


def test_a_long_critique_is_cut():
    assert len(vetting.read("no " + "x" * 100_000).why) <= 160


def cmat(*replies):
    """Return a script by speaker: what the assistant says in turn, and what the checker does."""
    spoken = {"assistant": [], "checker": []}
    for speaker, reply in replies:
        spoken[speaker].append(reply)
    return [lambda prompt: [spoken[prompt.speaker].pop(0)]]


WRONG, RIGHT = calls(("add", {"by": 9})), calls(("add", {"by": 2}))


def test_a_role_vets_an_action_and_judges_its_result():
    tool = Counter()
    script = cmat(
        ("assistant", WRONG),
        ("checker", says("no: two was asked for")),
        ("assistant", RIGHT),
        ("checker", says("yes")),
        ("checker", says("no: it is odd")),
        ("assistant", says("3")),
        ("checker", says("no: it is 2")),
        ("assistant", says("2")),
        ("checker", says("yes")),
    )
    record, engine, _ = play("checked", script, tool, players="cmat", checker="role")
    assert tool.log == [2]
    told = [message.content for message in record.messages if message.role == "user"][1:]
    assert ["two was asked for" in told[0], "it is odd" in told[1], "it is 2" in told[2]] == [True, True, True]
    checks = [(one.answer, one.right, one.after) for one in record.trials.checks]
    assert checks[:3] == [("", False, False), ("", True, False), ("", False, True)]
    assert checks[3:] == [("3", False, False), ("2", True, False)]
    assert record.trials.model_calls == 7
    assert record.messages[-1].content == "2"
    assert all(message.speaker != "checker" for message in record.messages)
    assert engine.asked[1].messages[-1].content.startswith("Proposed next step: add(")


def test_a_retry_is_drawn_warm_and_from_a_seed_of_its_own():
    script = [[calls(("sub", {}))], [RIGHT], [says("2")]]
    _, engine, _ = play("checked", script, Counter(), checker="rules", temperature=0.9, seed=5)
    first, again, last = (prompt.sampling for prompt in engine.asked)
    assert (first.temperature, again.temperature, last.temperature) == (0.0, 0.9, 0.0)
    assert first.seed != again.seed
    assert (first.n, again.n) == (1, 1)
    assert isinstance(first, Sampling)


def test_any_team_has_its_acting_role_look_at_its_own_action():
    script = [[WRONG], [says("no")], [RIGHT], [says("yes")], [says("yes")], [says("2")]]
    _, engine, _ = play("checked", script, tool := Counter(), checker="role")
    assert tool.log == [2]
    assert {prompt.speaker for prompt in engine.asked} == {"assistant"}


def test_results_are_objected_to_no_more_than_the_retries_say():
    def answer(prompt):
        asked = prompt.messages[-1].content
        if prompt.speaker == "checker":
            return [says("no" if asked.startswith("Last step") else "yes")]
        return [calls(("add", {"by": len(prompt.messages)}))]

    record, _, _ = play("checked", [answer], Counter(), players="cmat", checker="role", retries=2)
    assert [one.right for one in record.trials.checks if one.after] == [False, False]


def test_checks_are_written_and_read_without_loss():
    script = [[WRONG], [says("no: why not")], [RIGHT], [says("yes")], [says("yes")], [says("2")]]
    record, _, _ = play("checked", script, Counter(), checker="role")
    assert wire.trajectory_from_json(wire.trajectory_to_json(record)).trials.checks == record.trials.checks


def test_a_checker_is_trained_on_what_it_was_asked():
    yes = ("checker", says("yes"))
    script = cmat(("assistant", RIGHT), yes, yes, ("assistant", says("2")), yes)
    record, engine, _ = play("checked", script, Counter(), players="cmat", checker="role")
    asked = [prompt.messages for prompt in engine.asked if prompt.speaker == "checker"]
    for check, seen in zip(record.trials.checks, asked, strict=True):
        *context, answer = vetting.row(check, record.messages, right=False)
        plain = [(one.role, one.content, one.tool_calls) for one in context]
        assert plain == [(one.role, one.content, one.tool_calls) for one in seen]
        assert (answer.speaker, vetting.read(answer.content).right) == ("checker", False)
        assert all(one.weight == 0.0 for one in context if one.role == "assistant")


def test_a_checks_question_tells_its_calls_but_not_without_end():
    check = Check(1, (ToolCall("add", {"by": "x" * 10_000}),), True)
    *_, question, _ = vetting.row(check, (Message("user", "?"),), right=True)
    assert len(question.content) < 500
