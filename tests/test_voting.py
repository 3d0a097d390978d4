"""What counts as the same answer, and who is chosen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rolecraft import voting
from rolecraft.step import Position
from rolecraft.types import Message, ToolCall, Turn
from rolecraft.voting import Ballot


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("It is  5.\n", "It is 5"),
        ("It is 5.0.", "It is 5"),
        ("1,234.50 dollars", "1234.5 dollars"),
        ("0.30000000000000004", "0.3"),
        ("50%", "0.5"),
        ("3/4", "0.75"),
        ("-2", "-2.0"),
        ("+7", "7"),
        ("007", "7"),
        (".5", "0.5"),
    ],
)
def test_texts_that_mean_the_same_are_the_same(one, other):
    assert voting.canonical(one) == voting.canonical(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("It is 5.", "It is 6."),
        ("3809", "-3809"),
        ("12", "3124"),
        ("380912", "380913"),
        ("1.2.3", "1.2.4"),
        ("1,23", "123"),
        ("R2D2", "R2D20"),
        ("1/0", "0/0"),
    ],
)
def test_texts_that_mean_something_else_are_not(one, other):
    assert voting.canonical(one) != voting.canonical(other)


@pytest.mark.parametrize(
    "text", ["9" * 10_000, "1e999999999", "9" * 50 + "%", "1" + ",000" * 5000, "-" * 9999, "3/" * 999]
)
def test_hostile_numbers_are_spelled_in_no_time(text):
    assert len(voting.canonical(text)) <= len(text) + 20


@pytest.mark.parametrize(
    "text",
    [
        "so it is \\boxed{18}",
        "\\boxed{3}, no: \\boxed{18.0}",
        "9 * 2 = 18\n#### 18",
        "9 eggs at $2. The answer is $18.00.",
        "<think>\\boxed{3}</think>The answer is: 18 dollars",
        "\\boxed{\\frac{36}{2}}",
    ],
)
def test_the_value_of_an_answer_is_what_is_marked_as_it(text):
    assert voting.answer(text) == "18"


def test_of_an_answer_that_marks_nothing_the_whole_text_counts():
    assert voting.answer("Plalples owes 18.0.") == "Plalples owes 18"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("\\boxed{\\sqrt{2}}", "\\sqrt{2}"),
        ("\\boxed{2\\pi}", "2\\pi"),
        ("\\boxed{x > 2}", "x > 2"),
        ("The answer is not 2.", "not 2"),
        ("\\boxed{18\\text{ dollars}}", "18"),
        ("The answer is **18**.", "18"),
        ("The answer is 18 eggs, not more", "18"),
        ("\\boxed{50\\%}", "0.5"),
        ("#### -3", "-3"),
    ],
)
def test_a_number_counts_alone_only_where_it_is_all_of_the_answer(text, value):
    assert voting.answer(text) == value


def test_a_text_given_to_a_call_is_no_number():
    one, other = (Message("assistant", tool_calls=(ToolCall("f", {"zip": zip_}),)) for zip_ in ("02134", "2134"))
    assert voting.calls(one) != voting.calls(other)


def test_an_unclosed_box_is_no_value():
    assert voting.answer("\\boxed{{{{") == "\\boxed{{{{"


def test_the_most_frequent_outcome_is_chosen_then_the_likeliest_then_the_first():
    a, b = ("final", "a"), ("final", "b")
    assert voting.elect([Ballot(a), Ballot(b), Ballot(b)]).chosen == 1
    assert voting.elect([Ballot(a, -2.0), Ballot(b, -1.0)]).chosen == 1
    assert voting.elect([Ballot(a, -1.0), Ballot(b, -1.0)]).chosen == 0
    assert voting.elect([Ballot(a, -0.1), Ballot(b, -3.0), Ballot(b, -2.0)]).chosen == 2


def test_those_that_failed_have_no_vote():
    a, b = ("final", "a"), ("final", "b")
    election = voting.elect([Ballot(None), Ballot(None), Ballot(a), Ballot(b, -1.0), Ballot(a)])
    assert (election.chosen, election.failed, election.agreement) == (2, 2, 2 / 3)


def test_where_all_failed_the_first_is_chosen():
    assert voting.elect([Ballot(None), Ballot(None)]) == voting.Election(0, 2, None)


def ended(message, stop="answered"):
    before = Position((Message("user", "?"),), "assistant")
    return before, Position((*before.messages, message), None, (Turn(message, "assistant"),), {}, None, stop)


def test_calls_that_nobody_runs_agree_by_name_and_arguments_in_any_order():
    def outcome(*given):
        return voting.outcome(*ended(Message("assistant", tool_calls=tuple(ToolCall(*one) for one in given))))

    assert outcome(("f", {"x": 5}), ("g", {})) == outcome(("g", {}), ("f", {"x": 5.0}))
    assert outcome(("f", {"x": 5})) != outcome(("f", {"x": 6}))
    assert outcome(("f", {"x": True})) != outcome(("f", {"x": 1}))
    assert outcome(("f", {"x": [" a  b "]})) == outcome(("f", {"x": ["a b"]}))


def test_an_end_in_circles_or_cut_short_has_failed():
    said = Message("assistant", "x")
    assert voting.outcome(*ended(said, "repeated_call")) is None
    assert voting.outcome(*ended(said, "length")) is None
    assert voting.final(ended(said, "length")[1]) is None


def test_an_answer_that_says_nothing_has_failed():
    assert voting.outcome(*ended(Message("assistant", " \n"))) is None


def test_how_likely_turns_were_is_a_mean_over_all_tokens():
    said = Message("assistant", "x")
    turns = (Turn(said, "a", logprobs=(-1.0, -2.0)), Turn(said, "a", logprobs=(-6.0,)))
    assert voting.likelihood(turns) == -3.0
    assert voting.likelihood((Turn(said, "a"),)) == 0.0


def test_a_remark_beside_results_hides_none_of_them():
    """An equal call that was dropped is told without an id, as what code printed is."""
    call = Message("assistant", tool_calls=(ToolCall("f", {}, "a"),))

    def after(result):
        told = Message("tool", result, tool_call_id="a"), Message("tool", "f was called twice in one reply")
        before, end = ended(call)
        return voting.outcome(before, replace(end, messages=(*end.messages, *told), stop=None))

    assert after("1") != after("2")
