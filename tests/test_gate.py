"""The gate: three rules for the role of each token, and what team they can serve."""

import pytest

from rolecraft import contract, team
from rolecraft.contract import Contract
from rolecraft.errors import ContractError, SettingsError
from rolecraft.gate import Gate

ROLES = ("reasoner", "executor", "summarizer")
SPEAKERS = (None, None, "reasoner", "reasoner", "executor", None, "reasoner")


def test_in_a_stream_each_token_keeps_the_role_that_wrote_it():
    gate = Gate(ROLES, "stream", "reasoner")
    assert gate.ids(SPEAKERS, "reasoner", 6) == (0, 0, 0, 0, 1, 0, 0)
    assert gate.ids(SPEAKERS, "executor", 0) == gate.ids(SPEAKERS, "reasoner", 6)


def test_context_can_be_left_to_the_base():
    assert Gate(ROLES, "stream", None).ids(SPEAKERS, "reasoner", 6) == (-1, -1, 0, 0, 1, -1, 0)


def test_a_speaker_without_loras_is_context():
    assert Gate(ROLES, "stream", "summarizer").ids(("assistant", "executor"), "executor", 1) == (2, 1)


def test_reencoding_gives_the_whole_view_to_whoever_speaks():
    assert Gate(ROLES, "reencode").ids(SPEAKERS, "executor", 6) == (1,) * 7


def test_activated_roles_begin_with_their_reply():
    assert Gate(ROLES, "activated").ids(SPEAKERS, "summarizer", 5) == (-1,) * 5 + (2, 2)


def test_only_a_stream_packs_several_replies():
    assert [Gate(ROLES, assignment).packs for assignment in ("stream", "reencode", "activated")] == [True, False, False]


def test_a_context_that_is_no_role_is_refused():
    with pytest.raises(SettingsError, match="'planner', which is no role; roles are reasoner"):
        Gate(ROLES, "stream", "planner")


def test_an_unknown_assignment_is_refused_with_those_there_are():
    with pytest.raises(
        SettingsError, match="assignment is 'steam'; it must be one of 'stream', 'reencode', 'activated'"
    ):
        Gate(ROLES, "steam")


def test_a_role_named_twice_is_refused():
    with pytest.raises(SettingsError, match=r"roles name 'executor' twice \(executor, planner, executor\)"):
        Gate(("executor", "planner", "executor"))


def test_a_contract_with_an_unknown_assignment_is_refused_by_its_path(tmp_path):
    made = Contract("b", "c", "w", "hermes", "f", (1, 2), gate=Gate(ROLES, "stream"))
    contract.save(made, tmp_path)
    assert contract.read(tmp_path) == made
    path = tmp_path / contract.FILE
    path.write_text(path.read_text().replace('"stream"', '"steam"'))
    with pytest.raises(ContractError, match=r"contract\.json: not a contract \(contract\.gate\.assignment is 'steam'"):
        contract.read(tmp_path)


def test_another_teams_roles_are_refused():
    with pytest.raises(ContractError, match="team 'single' has the roles assistant"):
        Gate(ROLES).check(team.find("single"))


def test_a_stream_is_refused_to_views_that_do_not_only_append():
    told = team.find("mor")
    secretive = team.Team("secretive", (team.Role("reasoner", "think"), *told.roles[1:]), told.first, told.next_speaker)
    with pytest.raises(ContractError, match=r"'secretive' see different texts.*'reencode' or 'activated'"):
        Gate(ROLES, "stream").check(secretive)
    Gate(ROLES, "reencode").check(secretive)
