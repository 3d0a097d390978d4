"""The options of the verbs that play a model, and the engine that they open."""

from __future__ import annotations

import pytest
from verbs import call, read

from rolecraft import commands, team
from rolecraft.commands import _playing, serve
from rolecraft.errors import SettingsError
from rolecraft.types import Message


@pytest.mark.parametrize("verb", ["eval", "run hi", "chat"])
def test_what_plays_can_be_constrained(verb):
    free, held = (read(f"{verb}{flags}".split()) for flags in ("", " --constrain --on-unsupported ignore"))
    assert (free.constrain, free.on_unsupported) == (False, "refuse")
    assert (held.constrain, held.on_unsupported) == (True, "ignore")


@pytest.mark.parametrize(("verb", "context"), [("eval", None), ("run hi", None), ("chat", None), ("serve", 4096)])
def test_what_opens_an_engine_can_be_bounded(verb, context):
    given = " --max-context 300 --memory-mb 64 --prefill-dtype auto"
    usual, bounded = (read(f"{verb}{flags}".split()) for flags in ("", given))
    assert (usual.max_context, usual.memory_mb, usual.prefill_dtype) == (context, None, "float32")
    assert (bounded.max_context, bounded.memory_mb, bounded.prefill_dtype) == (300, 64, "auto")


BOUNDED = ("--max-context", "3000", "--memory-mb", "1", "--prefill-dtype", "bfloat16")


@pytest.mark.parametrize("verb", ["eval", "run hi", "chat", "serve"])
def test_the_engine_is_opened_as_its_flags_say(verb):
    opened = _playing.engine_settings(commands.read([*verb.split(), *BOUNDED])[1])
    assert (opened.max_context, opened.memory_mb, opened.prefill_dtype) == (3000, 1, "bfloat16")


def test_keys_and_values_beyond_the_bound_are_refused_before_anything_is_answered(capsys):
    code, _, err = call(capsys, "run", "hi", *BOUNDED)
    assert code == 2
    assert "engine.memory_mb is 1, and the keys and values of 1 x" in err
    _, options = commands.read(["serve", *BOUNDED])
    with pytest.raises(SettingsError, match="memory_mb is 1"), serve.open_models("nano", team.find("single"), options):
        pass


@pytest.mark.parametrize("verb", ["eval", "run hi", "chat"])
@pytest.mark.parametrize(
    ("base", "flags", "skips"),
    [
        ("nano", "", False),
        ("smollm2", "", True),
        ("nano", " --repeats skip", True),
        ("smollm2", " --repeats run", False),
    ],
)
def test_calls_made_again_are_skipped_but_on_the_base_whose_scores_are_known(verb, base, flags, skips):
    assert _playing.episode_settings(base, read(f"{verb}{flags}".split())).skip_repeats is skips


OWN_TEAM = """
from words import LAST
from rolecraft.team import Role, Team

def following(message):
    return "writer" if message.content != LAST else None

TEAM = Team("pair", (Role("writer", "Write."),), "writer", following)
"""


@pytest.fixture
def own_team(tmp_path):
    (tmp_path / "words.py").write_text('LAST = "done"')
    (tmp_path / "pair.py").write_text(OWN_TEAM)
    return tmp_path / "pair.py"


def test_the_file_of_a_users_own_team_plays_where_a_teams_name_does(own_team):
    base, players = _playing.base_and_team(read(["run", "hi", "--team", str(own_team)]))
    assert (base, players.name, players.role("writer").instructions) == ("nano", "pair", "Write.")
    assert players.next_speaker(Message("assistant", "done", speaker="writer")) is None


def test_a_team_that_nobody_tuned_the_model_for_is_told(capsys):
    _playing.base_and_team(read(["run", "hi", "--team", "mor"]))
    told = capsys.readouterr().err
    assert "the base 'nano' was not tuned for the roles of team 'mor'" in told
    assert "rolecraft train mor" in told
    _playing.base_and_team(read(["run", "hi"]))
    assert capsys.readouterr().err == ""
