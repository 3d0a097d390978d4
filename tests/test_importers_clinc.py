"""A request becomes the call of its intent, and one outside all intents is answered that none fits."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from public import FOLDER, needs

from rolecraft import store
from rolecraft.errors import DataError
from rolecraft.importers import NO_TOOL_FITS, clinc


def test_a_request_outside_all_intents_calls_nothing():
    reply = clinc.convert({"text": "why is glue", "intent": "oos", "offered": ["lock_bicycle"]}).messages[-1]
    assert (reply.content, reply.tool_calls) == (NO_TOOL_FITS, ())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"intent": "fly"}, "'fly' is not among those offered"),
        ({"text": "  "}, "texts"),
        ({"offered": [1]}, "texts"),
        ({"mood": "sad"}, "unknown key 'mood'"),
    ],
)
def test_a_corrupt_row_is_told(change, said):
    with pytest.raises(DataError, match=said):
        clinc.convert({**clinc.EXAMPLE, **change})


def test_a_file_is_read_those_outside_first_each_offered_its_own_and_others_alike_every_time(tmp_path):
    path = tmp_path / "data.json"
    inside = [[f"request {n}", f"intent_{n}"] for n in range(20)]
    path.write_text(json.dumps({"train": [*inside, ["no pair"]], "oos_train": [["why", "oos"]]}))
    told = store.BadRows()
    read = list(store.read_trajectories(path, "clinc", "skip", told))
    assert told.count == 1
    assert read == list(store.read_trajectories(path, "clinc", "skip"))
    assert read[0].messages[0].content == "why"
    assert {len(t.task.tools) for t in read} == {8}
    places = Counter([tool.name for tool in t.task.tools].index(t.messages[-1].tool_calls[0].name) for t in read[1:])
    assert len(places) > 3  # its own is not always the first


@pytest.mark.parametrize("text", [b'{"train": [["why", "oos"]', b"[]", b'{"train": "\xff"}', b"3", b""])
def test_a_file_that_is_no_whole_object_is_told_with_its_name(text, tmp_path):
    path = tmp_path / "data_full.json"
    path.write_bytes(text)
    with pytest.raises(DataError, match=r"data_full\.json"):
        list(store.read_trajectories(path, "clinc", "skip"))


@needs("clinc")
def test_the_public_requests_convert_whole():
    read = list(store.read_trajectories(FOLDER / "clinc" / "data_full.json", "clinc"))
    negatives = [t for t in read if not t.messages[-1].tool_calls]
    assert (len(read), len(negatives)) == (23700, 1200)
    assert all(not t.messages[-1].tool_calls for t in read[:1200])
