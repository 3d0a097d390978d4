"""The native format is written back as it was read."""

from __future__ import annotations

from rolecraft import wire
from rolecraft.importers import openai


def test_the_example_is_written_back_as_it_was():
    assert wire.trajectory_to_json(openai.convert(openai.EXAMPLE)) == openai.EXAMPLE
