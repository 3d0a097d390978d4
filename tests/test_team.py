"""Who speaks next, and what each role sees."""

import pytest

from rolecraft import team
from rolecraft.errors import NotFound
from rolecraft.team import Role
from rolecraft.types import Message, ToolCall, ToolSpec

CALL = (ToolCall("add", {"x": 1}),)


@pytest.mark.parametrize(
    ("text", "role"),
    [
        ("Add. Next: executor.", "executor"),
        ("Add. Next: Executor", "executor"),
        ("done\nnext : SUMMARIZER. ", "summarizer"),
        ("Next: executor. No, stop.", None),
        ("nothing", None),
    ],
)
def test_the_reasoner_designates_by_its_last_words(text, role):
    assert team.called_next(text) == role


def test_mor_hands_over_as_the_reasoner_says():
    mor = team.find("mor")
    assert mor.first == "reasoner"
    assert mor.next_speaker(Message("assistant", "x. Next: executor.", speaker="reasoner")) == "executor"
    assert mor.next_speaker(Message("assistant", "x. Next: summarizer.", speaker="reasoner")) == "summarizer"


def test_mor_observations_go_to_the_reasoner():
    mor = team.find("mor")
    assert mor.next_speaker(Message("tool", "3")) == "reasoner"
    assert mor.next_speaker(Message("assistant", speaker="executor", tool_calls=CALL)) == "reasoner"


def test_mor_ends_with_the_summarizer():
    assert team.find("mor").next_speaker(Message("assistant", "3", speaker="summarizer")) is None


def test_single_goes_on_after_a_call_and_after_one_that_did_not_parse():
    single = team.find("single")
    assert single.next_speaker(Message("assistant", tool_calls=CALL)) == "assistant"
    assert single.next_speaker(Message("assistant", unparsed="{")) == "assistant"
    assert single.next_speaker(Message("tool", "3")) == "assistant"
    assert single.next_speaker(Message("assistant", "3")) is None


def test_a_view_opens_with_the_instructions_and_keeps_the_rest():
    role = team.Role("reasoner", "Think.")
    user = Message("user", "hi")
    assert role.view([user]) == (Message("system", "Think."), user)
    assert role.view([Message("system", "Be kind."), user])[0].content == "Think.\n\nBe kind."
    assert team.Role("reasoner").view([user]) == (user,)


def test_a_role_that_is_told_something_else_breaks_appending():
    assert team.find("mor").appends_only
    assert not team.Team("t", (team.Role("a", "x"), team.Role("b", "y")), "a", lambda m: None).appends_only


def test_the_roles_that_a_role_may_designate_are_whom_its_words_call():
    mor = team.find("mor")
    for role in mor.role("reasoner").next_roles:
        assert mor.next_speaker(Message("assistant", f"Next: {role}.", speaker="reasoner")) == role
    assert {role.name: role.choice for role in mor.roles}["executor"] == "required"


def test_a_misspelt_team_is_told_the_nearest():
    with pytest.raises(NotFound, match="Did you mean 'single'"):
        team.find("singel")


def test_without_instructions_the_roles_are_told_nothing():
    assert all(not role.instructions for role in team.find("mor", instructions=False).roles)


@pytest.mark.parametrize(
    ("text", "speaker", "given_up"),
    [
        ("I look. Next: caller.", "caller", False),
        ("It is 3. next : Conclusion", "summarizer", False),
        ("No tool fits. Next: give up.", None, True),
        ("No tool fits. Next: give_up", None, True),
        ("I think.", "caller", False),
        ("", "caller", False),
        ("Next: summarizer.", "caller", False),
        ("Next: caller. And then: Next: conclusion.", "caller", False),
    ],
)
def test_a_planner_designates_first_and_a_missing_marker_counts_as_caller(text, speaker, given_up):
    umi, message = team.find("alpha_umi"), Message("assistant", text, speaker="planner")
    assert (umi.next_speaker(message), umi.gives_up(message)) == (speaker, given_up)


def test_a_lone_assistant_that_gives_up_is_a_planner_that_does():
    messages = (Message("assistant", "<think>It fails.</think>I give up.", weight=0.5),)
    (found,) = team.divided(messages, team.find("alpha_umi"))
    assert (found.speaker, found.content, found.weight) == ("planner", "It fails. Next: give up.", 0.5)


def test_what_roles_are_reminded_of_is_the_last_they_see_and_stands_in_for_what_it_quotes():
    role = Role("caller", "Call.", reminder="The thought: {said} Go.")
    asked, thought = Message("user", "2+3?"), Message("assistant", "Add {x}.", speaker="planner")
    assert [m.content for m in role.view((asked, thought))] == ["Call.", "2+3?", "The thought: Add {x}. Go."]
    assert [m.content for m in role.view((asked,))] == ["Call.", "2+3?", "The thought:  Go."]
    assert role.untold().view((asked, thought)) == (asked, thought)
    assert not team.Team("t", (role,), "caller", lambda m: None).appends_only


def test_a_role_that_is_told_of_no_tools_shares_no_stream():
    roles = (Role("a"), Role("b", told_tools=False))
    assert not team.Team("t", roles, "a", lambda m: None).appends_only
    assert roles[1].tools((ToolSpec("f", "f"),)) == ()


def test_a_lone_assistants_messages_are_divided_among_the_roles():
    call = ToolCall("read_debt", {"key": "Ro"}, "1")
    messages = (
        Message("user", "debt of Ro"),
        Message("assistant", "I look it up.", (call,)),
        Message("tool", "12", tool_call_id="1"),
        Message("assistant", "It is 12.", weight=0.5),
    )
    found = team.divided(messages, team.find("mor"))
    assert [(message.speaker, message.content) for message in found] == [
        (None, "debt of Ro"),
        ("reasoner", "I look it up. Next: executor."),
        ("executor", ""),
        (None, "12"),
        ("reasoner", "Next: summarizer."),
        ("summarizer", "It is 12."),
    ]
    assert found[2].tool_calls == (call,)
    assert [message.weight for message in found[-2:]] == [0.5, 0.5]
    assert team.divided(found, team.find("mor")) == found


def test_what_a_lone_assistant_thinks_is_the_reasoners_before_calls_and_before_answers():
    call = ToolCall("read_debt", {"key": "Ro"}, "1")
    messages = (
        Message("assistant", "<think>\nI need\nits debt.\n</think>\n\n", (call,)),
        Message("assistant", "<think>I have it.</think>It is 12."),
    )
    found = team.divided(messages, team.find("mor"))
    assert [(message.speaker, message.content) for message in found] == [
        ("reasoner", "I need\nits debt. Next: executor."),
        ("executor", ""),
        ("reasoner", "I have it. Next: summarizer."),
        ("summarizer", "It is 12."),
    ]


def test_white_space_in_a_thought_is_left_out_and_costs_no_more_than_words():
    """Backtracking over a million spaces would not come back within the tests' time."""
    space = " " * 1_000_000
    assert team.parts(Message("assistant", f"<think>{space}")) == ("", f"<think>{space}")
    assert team.parts(Message("assistant", f"<think>\n a\nb {space}</think>\n\nIt is 12.")) == ("a\nb", "It is 12.")


def test_a_team_without_a_rule_divides_nothing():
    with pytest.raises(NotFound, match="'single' has no rule"):
        team.divided((), team.find("single"))
