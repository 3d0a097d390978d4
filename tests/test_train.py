"""Training end to end on a tiny random model: what is left, what is refused, and a broken run ends like a whole one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from rolecraft import model, wire
from rolecraft.errors import ContractError, DataError, Interrupted, NotFound, SettingsError, UserError
from rolecraft.store import Run
from rolecraft.train import Recipe, count_parameters, find_recipe, launch, load_recipe, train
from rolecraft.types import Message, Task, ToolCall, ToolSpec, Trajectory

NAMES = "Plalples Ro Kavestor Mi Linpla Tor Vesmi Kapla".split()
RECIPE = {
    "team": {"preset": "mor", "instructions": False},
    "adapter": {"name": "lora", "r": 4, "lora_alpha": 8, "lora_dropout": 0.0},
    "training": {
        "learning_rate": 1e-2,
        "max_steps": 3,
        "per_device_train_batch_size": 4,
        "logging_steps": 1,
        "save_steps": 0,
    },
}


def trajectory(place: int, name: str) -> Trajectory:
    """A conversation of all three roles; its length grows with `place`."""
    key = {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]}
    question = Message("user", f"I need the debt for {name}." + " user" * place)
    messages = (
        question,
        Message("assistant", "I need the debt. Next: executor.", speaker="reasoner"),
        Message("assistant", tool_calls=(ToolCall("read_debt", {"key": name}, id="1"),), speaker="executor"),
        Message("tool", str(100 + place), tool_call_id="1"),
        Message("assistant", "I have the result. Next: summarizer.", speaker="reasoner"),
        Message("assistant", f"The debt of {name} is {100 + place}.", speaker="summarizer"),
    )
    task = Task(f"t{place}", (question,), (ToolSpec("read_debt", "debt of a company", key),))
    return Trajectory(f"t{place}", task, messages)


def write_data(path: Path, trajectories) -> Path:
    path.write_text("".join(wire.dumps(wire.trajectory_to_json(one)) + "\n" for one in trajectories), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory, nano_tokenizer) -> Path:
    """A folder with a tiny random base and a data file."""
    folder = tmp_path_factory.mktemp("train")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=256,
        initializer_range=0.3,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "base")
    nano_tokenizer.save_pretrained(folder / "base")
    write_data(folder / "data.jsonl", [trajectory(number, name) for number, name in enumerate(NAMES)])
    return folder


def write_recipe(place: Path, path: Path, **training: object) -> Path:
    data = {**RECIPE, "model": {"base": str(place / "base")}, "data": {"path": str(place / "data.jsonl")}}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({**data, "training": {**RECIPE["training"], **training}}))
    return path


def recipe_of(place: Path, tmp_path: Path, **training: object) -> Recipe:
    return load_recipe(write_recipe(place, tmp_path / "recipe.yaml", **training))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def largest_difference(run: Path, other: Path) -> float:
    one, two = weights(run), weights(other)
    return max(float((one[key] - two[key]).abs().max()) for key in one)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(scope="module")
def finished(place, tmp_path_factory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("finished")
    return train(recipe_of(place, folder, save_steps=2), folder / "run")


def test_a_finished_run_is_an_adapter_with_its_papers(finished):
    names = {path.name for path in finished.iterdir()}
    papers = {"README.md", "adapter_config.json", "contract.json", "labels.txt", "metrics.jsonl", "settings.yaml"}
    assert papers | {"adapter_model.safetensors", "tokenizer.json", "trainer_state.json", "checkpoint-3"} <= names
    assert not [name for name in names if name.endswith(".partial")]


def test_a_finished_run_plays_on_its_base(place, finished):
    loaded = model.load(str(place / "base"), adapter=finished)
    base = model.load(str(place / "base"))
    ids = torch.tensor([[3, 5, 7]])
    with torch.no_grad():
        assert not torch.equal(loaded.model(ids).logits, base.model(ids).logits)


def test_a_checkpoint_is_an_adapter_too(place, finished):
    assert same(weights(finished), weights(finished / "checkpoint-3"))
    assert model.load(str(place / "base"), adapter=finished / "checkpoint-2").contract is not None


def test_the_first_example_is_shown_token_by_token_with_role_and_weight(finished):
    lines = (finished / "labels.txt").read_text().splitlines()
    assert any(line.split()[1:3] == ["context", "x0"] for line in lines)
    assert any(line.split()[1:3] == ["executor", "x1"] and "read" in line for line in lines)


def test_every_step_logs_the_loss_of_every_speaker(finished):
    logged = Run(finished).metrics()
    assert [entry["step"] for entry in logged] == [1, 2, 3]
    for entry in logged:
        assert {"loss/reasoner", "loss/executor", "loss/summarizer", "tokens_per_second", "learning_rate"} <= set(entry)


def test_a_run_shorter_than_its_logging_steps_logs_its_last_step(place, finished, tmp_path, capsys):
    run = train(recipe_of(place, tmp_path, logging_steps=10), tmp_path / "run")
    assert "step 3/3" in capsys.readouterr().out
    (entry,) = Run(run).metrics()
    assert entry["loss"] == pytest.approx(sum(one["loss"] for one in Run(finished).metrics()) / 3)
    assert same(weights(run), weights(finished))


def test_the_logged_loss_is_the_mean_over_trained_tokens(place, tmp_path):
    run = train(recipe_of(place, tmp_path, max_steps=1, per_device_train_batch_size=8), tmp_path / "run")
    (entry,) = Run(run).metrics()
    sums, tokens = 0.0, 0
    for line in (run / "labels.txt").read_text().splitlines():
        words = line.replace(",", "").split()
        if words[0] in ("reasoner", "executor", "summarizer"):
            sums += entry[f"loss/{words[0]}"] * int(words[3])
            tokens += int(words[3])
    assert entry["loss"] == pytest.approx(sums / tokens, rel=1e-5)


def test_the_settings_left_behind_train_the_same_again(place, finished, tmp_path):
    again = launch(finished / "settings.yaml", tmp_path / "again")
    assert same(weights(again), weights(finished))


def test_tensorboard_gets_the_loss_of_every_speaker(place, tmp_path):
    run = train(recipe_of(place, tmp_path, max_steps=1, report_to="tensorboard"), tmp_path / "run")
    (events,) = run.glob("runs/*/events.out.tfevents*")
    assert b"train/loss/executor" in events.read_bytes()


def test_training_lowers_the_loss(place, tmp_path):
    run = train(recipe_of(place, tmp_path, max_steps=20, logging_steps=5), tmp_path / "run")
    losses = [entry["loss"] for entry in Run(run).metrics()]
    assert losses[-1] < losses[0] - 0.5


def test_gradient_checkpointing_changes_memory_only(place, finished, tmp_path):
    run = train(recipe_of(place, tmp_path, gradient_checkpointing=True), tmp_path / "run")
    assert largest_difference(run, finished) < 1e-6


def test_bf16_changes_the_loss_a_little(place, finished, tmp_path):
    run = train(recipe_of(place, tmp_path, bf16=True), tmp_path / "run")
    exact, rounded = ([entry["loss"] for entry in Run(folder).metrics()] for folder in (finished, run))
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=0.02)


def test_accumulated_gradients_are_those_of_the_whole_batch(place, finished, tmp_path):
    cut = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}
    run = train(recipe_of(place, tmp_path, **cut), tmp_path / "run")
    assert largest_difference(run, finished) < 1e-5


# ---- refusals


def test_a_folder_that_holds_a_run_is_not_overwritten(place, finished):
    with pytest.raises(SettingsError, match=r"holds a run already.*--resume.*--output"):
        train(recipe_of(place, finished.parent, save_steps=2), finished)


@pytest.mark.parametrize(
    ("rows", "told"),
    [(None, "no file"), ('{"messages": 3}\n', "data.jsonl:1"), ("", "data.jsonl")],
)
def test_bad_data_are_told_before_a_folder_that_holds_a_run(place, finished, tmp_path, rows, told):
    data = tmp_path / "data.jsonl"
    if rows is not None:
        data.write_text(rows)
    recipe = recipe_of(place, tmp_path)
    with pytest.raises(UserError, match=told):
        train(replace(recipe, data=replace(recipe.data, path=str(data))), finished)


def test_a_run_is_not_resumed_with_other_settings(place, finished):
    with pytest.raises(SettingsError, match=r"training\.learning_rate: 0\.01 -> 0\.5"):
        train(recipe_of(place, finished.parent, save_steps=2, learning_rate=0.5), finished, resume=True)


def test_a_run_is_not_resumed_on_other_data(place, tmp_path):
    data = write_data(tmp_path / "data.jsonl", [trajectory(0, "Ro"), trajectory(1, "Mi")])
    recipe = recipe_of(place, tmp_path, max_steps=2, save_steps=1)
    recipe = replace(recipe, data=replace(recipe.data, path=str(data)))
    train(recipe, tmp_path / "run")
    write_data(data, [trajectory(0, "Ro"), trajectory(2, "Mi")])
    with pytest.raises(DataError, match="the data is not what"):
        train(recipe, tmp_path / "run", resume=True)


def untrained(one: Trajectory) -> Trajectory:
    kept = (message.edited(weight=0.0) if message.role == "assistant" else message for message in one.messages)
    return replace(one, messages=tuple(kept))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (untrained, "nothing would be trained"),
        (lambda one: replace(one, messages=(*one.messages[:-1], one.messages[-1].edited(speaker="poet"))), "'poet'"),
        (lambda one: trajectory(200, "Ro"), "longer than max_length"),
    ],
)
def test_data_that_must_not_be_trained_is_refused(place, tmp_path, damage, told):
    data = write_data(tmp_path / "data.jsonl", [damage(trajectory(0, "Ro"))])
    recipe = recipe_of(place, tmp_path)
    with pytest.raises(DataError, match=told):
        train(replace(recipe, data=replace(recipe.data, path=str(data), max_length=200)), tmp_path / "run")


def test_rows_that_must_not_be_trained_are_told_and_left_out_if_asked(place, tmp_path, capsys):
    data = write_data(tmp_path / "data.jsonl", [trajectory(0, "Ro"), trajectory(200, "Ro"), trajectory(1, "Mi")])
    with data.open("a") as file:
        file.write('{"messages": 3}\n')
    recipe = recipe_of(place, tmp_path)
    settings = replace(recipe.data, path=str(data), max_length=200, on_bad_row="skip")
    train(replace(recipe, data=settings), tmp_path / "run")
    told = capsys.readouterr().out
    assert "2 examples of 3 trajectories" in told
    assert "left out: trajectory 't200'" in told
    assert "data.jsonl:4" in told


def test_a_recipe_without_data_says_how_to_name_it(place, tmp_path):
    recipe = recipe_of(place, tmp_path)
    with pytest.raises(SettingsError, match=r"data\.path"):
        train(replace(recipe, data=replace(recipe.data, path=None)), tmp_path / "run")


def test_an_unknown_recipe_is_answered_with_those_there_are():
    with pytest.raises(NotFound, match="quickstart"):
        find_recipe("quikstart")


# ---- counting


def test_parameters_are_counted_without_weights(place):
    counted = count_parameters(str(place / "base" / "config.json"), load_recipe(find_recipe("lora"), ["adapter.r=4"]))
    assert counted["trainable"] == 4 * (4 * 32 + 3 * 48)
    assert counted["base"] == 512 * 16 + 4 * 16 * 16 + 3 * 16 * 32 + 3 * 16


# ---- broken runs

LONG = {"max_steps": 14, "save_steps": 1, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 1}
DROPOUT = ["adapter.lora_dropout=0.2"]


@pytest.fixture(scope="module")
def unbroken(place, tmp_path_factory) -> dict[str, torch.Tensor]:
    """The weights of a long run that nothing stopped; its dropout makes every random number count."""
    folder = tmp_path_factory.mktemp("unbroken")
    return weights(launch(write_recipe(place, folder / "recipe.yaml", **LONG), folder / "run", flags=DROPOUT))


def last_step(run: Path) -> int:
    return max((int(path.name.split("-")[1]) for path in run.glob("checkpoint-*")), default=0)


def started(recipe: Path, run: Path, *, until: int, flags: Sequence[str] = DROPOUT) -> subprocess.Popen[bytes]:
    """Start the run in a process of its own, and return it once it writes checkpoint `until`."""
    script = "from pathlib import Path; from rolecraft.train import launch; " + (
        f"launch(Path({str(recipe)!r}), Path({str(run)!r}), flags={flags!r})"
    )
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while child.poll() is None and last_step(run) < until:
        time.sleep(0.001)
    return child


def test_a_run_killed_while_it_writes_resumes_to_the_same_weights(place, unbroken, tmp_path):
    recipe = write_recipe(place, tmp_path / "recipe.yaml", **LONG)
    run = tmp_path / "run"
    child = started(recipe, run, until=4)
    child.send_signal(signal.SIGKILL)
    _, errors = child.communicate()
    assert child.returncode == -signal.SIGKILL, f"the run ended before it could be killed: {errors!r}"
    assert not (run / "adapter_config.json").exists()
    assert same(weights(launch(recipe, run, flags=DROPOUT, resume=True)), unbroken)


def test_a_half_written_checkpoint_is_passed_over(place, unbroken, tmp_path, capsys):
    recipe = write_recipe(place, tmp_path / "recipe.yaml", **LONG)
    run = tmp_path / "run"
    interrupt_at(run, 3)
    with pytest.raises(Interrupted):
        launch(recipe, run, flags=DROPOUT)
    newest = max(run.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    (newest / "optimizer.pt").write_bytes((newest / "optimizer.pt").read_bytes()[:100])
    assert same(weights(launch(recipe, run, flags=DROPOUT, resume=True)), unbroken)
    assert f"{newest.name} was not written to its end" in capsys.readouterr().out


def test_a_checkpoint_with_numbers_that_are_none_is_not_gone_on_from(place, finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    for file in run.glob("checkpoint-*/adapter_model.safetensors"):
        tensors = load_file(file)
        next(iter(tensors.values()))[0, 0] = torch.nan
        save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(
        ContractError, match=r"adapter_model\.safetensors does not fit .* holds 1 of \d+ numbers that are"
    ):
        train(recipe_of(place, tmp_path, save_steps=2), run, resume=True)


def interrupt_at(run: Path, step: int) -> None:
    """Send this process SIGINT once the run in `run` has saved `step`, as Ctrl-C would."""

    def watch() -> None:
        while last_step(run) < step:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()


def test_ctrl_c_saves_the_step_and_says_how_to_go_on(place, unbroken, tmp_path):
    recipe = write_recipe(place, tmp_path / "recipe.yaml", **LONG | {"save_steps": 2})
    run = tmp_path / "run"
    interrupt_at(run, 2)
    with pytest.raises(Interrupted, match=r"stopped after step (\d+) of 14.*--resume") as told:
        launch(recipe, run, flags=DROPOUT)
    step = int(str(told.value).split()[3])
    assert (run / f"checkpoint-{step}" / "complete.json").exists()
    assert same(weights(launch(recipe, run, flags=DROPOUT, resume=True)), unbroken)
    assert [entry["step"] for entry in Run(run).metrics()] == list(range(1, LONG["max_steps"] + 1))


def test_resuming_a_finished_run_changes_nothing(place, finished):
    before = weights(finished)
    assert same(weights(train(recipe_of(place, finished.parent, save_steps=2), finished, resume=True)), before)


def test_resuming_what_was_never_begun_begins_it(place, finished, tmp_path, capsys):
    run = train(recipe_of(place, tmp_path, save_steps=2), tmp_path / "run", resume=True)
    assert "beginning anew" in capsys.readouterr().out
    assert same(weights(run), weights(finished))


def test_two_processes_train_what_one_does(place, finished, tmp_path):
    run = train(recipe_of(place, tmp_path, processes=2, per_device_train_batch_size=2), tmp_path / "run")
    assert largest_difference(run, finished) < 1e-5
    whole, parts = (Run(folder).metrics()[0] for folder in (finished, run))
    for name in ("loss", "loss/reasoner", "loss/executor", "loss/summarizer"):
        assert parts[name] == pytest.approx(whole[name], rel=1e-5)


def test_two_processes_tell_the_first_row_that_must_not_be_trained(place, tmp_path):
    rows = [trajectory(0, "Ro"), trajectory(1, "Mi"), trajectory(200, "Ro"), trajectory(201, "Mi")]
    data = write_data(tmp_path / "data.jsonl", rows)
    recipe = recipe_of(place, tmp_path, processes=2)
    with pytest.raises(DataError, match=r"trajectory 't200'.*--on-bad-row skip"):
        train(replace(recipe, data=replace(recipe.data, path=str(data), max_length=200)), tmp_path / "run")


@pytest.mark.slow
def test_ctrl_c_stops_two_processes_at_the_same_step(place, tmp_path):
    recipe = write_recipe(place, tmp_path / "recipe.yaml", **LONG, processes=2)
    whole = launch(recipe, tmp_path / "whole", flags=DROPOUT)
    run = tmp_path / "run"
    child = started(recipe, run, until=4)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate()
    assert b"Interrupted: stopped after step" in errors
    assert same(weights(launch(recipe, run, flags=DROPOUT, resume=True)), weights(whole))
