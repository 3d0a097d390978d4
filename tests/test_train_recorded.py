"""Learning from a record: the nano base answers through the server, and what was rewarded becomes likelier."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from serving import connected

from rolecraft import bases, engine, server, team
from rolecraft.engine import LocalEngine
from rolecraft.errors import DataError, NotFound, RolecraftError, SettingsError
from rolecraft.recipe import find_recipe
from rolecraft.server import models, turns
from rolecraft.server.recording import Recorder
from rolecraft.store import Run, served
from rolecraft.train import recorded, train

FREE = server.Settings(port=0, playing=turns.Settings(constrained=False))
HELD = server.Settings(port=0, playing=turns.Settings(constrained=True))
ASKED = ("Name a fruit.", "Name a town.")
RECIPE = {
    "model": {"base": "nano", "renderer": "nano"},
    "team": {"preset": "mor", "instructions": False},
    "adapter": {"name": "lora", "r": 2, "lora_alpha": 4, "lora_dropout": 0.0},
    "training": {"learning_rate": 2e-2, "max_steps": 60, "seed": 0, "lr_scheduler_type": "cosine", "warmup_steps": 9},
    "reinforcement": {"objective": "grpo", "minibatches": 2, "validation": 70},
}

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


def offered(opened: LocalEngine) -> tuple[models.ServedModel, ...]:
    loaded = models.LoadedEngine(opened, opened.loaded.renderer, weights=opened.loaded.weights)
    return models.served_models("nano", team.find("mor", instructions=False), loaded)


def record(
    folder: Path,
    adapter: Path | None = None,
    temperature: float = 1.0,
    speaker: str = "summarizer",
    settings: server.Settings = FREE,
) -> Path:
    """Play each task a few times, in two requests, and reward the letter e; return the file of rewards."""
    rewards = []
    with engine.open_local("nano", adapter, settings=engine.Settings(max_requests=8, max_context=512)) as opened:
        listed = offered(opened)
        policy = served.Policy(
            "nano",
            opened.loaded.weights,
            "mor",
            False,
            str(adapter) if adapter else "",
            bases.digest_weights(adapter) if adapter else "",
        )
        with connected(listed, settings, recorder=Recorder(folder, policy, listed[-1].loaded, 1 << 24)) as client:
            for place, asked in enumerate(ASKED):
                for number in range(4):
                    told = {"model": f"nano:{speaker}", "max_tokens": 8, "temperature": temperature}
                    told |= {"seed": place * 100 + number}
                    told["metadata"] = {"episode": f"{place}.{number}", "task": str(place)}
                    messages = [{"role": "user", "content": asked}]
                    said = []
                    for _ in range(2):
                        reply = client.chat.completions.create(messages=messages, **told).choices[0].message.content
                        messages += [{"role": "assistant", "content": reply}, {"role": "user", "content": "And?"}]
                        said.append(reply)
                    rewards.append({"episode": f"{place}.{number}", "reward": "".join(said).count("e")})
    path = folder / "rewards.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rewards))
    return path


@pytest.fixture(scope="module")
def played(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("run")
    return folder, record(folder)


@pytest.fixture
def learn(tmp_path) -> Callable[..., Path]:
    """A function that learns from a record, with settings changed."""

    def run(folder: Path, rewards: Path, output: str = "learned", **changes) -> Path:
        told = {name: {**values, **changes.get(name, {})} for name, values in RECIPE.items()}
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(told))
        return train(recorded.read(path, [], folder, rewards), tmp_path / output)

    return run


def likelihoods(folder: Path, adapter: Path) -> dict[str, float]:
    """Return what the policy says now of each episode's tokens, less what it said before, in nats."""
    with engine.open_local("nano", adapter, settings=engine.Settings(max_requests=8, max_context=512)) as opened:
        scored: dict[str, float] = {}
        for answer in served.answers(folder):
            (turn,) = answer.record.turns
            ids = torch.tensor([turn.prompt_ids + turn.token_ids])
            with torch.no_grad():
                logs = opened.loaded.model(input_ids=ids).logits.log_softmax(-1)[0, len(turn.prompt_ids) - 1 : -1]
            now = logs.gather(-1, torch.tensor(turn.token_ids)[:, None]).sum()
            scored[answer.episode] = scored.get(answer.episode, 0.0) + float(now) - sum(turn.logprobs)
    return scored


def test_what_was_rewarded_becomes_likelier_and_the_numbers_are_the_engine_s(played, learn):
    folder, rewards = played
    run = learn(folder, rewards)
    (told,) = Run(run).metrics()
    assert told["drift"] < 1e-4
    assert told["learning_rate"] == 2e-2  # neither warmed up nor decayed: there is one step
    assert told["ratio_apart"] > 0  # the second move's answers are of an older policy
    moved = likelihoods(folder, run)
    earned = {row["episode"]: row["reward"] for row in map(json.loads, rewards.read_text().splitlines())}
    for task in range(len(ASKED)):
        best = max((name for name in earned if name.startswith(f"{task}.")), key=earned.__getitem__)
        worst = min((name for name in earned if name.startswith(f"{task}.")), key=earned.__getitem__)
        assert moved[best] > moved[worst]
    assert "agent of somebody's own" in (run / "README.md").read_text()


def test_learning_twice_leaves_the_same_weights(played, learn):
    one, two = (load_file(learn(*played, name) / "adapter_model.safetensors") for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_policy_goes_on_from_the_adapter_that_answered(played, learn, tmp_path):
    first = learn(*played)
    folder = tmp_path / "again"
    rewards = record(folder, first)
    second = learn(folder, rewards, "second")
    (told,) = Run(second).metrics()
    assert told["drift"] < 1e-4
    ours, theirs = (load_file(one / "adapter_model.safetensors") for one in (first, second))
    fresh = max(float((theirs[name] - ours[name]).abs().max()) for name in ours if "lora_A" in name)
    assert 0 < fresh < 0.2  # it went on from there, and did not begin anew
    one, two = (torch.load(run / "recorded-optimizer.pt", weights_only=True) for run in (first, second))
    assert {int(each["step"]) for each in one.values()} == {2}
    assert {int(each["step"]) for each in two.values()} == {4}  # and so did its optimizer
    with pytest.raises(SettingsError, match=r"reinforcement\.kl is 0\.1, which is from the base without an adapter"):
        learn(folder, rewards, "pulled", reinforcement={"kl": 0.1})
    with pytest.raises(SettingsError, match=r"adapter\.r is 4, and the adapter in .* has 2; set adapter\.r=2"):
        learn(folder, rewards, "third", adapter={"r": 4})
    (first / "adapter_model.safetensors").write_bytes((second / "adapter_model.safetensors").read_bytes())
    with pytest.raises(SettingsError, match="is not the one that answered any more"):
        learn(folder, rewards, "fourth")


@pytest.mark.parametrize("objective", ["gspo", "rejection"])
def test_other_objectives_learn_from_a_record_too(played, learn, objective):
    run = learn(*played, reinforcement={"objective": objective, "keep": 1.0})
    weights = load_file(run / "adapter_model.safetensors")
    assert max(one.abs().max() for name, one in weights.items() if "lora_B" in name) > 0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"reinforcement": {"objective": "ppo"}}, "'ppo', which needs a value head"),
        ({"reinforcement": {"objective": "gigpo"}}, "'gigpo', which needs the state of the tools"),
        ({"reinforcement": {"temperature": 0.7}}, "temperature is 0.7, and answer .* was drawn at 1; set it to that"),
        ({"team": {"preset": "single"}}, "a reply of 'summarizer', and the roles of team.preset 'single' are"),
        ({"adapter": {"lora_dropout": 0.1}}, "lora_dropout is above 0"),
        ({"training": {"processes": 2}}, "processes is 2; a record is learned from in one step of one process: set it"),
    ],
)
def test_what_a_record_does_not_tell_is_refused_by_name(played, learn, changes, told):
    with pytest.raises(SettingsError, match=told):
        learn(*played, **changes)


def kept(folder: Path, into: Path, change: Callable[[served.Answer], served.Answer], **policy) -> Path:
    """Write a record anew with its answers changed."""
    found = served.policy(folder)
    assert found is not None
    served.write_policy(into, replace(found, **policy))
    for answer in served.answers(folder):
        served.append(into, change(answer))
    return into


def test_answers_that_were_not_drawn_freely_are_refused_with_the_reason(played, learn, tmp_path):
    held = kept(played[0], tmp_path / "held", lambda one: replace(one, refused="top_p was 0.9"))
    with pytest.raises(DataError, match=r"8 of 8 episodes .*top_p was 0\.9; ask for plain sampling"):
        learn(held, played[1])


def test_replies_that_a_grammar_held_are_learned_from_at_their_temperature(learn, tmp_path):
    rewards = record(tmp_path / "held", temperature=0.7, speaker="reasoner", settings=HELD)
    turns = [answer.record.turns[0] for answer in served.answers(tmp_path / "held")]
    assert any(one is not None and one.among for turn in turns for one in turn.drawn)
    names = [row["episode"] for row in map(json.loads, rewards.read_text().splitlines())]
    rows = ({"episode": name, "reward": place % 2} for place, name in enumerate(names))
    rewards.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (told,) = Run(learn(tmp_path / "held", rewards, reinforcement={"temperature": 0.7})).metrics()
    assert told["drift"] < 1e-4
    assert told["entropy"] > 0


def test_another_base_is_refused(played, learn, tmp_path):
    other = kept(played[0], tmp_path / "other", lambda one: one, weights="0123456789abcdef")
    with pytest.raises(SettingsError, match=r"model.base is 'nano' with weights .* 0123456789abcdef answered"):
        learn(other, played[1])


def shifted(answer: served.Answer, by: float) -> served.Answer:
    told = [replace(turn, logprobs=tuple(one - by for one in turn.logprobs)) for turn in answer.record.turns]
    return replace(answer, record=replace(answer.record, turns=tuple(told)))


def test_numbers_that_are_not_the_policy_s_are_refused_and_those_of_a_coarser_engine_corrected(played, learn, tmp_path):
    off = kept(played[0], tmp_path / "off", lambda one: shifted(one, 0.05))
    with pytest.raises(RolecraftError, match=r"0\.050 nats a token otherwise than the engine that wrote it"):
        learn(off, played[1])
    coarse = kept(played[0], tmp_path / "coarse", lambda one: shifted(one, 0.05), exact=False, engine="int8")
    (told,) = Run(learn(coarse, played[1], "corrected", reinforcement={"minibatches": 1})).metrics()
    assert told["drift"] == pytest.approx(0.05, abs=1e-3)
    assert told["ratio"] == pytest.approx(1.051, abs=2e-3)  # the ratio is from what the engine said


def test_rewards_that_are_all_equal_teach_nothing(played, learn, tmp_path):
    names = [row["episode"] for row in map(json.loads, played[1].read_text().splitlines())]
    flat = tmp_path / "flat.jsonl"
    flat.write_text("".join(json.dumps({"episode": name, "reward": 0.5}) + "\n" for name in names))
    with pytest.raises(DataError, match=r"in each of 2 tasks the tries have equal rewards \(8 episodes\)"):
        learn(played[0], flat)


@pytest.mark.parametrize("name", ["grpo", "gspo", "rejection"])
def test_a_recipe_that_ships_learns_from_a_record_by_its_last_stage_on_the_base_that_answered(played, name):
    found = recorded.read(find_recipe(name), ["training.learning_rate=1e-4"], *played)
    told = found.reinforcement
    assert told is not None
    assert (told.objective, told.recorded, told.validation) == (name, str(played[0]), 0)
    assert (found.model.base, found.training.max_steps, found.training.learning_rate) == ("nano", 1, 1e-4)


def test_a_recipe_that_does_not_reinforce_is_refused(played):
    with pytest.raises(SettingsError, match="has no section reinforcement, by which a record is learned from"):
        recorded.read(find_recipe("lora"), [], *played)


def test_a_folder_without_answers_is_told(learn, tmp_path):
    with pytest.raises(NotFound, match="holds no answers; name a folder that `rolecraft serve --record` wrote"):
        learn(tmp_path / "nothing", tmp_path / "rewards.jsonl")
