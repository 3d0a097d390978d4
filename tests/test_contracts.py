"""Every member of an open folder keeps its folder's contract: a new file is tested the moment it exists."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import dataclasses
import importlib
import json
import math
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest
import several

from rolecraft import catalog, commands, judges, store, strategies, virtual_tokens, wire
from rolecraft.commands import __main__ as command_page
from rolecraft.errors import (
    ContractError,
    DataError,
    EngineError,
    MissingExtra,
    NotForkable,
    NotFound,
    SandboxError,
    SettingsError,
)
from rolecraft.judges import calls
from rolecraft.renderers import Format, Renderer
from rolecraft.settings import from_dict, to_dict
from rolecraft.team import Team
from rolecraft.team import divided as divided_messages
from rolecraft.tools import Toolbox, ToolLike, find
from rolecraft.types import Message, Task, ToolCall, ToolSpec, Trajectory, Turn, Verdict


def members(folder: str) -> Callable[..., Any]:
    """Run a test once for each member of `folder`; a folder that is not there has none."""
    try:
        names = catalog.names(folder)
    except ModuleNotFoundError:
        names = []
    return pytest.mark.parametrize("name", names)


def divides(team_name: str) -> bool:
    """Tell whether a team's roles can say what a lone assistant did."""
    return catalog.find("teams", team_name).TEAM.divide is not None


SPEC = ToolSpec(
    "read_debt",
    "debt of a company",
    {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]},
)
CALL = Message("assistant", tool_calls=(ToolCall("read_debt", {"key": "Plalples", "deep": {"n": [1, 2.5, None]}}),))


# tools: a `@tool` function, or `Settings` and `open(settings)`; `EXAMPLE` are settings where the defaults open nothing


@pytest.fixture
def opened() -> Iterator[Callable[[str], tuple[ToolLike, ...]]]:
    """Open the tools of a member, and close them after the test."""
    made: list[ToolLike] = []

    def open_members(name: str) -> tuple[ToolLike, ...]:
        module = catalog.find("tools", name)
        try:
            found = find(name, to_dict(module.EXAMPLE) if hasattr(module, "EXAMPLE") else None)
        except SandboxError as error:
            pytest.skip(f"no sandbox here: {error}")
        made.extend(found)
        return found

    yield open_members
    for member in made:
        member.close()


@members("tools")
def test_tool_is_described_and_its_schema_is_valid(name: str, opened):
    for member in opened(name):
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", member.spec.name)
        assert member.spec.description.strip()
        assert member.spec.parameters["type"] == "object"
        jsonschema.Draft202012Validator.check_schema(member.spec.parameters)
        assert json.loads(json.dumps(member.spec.parameters)) == member.spec.parameters


@members("tools")
def test_tool_parameters_are_annotated_and_described(name: str, opened):
    for member in opened(name):
        for parameter, schema in member.spec.parameters["properties"].items():
            assert {"type", "anyOf", "enum"} & set(schema), f"{parameter} of {member.spec.name} has no type"
            assert schema.get("description", "").strip(), f"{parameter} of {member.spec.name} is not described"
        assert set(member.spec.parameters.get("required", ())) <= set(member.spec.parameters["properties"])


@members("tools")
def test_tool_closes_twice(name: str, opened):
    for member in opened(name):
        member.close()
        member.close()


@members("tools")
def test_tool_forks_or_says_that_it_cannot(name: str, opened):
    for member in opened(name):
        with contextlib.suppress(NotForkable):
            fork = member.fork()
            assert fork.spec == member.spec
            assert fork.state() == member.state()
            fork.close()


@members("tools")
def test_tool_state_is_json(name: str, opened):
    for member in opened(name):
        state = member.state()
        assert json.loads(json.dumps(state)) == state


@members("tools")
@pytest.mark.parametrize("text", ["", "\0", "\ud800", "'\"`;--", "(" * 2000, "x" * 50_000], ids=range(6))
def test_tool_answers_hostile_text_with_an_observation(name: str, text: str, opened):
    for member in opened(name):
        toolbox = Toolbox([member], seconds=20)
        arguments = {key: text for key, schema in properties(member).items() if schema.get("type") == "string"}
        observation = asyncio.run(toolbox.call(ToolCall(member.spec.name, arguments)))
        assert len(observation.text.encode()) < 10_000


@members("tools")
def test_tool_settings_survive_yaml(name: str):
    module = catalog.find("tools", name)
    settings_survive(module)


def properties(member: ToolLike) -> Mapping[str, Any]:
    return member.spec.parameters["properties"]


def settings_survive(module: ModuleType) -> None:
    kind = getattr(module, "Settings", None)
    if kind is None:
        return
    assert dataclasses.is_dataclass(kind)
    assert kind.__dataclass_params__.frozen
    settings = kind()
    assert from_dict(kind, json.loads(json.dumps(to_dict(settings)))) == settings


# importers: `EXAMPLE`, `convert(row)`


@members("importers")
def test_importers_example_converts_to_right_calls(name: str):
    module = catalog.find("importers", name)
    verdict = calls.judge(module.convert(module.EXAMPLE))
    assert (verdict.score, verdict.reason) in ((1.0, ""), (1.0, "no calls"))


@members("importers")
def test_importers_example_has_a_question_and_an_answer(name: str):
    module = catalog.find("importers", name)
    trajectory = module.convert(module.EXAMPLE)
    assert {"user", "assistant"} <= {message.role for message in trajectory.messages}
    assert trajectory.task.messages == trajectory.messages[: len(trajectory.task.messages)]
    assert trajectory.stop == "imported"


@members("importers")
def test_importers_example_calls_a_tool(name: str):
    module = catalog.find("importers", name)
    trajectory = module.convert(module.EXAMPLE)
    assert trajectory.task.tools
    assert any(message.tool_calls for message in trajectory.messages)


@members("importers")
def test_importers_trajectory_is_written_and_read_without_loss(name: str):
    module = catalog.find("importers", name)
    trajectory = module.convert(module.EXAMPLE)
    row = json.loads(json.dumps(wire.trajectory_to_json(trajectory)))
    assert wire.trajectory_from_json(row) == trajectory


@members("importers")
def test_importers_leave_the_row_as_it_was_and_convert_it_alike(name: str):
    module = catalog.find("importers", name)
    row = copy.deepcopy(module.EXAMPLE)
    assert module.convert(row) == module.convert(row)
    assert row == module.EXAMPLE


@members("importers")
@pytest.mark.parametrize("row", [{}, [], None, "text", 3, {"messages": 3}, {"messages": [{}]}], ids=repr)
def test_importers_row_of_another_shape_is_told_with_its_line(name: str, row: Any, tmp_path):
    path = write_rows(tmp_path, catalog.find("importers", name).EXAMPLE, row)
    with pytest.raises(DataError, match=r"rows\.jsonl.*\b2\b"):
        list(store.read_trajectories(path, name))


@members("importers")
def test_importers_row_with_values_of_another_kind_is_converted_or_told(name: str, tmp_path):
    example = catalog.find("importers", name).EXAMPLE
    for key in example:
        for value in (3, {"x": [None]}, [[[]]], "{'", None):
            path = write_rows(tmp_path, {**example, key: value})
            with contextlib.suppress(DataError):
                assert [type(found) for found in store.read_trajectories(path, name)] == [Trajectory]


def write_rows(folder: Path, *rows: Any) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# benchmarks: `Settings`, `SPLITS`, `tasks(settings, split, seed)`, `open(task)`, `reference(task, team_name)`


def drawn(name: str, seed: int = 7) -> tuple[ModuleType, tuple[Task, ...]]:
    """Return a benchmark and a few tasks of its last split."""
    module = catalog.find("benchmarks", name)
    settings = module.Settings()
    if "size" in {field.name for field in dataclasses.fields(settings)}:
        settings = dataclasses.replace(settings, size=14)
    try:
        return module, tuple(module.tasks(settings, module.SPLITS[-1], seed)[:14])
    except (NotFound, MissingExtra) as absent:
        pytest.skip(f"{name} has no data here: {absent}")


def solved(module: ModuleType, task: Task, team_name: str = "single") -> Trajectory:
    return module.reference(task, team_name)


@members("benchmarks")
def test_benchmark_settings_survive_yaml(name: str):
    settings_survive(catalog.find("benchmarks", name))


@members("benchmarks")
def test_benchmark_tasks_depend_on_nothing_but_the_seed(name: str):
    _, once = drawn(name)
    _, again = drawn(name)
    assert once == again
    assert len({task.id for task in once}) == len(once) > 0


@members("benchmarks")
def test_benchmark_without_its_data_tells_where_its_tasks_come_from(name: str, monkeypatch, tmp_path):
    module = catalog.find("benchmarks", name)
    for folder in ("ROLECRAFT_DATA", "ROLECRAFT_BFCL"):
        monkeypatch.setenv(folder, str(tmp_path))
    try:
        module.tasks(module.Settings(), module.SPLITS[0], 0)
    except MissingExtra as absent:
        pytest.skip(f"{name} cannot be asked here: {absent}")
    except NotFound:
        places = module.sources(module.SPLITS[0])
        assert places
        assert all(place.is_relative_to(tmp_path) for place in places)
    else:
        assert not hasattr(module, "sources")


@members("benchmarks")
def test_benchmark_refuses_an_unknown_split(name: str):
    module = catalog.find("benchmarks", name)
    with pytest.raises(SettingsError, match="nowhere"):
        module.tasks(module.Settings(), "nowhere", 0)


@members("benchmarks")
@pytest.mark.parametrize("team_name", [name for name in catalog.names("teams") if name == "single" or divides(name)])
def test_benchmark_judge_accepts_the_reference(name: str, team_name: str):
    module, tasks = drawn(name)
    for task in tasks:
        trajectory = solved(module, task, team_name)
        environment = module.open(task)
        verdict = environment.judge(trajectory)
        environment.toolbox.close()
        assert verdict.score == 1.0, f"{task.id}: {verdict}"


@members("benchmarks")
def test_benchmark_judge_refuses_a_wrong_answer(name: str):
    module, tasks = drawn(name)
    for task in tasks:
        environment = module.open(task)
        verdict = environment.judge(answered_wrongly(task, environment.toolbox.state()))
        environment.toolbox.close()
        assert verdict.score < 0.5, f"{task.id}: {verdict}"


def answered_wrongly(task: Task, state: Mapping[str, Any]) -> Trajectory:
    """An episode that calls the first tool with nothing, learns nothing, and makes an answer up."""
    call = tuple(ToolCall(tool.name, {}) for tool in task.tools[:1])
    called = (Message("assistant", tool_calls=call), Message("tool", "error")) if call else ()
    messages = (*task.messages, *called, Message("assistant", "It is a purple elephant, minus 0.123456."))
    return Trajectory("wrong", task, messages, stop="answered", final_state=state)


@members("benchmarks")
def test_benchmark_judge_refuses_silence(name: str):
    module, tasks = drawn(name)
    for task in tasks:
        environment = module.open(task)
        silent = Trajectory("silent", task, task.messages, stop="max_turns", final_state=environment.toolbox.state())
        environment.toolbox.close()
        assert environment.judge(silent).score < 0.5, task.id


@members("benchmarks")
def test_benchmark_task_opens_after_being_written_and_read(name: str):
    module, tasks = drawn(name)
    for task in tasks[:3]:
        row = wire.trajectory_to_json(Trajectory(task.id, task, solved(module, task).messages))
        read = wire.trajectory_from_json(json.loads(json.dumps(row)))
        environment = module.open(dataclasses.replace(read.task, id=task.id))
        verdict = environment.judge(solved(module, task))
        environment.toolbox.close()
        assert verdict.score == 1.0


@members("benchmarks")
def test_benchmark_opens_the_tools_that_the_task_tells(name: str):
    module, tasks = drawn(name)
    for task in tasks:
        environment = module.open(task)
        assert environment.toolbox.specs == task.tools
        environment.toolbox.close()
        environment.toolbox.close()


# teams: `TEAM`


def team_of(name: str) -> Team:
    found: Team = catalog.find("teams", name).TEAM
    return found


def said(team: Team) -> Iterator[Message]:
    """Everything that may stand last: a question, an observation, each role's silence and each role's call."""
    yield from (Message("user", "debt of Ro?"), Message("tool", "12", tool_call_id="1"), Message("tool", "error: no"))
    for speaker in team.speakers:
        yield from (Message("assistant", speaker=speaker), replace(CALL, speaker=speaker))


@members("teams")
def test_team_has_the_name_of_its_file_and_its_roles_names_of_their_own(name: str):
    team = team_of(name)
    assert team.name == name
    assert team.first in team.speakers
    assert len(set(team.speakers)) == len(team.speakers)
    assert all(role.instructions.strip() for role in team.roles)


@members("teams")
def test_team_hands_over_to_its_own_roles_and_comes_to_an_end(name: str):
    team = team_of(name)
    following = {(m.role, m.speaker, bool(m.tool_calls)): team.next_speaker(m) for m in said(team)}
    assert set(following.values()) <= {*team.speakers, None}
    assert following["tool", None, False] is not None
    assert any(following["assistant", speaker, False] is None for speaker in team.speakers)


@members("teams")
def test_team_goes_where_its_designating_roles_say(name: str):
    team = team_of(name)
    for role in team.roles:
        assert role.choice == "none" or not role.next_roles
        for word in role.next_roles:
            last = Message("assistant", f"It is so. Next: {word}.", speaker=role.name)
            assert (team.next_speaker(last) in team.speakers) != team.gives_up(last)
            assert word not in team.speakers or team.next_speaker(last) == word


@members("teams")
def test_team_gives_up_only_where_its_episode_ends(name: str):
    team = team_of(name)
    assert not any(team.gives_up(message) and team.next_speaker(message) for message in said(team))


@members("teams")
def test_team_divides_a_lone_assistants_messages_into_what_it_would_have_said(name: str):
    team = team_of(name)
    if team.divide is None:
        pytest.skip(f"{name} has no rule to divide messages")
    act = replace(CALL, content="I look it up.", weight=0.5)
    answer = Message("assistant", "<think>I have it.</think>It is 12.", weight=0.5)
    for whole in (act, answer):
        divided = team.divide(whole)
        assert [message.speaker for message in divided] == [team.first, *map(team.next_speaker, divided[:-1])]
        assert [call for message in divided for call in message.tool_calls] == list(whole.tool_calls)
        assert all(message.weight == 0.5 for message in divided)
        assert divided_messages(divided, team) == divided
    assert team.divide(answer)[-1].content == "It is 12."
    assert team.next_speaker(team.divide(answer)[-1]) is None


@members("teams")
def test_team_is_the_same_after_it_was_sent_to_another_process(name: str):
    assert pickle.loads(pickle.dumps(team_of(name))) == team_of(name)


# adapters: `Settings`, `attach`, `gate`, `inputs`, `penalty`, `measure`, `loads`, `merge`


# PEFT 0.21 asks transformers for a name that transformers 5.23 deprecates.
peft_is_late = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


def tiny_llama() -> Any:
    """A random Llama of some ten thousand numbers, the same every time."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    return LlamaForCausalLM(config).eval()


def attached(module: ModuleType, base: Any) -> Any:
    """Return `base` with the adapter on it; the same random numbers every time."""
    import torch

    torch.manual_seed(11)
    settings = module.Settings()
    small = {"r": 4} if "r" in {field.name for field in dataclasses.fields(settings)} else {}
    return module.attach(base, dataclasses.replace(settings, **small)).eval()


def batch() -> tuple[Any, Any]:
    """Return ids (2, 12) and the role of each token (2, 12), -1 for context."""
    import torch

    generator = torch.Generator().manual_seed(3)
    ids_BT = torch.randint(0, 64, (2, 12), generator=generator)
    return ids_BT, torch.tensor([[-1] * 4 + [0] * 3 + [1] * 2 + [2] * 3] * 2)


def begun(module: ModuleType, model: Any, ids_BT: Any, roles_BT: Any) -> tuple[Any, Any]:
    """Return ids and roles behind the adapter's virtual tokens, if it has any."""
    import torch

    virtual = torch.tensor(virtual_tokens.ids(model), dtype=torch.long)
    assert len(virtual) == module.virtual_tokens(module.Settings())
    before = virtual.expand(len(ids_BT), -1)
    return torch.cat((before, ids_BT), 1), torch.cat((torch.full_like(before, -1), roles_BT), 1)


def logits(module: ModuleType, model: Any) -> Any:
    import torch

    ids_BT, roles_BT = begun(module, model, *batch())
    with torch.no_grad():
        return model(input_ids=ids_BT, **module.inputs(roles_BT)).logits


def perturb(model: Any) -> None:
    """Give every trained number another value, as training would."""
    import torch

    generator = torch.Generator().manual_seed(17)
    for parameter in model.parameters():
        if parameter.requires_grad:
            with torch.no_grad():
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)


@members("adapters")
def test_adapter_settings_survive_yaml(name: str):
    settings_survive(catalog.find("adapters", name))


@members("adapters")
def test_adapter_tells_how_tokens_get_their_roles(name: str):
    module = catalog.find("adapters", name)
    gate = module.gate(module.Settings())
    assert gate is None or len(gate.ids((None, gate.roles[0]), gate.roles[0], 1)) == 2


@peft_is_late
@members("adapters")
def test_adapter_measures_finite_numbers_and_shares_of_its_routing(name: str):
    module = catalog.find("adapters", name)
    model = attached(module, tiny_llama()).train()
    ids_BT, roles_BT = batch()
    model(input_ids=ids_BT, **module.inputs(roles_BT))
    assert all(math.isfinite(value) for value in module.measure(model).values())
    for roles in module.loads(model).values():
        assert all(0 <= share <= 1 for shares in roles.values() for share in shares)


@peft_is_late
@members("adapters")
def test_adapter_starts_as_the_base(name: str):
    import torch

    module = catalog.find("adapters", name)
    ids_BT, roles_BT = batch()
    with torch.no_grad():
        before = tiny_llama()(input_ids=ids_BT).logits
        after = attached(module, tiny_llama())(input_ids=ids_BT, **module.inputs(roles_BT)).logits
    torch.testing.assert_close(after, before)


@peft_is_late
@members("adapters")
def test_adapter_gives_what_is_frozen_no_gradient(name: str):
    import torch

    module = catalog.find("adapters", name)
    model = attached(module, tiny_llama())
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    perturb(model)
    ids_BT, speakers_BT = begun(module, model, *batch())
    loss = model(input_ids=ids_BT, **module.inputs(speakers_BT)).logits.float().logsumexp(-1).mean()
    (loss + module.penalty(model)).backward()
    assert all(parameter.grad is None for parameter in frozen)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert trained
    assert any(parameter.grad is not None and torch.any(parameter.grad != 0) for parameter in trained)


@peft_is_late
@members("adapters")
def test_adapter_is_the_same_after_saving_and_loading(name: str, tmp_path):
    import peft
    import torch
    import transformers

    module = catalog.find("adapters", name)
    model = attached(module, tiny_llama())
    perturb(model)
    before = logits(module, model)
    model.save_pretrained(tmp_path)
    if isinstance(model, peft.PeftModel):
        loaded = peft.PeftModel.from_pretrained(tiny_llama(), tmp_path).eval()
    else:
        loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(logits(module, loaded), before, rtol=0, atol=0)


@peft_is_late
@members("adapters")
def test_a_changed_adapter_is_not_the_base(name: str):
    import torch

    module = catalog.find("adapters", name)
    model = attached(module, tiny_llama())
    before = logits(module, model)
    perturb(model)
    assert not torch.allclose(logits(module, model), before, atol=1e-3)


@peft_is_late
@members("adapters")
def test_adapter_merged_is_the_adapter_or_says_that_it_cannot(name: str):
    import torch

    module = catalog.find("adapters", name)
    model = attached(module, tiny_llama())
    perturb(model)
    before = logits(module, model)
    ids_BT, _ = batch()
    with contextlib.suppress(ContractError), torch.no_grad():
        merged = module.merge(model)
        torch.testing.assert_close(merged(input_ids=ids_BT).logits, before, rtol=1e-4, atol=1e-4)


@peft_is_late
@members("adapters")
def test_adapter_penalty_is_a_finite_number_of_nats(name: str):
    import torch

    module = catalog.find("adapters", name)
    model = attached(module, tiny_llama())
    logits(module, model)
    penalty = float(torch.as_tensor(module.penalty(model)).detach())
    assert math.isfinite(penalty)
    assert penalty >= 0


# judges: `judge(trajectory)`


def trajectories() -> dict[str, Trajectory]:
    """Episodes good, bad and hostile."""
    task = Task("t", (Message("user", "What is the debt of Plalples?"),), (SPEC,), reference())
    call = Message("assistant", tool_calls=(ToolCall("read_debt", {"key": "Plalples"}, "c1"),))
    result = Message("tool", "3809", tool_call_id="c1", name="read_debt")
    good = (*task.messages, call, result, Message("assistant", "The debt is 3809."))
    nested: Any = "x"
    for _ in range(800):
        nested = [nested]
    wild = Message(
        "assistant",
        "x\ud800\0" * 5000,
        tool_calls=(ToolCall("", {}), ToolCall("read_debt", {"key": nested}), ToolCall("z" * 9999, {"a" * 9999: 1})),
        unparsed="{" * 9999,
    )
    bare = Task("t", (), ())
    odd = dataclasses.replace(
        task, reference={"answers": 3, "calls": "x", "state": [], "forbidden": {}, "family": None}
    )
    turn = Turn(call, "executor", (1, 2), (3, 4))
    return {
        "good": Trajectory("g", task, good, (turn,), "answered", final_state={"sql": "abc"}),
        "silent": Trajectory("s", task, task.messages, stop="max_turns"),
        "empty": Trajectory("e", bare, ()),
        "unparsed": Trajectory("u", task, (*task.messages, Message("assistant", "", unparsed='{"name":'))),
        "wild": Trajectory("w", task, (*task.messages, wild, Message("tool", "y" * 100_000)), stop="repeated_call"),
        "odd reference": Trajectory("o", odd, good, stop="answered", final_state={"sql": [1]}),
    }


def reference() -> dict[str, Any]:
    calls_made = [{"name": "read_debt", "arguments": {"key": "Plalples"}}]
    return {
        "answers": ["3809"],
        "forbidden": ["12"],
        "calls": calls_made,
        "state": {"sql": "abc"},
        "family": "hub",
        "maths": "3809",
    }


@members("judges")
@pytest.mark.parametrize("kind", list(trajectories()))
def test_judge_gives_a_score_and_parts_within_0_and_1(name: str, kind: str):
    verdict = judged(name, trajectories()[kind])
    assert 0 <= verdict.score <= 1
    assert all(0 <= part <= 1 for part in verdict.parts.values())
    assert len(verdict.reason) < 10_000


@members("judges")
@pytest.mark.parametrize("kind", list(trajectories()))
def test_judge_is_pure(name: str, kind: str):
    trajectory, twin = trajectories()[kind], trajectories()[kind]
    assert judged(name, trajectory) == judged(name, trajectory)
    assert trajectory == twin


@members("judges")
def test_judge_accepts_the_good_episode(name: str):
    assert judged(name, trajectories()["good"]).score == 1.0


def judged(name: str, trajectory: Trajectory) -> Verdict:
    judge = catalog.find("judges", name).judge
    verdict = judge(trajectory)
    assert judges.weigh({name: (judge, 1.0)})(trajectory).score == verdict.score
    return verdict


# renderers: `FORMAT`

_MARKER = re.compile(r"<[^<>\s]+>|\[/?[A-Z_]+\]")


def tokenizer_for(chat: Format) -> Any:
    """Train a byte-level tokenizer on the spot that has the control tokens the format spells."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    spelled = "".join((chat.begin, chat.header, chat.speaker_header, chat.end, chat.gap, *chat.stops, *chat.detect))
    for role in ("system", "user", chat.assistant, chat.results.role):
        spelled += chat.header.replace("{role}", role)
    spelled += "".join(block.open + block.close for block in chat.blocks)
    markers = [marker for marker in dict.fromkeys(_MARKER.findall(spelled)) if "{" not in marker]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=markers, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["debt of a company: read_debt 3809 Plalples"] * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=chat.end.strip())


def rendering(name: str) -> Renderer:
    chat = catalog.find("renderers", name).FORMAT
    return Renderer(chat, tokenizer_for(chat))


@members("renderers")
@pytest.mark.parametrize("speaker", ["assistant", "executor"])
def test_renderer_parses_the_call_it_wrote(name: str, speaker: str):
    renderer = rendering(name)
    message = dataclasses.replace(CALL, speaker=speaker)
    assert renderer.parse(renderer.reply(message), speaker) == message


@members("renderers")
def test_renderers_prompt_begins_the_whole_conversation(name: str):
    renderer = rendering(name)
    asked = (Message("system", "Be brief."), Message("user", "What is the debt of Plalples?"))
    message = dataclasses.replace(CALL, speaker="executor")
    prompt = renderer.prompt(asked, (SPEC,), "executor")
    whole = renderer.render((*asked, message), (SPEC,))
    assert whole.ids[: len(prompt)] == prompt
    assert whole.starts[-1] == len(prompt)
    assert not any(whole.weights[: len(prompt)])
    assert all(weight == 1.0 for weight in whole.weights[len(prompt) : len(prompt) + len(renderer.reply(message))])


@members("renderers")
def test_renderer_ends_a_reply_with_a_stop_token(name: str):
    renderer = rendering(name)
    assert renderer.reply(CALL)[-1] in renderer.stop_ids


@members("renderers")
def test_renderers_format_is_data(name: str):
    module = importlib.import_module(f"rolecraft.renderers.{name}")
    assert isinstance(module.FORMAT, Format)
    functions = [key for key, value in vars(module).items() if callable(value) and value.__module__ == module.__name__]
    assert functions == []


# commands: `GROUP`, `options(parser)` and `run(options)`

PAGE = Path(__file__).parents[1] / "docs" / "command-line.md"
HEAVY = ("torch", "transformers", "numpy", "rich", "yaml", "asyncio")


@members("commands")
def test_command_tells_what_it_does_and_where_it_belongs(name: str):
    command = catalog.find("commands", name)
    assert command.GROUP in commands.GROUPS
    assert name in commands.by_group()[command.GROUP]
    assert re.fullmatch("[A-Z].*[.]", commands.summary(command))
    assert callable(command.run)


@members("commands")
def test_commands_help_loads_its_own_file_and_nothing_heavy(name: str):
    others = [f"rolecraft.commands.{other}" for other in catalog.names("commands") if other != name]
    program = f"""
import sys
from rolecraft import cli
try:
    cli.main([{name!r}, "--help"])
except SystemExit as stop:
    print(stop.code, [module for module in {[*HEAVY, *others]!r} if module in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith(f"usage: rolecraft {name} ")
    assert done.stdout.splitlines()[-1] == "0 []"


@members("commands")
def test_commands_options_are_explained_with_their_defaults(name: str):
    for action in commands.parser(name)._actions:
        assert action.help, action.dest
        assert not action.help.endswith("."), f"{action.dest}: a help text is a phrase, not a sentence"
        if action.nargs != 0 and action.default not in (None, "", (), []):
            default = action.default if not isinstance(action.default, float) else f"{action.default:g}"
            assert f"(default: {default}" in action.help, action.dest


@members("commands")
def test_command_stands_in_the_page_about_all_of_them(name: str):
    assert command_page.section(name) in PAGE.read_text(encoding="utf-8"), (
        "write it anew: python -m rolecraft.commands > docs/command-line.md"
    )


# strategies: `Settings`, `play(episode, settings)`, and if any `NEEDS` and `width(settings)`


@members("strategies")
def test_strategy_settings_survive_yaml(name: str):
    settings_survive(catalog.find("strategies", name))


@members("strategies")
def test_strategy_tells_what_an_engine_must_have(name: str):
    chosen = strategies.choose(name)
    assert set(chosen.needs) <= {"n", "logprobs"}
    assert chosen.width >= 1


@members("strategies")
def test_strategy_plays_an_episode_to_a_record_that_the_judge_has_seen_once(name: str):
    judged = list[Trajectory]()

    def judge(record: Trajectory) -> Verdict:
        judged.append(record)
        return Verdict(0.5)

    script = [[several.calls(("add", {"by": 3}))], [several.says("3")]]
    world = several.world(several.Counter(), judged=judge)
    seen = list[Message]()
    record, _, environment = several.play(name, script, environment=world, watch=seen, players="single")
    assert (record.verdict, len(judged)) == (Verdict(0.5), 1)
    assert record.messages[: len(world.task.messages)] == world.task.messages
    assert tuple(seen) == record.messages[len(world.task.messages) :]
    assert record.final_state == environment.toolbox.state() == {"add": 3}
    assert record.trials is None or record.trials.strategy == name
    assert wire.trajectory_from_json(json.loads(wire.dumps(wire.trajectory_to_json(record)))).trials == record.trials


@members("strategies")
def test_strategy_leaves_a_broken_engine_to_be_told(name: str):
    with pytest.raises(EngineError, match="down"):
        several.play(name, [EngineError("down")], several.Counter())
