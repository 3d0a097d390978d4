"""P-tuning and LoRA on one model: trained, resumed, saved, loaded, played, refused; the contract is test_contracts'."""

from __future__ import annotations

import asyncio
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
import yaml
from peft import PeftConfig, PeftModel, PromptEncoderConfig, get_peft_model
from safetensors.torch import load_file, save_file
from serving import connected, tiny_team
from test_train import LONG, RECIPE, last_step, same, started, trajectory, write_data
from verbs import call

from rolecraft import adapters, model, train, virtual_tokens
from rolecraft.adapters import lora, prompt
from rolecraft.engine import LocalEngine, Settings
from rolecraft.engine.opened import open_local
from rolecraft.errors import ContextFull, ContractError, DataError, EngineError, SettingsError
from rolecraft.settings import from_dict, to_dict
from rolecraft.stages import load as load_stages
from rolecraft.train import on_policy
from rolecraft.types import Message, Prompt, Sampling, ToolSpec

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")

LORA = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0}
KINDS = {"prompt": None, "both": LORA}
COUNT = 5
KEY = {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]}
TOOLS = (ToolSpec("read_debt", "debt of a company", KEY),)


def settings(kind: str, **changes) -> prompt.Settings:
    return from_dict(prompt.Settings, {"num_virtual_tokens": COUNT, "lora": KINDS[kind], **changes}, "adapter")


@pytest.fixture(scope="module")
def place(tmp_path_factory, nano_tokenizer) -> Path:
    """A folder with a tiny base and a data file."""
    folder = tmp_path_factory.mktemp("prompt")
    tiny.model(len(nano_tokenizer), tie_word_embeddings=True).save_pretrained(folder / "base")
    nano_tokenizer.save_pretrained(folder / "base")
    write_data(folder / "data.jsonl", [trajectory(number, f"Ro{number}") for number in range(6)])
    return folder


def write_recipe(place: Path, path: Path, kind: str, **training: object) -> Path:
    told = {
        **RECIPE,
        "model": {"base": str(place / "base")},
        "data": {"path": str(place / "data.jsonl")},
        "adapter": {"name": "prompt", **to_dict(settings(kind))},
        "training": {**RECIPE["training"], "learning_rate": 0.05, **training},
    }
    path.write_text(yaml.safe_dump(told))
    return path


@pytest.fixture(scope="module", params=KINDS)
def finished(request, place, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    return train.launch(write_recipe(place, folder / "recipe.yaml", request.param), folder / "run")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def engine(place, finished):
    with open_local(str(place / "base"), finished, settings=Settings(weights="float32", max_context=256)) as one:
        yield one


def asks(text: str = "debt of Plalples", **fields) -> Prompt:
    return Prompt((Message("user", text),), sampling=Sampling(max_tokens=12), speaker="reasoner", **fields)


def behind(loaded, *ids: int) -> torch.Tensor:
    return torch.tensor([[*loaded.virtual, *ids]])


# ---- the method


@pytest.mark.parametrize("encoder", ["MLP", "LSTM"])
def test_it_computes_what_pefts_p_tuning_does(encoder):
    torch.manual_seed(3)
    made = settings("prompt", encoder_reparameterization_type=encoder)
    ours = prompt.attach(tiny.model(64), made).eval()
    config = PromptEncoderConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=COUNT,
        encoder_hidden_size=32,
        encoder_reparameterization_type=encoder,
    )
    theirs = get_peft_model(tiny.model(64), config).eval()
    (one,) = virtual_tokens.layers(ours)
    theirs.prompt_encoder["default"].load_state_dict(one.prompt_encoder.state_dict())
    own = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        got = ours(input_ids=torch.cat((torch.tensor([virtual_tokens.ids(ours)]), own), 1)).logits
        torch.testing.assert_close(got, theirs(input_ids=own).logits, rtol=1e-5, atol=1e-5)


def test_both_parts_are_trained_and_the_base_is_not():
    tuned = prompt.attach(tiny.model(64), settings("both"))
    trained = {name for name, one in tuned.named_parameters() if one.requires_grad}
    assert any("lora_A" in name for name in trained)
    assert any("prompt_encoder" in name for name in trained)
    assert all("lora_" in name or "prompt_encoder" in name for name in trained)


def test_its_cost_is_that_of_its_parts():
    own = sum(one.numel() for one in prompt.PromptConfig().make_encoder(32).parameters())
    alone = adapters.count_trainable(lora.attach(tiny.model(64), from_dict(lora.Settings, LORA, "adapter")))
    made = prompt.Settings(lora=from_dict(lora.Settings, LORA, "adapter"))
    assert adapters.count_trainable(prompt.attach(tiny.model(64), made)) == own + alone


def test_no_logit_is_a_virtual_tokens():
    tuned = prompt.attach(tiny.model(64), settings("both")).eval()
    assert tuned(input_ids=torch.tensor([[*virtual_tokens.ids(tuned), 3]])).logits.shape[-1] == 64


def test_a_second_prompt_on_one_model_is_refused():
    tuned = prompt.attach(tiny.model(64), settings("prompt"))
    with pytest.raises(ValueError, match="has virtual tokens already"):
        tuned.add_adapter("other", tuned.peft_config["default"])


def test_what_is_unloaded_is_the_base():
    ids = torch.tensor([[3, 4, 5]])
    tuned = prompt.attach(tiny.model(64), settings("both")).eval()
    torch.testing.assert_close(tuned.unload()(input_ids=ids).logits, tiny.model(64)(input_ids=ids).logits)


@pytest.mark.parametrize(
    "wrong",
    [{"num_virtual_tokens": 0}, {"encoder_hidden_size": 0}, {"encoder_dropout": 1.0}, {"lora": {"r": 0}}],
)
def test_a_size_that_cannot_be_is_named(wrong):
    ((name, _),) = wrong.items()
    with pytest.raises(SettingsError, match=r"adapter\.r is 0" if name == "lora" else rf"adapter\.{name} is"):
        from_dict(prompt.Settings, wrong, "adapter")


# ---- trained and saved


def test_one_folder_holds_both_parts_and_loads_as_they_were_trained(place, finished):
    loaded = model.load(str(place / "base"), adapter=finished)
    assert len(loaded.virtual) == COUNT
    names = weights(finished)
    assert any("prompt_encoder" in name for name in names)
    assert any("lora_A" in name for name in names) == (finished.parent.name.startswith("both"))
    plain = PeftModel.from_pretrained(model.load(str(place / "base")).model, finished).eval()
    ids = behind(loaded, 3, 5, 7)
    assert torch.equal(loaded.model(input_ids=ids).logits, plain(input_ids=ids).logits)


def test_training_changed_both_the_prompt_and_what_it_says(place, finished):
    fresh = prompt.attach(model.load(str(place / "base")).model, settings("prompt"))
    before = virtual_tokens.rows(fresh)
    after = virtual_tokens.rows(model.load(str(place / "base"), adapter=finished).model)
    assert after.shape == before.shape
    changed = [name for name, one in weights(finished).items() if "lora_B" in name and one.abs().max() > 0]
    assert bool(changed) == finished.parent.name.startswith("both")


def test_a_run_goes_on_from_its_checkpoint_to_the_same_weights(place, tmp_path):
    told, run = write_recipe(place, tmp_path / "recipe.yaml", "both", max_steps=4, save_steps=2), tmp_path / "run"
    unbroken = weights(train.launch(told, run))
    for path in run.iterdir():
        if path.is_file() and path.name not in ("settings.yaml", "references.jsonl"):
            path.unlink()
    shutil.rmtree(run / "checkpoint-4")
    assert (run / "checkpoint-2").is_dir()
    assert same(weights(train.launch(told, run, resume=True)), unbroken)


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_weights(place, tmp_path):
    told, run = write_recipe(place, tmp_path / "recipe.yaml", "both", **LONG), tmp_path / "run"
    unbroken = weights(train.launch(told, tmp_path / "unbroken"))
    child = started(told, run, until=4, flags=[])
    child.send_signal(signal.SIGKILL)
    _, errors = child.communicate()
    assert child.returncode == -signal.SIGKILL, f"the run ended before it could be killed: {errors!r}"
    assert last_step(run) >= 4
    assert same(weights(train.launch(told, run, resume=True)), unbroken)


def test_a_missing_part_is_named(place, finished, tmp_path):
    for path in finished.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    kept = weights(tmp_path)
    (gone,) = (name for name in kept if name.endswith("prompt_encoder.embedding.weight"))
    save_file({name: one for name, one in kept.items() if name != gone}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ContractError, match=r"prompt_encoder\.embedding\.weight' is missing"):
        model.load(str(place / "base"), adapter=tmp_path)


def test_peft_is_told_what_to_import_where_it_does_not_know_the_method(finished):
    told = (finished / "adapter_config.json").read_text()
    assert "run `import rolecraft.adapters.prompt` before loading this adapter" in told
    assert isinstance(PeftConfig.from_pretrained(finished), prompt.PromptConfig)
    assert "import rolecraft.adapters.prompt" in (finished / "README.md").read_text()
    assert "virtual_tokens.ids" in (finished / "README.md").read_text()


# ---- played


@pytest.mark.parametrize("form", ["float32", "int8"])
def test_the_engine_says_what_the_model_says(place, finished, form):
    tuned = model.load(str(place / "base"), adapter=finished)
    with open_local(str(place / "base"), finished, settings=Settings(weights=form, max_context=256)) as engine:
        assert engine._runner.fused
        (completion,) = asyncio.run(engine.complete(asks()))
        turn = completion.turn
        assert turn.prompt_ids[:COUNT] == tuned.virtual
        with torch.no_grad():
            ids = torch.tensor([[*turn.prompt_ids, *turn.token_ids]])
            said = tuned.model(input_ids=ids).logits[0].log_softmax(-1)
    wanted = [float(said[len(turn.prompt_ids) - 1 + place, token]) for place, token in enumerate(turn.token_ids)]
    assert turn.logprobs == pytest.approx(wanted, abs=1e-4 if form == "float32" else 0.5)


def test_transformers_own_forward_plays_it_too(place, finished):
    said = []
    for fused in (True, False):
        with open_local(str(place / "base"), finished, settings=Settings(weights="float32", fused=fused)) as engine:
            said += asyncio.run(engine.complete(asks()))
    assert said[0].turn.token_ids == said[1].turn.token_ids


def test_a_reply_does_not_depend_on_what_is_asked_beside_it(engine):
    prompts = [asks(f"debt of Ro{number}" + " user" * number) for number in range(6)]

    async def together(engine):
        return await asyncio.gather(*map(engine.complete, prompts))

    beside = [one.turn.token_ids for (one,) in asyncio.run(together(engine))]
    alone = [asyncio.run(engine.complete(one))[0].turn.token_ids for one in prompts]
    assert beside == alone


def test_virtual_tokens_are_computed_once_for_all_prompts(engine):
    asyncio.run(engine.complete(asks("rank")))
    (other,) = asyncio.run(engine.complete(asks("debt")))
    assert other.turn.usage.cached >= COUNT


def test_virtual_tokens_take_their_part_of_the_context(place, finished):
    with open_local(str(place / "base"), finished, settings=Settings(weights="float32", max_context=64)) as engine:
        (whole,) = asyncio.run(engine.complete(asks("user")))
        room = 64 - len(whole.turn.prompt_ids)
        assert whole.turn.usage.prompt == len(whole.turn.prompt_ids)
        with pytest.raises(ContextFull):
            asyncio.run(engine.complete(asks("user" + " user" * room)))


def test_constrained_calls_and_prefixes_go_on_behind_the_prompt(engine):
    held = Prompt((Message("user", "debt"),), TOOLS, "reasoner", choice="required", sampling=Sampling(max_tokens=160))
    (completion,) = asyncio.run(engine.complete(held))
    (begun,) = asyncio.run(engine.complete(asks(prefix="I need")))
    assert {one.name for one in completion.message.tool_calls} == {"read_debt"}
    assert begun.message.content.startswith("I need")


def test_what_the_engine_scores_is_what_it_wrote(engine):
    (one,) = asyncio.run(engine.complete(asks()))
    ids, start = (*one.turn.prompt_ids, *one.turn.token_ids), len(one.turn.prompt_ids)
    scored = asyncio.run(engine.score(ids, start))
    assert scored.logprobs == pytest.approx(one.turn.logprobs, abs=1e-4)
    beyond = len(engine.loaded.tokenizer) + COUNT
    with pytest.raises(EngineError, match=f"token {beyond} is none"):
        asyncio.run(engine.score((*ids[:-1], beyond), start))


def test_a_model_that_is_still_trained_is_played_as_it_is(nano_tokenizer):
    loaded = tiny.loaded(nano_tokenizer)
    tuned = prompt.attach(loaded.model, settings("prompt"))
    made = replace(loaded, model=tuned, virtual=virtual_tokens.ids(tuned))
    with LocalEngine(made, Settings(weights="float32", max_context=128)) as engine:
        first = asyncio.run(engine.complete(asks()))[0].turn
        with torch.no_grad():
            for one in tuned.parameters():
                if one.requires_grad:
                    one.normal_()
        engine.forget()
        second = asyncio.run(engine.complete(asks()))[0].turn
        assert engine._runner.fused
    assert first.logprobs != second.logprobs


def test_it_is_served(engine):
    with connected(tiny_team(engine)) as client:
        asked = [{"role": "user", "content": "rank"}]
        answer = client.chat.completions.create(model="tiny", messages=asked, max_tokens=8)
        (own,) = asyncio.run(engine.complete(Prompt((Message("user", "rank"),), sampling=Sampling(max_tokens=8))))
    assert answer.usage.prompt_tokens == len(own.turn.prompt_ids)


# ---- refused by name


def test_merge_refuses_it_and_says_what_could_be_merged(finished, tmp_path, capsys):
    code, _, told = call(capsys, "merge", str(finished), str(tmp_path / "out"))
    assert code == 2
    assert "a LoRA in it would go in, but the virtual tokens of P-tuning ('prompt')" in told
    assert not (tmp_path / "out").exists()


def test_a_stage_cannot_start_from_it(tmp_path):
    told = {
        "adapter": {"name": "prompt"},
        "stages": {"first": {}, "second": {"start": "first", "adapter": {"name": "lora"}}},
        "training": {"max_steps": 1},
        "data": {"benchmark": "toolworld"},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(told))
    with pytest.raises(SettingsError, match="'prompt' cannot be merged into its base, since its virtual tokens"):
        load_stages(tmp_path / "recipe.yaml")


def test_a_teacher_with_virtual_tokens_is_refused(nano_tokenizer):
    student = tiny.loaded(nano_tokenizer)
    teacher = replace(student, virtual=(len(nano_tokenizer),))
    with pytest.raises(DataError, match="has virtual tokens, which are not in the student's prompts"):
        on_policy.require_pair(student, teacher)


def test_params_tells_what_it_costs(place, tmp_path, capsys):
    told = write_recipe(place, tmp_path / "recipe.yaml", "both")
    code, said, _ = call(capsys, "params", "--base", str(place / "base"), "--recipe", str(told))
    assert code == 0
    assert f"{COUNT} virtual tokens stand before every prompt" in said
