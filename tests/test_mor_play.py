"""A Mixture of Roles from training to play: what was trained is what is served, in all three assignments."""

import asyncio
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file
from test_mor import shaken
from test_train import largest_difference, recipe_of, trajectory, write_data

from rolecraft import cli, contract, examples, model, team
from rolecraft.adapters import mor
from rolecraft.contract import Contract
from rolecraft.engine import LocalEngine, Settings
from rolecraft.errors import ContractError, EngineError
from rolecraft.gate import Gate
from rolecraft.model import Loaded
from rolecraft.recipe import load_recipe, read_recipe, read_rows, recipe_to_dict
from rolecraft.store import BadRows, Run
from rolecraft.train import train
from rolecraft.train.batches import Batch, Cut, Schedule
from rolecraft.train.rows import Rows
from rolecraft.types import Message, Prompt, Sampling

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

ROLES = ("reasoner", "executor", "summarizer")
ASSIGNMENTS = ("stream", "reencode", "activated")


def players(tokenizer, assignment: str, context: str | None = "reasoner") -> Loaded:
    """A tiny random model with a Mixture of Roles that changes much."""
    loaded = tiny.loaded(tokenizer)
    settings = mor.Settings(r=4, assignment=assignment, context=context)
    torch.manual_seed(1)
    tuned = shaken(mor.attach(loaded.model, settings)).eval()
    return Loaded("tiny", tuned, tokenizer, loaded.renderer, "", "", gate=mor.gate(settings))


def conversation(engine: LocalEngine, speakers) -> list:
    """Let the speakers reply in turn; return their turns."""

    async def talk():
        messages, turns = [Message("user", "debt of Plalples and rank of Ro")], []
        for speaker in speakers:
            sampling = Sampling(max_tokens=9)
            (completion,) = await engine.complete(Prompt(tuple(messages), (), speaker, sampling=sampling))
            turns.append(completion.turn)
            messages.append(completion.message)
            if speaker == "executor":
                messages.append(Message("tool", "3809"))
        return turns

    return asyncio.run(talk())


def spoken(loaded: Loaded, turns, place: int):
    """Return what a full forward pass says of the tokens of a turn, with the role ids that the gate gives by hand."""
    turn = turns[place]
    ids = turn.prompt_ids + turn.token_ids
    header = len(loaded.renderer.header(turn.speaker))
    view = [Message("user", "debt of Plalples and rank of Ro")]
    for earlier in turns[:place]:
        view.append(earlier.message)
        if earlier.speaker == "executor":
            view.append(Message("tool", "3809"))
    opening = loaded.renderer.opening(view, (), turn.speaker)
    assert opening.ids == turn.prompt_ids
    speakers = opening.speakers + (turn.speaker,) * len(turn.token_ids)
    roles = loaded.gate.ids(speakers, turn.speaker, len(opening.ids) - header)
    with torch.no_grad():
        logits = loaded.model(torch.tensor([ids]), role_ids=torch.tensor([roles])).logits[0, len(opening.ids) - 1 : -1]
    return logits.log_softmax(-1).gather(-1, torch.tensor(turn.token_ids)[:, None])[:, 0]


@pytest.mark.parametrize("context", ["reasoner", None])
@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_turns_played_with_a_cache_are_those_of_full_forward_passes(nano_tokenizer, assignment, context):
    loaded = players(nano_tokenizer, assignment, context)
    with LocalEngine(loaded, Settings(max_requests=4)) as engine:
        turns = conversation(engine, ("reasoner", "executor", "reasoner", "summarizer"))
    for place, turn in enumerate(turns):
        torch.testing.assert_close(torch.tensor(turn.logprobs), spoken(loaded, turns, place), atol=1e-4, rtol=1e-4)
        assert set(turn.role_ids) == {ROLES.index(turn.speaker)}


def test_a_hand_over_in_a_stream_recomputes_nothing(nano_tokenizer):
    with LocalEngine(players(nano_tokenizer, "stream"), Settings(max_requests=1)) as engine:
        turns = conversation(engine, ("reasoner", "executor", "reasoner", "summarizer"))
    for before, turn in pairwise(turns):
        known = len(before.prompt_ids) + len(before.token_ids)
        assert turn.usage.cached >= known - 1  # the last token written was never fed back


def test_other_assignments_recompute_what_another_role_computed(nano_tokenizer):
    cached = {}
    for assignment in ASSIGNMENTS:
        with LocalEngine(players(nano_tokenizer, assignment), Settings(max_requests=4)) as engine:
            turns = conversation(engine, ("reasoner", "executor"))
        cached[assignment] = turns[1].usage.cached
        header = len(engine.loaded.renderer.header("reasoner"))
    assert cached["reencode"] == 0
    assert cached["activated"] == len(turns[0].prompt_ids) - header
    assert cached["stream"] > cached["activated"]


def test_a_speaker_without_loras_is_refused(nano_tokenizer):
    with (
        LocalEngine(players(nano_tokenizer, "stream")) as engine,
        pytest.raises(EngineError, match=r"'assistant' has no LoRAs.*reasoner, executor, summarizer"),
    ):
        asyncio.run(engine.complete(tiny.prompt("hello")))


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_role_ids_in_training_are_those_in_play(nano_tokenizer, assignment):
    loaded = players(nano_tokenizer, assignment)
    told, mixed = trajectory(1, "Plalples"), team.find("mor", instructions=False)
    built = examples.build(told, mixed, loaded.renderer, gate=loaded.gate)
    assert len(built) == (1 if assignment == "stream" else 4)
    replies = [place for place, message in enumerate(told.messages) if message.role == "assistant"]
    for number, place in enumerate(replies):
        speaker = told.messages[place].speaker
        opening = loaded.renderer.opening(told.messages[:place], told.task.tools, speaker)
        start = len(opening.ids) - len(loaded.renderer.header(speaker))
        played = loaded.gate.ids(opening.speakers, speaker, start)
        trained = built[0 if assignment == "stream" else number]
        assert trained.ids[: len(played)] == opening.ids
        assert trained.roles[: len(played)] == played


# ---- training


def mixture_recipe(place, tmp_path, assignment="stream", **training):
    recipe = recipe_to_dict(recipe_of(place, tmp_path, **training))
    recipe["adapter"] = {"name": "mor", "r": 4, "init_weights": "lora", "assignment": assignment}
    return read_recipe(recipe)


@pytest.fixture(scope="module")
def place(tmp_path_factory, nano_tokenizer) -> Path:
    folder = tmp_path_factory.mktemp("mor")
    tiny.model(512, max_position_embeddings=256).save_pretrained(folder / "base")
    nano_tokenizer.save_pretrained(folder / "base")
    names = "Plalples Ro Kavestor Mi Linpla Tor Vesmi Kapla".split()
    write_data(folder / "data.jsonl", [trajectory(number, name) for number, name in enumerate(names)])
    return folder


@pytest.fixture(scope="module", params=ASSIGNMENTS)
def finished(place, tmp_path_factory, request) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    return train(mixture_recipe(place, folder, request.param), folder / "run")


def test_a_trained_mixture_loads_with_its_gate_and_plays(place, finished):
    loaded = model.load(str(place / "base"), adapter=finished)
    assert loaded.gate == loaded.contract.gate
    assert loaded.gate.roles == ROLES
    with LocalEngine(loaded) as engine:
        turns = conversation(engine, ROLES)
    assert [turn.role_ids[0] for turn in turns] == [0, 1, 2]


def test_both_losses_are_logged_by_role_and_layer_group(finished):
    logged = {name for entry in Run(finished).metrics() for name in entry}
    for name in ("balance/reasoner/early", "orthogonality/executor/late", "similarity/summarizer", "loss/executor"):
        assert name in logged


def test_the_load_of_the_routers_is_left_beside_the_adapter(finished):
    assert (finished / "router_load.json").stat().st_size > 100


def test_an_adapter_whose_gate_was_changed_is_refused(place, finished, tmp_path):
    config = finished / "adapter_config.json"
    before = config.read_text()
    config.write_text(before.replace('"context": "reasoner"', '"context": null'))
    try:
        with pytest.raises(ContractError, match="tuned with the gate"):
            model.load(str(place / "base"), adapter=finished)
    finally:
        config.write_text(before)


def test_two_processes_of_which_each_sees_some_roles_train_what_one_does(place, tmp_path):
    # Four examples a step, cut into two processes by length: reencoded replies of one role have like lengths.
    settings = {"max_steps": 2, "per_device_train_batch_size": 4}
    flags = ["adapter.balance_coef=0.0"]  # the load is counted per process
    one, two = (
        load_recipe(
            write(place, tmp_path / f"{processes}.yaml", {**settings, "processes": processes,
                  "per_device_train_batch_size": 4 // processes}), flags)
        for processes in (1, 2)
    )  # fmt: skip
    assert any(mine != other for mine, other in zip(*roles_of_batches(place, two), strict=True))
    runs = [train(recipe, tmp_path / f"run{number}") for number, recipe in enumerate((one, two))]
    assert largest_difference(*runs) < 1e-5
    assert any("mor_router" in key for key in load_file(runs[0] / "adapter_model.safetensors"))


def roles_of_batches(place, recipe) -> list[list[set[int]]]:
    """Return for each process which roles the batches that it trains hold, a batch a step."""
    loaded = model.load(str(place / "base"))
    rows, players = read_rows(recipe.data, BadRows()), team.find("mor", instructions=False)
    built = examples.build_all(rows, players, loaded.renderer, gate=mor.gate(recipe.adapter.settings)).examples
    lengths = [len(one.ids) for one in built]
    weights = [sum(one.weights[1:]) for one in built]
    training = recipe.training
    cut = Cut(training.per_device_train_batch_size, training.gradient_accumulation_steps, training.processes)
    schedules = [Schedule(lengths, weights, cut, training.seed, process) for process in range(cut.processes)]
    return [
        [{role for row in batch.rows for role in built[row].roles} for (batch,) in islice(schedule, training.max_steps)]
        for schedule in schedules
    ]


def test_rows_that_only_fill_up_a_step_pay_no_balance_loss_and_count_for_no_load(nano_tokenizer):
    loaded = players(nano_tokenizer, "stream")
    built = examples.build(trajectory(1, "Plalples"), team.find("mor"), loaded.renderer, gate=loaded.gate)
    rows, tuned = Rows(built, ROLES, 0), loaded.model.train()
    tuned.peft_config["default"].orthogonality_coef = 0.0
    paid = []
    for scale in (0.0, 0.1):
        batch = rows[Batch((0,), scale)]
        tuned(input_ids=batch["ids_BT"], **mor.inputs(batch["roles_BT"]))
        paid.append((mor.penalty(tuned).item() > 0, bool(mor.loads(tuned))))
    assert paid == [(False, False), (True, True)]


# ---- teams that the gate cannot serve


@pytest.fixture
def secretive(tmp_path) -> Path:
    """A team of the user's own, whose roles are told different things."""
    path = tmp_path / "secretive.py"
    path.write_text(
        "from dataclasses import replace\n"
        "from rolecraft import team\n"
        'TOLD = team.find("mor")\n'
        'ROLES = (replace(TOLD.roles[0], instructions="think"), *TOLD.roles[1:])\n'
        'TEAM = replace(TOLD, name="secretive", roles=ROLES)\n'
    )
    return path


def test_a_stream_is_not_trained_for_a_team_whose_views_do_not_only_append(place, tmp_path, secretive):
    recipe = mixture_recipe(place, tmp_path)
    recipe = replace(recipe, team=replace(recipe.team, preset=secretive, instructions=True))
    with pytest.raises(ContractError, match="'secretive' see different texts or tools"):
        train(recipe, tmp_path / "run")


def test_a_stream_is_not_played_by_a_team_whose_views_do_not_only_append(place, tmp_path, secretive, capsys):
    mor.MoRConfig().save_pretrained(tmp_path)
    gate = Gate(ROLES, "stream", "reasoner")
    contract.save(Contract(str(place / "base"), "", "", "hermes", "", (), team="mor", gate=gate), tmp_path)
    line = ["eval", "--adapter", str(tmp_path), "--team", str(secretive), "--output", str(tmp_path / "run")]
    assert cli.main(line) == 2
    assert "'secretive' see different texts or tools" in capsys.readouterr().err


def write(place, path, training):
    import yaml

    recipe = recipe_to_dict(mixture_recipe(place, path.parent / path.stem, "reencode", **training))
    path.write_text(yaml.safe_dump(recipe))
    return path


def test_gates_in_contracts_survive_json(place, finished):
    made = model.contract.read(finished)
    assert isinstance(made.gate, Gate)
    assert made.gate.context == "reasoner"
