"""`rolecraft data` tells what rows there are, and by its exit code whether they leak."""

from __future__ import annotations

import json
from typing import Any

import pytest
from verbs import call

from rolecraft import catalog, curate, store

ROW: dict[str, Any] = dict(catalog.find("importers", "openai").EXAMPLE)


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROW) + "\n{}\n")
    return path


def test_a_file_is_told_by_rows_kept_and_dropped(capsys, rows, tmp_path):
    code, out, _ = call(capsys, "data", str(rows), "--output", str(tmp_path / "out.jsonl"), "--json")
    told = json.loads(out)
    assert code == 0
    assert [told["sources"][0][key] for key in ("rows", "kept", "calls", "tools")] == [2, 1, 2, 1]
    assert list(told["sources"][0]["dropped"]) == ["row: needs ..., a list of at least one; it has nothing"]
    assert len(list(store.read_trajectories(tmp_path / "out.jsonl"))) == 1


def test_a_recipe_of_sources_is_mixed(capsys, rows, tmp_path):
    path = tmp_path / "mix.yaml"
    path.write_text(json.dumps({"data": {"sources": [{"path": str(rows)}], "size": 3}}))
    code, out, _ = call(capsys, "data", str(path))
    assert code == 0
    assert "rows by source" in out
    code, out, _ = call(capsys, "data", str(path), "data.size=5", "--json")
    assert json.loads(out)["sources"][0]["drawn"] == 5


def test_a_planted_task_is_found_and_the_exit_code_is_1(capsys, tmp_path):
    (task, *_) = curate.column("toolworld:test").tasks
    path = tmp_path / "rows.jsonl"
    leaked = {**ROW, "messages": [{"role": "user", "content": task.messages[-1].content}, *ROW["messages"][1:]]}
    path.write_text(json.dumps(ROW) + "\n" + json.dumps(leaked) + "\n")
    code, out, _ = call(capsys, "data", str(path), "--against", "toolworld:test+tools")
    assert code == 1
    assert f"toolworld:test: same request: {task.id} is in " in out
    code, out, _ = call(capsys, "data", str(path), "--against", "toolworld:tools", "--json")
    assert code == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["quickstart"], "a benchmark makes its own by playing"),
        (["nowhere"], "no recipe 'nowhere'"),
        (["lora"], "names no file or sources"),
        (["nowhere.jsonl"], "no file or folder"),
    ],
)
def test_what_has_no_rows_is_told(capsys, line, said):
    code, _, complained = call(capsys, "data", *line)
    assert code == 2
    assert said in complained


def test_an_override_beside_a_file_and_a_split_that_is_not_there_are_told(capsys, rows):
    assert "changes a recipe" in call(capsys, "data", str(rows), "data.size=3")[2]
    assert "BENCHMARK:SPLIT" in call(capsys, "data", str(rows), "--against", "toolworld")[2]
