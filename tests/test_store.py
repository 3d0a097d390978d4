"""Data files are read row by row with bad rows told; a run folder survives being killed at any byte."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rolecraft import store, wire
from rolecraft.errors import DataError, NotFound
from rolecraft.store import BadRows, Run, record_from_json, record_to_json
from rolecraft.types import Message, Task, ToolCall, Trajectory, Turn, Usage, Verdict

ROW = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}


def write(tmp_path, text, name="data.jsonl"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def episode(identity="t"):
    call = Message("assistant", "so", (ToolCall("f", {"x": float("inf"), "é": None}, "c"),), ids=(5, 6))
    answer = Message("assistant", "done", speaker="reasoner", ids=(1, 2, 3))
    question = Message("user", "?")
    turns = (
        Turn(
            call, "assistant", (1, 2), (5, 6), (-0.5, float("-inf")), (True, False), (0, 1), "end", Usage(2, 1, 2, 0.5)
        ),
        Turn(answer, "reasoner", (1, 2, 5, 6), (3,), stop="length"),
        Turn(Message("assistant", "lost", ids=(7,)), "reasoner", token_ids=(7,)),
    )
    task = Task("task", (question,), (), {"answers": ["done"]})
    messages = (question, call, Message("tool", "1", tool_call_id="c"), answer)
    verdict = Verdict(0.5, "half", {"a": 1.0})
    return Trajectory(identity, task, messages, turns, "answered", 7, {"sql": None}, verdict, ("made",))


def same_ids(one, other):
    return [m.ids for m in one.messages] == [m.ids for m in other.messages]


def test_lines_are_read_one_by_one(tmp_path):
    path = write(tmp_path, '{"a": 1}\r\n\n  {"a": "\u2028 \\u2028"}\n{"a": 3}')
    assert [row["a"] for row in store.read_jsonl(path)] == [1, "\u2028 \u2028", 3]


def test_reading_does_not_look_ahead(tmp_path):
    path = write(tmp_path, '{"a": 1}\n{')
    assert next(store.read_jsonl(path)) == {"a": 1}


def test_a_byte_order_mark_is_no_part_of_the_data(tmp_path):
    assert list(store.read_jsonl(write(tmp_path, b'\xef\xbb\xbf{"a": 1}'))) == [{"a": 1}]
    assert list(store.read_jsonl(write(tmp_path, b'\xef\xbb\xbf[{"a": 1}]'))) == [{"a": 1}]


@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_is_read_as_rows(tmp_path, indent):
    rows = [{"a": i, "text": "]},{[é" * i} for i in range(50)]
    path = write(tmp_path, json.dumps(rows, indent=indent, ensure_ascii=False), "data.json")
    assert list(store.read_jsonl(path)) == rows


def test_an_array_larger_than_what_is_read_at_once_is_read_whole(tmp_path):
    rows = [{"a": i, "text": "é]" * (400_000 if i % 40 == 7 else i)} for i in range(100)]
    path = write(tmp_path, json.dumps(rows, ensure_ascii=False), "data.json")
    assert list(store.read_jsonl(path)) == rows


@pytest.mark.parametrize("text", ['[{"a": 1}, {"a": ', '[{"a": 1} {"a": 2}]', '[{"a": 1}] x', '[{"a": 1},]', "[", "[}"])
def test_a_broken_array_cannot_be_skipped(tmp_path, text):
    with pytest.raises(DataError, match=r"data\.json.*nothing after it can be read"):
        list(store.read_jsonl(write(tmp_path, text, "data.json"), "skip"))


def test_one_object_over_many_lines_is_one_row(tmp_path):
    path = write(tmp_path, json.dumps(ROW, indent=2), "data.json")
    assert list(store.read_jsonl(path)) == [ROW]


def test_a_json_file_may_hold_lines(tmp_path):
    assert list(store.read_jsonl(write(tmp_path, '{"a": 1}\n{"a": 2}\n', "data.json"))) == [{"a": 1}, {"a": 2}]


BAD = ["{", "[1]", "7", '{"a": NaN}', '{"a": 1, "a": 2}', b'{"a": "\xff"}', "[" * 100_000, '"x']


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_a_bad_line_is_told_with_file_line_and_reason(tmp_path, bad):
    line = bad if isinstance(bad, bytes) else bad.encode()
    path = write(tmp_path, b'{"a": 1}\n' + line + b"\n")
    with pytest.raises(DataError, match=r"data\.jsonl:2: .{10,}Mend the row, or skip"):
        list(store.read_jsonl(path))


def test_skipping_keeps_the_good_rows_and_counts_the_bad(tmp_path):
    bad = BadRows()
    path = write(tmp_path, "{\n".join(['{"a": 1}\n'] * 9))
    assert len(list(store.read_jsonl(path, "skip", bad))) == 9
    assert (bad.count, bad.total, len(bad.first)) == (8, 17, 5)
    assert str(bad).startswith("skipped 8 of 17 rows:\n  ")
    assert "data.jsonl:2: not JSON" in bad.first[0]


def test_what_was_skipped_is_logged_when_nobody_asks(tmp_path, caplog):
    list(store.read_jsonl(write(tmp_path, '{"a": 1}\n{'), "skip"))
    assert "skipped 1 of 2 rows" in caplog.text


def test_a_file_of_bad_rows_only_is_an_error_even_when_skipping(tmp_path):
    with pytest.raises(DataError, match="every row is bad"):
        list(store.read_jsonl(write(tmp_path, "{\n{\n"), "skip"))


def test_a_missing_file_is_told_before_the_first_row():
    with pytest.raises(NotFound, match="no file"):
        store.read_jsonl(Path("nowhere.jsonl"))


def test_trajectories_are_named_after_their_line(tmp_path):
    path = write(tmp_path, "\n".join([wire.dumps(ROW), "", wire.dumps(ROW | {"id": "mine"})]))
    assert [(t.id, t.task.id) for t in store.read_trajectories(path)] == [("data.jsonl:1",) * 2, ("mine", "mine")]


def test_an_importer_leaves_its_name_in_the_lineage(tmp_path):
    (trajectory,) = store.read_trajectories(write(tmp_path, wire.dumps(ROW)), importer="openai")
    assert trajectory.lineage == ("openai data.jsonl:1",)


def test_a_row_in_another_format_is_told_with_its_place(tmp_path):
    path = write(tmp_path, '{"conversations": []}')
    with pytest.raises(DataError, match=r"data\.jsonl:1: .*name the importer"):
        list(store.read_trajectories(path))


MOODY = ROW | {"mood": 1, "messages": [{"role": "user", "content": "a", "mood": None}, ROW["messages"][1]]}


def test_unknown_keys_are_dropped_counted_and_told_on_request(tmp_path):
    path, bad_rows = write(tmp_path, f"{wire.dumps(MOODY)}\n{wire.dumps(ROW)}\n{wire.dumps(MOODY)}"), BadRows()
    read = list(store.read_trajectories(path, bad_rows=bad_rows, unknown_keys="drop"))
    assert len({trajectory.messages for trajectory in read}) == 1
    assert bad_rows.notes == ("unknown keys: 'mood' x2, 'messages[].mood' x2",)


def test_unknown_keys_make_a_bad_row_that_says_how_to_drop_them(tmp_path):
    path = write(tmp_path, wire.dumps(MOODY))
    with pytest.raises(DataError, match=r"unknown key 'mood'; .*or read rows without unknown keys"):
        list(store.read_trajectories(path))
    with pytest.raises(DataError, match=r"needs 'content'[^;]*; [^;]*$"):
        list(store.read_trajectories(write(tmp_path, '{"messages": [{"role": "user"}]}')))


def test_unknown_keys_are_dropped_at_every_depth(tmp_path):
    call = {"id": "a", "type": "function", "mood": 1, "function": {"name": "f", "arguments": "{}", "mood": 1}}
    tool = {"type": "function", "mood": 1, "function": {"name": "f", "parameters": {"x-mood": 1}, "mood": 1}}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "a", "mood": 1}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
    ]
    for tools in ([tool], wire.dumps([tool])):
        bad_rows = BadRows()
        path = write(tmp_path, wire.dumps({"messages": messages, "tools": tools}))
        (read,) = store.read_trajectories(path, bad_rows=bad_rows, unknown_keys="drop")
        assert read.task.tools[0].parameters == {"x-mood": 1}
        assert bad_rows.unknown.total() == 5


def test_an_importer_tells_which_keys_are_known(tmp_path):
    turns = [{"from": "human", "value": "a", "loss": 0}, {"from": "gpt", "value": "b"}]
    path = write(tmp_path, wire.dumps({"conversations": turns, "source": "x"}))
    with pytest.raises(DataError, match="--unknown-keys drop"):
        list(store.read_trajectories(path, "glaive"))
    bad_rows = BadRows()
    (read,) = store.read_trajectories(path, "glaive", bad_rows=bad_rows, unknown_keys="drop")
    assert [message.content for message in read.messages] == ["a", "b"]
    assert bad_rows.unknown == {"source": 1, "conversations[].loss": 1}


def test_a_row_whose_conversation_does_not_hold_is_bad(tmp_path):
    answers = [{"role": "tool", "content": "1", "tool_call_id": "a"}]
    path = write(tmp_path, wire.dumps({"messages": [*ROW["messages"], *answers]}))
    with pytest.raises(DataError, match=r"data.jsonl:1: messages\[2\]: tool_call_id 'a' is no call"):
        list(store.read_trajectories(path))


def test_a_trusting_importer_does_not_crash_the_reading(tmp_path):
    importer = write(tmp_path, "def convert(row):\n    return row['turns']\n", "mine.py")
    with pytest.raises(DataError, match=r"data\.jsonl:1: the importer does not understand the row \(KeyError: 'turns'"):
        list(store.read_trajectories(write(tmp_path, "{}"), importer))


def test_a_data_file_without_rows_is_told(tmp_path):
    with pytest.raises(DataError, match="no rows"):
        list(store.read_trajectories(write(tmp_path, "\n")))


def test_written_rows_are_read_back(tmp_path):
    rows = [{"a": "\ud800\0é😀"}, {"a": None}]
    assert store.write_jsonl(tmp_path / "new" / "x.jsonl", iter(rows)) == 2
    assert list(store.read_jsonl(tmp_path / "new" / "x.jsonl")) == rows


def test_a_failed_writing_leaves_the_old_file_and_no_other(tmp_path):
    path = write(tmp_path, "old")

    def rows():
        yield {"a": 1}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.write_jsonl(path, rows())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_hash_names_the_content(tmp_path):
    digest = store.hash_file(write(tmp_path, "abc"))
    assert digest == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_the_full_record_survives_with_its_turns(tmp_path):
    trajectory, run = episode(), Run(tmp_path / "run")
    run.append(trajectory)
    (read,) = run.trajectories()
    assert read == trajectory


def test_ids_come_back_where_the_turn_wrote_exactly_them(tmp_path):
    run = Run(tmp_path)
    run.append(episode())
    (read,) = run.trajectories()
    assert [m.ids for m in read.messages] == [None, (5, 6), None, None]
    assert [turn.message.ids for turn in read.turns] == [(5, 6), None, (7,)]


def test_a_turn_keeps_how_many_observations_its_prompt_had_folded():
    reply = Message("assistant", "yes", speaker="assistant")
    turns = (Turn(reply, "assistant", folded=2), Turn(reply, "assistant"))
    record = Trajectory("t", Task("t", (Message("user", "?"),)), (Message("user", "?"), reply, reply), turns)
    data = record_to_json(record)
    assert [turn.folded for turn in record_from_json(data).turns] == [2, 0]
    assert "folded" not in data["turns"][1]


def test_a_reply_that_the_opening_has_too_keeps_its_own_place():
    reply = Message("assistant", "yes", speaker="assistant", ids=(1, 2))
    opening = (Message("user", "?"), reply, Message("user", "?"))
    again = replace(reply, ids=(3, 4))
    record = Trajectory("t", Task("t", opening), (*opening, again), (Turn(again, "assistant", token_ids=(3, 4)),))
    assert record_to_json(record)["turns"][0]["message"] == 3
    assert [one.ids for one in record_from_json(record_to_json(record)).messages] == [None, None, None, (3, 4)]


def test_equal_messages_keep_their_own_turns():
    again = tuple(Message("assistant", "again", ids=(i,)) for i in range(3))
    turns = tuple(Turn(message, "assistant", token_ids=message.ids) for message in again)
    trajectory = Trajectory("t", Task("t", ()), again, turns)
    assert same_ids(store.record_from_json(store.record_to_json(trajectory)), trajectory)


def test_a_run_can_be_read_as_a_data_file(tmp_path):
    run = Run(tmp_path)
    run.append(replace(episode(), messages=ROW_MESSAGES, turns=episode().turns[1:2]))
    (read,) = store.read_trajectories(tmp_path / "trajectories.jsonl")
    assert (read.messages, read.turns, read.verdict) == (ROW_MESSAGES, (), episode().verdict)


ROW_MESSAGES = (Message("user", "?"), Message("assistant", "done"))


def test_a_line_cut_at_any_byte_is_dropped_and_the_run_goes_on(tmp_path):
    whole = Run(tmp_path / "whole")
    for name in "ab":
        whole.append(episode(name))
    content = (whole.path / "trajectories.jsonl").read_bytes()
    first = content.index(b"\n") + 1
    for end in range(first, len(content), 37):
        run = Run(tmp_path / "cut")
        run.path.mkdir(exist_ok=True)
        (run.path / "trajectories.jsonl").write_bytes(content[:end])
        assert run.finished() == {"a"}
        run.append(episode("b"))
        assert (run.path / "trajectories.jsonl").read_bytes() == content


def test_a_first_line_cut_short_is_dropped(tmp_path):
    run = Run(tmp_path)
    (tmp_path / "trajectories.jsonl").write_bytes(b'{"id": "x"')
    run.append(episode("a"))
    assert run.finished() == {"a"}


KILLED = """
import sys
from pathlib import Path
from rolecraft.store import Run
from rolecraft.types import Message, Task, Trajectory
run, number = Run(Path(sys.argv[1])), 0
while True:
    run.append(Trajectory(str(number), Task("t", ()), (Message("assistant", "x" * 100_000),)))
    number += 1
    print(number, flush=True)
"""


def test_a_killed_process_loses_no_finished_episode(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(5):
        process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    told = 5 + len(process.communicate()[0].split())
    assert len(Run(tmp_path).finished()) >= told
    Run(tmp_path).append(episode("after"))
    assert [t.id for t in Run(tmp_path).trajectories()][-1] == "after"


def test_a_damaged_line_is_told_with_its_place(tmp_path):
    run = Run(tmp_path)
    (tmp_path / "trajectories.jsonl").write_bytes(b"{}\n")
    with pytest.raises(DataError, match=r"trajectories\.jsonl:1: .*delete the line"):
        list(run.trajectories())
    (tmp_path / "trajectories.jsonl").write_bytes(b"x\n")
    with pytest.raises(DataError, match=r"trajectories\.jsonl:1: not a JSON object"):
        run.finished()


@pytest.mark.parametrize("turns", [[{}], [1], {"a": 1}, [{"message": 9, "token_ids": []}], [{"message": 0}]])
def test_a_damaged_turn_is_a_data_error(turns):
    with pytest.raises(DataError, match="turn is damaged"):
        store.record_from_json(ROW | {"turns": turns})


def test_metrics_settings_and_lineage_are_read_back(tmp_path):
    run = Run(tmp_path / "run")
    run.log({"step": 1, "loss": 0.5})
    run.log({"step": 2, "loss": float("inf")})
    run.write_settings({"training": {"learning_rate": 1e-4}})
    run.write_lineage({"command": "train é", "data": {"x.jsonl": "ab"}})
    assert run.metrics() == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": float("inf")}]
    assert run.settings() == {"training": {"learning_rate": 1e-4}}
    assert run.lineage() == {"command": "train é", "data": {"x.jsonl": "ab"}}


def test_an_empty_run_has_nothing_and_makes_no_folder(tmp_path):
    run = Run(tmp_path / "run")
    assert (list(run.trajectories()), run.finished(), run.metrics(), run.settings(), run.lineage()) == (
        [],
        set(),
        [],
        {},
        {},
    )
    assert not run.path.exists()
