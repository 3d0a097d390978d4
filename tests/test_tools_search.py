"""The search tool finds passages by their words, says which row of a file is bad, and is shared between episodes."""

from __future__ import annotations

import json

import pytest

from rolecraft.errors import DataError, NotFound, SettingsError
from rolecraft.settings import from_dict
from rolecraft.tools import search

ROWS = (
    {"id": "1", "title": "Quil", "text": "Quil is a company. The debt of Quil is 3809."},
    {"id": "2", "title": "Norve", "text": "Norve is a city on a river."},
    {"id": "3", "title": "", "text": "A river flows through the city of Örby."},
)


def opened(**settings):
    return search.open(search.Settings(**{"passages": ROWS, **settings}))


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_the_best_passage_comes_first():
    assert [p.id for p in opened().find("debt of Quil")] == ["1"]


def test_every_passage_with_a_word_is_found_and_no_other():
    assert {p.id for p in opened().find("river city")} == {"2", "3"}


def test_titles_are_searched():
    rows = ({"title": "Quil", "text": "A company."}, {"title": "Norve", "text": "A city."})
    assert opened(passages=rows).call({"query": "norve"}) == "Norve: A city."


def test_words_beyond_ascii_and_single_digits_are_found():
    assert [p.id for p in opened().find("örby")] == ["3"]
    rows = ({"text": "room 7"}, {"text": "room 8"})
    assert opened(passages=rows).find("room 8")[0].text == "room 8"


def test_equals_come_in_file_order():
    rows = tuple({"id": str(i), "text": "same words here"} for i in range(20))
    assert [p.id for p in opened(passages=rows, top_k=5).find("words")] == ["0", "1", "2", "3", "4"]


def test_passages_are_one_line_each():
    rows = ({"title": "A", "text": "one\ntwo words"}, {"title": "B", "text": "two words"})
    assert sorted(opened(passages=rows).call({"query": "two words"}).split("\n")) == [
        "A: one two words",
        "B: two words",
    ]


def test_the_number_of_passages_is_bounded():
    assert len(opened(top_k=1).find("river city")) == 1


def test_a_long_passage_is_cut_at_a_word():
    rows = ({"title": "Quil", "text": "word " * 500},)
    answer = opened(passages=rows, passage_chars=20).call({"query": "quil"})
    assert answer == "Quil: word word ..."


@pytest.mark.parametrize("query", ["", "the of", "zzz", "\ud800", "?!", "x" * 1_000_000])
def test_a_query_that_matches_nothing_says_so(query):
    assert opened().call({"query": query}) == "nothing found; use other words"


def test_a_corpus_of_stop_words_finds_nothing():
    assert opened(passages=({"text": "the of"},)).call({"query": "the quil"}) == "nothing found; use other words"


def test_a_fork_shares_the_index():
    tool = opened()
    assert tool.fork() is tool


def test_closing_leaves_the_index_to_other_episodes():
    tool = opened()
    tool.close()
    assert tool.find("quil")


def test_nothing_is_printed(capsys):
    opened().call({"query": "quil"})
    assert capsys.readouterr() == ("", "")


def test_a_file_is_read(tmp_path):
    path = write(tmp_path / "c.jsonl", *(json.dumps(row, ensure_ascii=False) for row in ROWS), "")
    tool = search.open(search.Settings(corpus=str(path)))
    assert [p.id for p in tool.find("örby")] == ["3"]


def test_an_id_is_the_line_where_none_is_given(tmp_path):
    path = write(tmp_path / "c.jsonl", '{"text": "a b"}', "", '{"text": "c d"}')
    assert [p.id for p in search.read_passages(path)] == ["1", "3"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "line 2: not valid JSON"),
        ("[1]", "line 2: expected an object with a 'text', got list"),
        ('{"title": "x"}', "line 2: 'text' must be a string with something in it, got None"),
        ('{"text": " "}', "line 2: 'text' must be a string with something in it, got ' '"),
        ('{"text": 3}', "line 2: 'text' must be a string with something in it, got 3"),
        ('{"text": "a", "title": 3}', "line 2: 'title' must be a string, got 3"),
        ("[" * 100_000, "line 2: not valid JSON"),
    ],
    ids=["json", "list", "missing", "empty", "number", "title", "deep"],
)
def test_a_bad_row_is_told_with_file_line_and_reason(tmp_path, line, reason):
    path = write(tmp_path / "c.jsonl", '{"text": "fine"}', line)
    with pytest.raises(DataError) as caught:
        search.open(search.Settings(corpus=str(path)))
    assert str(caught.value).startswith(f"{path}, {reason}")


def test_a_bad_passage_in_the_settings_is_told_with_its_row():
    with pytest.raises(DataError, match=r"search.passages, row 2: 'text' must be"):
        opened(passages=(ROWS[0], {"title": "x"}))


def test_bytes_that_are_no_text_are_told_with_the_line(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_bytes(b'{"text": "\xff\xfe"}\n')
    with pytest.raises(DataError, match="line 1: not valid JSON"):
        search.open(search.Settings(corpus=str(path)))


def test_an_empty_corpus_is_told(tmp_path):
    with pytest.raises(DataError, match="it has no passages"):
        search.open(search.Settings(corpus=str(write(tmp_path / "c.jsonl", ""))))


def test_an_absent_corpus_is_not_found(tmp_path):
    with pytest.raises(NotFound, match="no file"):
        search.open(search.Settings(corpus=str(tmp_path / "c.jsonl")))


@pytest.mark.parametrize("settings", [{}, {"corpus": "c.jsonl", "passages": ROWS}])
def test_exactly_one_source_is_needed(settings):
    with pytest.raises(SettingsError, match="either a corpus, the path of a JSONL file, or passages"):
        search.open(search.Settings(**settings))


def test_passages_come_from_a_recipe():
    settings = from_dict(search.Settings, {"passages": [{"text": "Quil."}], "top_k": 1})
    assert search.open(settings).call({"query": "quil"}) == "Quil."
