"""A cast names the folder of each role's model, inside its own; what it names is opened, told apart and played."""

from __future__ import annotations

import asyncio
import json
import shutil

import pytest
from test_train import place as tiny_place
from test_train_stages import write_recipe
from verbs import call

from rolecraft import bases, cast, engine, stages
from rolecraft.errors import ContractError, EngineError, NotFound, SettingsError
from rolecraft.train.stages import launch
from rolecraft.types import Message, Prompt, Sampling

place = tiny_place
"""The fixture: a folder with a tiny base and its data."""

FEW = {"max_steps": 1, "save_steps": 0}
SPEAKERS = ("reasoner", "executor", "summarizer")


def told(**adapters) -> dict:
    """Return a global stage and one for each role, by full tuning unless `adapters` say else; each has its own rate."""
    return {
        "global": {"adapter": {"name": "full"}, "training": FEW},
        **{
            speaker: {
                "start": "global",
                "team": {"preset": "mor", "roles": [speaker]},
                "adapter": {"name": adapters.get(speaker, "full")},
                "training": {**FEW, "learning_rate": 0.01 * (number + 1)},
            }
            for number, speaker in enumerate(SPEAKERS)
        },
    }


def recipe(place, path, named=SPEAKERS, **adapters):
    write_recipe(place, path, told(**adapters))
    path.write_text(f"{path.read_text()}cast: [{', '.join(named)}]\n")
    return path


@pytest.fixture(scope="module")
def finished(place, tmp_path_factory):
    """Return a run whose executor is a LoRA on the global stage and whose other roles are whole models."""
    folder = tmp_path_factory.mktemp("cast")
    return launch(recipe(place, folder / "recipe.yaml", executor="lora"), folder / "run")


@pytest.fixture
def moved(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "moved")


async def said(played, speaker: str) -> tuple[float, ...]:
    prompt = Prompt((Message("user", "Hello."),), speaker=speaker, sampling=Sampling(max_tokens=4))
    (completion,) = await played.complete(prompt)
    return completion.turn.logprobs


def test_each_role_is_played_by_what_its_stage_left(moved):
    with engine.open_local("nowhere", moved) as played:
        together = {speaker: asyncio.run(said(played, speaker)) for speaker in SPEAKERS}
        with pytest.raises(EngineError, match="'planner' has no model"):
            asyncio.run(said(played, "planner"))
    for speaker in SPEAKERS:
        base = str(moved / "global" / "merged")
        with engine.open_local(base, moved / speaker) as alone:
            assert asyncio.run(said(alone, speaker)) == together[speaker]
    assert len(set(together.values())) == len(SPEAKERS)


def test_a_cast_is_played_by_its_folder_alone(moved, capsys):
    code, _, err = call(capsys, "run", "Hello.", "--adapter", str(moved), "--max-tokens", "4")
    assert code in (0, 1), err  # a model that knows nothing may give no answer
    assert "was not tuned for" not in err
    code, _, err = call(capsys, "run", "Hello.", "--adapter", str(moved), "--base", "nano")
    assert code == 2
    assert "leave --base out" in err
    code, _, err = call(capsys, "run", "Hello.", "--adapter", str(moved), "--team", "alpha_umi")
    assert code == 2
    assert "has a role 'planner'" in err


def test_a_cast_has_a_digest_of_all_its_weights(moved):
    before = bases.digest_weights(moved)
    (moved / "reasoner" / "model.safetensors").write_bytes(b"other")
    assert bases.digest_weights(moved) != before


def test_what_needs_one_model_is_told_the_folders(moved):
    with pytest.raises(NotFound, match="has a model for each role; name the folder of one: "):
        bases.require_adapter(moved)


def test_a_finished_cast_is_not_trained_again(moved, capsys):
    shutil.copy(moved / "settings.yaml", moved.parent / "again.yaml")
    launch(moved.parent / "again.yaml", moved, resume=True)
    assert capsys.readouterr().out.count("nothing that went into it has changed") == 4
    assert cast.read(moved).roles == {speaker: speaker for speaker in SPEAKERS}


@pytest.mark.parametrize(
    "roles", [{}, {"reasoner": "/etc"}, {"reasoner": "../up"}, {"reasoner": 3}, {"reasoner": "a/../.."}]
)
def test_a_cast_leads_nowhere_else(tmp_path, roles):
    (tmp_path / cast.FILE).write_text(json.dumps({"roles": roles}))
    with pytest.raises(ContractError, match=r"cast\.json"):
        cast.read(tmp_path)


@pytest.mark.parametrize(
    "named", [("reasoner",), ("reasoner", "executor", "nobody"), ("global", "executor", "summarizer")]
)
def test_stages_that_are_no_whole_team_are_refused(place, tmp_path, named):
    with pytest.raises(SettingsError, match="cast"):
        stages.check(recipe(place, tmp_path / "recipe.yaml", named))
