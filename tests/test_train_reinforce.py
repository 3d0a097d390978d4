"""Reinforcement on the nano base: what is learned from, that reward rises, and that a stop changes nothing."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rolecraft import model
from rolecraft.errors import RolecraftError, SettingsError
from rolecraft.judges import layered
from rolecraft.recipe import DataSettings, Recipe, read_recipe
from rolecraft.store import Run
from rolecraft.train import credit, policy_loop, reinforce, train, trying, updating
from rolecraft.train.checkpoints import last_checkpoint
from rolecraft.train.collecting import world
from rolecraft.train.tally import Tally
from rolecraft.types import Judge, Trajectory, Verdict

SHORT = {"tasks": 2, "group": 4, "max_turns": 2, "max_tokens": 8}
"""A step on eight short episodes."""

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


def recipe_of(**changes) -> Recipe:
    """Three steps of eight short episodes."""
    told = {
        "model": {"base": "nano", "renderer": "nano"},
        "team": {"preset": "mor", "instructions": False},
        "data": {"benchmark": "toolworld", "seed": 1, "options": {"families": ["hub", "hop"], "mixed": 0.0}},
        "adapter": {"name": "lora", "r": 2, "lora_alpha": 4, "lora_dropout": 0.0},
        "training": {
            "max_steps": 3,
            "per_device_train_batch_size": 8,
            "learning_rate": 4e-3,
            "logging_steps": 1,
            "save_steps": 1,
            "save_total_limit": 9,
            "seed": 0,
        },
        "reinforcement": SHORT,
    }
    for section, values in changes.items():
        told[section] = {**told[section], **values}
    return read_recipe(told)


def paid(settings: layered.Settings) -> Judge:
    """Pay for the letter e: an untuned base earns nothing in the world, and there must be something to learn."""

    def reward(trajectory: Trajectory) -> Verdict:
        said = "".join(turn.message.content + str(turn.message.unparsed or "") for turn in trajectory.turns)
        share = said.count("e") / max(1, len(said))
        return Verdict(share, parts={"format": share, "task": share})

    return reward


@pytest.fixture(autouse=True)
def pays(monkeypatch):
    monkeypatch.setattr(layered, "rewarding", paid)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def same(one: Path, other: Path) -> bool:
    ours, theirs = weights_of(one), weights_of(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


PPO = {**SHORT, "objective": "ppo", "kl": 0.05, "minibatches": 2, "updates": 2}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run of PPO: of all objectives it has the most to go on from."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(layered, "rewarding", paid)
        return train(recipe_of(reinforcement=PPO), tmp_path_factory.mktemp("run") / "run")


def test_a_run_leaves_an_adapter_that_plays_and_says_how_it_was_made(finished):
    assert model.load("nano", adapter=finished).contract is not None
    assert "What the policy played of the benchmark `toolworld`" in (finished / "README.md").read_text()


def test_each_step_tells_its_reward_by_layer_its_ratios_and_its_drift(finished):
    told = Run(finished).metrics()
    assert [entry["step"] for entry in told] == [1, 2, 3]
    names = {"reward", "reward/format", "reward/task", "entropy", "kl", "ratio", "clipped", "flat", "play/calls"}
    for entry in told:
        assert names <= set(entry)
        assert entry["shared"] > 0.4  # tries at a task begin alike
        assert entry["saved"] > 100
        assert entry["drift"] < 1e-4  # the trainer's log-probabilities are the engine's
        assert entry["ratio_apart"] > 0  # the second minibatch's rollouts are of an older policy


def test_what_pays_becomes_more_frequent(tmp_path):
    told = recipe_of(
        reinforcement={"tasks": 4, "group": 6},
        training={"max_steps": 12, "learning_rate": 2e-2, "save_steps": 0},
        adapter={"r": 8, "lora_alpha": 16},
    )
    rewards = [entry["reward"] for entry in Run(train(told, tmp_path / "run")).metrics()]
    assert sum(rewards[-3:]) > 1.3 * sum(rewards[:3])


@pytest.mark.parametrize(
    "changes",
    [
        {"objective": "grpo", "kl": 0.1, "temperature": 0.7, "aggregation": "dr_grpo", "normalise": "sum"},
        {"objective": "gspo", "per": "role", "minibatches": 2},
        {"objective": "gigpo", "per": "turn", "scale": "batch"},
        {"objective": "rejection", "keep": 0.0},
    ],
    ids=lambda changes: changes["objective"],
)
def test_every_objective_runs_and_moves_the_policy(tmp_path, changes):
    run = train(recipe_of(reinforcement=changes, training={"max_steps": 2}), tmp_path / "run")
    assert max(one.abs().max() for name, one in weights_of(run).items() if "lora_B" in name) > 0
    for entry in Run(run).metrics():
        assert math.isfinite(entry["loss"])
        assert entry["drift"] < 1e-4


def test_a_mixture_of_roles_learns_from_rewards(tmp_path):
    told = recipe_of(
        adapter={"name": "mor", "r": 4, "lora_alpha": 8}, training={"max_steps": 2}, reinforcement={"kl": 0.1}
    )
    run = train(told, tmp_path / "run")
    assert all(entry["drift"] < 1e-4 for entry in Run(run).metrics())
    assert Run(run).metrics()[1]["kl"] > 0  # it has left where it began


def stepped(tmp_path, **changes) -> tuple[reinforce.Work, list[credit.Try], list]:
    """A policy, the tries of its first step, and their rows."""
    recipe = recipe_of(**changes)
    policy, players = reinforce.load(recipe)
    work = reinforce.Work(recipe, policy, players, tmp_path, lambda folder, place: None)
    with policy_loop.engine(policy, work) as engine:
        tries = reinforce._tried(work, policy_loop.tasks(work), engine, 1, Tally())
    return work, tries, policy_loop.rows(work, [one.episode for one in tries])


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("name", ["lora", "mor"])
def test_the_trainer_s_log_probabilities_are_the_engine_s(tmp_path, name, temperature, constrained):
    told = {"temperature": temperature, "constrained": constrained, "max_tokens": 40, "max_turns": 3}
    adapter = {"name": "mor", "r": 4, "lora_alpha": 8} if name == "mor" else {}
    work, tries, rows = stepped(tmp_path, reinforcement=told, adapter=adapter)
    policy = updating.Policy(work.recipe, work.student, work.told)
    samples = updating.samples_of(tries, rows, [[0.0] * len(one.episode.turns) for one in tries])
    with torch.no_grad():
        seen = updating.look(policy, None, samples)
    for place, sample in enumerate(samples):
        torch.testing.assert_close(seen.new[place, : sample.tokens], sample.played, atol=1e-4, rtol=0)
    turns = [turn for one in tries for turn in one.episode.turns]
    drawn = [one for turn in turns for one in turn.drawn]
    assert any(one is None for one in drawn) == constrained  # what a grammar forces is not drawn
    assert any(one and one.among for one in drawn) == constrained
    plain = [p for turn in turns for p, forced in zip(turn.logprobs, turn.forced, strict=True) if not forced]
    assert ([one.logprob for one in drawn if one] == pytest.approx(plain, abs=1e-5)) == (
        temperature == 1 and not constrained
    )


def test_an_adapter_learns_from_replies_that_a_grammar_held(tmp_path):
    told = {"constrained": True, "temperature": 0.7, "max_tokens": 40, "minibatches": 2, "kl": 0.1}
    run = train(recipe_of(reinforcement=told, training={"max_steps": 2}), tmp_path / "run")
    for entry in Run(run).metrics():
        assert entry["drift"] < 1e-4
        assert entry["ratio_apart"] > 0
        assert math.isfinite(entry["entropy"])


def test_the_tries_at_a_task_differ_and_their_prompt_is_computed_once(tmp_path):
    _, tries, _ = stepped(tmp_path)
    first = [one for one in tries if one.group == 0]
    assert len({one.episode.turns[0].token_ids for one in first}) > 1
    assert len({one.episode.turns[0].prompt_ids for one in first}) == 1
    cached = sorted(one.episode.turns[0].usage.cached for one in first)
    assert cached[1] > 0.8 * len(first[0].episode.turns[0].prompt_ids)


def test_how_a_step_is_cut_into_batches_changes_nothing(tmp_path):
    runs = [
        train(
            recipe_of(training={"max_steps": 1, "per_device_train_batch_size": size}, reinforcement={"kl": 0.1}),
            tmp_path / str(size),
        )
        for size in (3, 8)
    ]
    for name, one in weights_of(runs[0]).items():
        torch.testing.assert_close(one, weights_of(runs[1])[name], atol=1e-4, rtol=1e-3)


def test_groups_that_are_all_alike_teach_nothing_and_are_given_up_for_others(tmp_path, monkeypatch):
    alike = Verdict(1.0, parts={"format": 1.0, "task": 1.0})
    monkeypatch.setattr(layered, "rewarding", lambda settings: lambda trajectory: alike)
    _, tries, _ = stepped(tmp_path, reinforcement={"resample": 2})
    assert {one.group for one in tries} == {4, 5}  # the second round's
    run = train(recipe_of(training={"max_steps": 1}, reinforcement={"resample": 0}), tmp_path / "run")
    assert all(one.abs().max() == 0 for name, one in weights_of(run).items() if "lora_B" in name)
    assert Run(run).metrics()[0]["flat"] == 1


def test_a_group_is_given_up_for_a_task_that_is_not_in_the_step_yet(tmp_path, monkeypatch):
    """Of three tasks two are in the step; the third takes the place of one, and then nobody is left for the other."""
    alike = Verdict(1.0, parts={"format": 1.0, "task": 1.0})
    monkeypatch.setattr(layered, "rewarding", lambda settings: lambda trajectory: alike)
    _, tries, _ = stepped(tmp_path, reinforcement={"resample": 2}, data={"size": 3})
    assert {one.group for one in tries} == {1, 2}
    assert len({one.episode.task.id.partition("#")[0] for one in tries}) == 2


def test_a_run_that_went_on_has_the_same_weights_as_one_that_never_stopped(tmp_path, finished):
    run = tmp_path / "run"
    train(recipe_of(reinforcement=PPO), run)
    for name in ("checkpoint-2", "checkpoint-3"):
        (run / name / "complete.json").unlink()  # as if a kill had come in step 2
    (run / "adapter_config.json").unlink()
    train(recipe_of(reinforcement=PPO), run, resume=True)
    assert same(run, finished)
    rewards = [[entry["reward"] for entry in Run(one).metrics()] for one in (run, finished)]
    assert rewards[0] == rewards[1]


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path, finished):
    code = f"""
import sys
sys.path.insert(0, "tests")
from pathlib import Path
import test_train_reinforce as told
told.layered.rewarding = told.paid
told.train(told.recipe_of(reinforcement=told.PPO), Path({str(tmp_path / "run")!r}), True)
"""
    root = Path(__file__).parents[1]
    process = subprocess.Popen([sys.executable, "-c", code], cwd=root, env={**os.environ, "PYTHONPATH": str(root)})
    while process.poll() is None and last_checkpoint(tmp_path / "run") is None:
        pass
    process.kill()
    process.wait()
    train(recipe_of(reinforcement=PPO), tmp_path / "run", resume=True)
    assert same(tmp_path / "run", finished)


def test_the_value_head_is_in_the_checkpoint_and_not_in_what_is_left(finished):
    kept = torch.load(finished / "checkpoint-3" / "policy.pt", weights_only=True)["trained"]
    assert kept["beside.weight"].abs().max() > 0
    assert not any("beside" in name for name in weights_of(finished))


COLLAPSES = {"window": 1, "kl": 0.0, "entropy": 0.0, "calls": 0.0, "reward": 1e6}


def test_a_collapse_ends_the_run_with_its_numbers_and_a_remedy(tmp_path):
    told = recipe_of(reinforcement={"collapse": COLLAPSES})
    with pytest.raises(
        RolecraftError, match=r"stopped after step 2: the reward fell from .*; lower training\.learning"
    ):
        train(told, tmp_path / "run")
    assert (last_checkpoint(tmp_path / "run") or ())[1]["step"] == 2


def test_after_a_collapse_the_best_checkpoint_is_what_is_left(tmp_path, capsys):
    told = recipe_of(reinforcement={"collapse": COLLAPSES, "validation": 2, "validate_every": 1})
    run = train(told, tmp_path / "run")
    assert "what is left is the best by the validation tasks, of step 1" in capsys.readouterr().out
    assert same(run, run / "checkpoint-1")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"reinforcement": {"temperature": 0.0}}, "reinforcement.temperature is 0"),
        ({"reinforcement": {"group": 1}}, "reinforcement.group is 1; grpo compares at least 2"),
        ({"reinforcement": {"validation": 2, "validation_seed": 1}}, "validation_seed is 1, data.seed"),
        ({"adapter": {"lora_dropout": 0.1}}, "lora_dropout is above 0"),
        (
            {"training": {"gradient_accumulation_steps": 2}},
            "accumulation_steps is 2; reinforcement takes 1, for a step's",
        ),
        ({"team": {"preset": "code"}, "reinforcement": {"objective": "gigpo"}}, "acts by code"),
    ],
)
def test_what_cannot_be_learned_from_is_refused_by_name(tmp_path, changes, told):
    with pytest.raises(SettingsError, match=told):
        train(recipe_of(**changes), tmp_path / "run")


def of_problems(tmp_path, monkeypatch, size: int, validation: int) -> reinforce.Work:
    """Work on ten problems of a file, of which `size` are trained."""
    monkeypatch.setenv("ROLECRAFT_DATA", str(tmp_path))
    (tmp_path / "gsm8k").mkdir()
    rows = (json.dumps({"question": f"{number} + 1?", "answer": f"#### {number + 1}"}) for number in range(10))
    (tmp_path / "gsm8k" / "train.jsonl").write_text("\n".join(rows))
    recipe = replace(
        recipe_of(reinforcement={"validation": validation}),
        data=DataSettings(benchmark="gsm8k", split="train", seed=1, size=size),
    )
    return reinforce.Work(recipe, None, None, tmp_path, lambda folder, place: None)


def test_no_task_is_trained_that_chooses_the_best_checkpoint(tmp_path, monkeypatch):
    pytest.importorskip("math_verify")
    work = of_problems(tmp_path, monkeypatch, 6, 4)
    trained = policy_loop.tasks(work)
    held_out = policy_loop.validation(work, trained)
    assert len(held_out.tasks) == 4
    assert not {one.id for one in held_out.tasks} & {one.id for one in trained.tasks}


def test_too_few_tasks_to_choose_by_are_told_with_the_numbers(tmp_path, monkeypatch):
    pytest.importorskip("math_verify")
    work = of_problems(tmp_path, monkeypatch, 7, 4)
    with pytest.raises(SettingsError, match="4 tasks, and of 10 of 'gsm8k', split 'train', 3 are left by the 7 that"):
        policy_loop.validation(work, policy_loop.tasks(work))


def test_a_benchmark_that_makes_its_tasks_validates_by_those_of_the_other_seed():
    work = reinforce.Work(recipe_of(reinforcement={"validation": 3}), None, None, Path(), lambda folder, place: None)
    held_out = policy_loop.validation(work, policy_loop.tasks(work))
    assert held_out.tasks == world(work.recipe.data, 3, 7).tasks


def test_a_divergence_from_a_base_that_is_itself_tuned_is_refused(tmp_path):
    plain = recipe_of(reinforcement={"kl": 0.1})
    whole = read_recipe({"adapter": {"name": "full"}}).adapter
    with pytest.raises(SettingsError, match=r"reinforcement\.kl is 0\.1, and adapter\.name 'full'"):
        train(replace(plain, adapter=whole), tmp_path / "run")


def test_the_states_before_replies_tell_what_the_tools_have_shown(tmp_path):
    work, _, _ = stepped(tmp_path)
    tasks = policy_loop.tasks(work)
    with policy_loop.engine(work.student, work) as engine:
        playing = policy_loop.playing(work.told, 2, 1.0)
        played = trying.play(tasks, tasks.tasks[:1], 4, engine, work.players, playing, 3, watch=True)
    for one in played:
        assert len(one.states) == len(one.episode.turns)
    assert len({one.states[0] for one in played}) == 1  # all began alike
