"""No Python file is run because another file names it: it is the user who names it, by a flag or a `Path`."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import claims
import pytest
import tiny
import torch
import yaml
from peft import LoraConfig, get_peft_model
from test_evaluate import BENCHMARK

from rolecraft import cli, contract, evaluate, model, recipe, renderers, store, team, train
from rolecraft.errors import ContractError, NotFound, RolecraftError, SettingsError
from rolecraft.recipe import DataSettings, TrainingSettings
from rolecraft.reproduce import cells
from rolecraft.reproduce.claim import Claim
from rolecraft.store import Run

pytestmark = pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing:FutureWarning"
)  # peft 0.21 still asks for it


@pytest.fixture(scope="module")
def saved(nano_tokenizer, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("saved")
    tiny.model(len(nano_tokenizer)).save_pretrained(path / "base")
    nano_tokenizer.save_pretrained(path / "base")
    loaded = model.load(str(path / "base"))
    get_peft_model(loaded.model, LoraConfig(target_modules=["q_proj"])).save_pretrained(path / "adapter")
    contract.save(model.make_contract(loaded), path / "adapter")
    return path


@pytest.fixture
def base(saved, tmp_path) -> Path:
    return shutil.copytree(saved / "base", tmp_path / "base")


@pytest.fixture
def adapter(saved, tmp_path) -> Path:
    return shutil.copytree(saved / "adapter", tmp_path / "adapter")


@pytest.fixture
def evil(tmp_path, monkeypatch) -> Path:
    """A Python file that is anything one may ask for, in the working folder; it leaves `ran` where it is run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text(
        "from pathlib import Path\n"
        "from dataclasses import dataclass\n"
        f"Path({str(tmp_path / 'ran')!r}).touch()\n"
        "from rolecraft.renderers.nano import FORMAT\n"
        "from rolecraft.importers.openai import convert\n"
        "from rolecraft.adapters.lora import *\n"
        "from rolecraft.adapters.lora import Settings\n"
    )
    return tmp_path / "ran"


def change(path: Path, **changes) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_contract_runs_no_file(base, adapter, evil):
    change(adapter / "contract.json", renderer="evil.py")
    with pytest.raises(
        ContractError, match=r"contract\.json: renderer is 'evil\.py', and a contract names one of .*hermes"
    ):
        model.load(str(base), adapter=adapter)
    assert not evil.exists()


@pytest.mark.parametrize("verb", ["chat", "serve --port 0"])
def test_no_verb_runs_the_file_that_a_contract_names(base, adapter, evil, capsys, verb):
    change(adapter / "contract.json", renderer="evil.py")
    assert cli.main([*verb.split(), "--base", str(base), "--adapter", str(adapter)]) == 2
    assert "contract.json: renderer is 'evil.py'" in capsys.readouterr().err
    assert not evil.exists()


def test_a_tokenizers_config_runs_no_file(base, evil):
    change(base / "tokenizer_config.json", rolecraft_renderer="evil.py")
    with pytest.raises(
        NotFound, match=r"rolecraft_renderer in the tokenizer's config of .*'evil\.py' is a Python file"
    ):
        model.load(str(base))
    assert not evil.exists()


def test_an_adapters_config_imports_no_module(base, adapter, evil):
    change(adapter / "adapter_config.json", megatron_config={"a": 1}, megatron_core="evil")
    with pytest.raises(ContractError, match="megatron_config"):
        model.load(str(base), adapter=adapter)
    change(
        adapter / "adapter_config.json",
        megatron_config=None,
        auto_mapping={"base_model_class": "FORMAT", "parent_library": "evil"},
        task_type=None,
    )
    model.load(str(base), adapter=adapter)
    assert not evil.exists()


def test_a_base_with_code_of_its_own_is_refused(base, evil):
    shutil.copy("evil.py", base / "evil.py")
    change(base / "config.json", model_type="mine", auto_map={"AutoConfig": "evil.X", "AutoModelForCausalLM": "evil.X"})
    for load in (model.load, model.load_config):
        with pytest.raises(
            NotFound, match=r"comes with Python code of its own .* and no code that comes with a model is"
        ):
            load(str(base))
    assert not evil.exists()


def test_an_adapter_in_the_bases_folder_is_not_put_on_unseen(base, adapter):
    for file in adapter.glob("adapter_*"):
        shutil.copy(file, base)
    with pytest.raises(NotFound, match="an adapter lies in the same folder"):
        model.load(str(base))


class Touch:
    """Unpickled, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickled_weights_run_nothing(base, adapter, evil):
    (adapter / "adapter_model.safetensors").unlink()
    torch.save({"x": Touch(evil)}, adapter / "adapter_model.bin")
    with pytest.raises(RolecraftError):
        model.load(str(base), adapter=adapter)
    (base / "model.safetensors").unlink()
    torch.save({"x": Touch(evil)}, base / "pytorch_model.bin")
    with pytest.raises(RolecraftError):
        model.load(str(base))
    assert not evil.exists()


NAMED = ["team.preset", "model.renderer", "data.importer", "data.benchmark", "adapter.name"]


def told(name: str, base: Path, tmp_path: Path) -> dict:
    """Return a recipe that would train two steps, and names evil.py as its `name`."""
    rows = [{"messages": [{"role": "user", "content": "I"}, {"role": "assistant", "content": "result"}]}] * 2
    store.write_jsonl(tmp_path / "rows.jsonl", rows)
    section, _, key = name.partition(".")
    data = {
        "model": {"base": str(base)},
        "data": {} if key == "benchmark" else {"path": str(tmp_path / "rows.jsonl")},
        "training": {"max_steps": 1},
    }
    data.setdefault(section, {})[key] = "evil.py"
    return data


@pytest.mark.parametrize("name", NAMED)
def test_a_recipe_runs_no_file(base, evil, tmp_path, name):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(told(name, base, tmp_path)))
    act = partial(train.launch, output_dir=tmp_path / "out") if name == "model.renderer" else recipe.check
    with pytest.raises(NotFound, match=r"'evil\.py' is a Python file.*name it yourself on the command line"):
        act(path)
    assert not evil.exists()


@pytest.mark.parametrize("name", ["model.renderer", "data.importer", "adapter.name"])
def test_a_run_folders_settings_run_no_file_and_a_flag_does(base, evil, tmp_path, name):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(told(name, base, tmp_path)))
    train.launch(path, tmp_path / "out", flags=[f"{name}=evil.py", "training.save_steps=1"])
    assert evil.exists()
    evil.unlink()
    with pytest.raises(NotFound, match=r"'evil\.py' is a Python file"):
        train.launch(tmp_path / "out" / "settings.yaml", tmp_path / "again")
    assert not evil.exists()
    train.launch(path, tmp_path / "out", flags=[f"{name}=evil.py", "training.save_steps=1"], resume=True)
    assert evil.exists()


def test_workers_are_told_the_files_that_the_user_named(evil):
    chosen = recipe.Recipe(
        recipe.ModelSettings(renderer=Path("a b.py")),
        recipe.TeamSettings(),
        DataSettings(importer=Path("evil.py")),
        recipe.AdapterSettings("lora", {}),
        TrainingSettings(),
    )
    assert recipe.own_files(chosen) == ['model.renderer="a b.py"', 'data.importer="evil.py"']


def tune(claim: Claim, base: Path, output: Path) -> None:
    [stage] = cells.stages(claim, "small")
    recipe = stage.recipe
    training = replace(recipe.training, bf16=False, processes=1)
    train.train(replace(recipe, model=replace(recipe.model, base=str(base)), training=training), output)


@pytest.mark.parametrize("name", NAMED)
def test_a_claim_runs_no_file(base, evil, tmp_path, name):
    section, _, key = name.partition(".")
    (tmp_path / "rows.jsonl").write_text("{}\n")
    data = {"data": {"benchmark": None, "path": "rows.jsonl"}} if key == "importer" else {}
    settings = {**data, section: {**data.get(section, {}), key: "evil.py"}}
    claim = claims.make(tmp_path, settings=settings)
    with pytest.raises(NotFound, match=r"'evil\.py' is a Python file"):
        tune(claim, base, tmp_path / "out")
    assert not evil.exists()


def test_an_evaluation_runs_a_file_as_a_path_alone(evil, tmp_path):
    asked = evaluate.Settings(benchmark="evil.py")
    with pytest.raises(NotFound, match=r"'evil\.py' is a Python file"):
        evaluate.tasks(asked, team.find("single"))
    assert not evil.exists()
    (tmp_path / "evil.py").write_text(BENCHMARK)
    assert evaluate.tasks(replace(asked, benchmark=Path("evil.py")), team.find("single"))


def test_a_benchmarks_families_are_members_alone(evil):
    asked = evaluate.Settings(options={"families": ["evil.py"]})
    with pytest.raises(RolecraftError, match=r"evil\.py"):
        evaluate.tasks(asked, team.find("single"))
    assert not evil.exists()


def test_a_report_of_a_run_folder_runs_no_file(evil, tmp_path, capsys):
    run = Run(tmp_path / "run")
    run.write_settings({"adapter": {"name": "evil.py"}, "data": {"benchmark": "evil.py", "importer": "evil.py"}})
    cli.main(["report", str(run.path)])
    assert not evil.exists()


def test_the_flag_of_a_verb_runs_the_users_file(evil, tmp_path, capsys):
    (tmp_path / "bare.yaml").write_text("{}")
    words = ["train", "bare.yaml", "--importer", "evil.py", "--data", "absent.jsonl"]
    assert cli.main(words) == 2
    assert "absent.jsonl" in capsys.readouterr().err
    (tmp_path / "rows.jsonl").write_text("{}\n")
    recipe.check(tmp_path / "bare.yaml", ["data.importer=evil.py", "data.path=rows.jsonl"])
    assert evil.exists()


def test_a_renderer_is_a_path_or_a_member(nano_tokenizer, evil):
    with pytest.raises(NotFound, match=r"'evil\.py' is a Python file"):
        renderers.find(nano_tokenizer, "evil.py")
    assert not evil.exists()
    assert renderers.find(nano_tokenizer, Path("evil.py"))
    assert evil.exists()


def test_settings_read_from_text_never_hold_a_path():
    read = recipe.read_recipe({"model": {"renderer": "evil.py"}, "data": {"importer": "evil.py"}})
    assert (read.model.renderer, read.data.importer) == ("evil.py", "evil.py")
    with pytest.raises(SettingsError, match=r"adapter\.name is 3"):
        recipe.read_recipe({"adapter": {"name": 3}})
