"""Who answers, who is heard as what, and how answers of unknown origin are read."""

from __future__ import annotations

import pytest

from rolecraft import team
from rolecraft.server import models
from rolecraft.server.requests import SentMessage
from rolecraft.types import Message, ToolCall

MOR, SINGLE = team.find("mor"), team.find("single")
PLAYER = models.LoadedEngine(engine=None)
USER = Message("user", "Hi")


def offer(chosen: team.Team, single_role: str | None = None) -> models.ServedModel:
    return models.ServedModel("m", PLAYER, chosen, single_role)


def test_a_base_its_roles_and_the_team_are_offered():
    offered = models.served_models("m", MOR, PLAYER, models.LoadedEngine(engine=None, fingerprint="base"))
    assert [one.id for one in offered] == ["m", "m:reasoner", "m:executor", "m:summarizer", "m:team"]
    assert [one.loaded.fingerprint for one in offered] == ["base", None, None, None, None]


def test_a_base_that_is_not_loaded_is_not_offered():
    assert [one.id for one in models.served_models("m", SINGLE, PLAYER)] == ["m:assistant", "m:team"]


def test_it_is_told_which_ids_the_bare_base_answers_and_which_a_tuned_model():
    tuned = models.LoadedEngine(engine=None, tuned=True)
    beside = models.served_models("m", SINGLE, tuned, PLAYER)
    assert models.describe(beside) == "m (the bare base); m:assistant, m:team (tuned)"
    assert (
        models.describe(models.served_models("m", SINGLE, PLAYER, PLAYER)) == "m, m:assistant, m:team (the bare base)"
    )


@pytest.mark.parametrize(
    ("chosen", "single_role", "cast"),
    [
        (MOR, None, ("reasoner", "executor", "summarizer")),
        (SINGLE, None, (None, "assistant", "assistant")),
        (MOR, "executor", (None, "executor", "executor")),
    ],
)
def test_the_cast_follows_from_who_may_end_an_episode(chosen, single_role, cast):
    one = offer(chosen, single_role)
    assert (one.thinking_role, one.calling_role, one.answering_role) == cast


def test_a_team_that_gives_up_tells_the_client_so():
    umi = offer(team.find("alpha_umi"))
    assert (umi.thinking_role, umi.calling_role, umi.answering_role) == ("planner", "caller", "summarizer")
    assert umi.speaker_after(Message("assistant", "Next: give up.", speaker="planner"), "auto") == "summarizer"
    assert umi.speaker_after(Message("assistant", "It cannot be done.", speaker="summarizer"), "auto") is None
    assert umi.constraints("planner", "none") == ("none", ("conclusion", "give up"))
    assert umi.constraints("planner", "required") == ("none", ("caller",))


@pytest.mark.parametrize(
    ("message", "choice", "speaker"),
    [
        (Message("assistant", "Next: executor.", speaker="reasoner"), "auto", "executor"),
        (Message("assistant", "Next: executor.", speaker="reasoner"), "none", "summarizer"),
        (Message("assistant", "Next: summarizer.", speaker="reasoner"), "auto", "summarizer"),
        (Message("assistant", "Next: summarizer.", speaker="reasoner"), "required", "executor"),
        (Message("assistant", "Next: summarizer.", speaker="reasoner"), "look", "executor"),
        (Message("assistant", "So.", speaker="summarizer"), "required", None),
        (Message("tool", "seen"), "required", "reasoner"),
    ],
)
def test_what_the_client_wants_of_calls_decides_who_may_speak(message, choice, speaker):
    assert offer(MOR).speaker_after(message, choice) == speaker


@pytest.mark.parametrize(
    ("chosen", "single_role", "last", "speaker"),
    [
        (MOR, None, USER, "reasoner"),
        (MOR, None, Message("tool", "seen"), "reasoner"),
        (MOR, None, Message("assistant", "Next: executor.", speaker="reasoner"), "executor"),
        (MOR, None, Message("assistant", "So.", speaker="summarizer"), None),
        (SINGLE, None, USER, "assistant"),
        (SINGLE, None, Message("system", "Be brief."), "assistant"),
        (MOR, "executor", Message("assistant", "So.", speaker="summarizer"), "executor"),
    ],
)
def test_the_last_message_decides_who_opens(chosen, single_role, last, speaker):
    assert offer(chosen, single_role).first_speaker(last, "auto") == speaker


CALLS = (ToolCall("look", {}, "call_1"),)


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (SentMessage(Message("assistant", "So.")), [("summarizer", "So.", ())]),
        (SentMessage(Message("assistant", "So."), "Hm."), [("reasoner", "Hm.", ()), ("summarizer", "So.", ())]),
        (SentMessage(Message("assistant", "", CALLS), "Hm."), [("reasoner", "Hm.", ()), ("executor", "", CALLS)]),
        (SentMessage(Message("assistant", "So.", CALLS)), [("executor", "So.", CALLS)]),
        (SentMessage(Message("assistant", ""), "Hm."), [("reasoner", "Hm.", ())]),
        (SentMessage(Message("assistant", "Hm.", speaker="reasoner")), [("reasoner", "Hm.", ())]),
    ],
)
def test_an_answer_of_unknown_origin_is_given_to_the_roles(sent, read):
    assert [(one.speaker, one.content, one.tool_calls) for one in offer(MOR).as_team_messages(sent)] == read


@pytest.mark.parametrize(("chosen", "single_role"), [(SINGLE, None), (MOR, "summarizer")])
def test_reasoning_that_no_role_speaks_is_read_as_data_files_have_it(chosen, single_role):
    (one,) = offer(chosen, single_role).as_team_messages(SentMessage(Message("assistant", "So."), "Hm."))
    assert (one.speaker, one.content) == (single_role or "assistant", "<think>\nHm.\n</think>\n\nSo.")


@pytest.mark.parametrize(("contexts", "bytes_"), [((1024, 8192), 1 << 18), ((100, 200), 1 << 16), ((None,), 1 << 20)])
def test_a_request_may_be_as_large_as_the_longest_context_can_hold(contexts, bytes_):
    offered = [models.ServedModel("m", models.LoadedEngine(None, context=one), SINGLE) for one in contexts]
    assert models.largest_body(offered) == bytes_
