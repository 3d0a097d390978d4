"""Every importer keeps its contract: the example is right, and no text of a row is lost."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Iterator
from typing import Any

import pytest

from rolecraft import catalog, store, wire
from rolecraft.judges import calls

NAMES = catalog.names("importers")


def texts(value: Any) -> Iterator[str]:
    """Yield every text in a JSON value; text that is itself JSON is opened."""
    if isinstance(value, str):
        try:
            inner = json.loads(value)
        except ValueError:
            yield value
        else:
            yield from texts(inner) if isinstance(inner, dict | list) else [value]
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)
    elif value is not None:
        yield json.dumps(value)


def without(value: Any, keys: Collection[str]) -> Any:
    """Return a JSON value without what stands under `keys`, at any depth."""
    if isinstance(value, list):
        return [without(item, keys) for item in value]
    return {k: without(v, keys) for k, v in value.items() if k not in keys} if isinstance(value, dict) else value


def lost(row, trajectory, importer=None):
    words = {"conversations", "from", "value", "human", "gpt", "function_call", "observation", "messages", "tools"}
    kept = set(texts(wire.trajectory_to_json(trajectory)))
    if importer is None or not hasattr(importer, "LEFT_OUT"):
        return set(texts(row)) - kept - words
    # an annotated source: its keys are words of the format, and pieces of a text are kept in the whole
    told = set(texts(without(row, importer.LEFT_OUT))) - {*words, *keys(row), "True", "False"}
    return {one for one in told if not any(one.strip() in text for text in kept)}


def keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from keys(item)


@pytest.mark.parametrize("name", NAMES)
def test_the_example_makes_right_calls(name):
    importer = catalog.find("importers", name)
    verdict = calls.judge(importer.convert(importer.EXAMPLE))
    assert verdict.score == 1, verdict.reason
    assert verdict.reason != "no calls"


@pytest.mark.parametrize("name", NAMES)
def test_no_text_of_the_example_is_lost(name):
    importer = catalog.find("importers", name)
    assert lost(importer.EXAMPLE, importer.convert(importer.EXAMPLE), importer) == set()


@pytest.mark.parametrize("name", NAMES)
def test_the_example_survives_the_wire(name):
    importer = catalog.find("importers", name)
    trajectory = importer.convert(importer.EXAMPLE)
    assert wire.trajectory_from_json(json.loads(wire.dumps(wire.trajectory_to_json(trajectory)))) == trajectory


@pytest.mark.parametrize("name", NAMES)
def test_converting_leaves_the_row_alone(name):
    importer = catalog.find("importers", name)
    row = copy.deepcopy(importer.EXAMPLE)
    assert importer.convert(row) == importer.convert(row)
    assert row == importer.EXAMPLE


@pytest.mark.parametrize("name", NAMES)
def test_tool_messages_answer_the_calls_in_order(name):
    importer = catalog.find("importers", name)
    messages = importer.convert(importer.EXAMPLE).messages
    asked = [call.id for message in messages for call in message.tool_calls]
    answered = [message.tool_call_id for message in messages if message.role == "tool"]
    open_calls = [call.id for call in messages[-1].tool_calls]  # a conversation may end in its calls
    assert asked == [f"call_{i}" for i in range(len(asked))]
    assert [*answered, *open_calls] == asked


HOSTILE = (None, 3, 1e308, True, "", "\ud800", "{'", [], [[]], {"x": [None]}, "API_call_0", "9" * 5000, "<tool_call>")


def spoiled(value: Any) -> Iterator[Any]:
    """Yield the value with each part in it replaced by each hostile one, left out, given twice, or its list turned."""
    yield from HOSTILE
    items = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    for key, item in items:
        for worse in spoiled(item):
            changed = copy.copy(value)
            changed[key] = worse
            yield changed
        if isinstance(value, dict):
            yield {name: other for name, other in value.items() if name != key}
    if isinstance(value, list) and value:
        yield from (value[:-1], value[1:], value[::-1], [*value, value[0]])


@pytest.mark.parametrize("name", NAMES)
def test_a_row_with_any_part_spoiled_is_read_or_refused(name, tmp_path):
    importer = catalog.find("importers", name)
    path = tmp_path / "rows.jsonl"
    rows = [importer.EXAMPLE, *spoiled(importer.EXAMPLE)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    told = store.BadRows()
    read = list(store.read_trajectories(path, name, "skip", told))
    assert told.total == len(rows) == len(read) + told.count
    assert sum(told.reasons.values()) == told.count > 0
    for trajectory in read:
        assert wire.trajectory_from_json(json.loads(wire.dumps(wire.trajectory_to_json(trajectory)))) == trajectory


@pytest.mark.parametrize("name", NAMES)
def test_a_row_cut_anywhere_is_told_with_its_place(name, tmp_path):
    text = json.dumps(catalog.find("importers", name).EXAMPLE)
    cut = [text[:end] for end in range(1, len(text), 97)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([text, *cut]) + "\n", encoding="utf-8")
    told = store.BadRows()
    assert len(list(store.read_trajectories(path, name, "skip", told))) == 1
    assert (told.total, told.count) == (len(cut) + 1, len(cut))
    assert ":2: " in told.first[0]
