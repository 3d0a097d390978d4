"""Sources are split by service and tool, mixed by weight, and each tells what became of its rows."""

from __future__ import annotations

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rolecraft import catalog, curate, leakage, recipe
from rolecraft.errors import DataError, NotFound, SettingsError
from rolecraft.settings import from_dict
from rolecraft.store import BadRows
from rolecraft.types import Task

SGD = catalog.find("importers", "sgd").EXAMPLE
SEAL = catalog.find("importers", "seal_tools").EXAMPLE


def seal(number: int, tool: str = "weighBoat", **parameters: Any) -> dict[str, Any]:
    row = copy.deepcopy(dict(SEAL))
    row["calling"] = [{"api": tool, "parameters": parameters or {"length": number}, "responses": []}]
    row["tools"][0]["api_name"] = tool
    return {**row, "id": f"seal-{number}", "query": f"How heavy is boat {number}?"}


def written(folder: Path, name: str, rows: list[Any]) -> str:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def paths(tmp_path):
    dialogues = []
    for number in range(6):
        other = json.loads(json.dumps(SGD).replace("Ferries_1", f"Ferries_{number % 3}"))
        dialogues.append({**other, "dialogue_id": str(number)})
    wrong = seal(90, length="heavy")
    return {
        "sgd": written(tmp_path, "sgd", dialogues),
        "seal": written(tmp_path, "seal", [*(seal(n) for n in range(8)), wrong, seal(91, "sinkBoat")]),
    }


def source(path: str, importer: str, **more: Any) -> curate.Source:
    return from_dict(curate.Source, {"path": path, "importer": importer, **more})


def test_rows_are_drawn_by_weight_each_once_before_any_twice(paths):
    sources = [source(paths["sgd"], "sgd", weight=3), source(paths["seal"], "seal_tools", weight=1)]
    mixed, told = curate.mix(sources, 12, 0)
    assert [one.drawn for one in told] == [9, 3]
    turns = Counter(t.id.split("#")[0] for t in mixed if t.id.startswith("sgd"))
    assert sorted(turns.values()) == [1, 1, 1, 2, 2, 2]
    assert len({t.id for t in mixed}) == 12


def test_the_same_seed_gives_the_same_mix_and_another_another(paths):
    rules = [{"distractors": {"most": 3}}, {"mask_names": {"share": 0.5}}]
    sources = [source(paths["sgd"], "sgd", rules=rules), source(paths["seal"], "seal_tools", rules=rules)]
    first, _ = curate.mix(sources, 20, 0)
    assert first == curate.mix(sources, 20, 0)[0]
    assert first != curate.mix(sources, 20, 1)[0]


def test_a_source_that_repeats_its_rows_draws_its_rules_anew(paths):
    mixed, _ = curate.mix([source(paths["sgd"], "sgd", rules=[{"mask_names": {"share": 1}}])], 60, 0)
    names = {t.task.tools[0].name for t in mixed}
    assert len(names) > 30


def test_without_a_size_there_are_as_many_rows_as_are_kept(paths):
    mixed, told = curate.mix([source(paths["sgd"], "sgd"), source(paths["seal"], "seal_tools")], None, 0)
    assert len(mixed) == sum(one.kept for one in told) == 6 + 9


def test_each_source_tells_rows_in_kept_and_dropped_by_reason(paths):
    _, (told,) = curate.mix([source(paths["seal"], "seal_tools", without_tools=["sinkBoat"])], None, 0)
    assert (told.rows, told.kept, told.calls) == (10, 8, 8)
    assert told.dropped == {"parameter ...: ... is no number; mend the value": 1, "a tool that is held out": 1}


def test_rows_are_split_by_service(paths):
    for more, kept in (
        ({"without_services": ["Ferries_1"]}, {"Ferries_0", "Ferries_2"}),
        ({"services": ["Ferries_1"]}, {"Ferries_1"}),
    ):
        mixed, _ = curate.mix([source(paths["sgd"], "sgd", **more)], None, 0)
        assert {name for t in mixed for name in t.task.reference["services"]} == kept


def test_a_tool_that_is_held_out_is_offered_to_no_row_of_any_source(paths):
    rules = [{"distractors": {"least": 4, "most": 4, "near": 0}}]
    sources = [
        source(paths["sgd"], "sgd", rules=rules),
        source(paths["seal"], "seal_tools", rules=rules, without_tools=["sinkBoat", "getBerthPrice"]),
    ]
    mixed, _ = curate.mix(sources, 40, 0)
    offered = {spec.name for t in mixed for spec in t.task.tools}
    assert offered == {"BookFerry", "weighBoat"}


def test_rows_with_or_without_calls_can_be_taken_alone(tmp_path):
    example = catalog.find("importers", "clinc").EXAMPLE
    path = written(tmp_path, "clinc", [example, {**example, "intent": "oos"}])
    for calls, count in (("some", 1), ("none", 0)):
        mixed, _ = curate.mix([source(path, "clinc", calls=calls)], None, 0)
        assert [len(t.messages[-1].tool_calls) for t in mixed] == [count]


def test_a_row_whose_call_does_not_fit_its_tool_is_dropped(tmp_path):
    row = copy.deepcopy(dict(catalog.find("importers", "openai").EXAMPLE))
    bad = json.loads(json.dumps(row).replace('\\"start\\":\\"Kiel\\"', '\\"start\\":7'))
    assert bad != row
    told = curate.Told("x")
    path = written(tmp_path, "rows", [row, bad])
    assert len(list(curate.rows(curate.Source(path), told))) == 1
    assert told.dropped == {"a call that does not fit its tool": 1}


def test_requests_of_a_benchmarks_split_are_left_out_and_nearly_those(tmp_path):
    (task, *_) = curate.column("toolworld:test").tasks
    request = task.messages[-1].content
    rows = [{**seal(n), "query": query} for n, query in enumerate([request, f"Hello. {request}", "How heavy is it?"])]
    path = written(tmp_path, "rows", rows)
    mixed, (told,) = curate.mix([source(path, "seal_tools")], 2, 0, ["toolworld:test"])
    assert {t.messages[0].content for t in mixed} == {"How heavy is it?"}
    assert told.dropped["a request of a task, or nearly"] >= 2
    assert len(curate.mix([source(path, "seal_tools")], None, 0)[0]) == 3


def test_services_and_tools_of_unseen_tasks_are_left_out_and_offered_to_nobody(paths):
    read = list(curate.rows(source(paths["sgd"], "sgd"), curate.Told("x")))
    (sunk,) = [t for t in curate.rows(source(paths["seal"], "seal_tools"), curate.Told("x")) if "91" in t.id]
    call = {"name": "sinkBoat", "arguments": {}}
    unseen = [
        Task("a", (), sunk.task.tools, {"calls": [call]}),
        Task("b", (), (), {"calls": [], "services": ["Ferries_1"]}),
    ]
    held_out = leakage.HeldOut([leakage.Column("mine", unseen, unseen=True)])
    assert held_out.reason(sunk) == "a tool that is held out"
    assert [held_out.reason(t) for t in read].count("a service that is held out") == 2
    assert [spec.name for spec in sunk.task.tools if held_out.hides(spec)] == ["sinkBoat"]
    assert leakage.HeldOut([leakage.Column("seen", unseen)]).reason(sunk) is None


def test_a_question_for_a_tool_that_is_held_out_is_left_out_too(tmp_path):
    asking = json.loads(json.dumps(SGD))
    del asking["turns"][2:]
    told = curate.Told("x")
    path = written(tmp_path, "asking", [asking])
    assert list(curate.rows(source(path, "sgd", without_tools=["BookFerry"]), told)) == []
    assert told.dropped == {"a tool that is held out": 1}


@pytest.mark.parametrize(
    ("named", "said"), [("toolworld", "BENCHMARK:SPLIT"), ("toolworld:", "BENCHMARK:SPLIT"), ("toolworld:x", "'x'")]
)
def test_a_split_that_is_not_there_is_told(named, said):
    with pytest.raises(SettingsError, match=said):
        curate.column(named)


def test_what_cannot_be_meant_is_told(paths):
    with pytest.raises(SettingsError, match="weight"):
        source(paths["sgd"], "sgd", weight=-1)
    with pytest.raises(SettingsError, match="no rule 'masks'"):
        source(paths["sgd"], "sgd", rules=["masks"])
    with pytest.raises(SettingsError, match="no source has a weight"):
        curate.mix([source(paths["sgd"], "sgd", weight=0)], 3, 0)
    with pytest.raises(DataError, match="no row is left"):
        curate.mix([source(paths["sgd"], "sgd", services=["Boats_1"])], 3, 0)
    with pytest.raises(NotFound, match="nowhere"):
        curate.check([source("nowhere", "sgd")])
    with pytest.raises(NotFound, match="no 'sgdd' in importers"):
        curate.check([source(paths["sgd"], "sgdd")])


def test_a_recipe_names_sources_and_reads_them_mixed(paths, tmp_path):
    path = tmp_path / "mix.yaml"
    sources = [
        {"path": paths["sgd"], "importer": "sgd", "rules": ["steps"]},
        {"path": paths["seal"], "importer": "seal_tools"},
    ]
    path.write_text(json.dumps({"data": {"sources": sources, "size": 10, "seed": 3}}))
    recipe.check(path)
    found = recipe.load_recipe(path)
    notes = BadRows()
    read = list(recipe.read_rows(found.data, notes))
    assert len(read) == 10
    assert "parameter ...: ... is no number" in notes.notes[0]
    assert recipe.read_recipe(recipe.recipe_to_dict(found)) == found
    for flag in ("data.path=x.jsonl", "data.benchmark=toolworld"):
        with pytest.raises(SettingsError, match="give one of them"):
            recipe.load_recipe(path, [flag])
    with pytest.raises(SettingsError, match=r"data\.without"):
        recipe.load_recipe(path, ["data.sources=[]", "data.without=[sgd:test]"])
    with pytest.raises(SettingsError, match="no split 'x'"):
        recipe.check(path, ["data.without=[snips:x]"])
    path.write_text(json.dumps({"data": {"sources": [{"path": "nowhere"}]}}))
    with pytest.raises(NotFound, match="nowhere"):
        recipe.check(path)


def test_rows_that_tell_the_same_tools_are_drawn_in_groups_which_they_stay_by_seed(paths):
    rules = [{"distractors": {"least": 6}}, {"mask_names": {"share": 1}}]
    sources = [source(paths["sgd"], "sgd", rules=rules), source(paths["seal"], "seal_tools", rules=rules)]

    def told(group: int, seed: int = 0) -> list[int]:
        mixed, _ = curate.mix(sources, 14, seed, group=group)
        assert len({row.id for row in mixed}) == 14
        return sorted(Counter(repr(row.task.tools) for row in mixed).values())

    assert told(1) == [1] * 14
    assert max(told(2)) == 2  # two dialogues of each of three services, and eight requests for one tool
    assert told(2).count(2) >= 6
    assert max(told(4)) == 4
    assert curate.mix(sources, 14, 0, group=2) == curate.mix(sources, 14, 0, group=2)
    assert curate.mix(sources, 14, 0, group=2)[0] != curate.mix(sources, 14, 1, group=2)[0]


def test_what_a_group_is_made_of_is_held_out_as_ever(paths):
    sources = [
        source(paths["sgd"], "sgd", rules=["distractors"]),
        source(paths["seal"], "seal_tools", without_tools=["sinkBoat"]),
    ]
    mixed, _ = curate.mix(sources, 20, 0, group=4)
    assert "sinkBoat" not in {spec.name for row in mixed for spec in row.task.tools}
