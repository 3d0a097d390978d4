"""On-policy distillation on the nano base: what is learned from, what is told, and that a stop changes nothing."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import claims
import pytest
import tiny
import torch
import yaml
from safetensors.torch import load_file

from rolecraft import model, objectives
from rolecraft.engine import LocalEngine
from rolecraft.errors import DataError, Interrupted, SettingsError
from rolecraft.recipe import Recipe, read_recipe, recipe_to_dict
from rolecraft.reproduce import cells, trial
from rolecraft.store import Run
from rolecraft.train import distilling, on_policy, policy_loop, policy_state, stages, train
from rolecraft.train.checkpoints import last_checkpoint
from rolecraft.train.tally import Tally

SHORT = {"rollouts": 4, "max_turns": 2, "max_tokens": 10}
"""A step on four short episodes."""

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


def recipe_of(**changes) -> Recipe:
    """Three steps of four short episodes; the teacher is the base itself unless told otherwise."""
    told = {
        "model": {"base": "nano"},
        "team": {"preset": "mor", "instructions": False},
        "data": {"benchmark": "toolworld", "seed": 1, "options": {"families": ["hub", "hop"], "mixed": 0.0}},
        "adapter": {"name": "lora", "r": 2, "lora_alpha": 4, "lora_dropout": 0.0},
        "training": {
            "max_steps": 3,
            "per_device_train_batch_size": 4,
            "learning_rate": 1e-2,
            "logging_steps": 1,
            "save_steps": 1,
            "save_total_limit": 9,
            "seed": 0,
        },
        "on_policy": {"teacher": "nano", **SHORT},
    }
    for section, values in changes.items():
        told[section] = {**told[section], **values}
    return read_recipe(told)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def same(one: Path, other: Path) -> bool:
    ours, theirs = weights_of(one), weights_of(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture(scope="module")
def shaken_teacher(tmp_path_factory) -> Path:
    """A teacher that says other things than the base: an adapter of random numbers."""
    folder = tmp_path_factory.mktemp("teacher")
    loaded, _, _ = distilling.load(recipe_of())
    torch.manual_seed(5)
    for name, one in loaded.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(one, std=0.6)
    loaded.model.save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def teaches(shaken_teacher) -> dict[str, str]:
    return {"teacher_adapter": str(shaken_teacher)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, teaches) -> Path:
    return train(recipe_of(on_policy=teaches, model={"renderer": "nano"}), tmp_path_factory.mktemp("run") / "run")


def test_a_run_leaves_an_adapter_that_plays_and_says_how_it_was_made(finished):
    loaded = model.load("nano", adapter=finished)
    assert loaded.contract is not None
    card = (finished / "README.md").read_text()
    assert "What the student played of the benchmark `toolworld`" in card
    assert "| reasoner |" in card
    assert [entry["step"] for entry in Run(finished).metrics()] == [1, 2, 3]


def test_each_step_tells_its_play_and_how_far_apart_they_are(finished):
    for entry in Run(finished).metrics():
        assert {"play/score", "play/calls", "play/over_calls", "gap", "depth", "grad_norm", "seconds_left"} <= set(
            entry
        )
        assert entry["gap"] > 0.1
        assert entry["drift"] < 1e-4  # the engine's log-probabilities are the trainer's


def test_the_student_comes_nearer_to_its_teacher(tmp_path, teaches):
    told = recipe_of(
        on_policy={**teaches, "rollouts": 8},
        training={"max_steps": 25, "save_steps": 0, "per_device_train_batch_size": 8},
        adapter={"r": 8, "lora_alpha": 16},
        model={"renderer": "nano"},
    )
    losses = [entry["loss"] for entry in Run(train(told, tmp_path / "run")).metrics()]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_a_teacher_that_is_the_student_teaches_nothing(tmp_path):
    run = train(recipe_of(training={"max_steps": 1}), tmp_path / "run")
    (entry,) = Run(run).metrics()
    assert entry["loss"] == pytest.approx(0, abs=1e-5)
    assert entry["grad_norm"] < 1e-4


@pytest.mark.parametrize(
    ("player", "divergence", "estimate"),
    [
        ("student", "reverse", "full"),
        ("student", "reverse", "sampled"),
        ("teacher", "forward", "full"),
        ("teacher", "forward", "sampled"),
    ],
)
def test_every_kind_of_distillation_runs_and_moves_the_student(tmp_path, teaches, player, divergence, estimate):
    kind = {"player": player, "divergence": divergence, "estimate": estimate, "gate": 1.0}
    told = recipe_of(on_policy={**teaches, **kind}, training={"max_steps": 2}, model={"renderer": "nano"})
    run = train(told, tmp_path / "run")
    moved = [one.abs().max() for name, one in weights_of(run).items() if "lora_B" in name]
    assert max(moved) > 0
    assert all(math.isfinite(entry["loss"]) and 0 < entry["gate"] <= 1 for entry in Run(run).metrics())


def test_the_gradient_of_the_sampled_estimate_is_that_of_its_advantages(teaches):
    """-A d log p, with A what the teacher finds a token more likely than the student, worked out by hand."""
    told = recipe_of(on_policy={**teaches, "estimate": "sampled"}).on_policy
    new = torch.tensor([-1.0, -2.0, -0.5], requires_grad=True)
    teacher = torch.tensor([-0.5, -3.0, -0.5])
    on_policy._sampled(told, new, teacher).sum().backward()
    torch.testing.assert_close(new.grad, torch.tensor([-0.5, 1.0, 0.0]))


def test_only_chosen_tokens_are_in_the_loss_and_a_role_s_weight_scales_its_own(tmp_path, teaches):
    work, rows = played(tmp_path, {**teaches, "rollouts": 4})
    tally = Tally()
    whole = float(on_policy._loss(work, rows, None, tally).detach())
    assert sum(tally.counts[name] for name in tally.counts if name.startswith("loss/")) == sum(
        map(sum, (row.chosen for row in rows))
    )
    silent = replace(work, recipe=recipe_of(on_policy={**teaches, "weights": {"reasoner": 0.0, "summarizer": 3.0}}))
    reasoner, others = tally.sums["loss/reasoner"], whole - tally.sums["loss/reasoner"]
    summarizer = tally.sums.get("loss/summarizer", 0.0)
    assert reasoner > 0
    found = float(on_policy._loss(silent, rows, None, Tally()).detach())
    assert found == pytest.approx(others + 2 * summarizer, rel=1e-4, abs=1e-5)


def played(tmp_path, told) -> tuple[on_policy.Work, list]:
    """A student, its teacher, and the rows of a step that the student played."""
    recipe = recipe_of(on_policy=told, model={"renderer": "nano"})
    student, teacher, players = distilling.load(recipe)
    work = on_policy.Work(recipe, student, teacher, players, tmp_path, lambda folder, place: None)
    tasks = policy_loop.tasks(work)
    with LocalEngine(student) as engine:
        playing = policy_loop.playing(work.told, 2, 1.0)
        episodes = on_policy.collect(tasks, tasks.of_step(1, 4), engine, players, playing, 3)
    return work, on_policy._rows(work, episodes)


def test_the_engine_scores_rows_as_the_teacher_s_forward_pass_does(tmp_path, teaches):
    work, rows = played(tmp_path, {**teaches, "estimate": "sampled"})
    with LocalEngine(work.teacher) as engine:
        scores = on_policy.targets(work, rows, engine)
    batch = on_policy.rollouts.batch(rows, 0, {"teacher": scores})
    with torch.no_grad():
        logits, targets = policy_loop.logits(work.teacher, batch, rows, None, work.recipe)
    torch.testing.assert_close(
        batch.of_targets("teacher"), -objectives.token_losses(logits, targets), atol=1e-4, rtol=0
    )


def test_how_a_step_is_cut_into_batches_changes_nothing(tmp_path, teaches):
    runs = [
        train(
            recipe_of(
                on_policy=teaches,
                training={"max_steps": 1, "per_device_train_batch_size": size},
                model={"renderer": "nano"},
            ),
            tmp_path / str(size),
        )
        for size in (1, 4)
    ]
    for name, one in weights_of(runs[0]).items():
        torch.testing.assert_close(one, weights_of(runs[1])[name], atol=1e-4, rtol=1e-3)


def test_a_run_that_went_on_has_the_same_weights_as_one_that_never_stopped(tmp_path, teaches, finished):
    told = recipe_of(on_policy=teaches, model={"renderer": "nano"})
    run = tmp_path / "run"
    train(told, run)
    for name in ("checkpoint-2", "checkpoint-3"):
        (run / name / "complete.json").unlink()  # as if a kill had come in step 2
    (run / "adapter_config.json").unlink()
    train(told, run, resume=True)
    assert same(run, finished)
    assert [entry["step"] for entry in Run(run).metrics()] == [1, 2, 3]
    losses = [[entry["loss"] for entry in Run(one).metrics()] for one in (run, finished)]
    assert losses[0] == losses[1]


def test_a_signal_ends_the_step_saves_it_and_is_told(tmp_path, teaches, monkeypatch):
    told = recipe_of(on_policy=teaches, model={"renderer": "nano"}, training={"save_steps": 0})
    learn = on_policy.learn

    def learn_and_be_told(*arguments):
        signal.raise_signal(signal.SIGTERM)
        return learn(*arguments)

    monkeypatch.setattr(on_policy, "learn", learn_and_be_told)
    with pytest.raises(Interrupted, match="stopped after step 1 of 3, which is saved"):
        train(told, tmp_path / "run")
    assert (last_checkpoint(tmp_path / "run") or ())[1]["step"] == 1


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path, teaches, finished):
    code = f"""
import sys
sys.path.insert(0, "tests")
from pathlib import Path
import test_train_on_policy as told
recipe = told.recipe_of(on_policy={teaches!r}, model={{"renderer": "nano"}})
told.train(recipe, Path({str(tmp_path / "run")!r}), True)
"""
    root = Path(__file__).parents[1]
    process = subprocess.Popen([sys.executable, "-c", code], cwd=root, env={**os.environ, "PYTHONPATH": str(root)})
    while process.poll() is None and last_checkpoint(tmp_path / "run") is None:
        pass
    process.kill()
    process.wait()
    train(recipe_of(on_policy=teaches, model={"renderer": "nano"}), tmp_path / "run", resume=True)
    assert same(tmp_path / "run", finished)


def test_the_best_checkpoint_by_the_validation_tasks_is_what_is_left(tmp_path, teaches, monkeypatch):
    scores = iter([0.2, 0.9, 0.4])
    measure = policy_loop.measure

    def told_otherwise(episodes):
        found = measure(episodes)
        return {**found, "score": next(scores)} if episodes[0].id.startswith("toolworld-train-7-") else found

    monkeypatch.setattr(policy_loop, "measure", told_otherwise)
    told = recipe_of(on_policy={**teaches, "validation": 2, "validate_every": 1}, model={"renderer": "nano"})
    run = train(told, tmp_path / "run")
    assert json.loads((run / policy_state.BEST / "score.json").read_text()) == {"step": 2.0, "score": 0.9}
    assert same(run, run / "checkpoint-2")
    assert not same(run, run / "checkpoint-3")
    assert [entry["validation/score"] for entry in Run(run).metrics()] == [0.2, 0.9, 0.4]


def test_a_mixture_of_roles_is_distilled_and_each_role_told(tmp_path, teaches):
    told = recipe_of(
        on_policy=teaches,
        adapter={"name": "mor", "r": 4, "lora_alpha": 8},
        model={"renderer": "nano"},
        training={"max_steps": 2},
    )
    run = train(replace(told), tmp_path / "run")
    assert all(entry["drift"] < 1e-4 for entry in Run(run).metrics())
    assert "loss/reasoner" in Run(run).metrics()[0]


def test_a_teacher_with_another_tokenizer_is_refused_with_the_reason(nano_tokenizer):
    with pytest.raises(DataError, match=r"another tokenizer than student 'nano' \(token .*\): it cannot score"):
        on_policy.require_pair(model.load("nano"), tiny.loaded(nano_tokenizer))


def test_a_teacher_with_another_chat_format_is_refused():
    with pytest.raises(DataError, match="another chat format"):
        on_policy.require_pair(model.load("nano"), model.load("nano", renderer="chatml"))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"training": {"max_steps": -1}}, "only steps"),
        ({"training": {"gradient_accumulation_steps": 2}}, "gradient_accumulation_steps is 2; on_policy takes 1"),
        ({"training": {"gradient_accumulation_steps": 2}}, "training.gradient_accumulation_steps is 2"),
        ({"training": {"extra": {"adam_beta1": 0.5}}}, "training.extra has 'adam_beta1'"),
        ({"data": {"benchmark": None, "path": "rows.jsonl"}}, "set data.benchmark"),
        ({"data": {"size": 3}}, "a step plays 4 different tasks and there are 3"),
        ({"on_policy": {"validation": 2, "validation_seed": 1}}, "validation_seed is 1, data.seed"),
    ],
)
def test_what_the_loop_cannot_do_is_told(tmp_path, changes, told):
    with pytest.raises(SettingsError, match=told):
        train(recipe_of(**changes), tmp_path / "run")


def test_other_tasks_than_the_checkpoint_s_are_refused(tmp_path, finished, monkeypatch, teaches):
    monkeypatch.setattr(policy_loop, "fingerprint", lambda told: "other")
    work, _ = played(tmp_path, teaches)
    folder, facts = last_checkpoint(finished)
    with pytest.raises(DataError, match="the tasks are not those"):
        on_policy.run(work, (folder, facts), None)


STAGED = {
    "teacher": {"training": {"max_steps": 2}, "data": {"size": 8, "seed": 0}},
    "taught": {"start": "base", "data": {"seed": 1}, "on_policy": {"teacher": "stages.teacher", **SHORT}},
}


def write_staged(path: Path, **changes) -> Path:
    told = recipe_to_dict(recipe_of())
    del told["on_policy"]
    told["stages"] = {name: {**stage, **changes.get(name, {})} for name, stage in STAGED.items()}
    path.write_text(yaml.safe_dump(told, sort_keys=False))
    return path


def test_a_stage_may_teach_the_one_after_it_and_another_teacher_teaches_anew(tmp_path, capsys):
    path = write_staged(tmp_path / "recipe.yaml")
    run = stages.launch(path, tmp_path / "run")
    taught = Run(run / "taught").settings()["on_policy"]["teacher"]
    assert taught == str(run / "teacher" / stages.MERGED)
    assert all(entry["gap"] > 0 for entry in Run(run / "taught").metrics())
    stages.launch(path, run, resume=True)
    assert capsys.readouterr().out.count("nothing that went into it has changed") == 2
    stages.launch(path, run, flags=["stages.teacher.training.max_steps=3"], resume=True)
    assert "'taught': runs again, for other teacher" in capsys.readouterr().out


def test_a_teacher_that_is_no_earlier_stage_is_refused(tmp_path):
    wrong = {**STAGED["taught"]["on_policy"], "teacher": "stages.later"}
    with pytest.raises(SettingsError, match="'later', which is no earlier stage; there are teacher"):
        stages.launch(write_staged(tmp_path / "recipe.yaml", taught={"on_policy": wrong}), tmp_path / "run")


def test_a_mixture_of_roles_is_no_teacher_by_its_stage(tmp_path):
    roles = {**STAGED["teacher"], "adapter": {"name": "mor", "r": 4}}
    with pytest.raises(SettingsError, match="cannot be merged into its base"):
        stages.launch(write_staged(tmp_path / "recipe.yaml", teacher=roles), tmp_path / "run")


def test_a_claim_s_cell_may_be_taught_by_an_earlier_stage(tmp_path):
    arms = {"small": {"stages": {"teacher": {}, "taught": STAGED["taught"]}}, "large": {}}
    cell = cells.final_cell(claims.make(tmp_path, arms=arms), "small", 0, "w", {})
    result = trial.run(cell, tmp_path / "runs", tmp_path / "results")
    assert result.tuning.steps == 4
    assert result.tuning.logged["gap"] > 0
    assert "stages.teacher" in json.dumps(result.configuration)
    assert str(tmp_path) not in (tmp_path / "results" / f"{cell.name}.json").read_text()
    assert trial.probe(cell.stages[-1].recipe, tmp_path / "probe").seconds > 0
