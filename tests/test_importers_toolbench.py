"""ToolBench's answer trees become trajectories, and what is cut or hostile is told with its reason."""

from __future__ import annotations

import copy
import json

import pytest
from public import FOLDER, needs

from rolecraft import store, team
from rolecraft.errors import DataError
from rolecraft.importers import GIVE_UP
from rolecraft.importers.toolbench import EXAMPLE, convert

FINISH = {"role": "assistant", "content": None}


def tree(*said, **changes):
    """The example with another final path after its question, and other keys."""
    row = copy.deepcopy(dict(EXAMPLE))
    told = row["answer_generation"]
    if said:
        told["train_messages"][-1][2:] = said
    told.update(changes)
    return row


def calls(name, arguments, thought=None):
    return {"role": "assistant", "content": thought, "function_call": {"name": name, "arguments": arguments}}


def observes(text):
    return {"role": "function", "name": "f", "content": text}


def ends(answer="12", thought=None):
    return calls("Finish", json.dumps({"return_type": "give_answer", "final_answer": answer}), thought)


GIVES_UP = calls("Finish", '{"return_type": "give_up_and_restart"}', "No gull is left.")
COUNTS = calls("count_for_gulls", '{"pier": 4}')
SEEN = observes('{"error": "", "response": "12"}')


def test_a_path_ends_in_its_answer_and_the_thought_before_it():
    last = convert(tree(COUNTS, SEEN, ends("It is 12.", "I know."))).messages[-1]
    assert last.content == "<think>\nI know.\n</think>\n\nIt is 12."


def test_a_path_that_gives_up_does_so_in_the_word_for_it_and_umis_planner_says_it():
    record = convert(tree(COUNTS, SEEN, GIVES_UP))
    assert record.messages[-1].content.endswith(GIVE_UP)
    said = team.divided(record.messages, team.find("alpha_umi"))
    assert [m.speaker for m in said] == [None, "planner", "caller", None, "planner"]
    assert said[-1].content == "No gull is left. Next: give up."


def test_what_a_tool_answered_is_its_response_and_an_error_is_marked():
    wrong = observes('{"error": "no pier", "response": ""}')
    record = convert(tree(COUNTS, wrong, COUNTS, SEEN, COUNTS, observes("plain"), ends()))
    told = [(m.content, m.failed) for m in record.messages if m.role == "tool"]
    assert told == [("no pier", True), ("12", False), ("plain", False)]


def test_a_call_of_no_tool_is_context():
    nowhere = calls("invalid_hallucination_function_name", "{}", "I try.")
    other = calls("unlisted", "{}")
    record = convert(tree(nowhere, SEEN, other, SEEN, COUNTS, SEEN, ends()))
    assert [m.weight for m in record.messages if m.role == "assistant"] == [0.0, 0.0, None, None]
    assert record.messages[1].unparsed is not None


def test_arguments_that_do_not_parse_stay_as_they_are(tmp_path):
    record = convert(tree(calls("count_for_gulls", '{"pier": '), observes("error"), ends()))
    assert json.loads(record.messages[1].unparsed) == {"name": "count_for_gulls", "arguments": '{"pier": '}


def test_words_without_a_call_are_thought_before_the_next():
    record = convert(tree({"role": "assistant", "content": "Hm."}, calls("count_for_gulls", "{}", "So."), SEEN, ends()))
    assert record.messages[1].content == "Hm.\nSo."


def test_a_broken_finish_is_searched_for_its_answer():
    broken = calls("Finish", '{"return_type": "give_answer", "final_answer": "It is \\"12\\".\\nYes')
    assert convert(tree(COUNTS, SEEN, broken)).messages[-1].content == 'It is "12".\nYes'


def test_texts_of_tools_are_shortened():
    properties = {"p": {"type": "STRING", "description": "a" * 300 + "end", "example_value": 3}, "q": {"type": "file"}}
    told = {"name": "n" * 60 + "_for_tool", "description": "b" * 300, "parameters": {"properties": properties}}
    (spec,) = convert(tree(function=[told])).task.tools
    assert (len(spec.name), len(spec.description)) == (64, 256)
    assert spec.name.endswith("_for_tool")
    assert spec.parameters["properties"]["p"]["description"].endswith("end")
    assert {one["type"] for one in spec.parameters["properties"].values()} == {"string"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (tree(train_messages=[]), "no path in"),
        ({"answer_generation": "cut"}, "no path in"),
        ({}, "no path in"),
        (tree(COUNTS, SEEN), "does not end in a call of Finish"),
        (tree(COUNTS), "does not end in a call of Finish"),
        (tree(ends(), COUNTS), "goes on after its Finish"),
        (tree(SEEN, ends()), "the result of no call"),
        (tree(calls("Finish", '{"return_type": "give_answer"}')), "no final_answer"),
        (tree({"role": "root", "content": "x"}, ends()), "role is 'root'"),
        (tree(*[COUNTS, SEEN] * 200, ends()), "messages; it must have"),
        (tree({"role": "assistant", "content": "x" * 1_000_001}, ends()), "expected text"),
        (tree({"role": "assistant", "content": {"x": 1}}, ends()), "expected text"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_cut_or_hostile_is_refused_with_its_reason(row, reason):
    with pytest.raises(DataError, match=reason):
        convert(row)


def test_a_folders_trees_are_named_after_it_and_their_number(tmp_path):
    folder = tmp_path / "G2_answer"
    folder.mkdir()
    row = {key: value for key, value in EXAMPLE.items() if key != "id"}
    for number in (7, 12):
        (folder / f"{number}_ChatGPT_DFS.json").write_text(json.dumps(row))
    (folder / "13_cut.json").write_text(json.dumps(row)[:-400])
    bad = store.BadRows()
    read = list(store.read_trajectories(tmp_path, "toolbench", "skip", bad))
    assert [record.id for record in read] == ["G2_answer/12", "G2_answer/7"]
    assert (bad.count, bad.total) == (1, 3)
    assert "not JSON" in bad.first[0]


@needs("toolbench_example")
def test_toolbenchs_own_examples_are_read_whole():
    bad = store.BadRows()
    read = list(store.read_trajectories(FOLDER / "toolbench_example" / "answer", "toolbench", "skip", bad))
    assert (len(read), bad.total, bad.count) == (9, 10, 1)
    assert "no path in" in bad.first[0]
    assert sum(record.messages[-1].content.endswith(GIVE_UP) for record in read) == 3
