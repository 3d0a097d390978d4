"""A benchmark played from the command line: its scores, its run folder, and what compares and shows it."""

from __future__ import annotations

import json

from verbs import call

from rolecraft.store import Run


def test_eval_prints_one_json_object_and_resumes(capsys, tmp_path):
    arguments = ["eval", "--limit", "3", "--output", str(tmp_path / "run"), "--json", "--max-tokens", "8"]
    code, out, _ = call(capsys, *arguments)
    scores = json.loads(out.splitlines()[-1])
    assert code == 0
    assert set(scores) == {"score", "n", "interval", "families", "calling"}
    assert scores["n"] == 3
    before = (tmp_path / "run" / "trajectories.jsonl").read_bytes()
    assert call(capsys, *arguments)[0] == 0
    assert (tmp_path / "run" / "trajectories.jsonl").read_bytes() == before


def test_a_run_can_be_reported_and_compared(capsys, tmp_path):
    first, second = str(tmp_path / "a"), str(tmp_path / "b")
    call(capsys, "eval", "--limit", "2", "--output", first, "--max-tokens", "8")
    _, out, _ = call(capsys, "eval", "--limit", "2", "--output", second, "--against", first, "--max-tokens", "8")
    assert "exact McNemar" in " ".join(out.split())
    code, out, _ = call(capsys, "report", first, second, "--output", str(tmp_path / "page.html"))
    assert code == 0
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_a_run_to_compare_with_that_is_not_there_is_told_before_anything_is_played(capsys, tmp_path):
    output, wrong = tmp_path / "run", str(tmp_path / "wrong")
    code, _, err = call(
        capsys, "eval", "--limit", "1", "--output", str(output), "--against", wrong, "--max-tokens", "8"
    )
    assert code == 2
    assert f"no played episodes in {wrong!r}" in " ".join(err.split())
    assert not output.exists()


def test_all_tables_count_the_tasks_that_are_asked(capsys, tmp_path):
    words = ["eval", "--output", str(tmp_path / "run"), "--max-tokens", "8", "--limit"]
    call(capsys, *words, "2")
    _, out, _ = call(capsys, *words, "1", "--against", str(tmp_path / "run"))
    table = out.partition("how tools were called")[2].partition("what was right")[0]
    counts = [line.split("│")[3].strip() for line in table.splitlines() if line.startswith("│ test ")]
    assert counts == ["1"]
    compared = next(line for line in out.splitlines() if "exact McNemar" in line)
    assert compared.split("│")[6].strip() == "1"


def test_a_constrained_eval_of_an_untuned_base_writes_calls_of_its_tools_alone(capsys, tmp_path):
    words = ["eval", "--limit", "3", "--team", "mor", "--bare", "--max-turns", "3", "--max-tokens", "80"]
    words += ["--output", str(tmp_path / "run")]
    assert call(capsys, *words, "--constrain")[0] == 0
    made = []
    for record in Run(tmp_path / "run").trajectories():
        whole = [turn.message for turn in record.turns if turn.stop == "end"]
        assert [message.unparsed for message in whole] == [None] * len(whole)
        made += [(one.name, record.task.tools) for message in whole for one in message.tool_calls]
    assert made
    assert all(name in {tool.name for tool in tools} for name, tools in made)
    code, _, err = call(capsys, *words)
    assert code == 2
    assert "holds another evaluation: playing was" in err


def test_several_splits_are_played_into_a_folder_each_and_compared_each(capsys, tmp_path):
    first, second = str(tmp_path / "a"), str(tmp_path / "b")
    words = ["eval", "--split", "test+tools", "--limit", "2", "--max-tokens", "8", "--json"]
    code, out, _ = call(capsys, *words, "--output", first)
    scores = json.loads(out.splitlines()[-1])
    assert code == 0
    assert {split: found["n"] for split, found in scores.items()} == {"test": 2, "tools": 2}
    assert [len(list(Run(tmp_path / "a" / split).trajectories())) for split in scores] == [2, 2]
    _, _, err = call(capsys, *words, "--output", second, "--against", first)
    assert err.count("exact McNemar") == 2
    assert call(capsys, "report", first, "--output", str(tmp_path / "page.html"))[0] == 0


def test_examples_are_shown_before_each_question(capsys, tmp_path):
    words = ["eval", "--limit", "1", "--max-tokens", "8", "--shots", "1", "--output", str(tmp_path / "run")]
    assert call(capsys, *words)[0] == 0
    (record,) = Run(tmp_path / "run").trajectories()
    assert record.task.messages[0].content.startswith("Example:")
