"""A spoken request becomes a call whose arguments are its marked spans, counts as numbers."""

from __future__ import annotations

import json

import pytest
from public import FOLDER, needs

from rolecraft import store
from rolecraft.errors import DataError, NotFound
from rolecraft.importers import snips
from rolecraft.judges import calls


def converted(*parts, intent="RateBook"):
    pairs = [(part,) if isinstance(part, str) else part for part in parts]
    data = [dict(zip(("text", "entity"), pair, strict=False)) for pair in pairs]
    return snips.convert({"intent": intent, "data": data})


def test_spans_are_arguments_and_the_request_is_all_texts():
    request, reply = converted("give ", ("this", "object_select"), " ", ("four", "rating_value"), "  stars ").messages
    assert request.content == "give this four stars"
    assert dict(reply.tool_calls[0].arguments) == {"object_select": "this", "rating_value": 4}


@pytest.mark.parametrize(("text", "value"), [("zero", 0), ("Five", 5), ("3", 3), (" 6 ", 6)])
def test_counts_are_integers_in_words_too(text, value):
    assert converted((text, "rating_value")).messages[-1].tool_calls[0].arguments["rating_value"] == value


def test_numbers_that_stay_text_are_text_in_the_schema_too():
    trajectory = converted("play ", ("1987", "year"), " or ", ("eighties", "genre"), intent="PlayMusic")
    (tool,) = [tool for tool in trajectory.task.tools if tool.name == "PlayMusic"]
    assert trajectory.messages[-1].tool_calls[0].arguments["year"] == "1987"
    assert tool.parameters["properties"]["year"]["type"] == "string"


@pytest.mark.parametrize(
    ("parts", "intent", "said"),
    [
        ([("many", "rating_value")], "RateBook", "'many' is no integer"),
        ([("5", "rating_value"), ("4", "rating_value")], "RateBook", "marked twice"),
        ([("5", "artist")], "RateBook", "no parameter 'artist' of RateBook"),
        (["rate it"], "RateBook", "no 'rating_value' is marked"),
        (["go"], "FlyToMoon", "no function 'FlyToMoon'"),
        ([], "GetWeather", "empty"),
    ],
)
def test_a_request_that_is_no_call_is_told(parts, intent, said):
    with pytest.raises(DataError, match=said):
        converted(*parts, intent=intent)


def test_a_file_of_the_source_is_read_and_what_is_no_request_is_told(tmp_path):
    folder = tmp_path / "RateBook"
    folder.mkdir()
    good, bad = {"data": [{"text": "2", "entity": "rating_value"}]}, {"data": 3}
    whole = {"RateBook": [good, bad, 7]}
    (folder / "train_RateBook_full.json").write_text(json.dumps(whole))
    (folder / "Snips_metrics.json").write_text(json.dumps({"RateBook": [good] * 9}))
    told = store.BadRows()
    assert len(list(store.read_trajectories(tmp_path, "snips", "skip", told))) == 1
    assert (told.total, told.count) == (3, 2)
    with pytest.raises(NotFound, match="train_"):
        list(store.read_trajectories(folder, "snips"))


def test_a_picture_written_as_two_surrogates_is_read_as_one_and_other_bytes_do_no_harm(tmp_path):
    path = tmp_path / "x.json"
    text = b'{"AddToPlaylist": [{"data": [{"text": "\xed\xa0\xbc\xed\xbd\x95%s", "entity": "playlist"}]}]}'
    for extra, wanted in ((b"", "\U0001f355"), (b"\xff", None)):
        path.write_bytes(text % extra)
        (read,) = store.read_trajectories(path, "snips")
        found = read.messages[-1].tool_calls[0].arguments["playlist"]
        assert found == (wanted or found)
        assert found.encode()


def test_a_file_that_is_cut_is_told_with_its_name(tmp_path):
    path = tmp_path / "train_X_full.json"
    path.write_text('{"RateBook": [{"data": [')
    with pytest.raises(DataError, match=r"train_X_full\.json: not JSON"):
        list(store.read_trajectories(path, "snips", "skip"))


@needs("snips")
def test_the_public_requests_convert_but_for_those_that_mark_a_slot_twice():
    told = store.BadRows()
    read = list(store.read_trajectories(FOLDER / "snips", "snips", "skip", told))
    assert (told.total, len(read)) == (13784, 13723)
    assert list(told.reasons) == ["slot ... is marked twice; a call has one value for it"]
    assert [t.id for t in read if calls.judge(t).score < 1] == []
    intents = {path.name for path in (FOLDER / "snips").iterdir() if path.is_dir()}
    for intent in sorted(intents):
        path = FOLDER / "snips" / intent / f"validate_{intent}.json"
        assert len(list(store.read_trajectories(path, "snips"))) == 100
