"""Every importer keeps its contract: the example is right, and no text of a row is lost."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from rolecraft import catalog, wire
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


def lost(row, trajectory):
    words = {"conversations", "from", "value", "human", "gpt", "function_call", "observation", "messages", "tools"}
    return set(texts(row)) - set(texts(wire.trajectory_to_json(trajectory))) - words


@pytest.mark.parametrize("name", NAMES)
def test_the_example_makes_right_calls(name):
    importer = catalog.find("importers", name)
    verdict = calls.judge(importer.convert(importer.EXAMPLE))
    assert verdict.score == 1, verdict.reason
    assert verdict.reason != "no calls"


@pytest.mark.parametrize("name", NAMES)
def test_no_text_of_the_example_is_lost(name):
    importer = catalog.find("importers", name)
    assert lost(importer.EXAMPLE, importer.convert(importer.EXAMPLE)) == set()


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
    assert asked == [f"call_{i}" for i in range(len(asked))]
    assert [message.tool_call_id for message in messages if message.role == "tool"] == asked
