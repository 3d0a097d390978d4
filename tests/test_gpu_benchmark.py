"""The benchmark of accelerators, on the CPU at small shapes: its parts measure, and one that cannot is told."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import gpu_parts

    return gpu_parts


@pytest.fixture
def asked(parts):
    shape = dataclasses.replace(parts.SHAPES["small"], rows=1, width=32, written=3)
    return parts.Asked("cpu", shape, 2)


def values(rows) -> dict[str, tuple[float, ...]]:
    return {row.what: row.values for row in rows}


def test_results_on_the_reference_itself_are_the_reference(parts, asked):
    found = values(parts.exact(dataclasses.replace(asked, shape=dataclasses.replace(asked.shape, width=128))))
    assert found["mor by grouped in float32, logits"] == (0.0,)
    assert found["mor by grouped in float32, gradients"] == (0.0,)
    assert 0.0 < found["mor by grouped in bfloat16, logits"][0] < 0.02
    assert found["engine's greedy replies in float32"] == (1.0,)


def test_every_way_of_a_layer_is_timed_and_the_one_that_is_not_here_told(parts, asked):
    rows = list(parts.layer(asked))
    timed = [row for row in rows if row.unit == "ms"]
    assert {len(row.values) for row in timed} == {asked.rounds}
    assert timed[0].what.startswith("mor by grouped, ")
    (missing,) = (row for row in rows if not row.values)
    assert (missing.what, missing.unit.startswith("not here: it is for CUDA")) == ("mor by grouped_mm", True)


def test_our_steps_are_timed_whether_or_not_trl_is_there(parts, asked):
    found = {row.what: row for row in parts.step(asked)}
    assert found["ours, LoRA, a step of 1 x 32 tokens"].values[0] > 0
    assert found["ours, MoR, a step of 1 x 32 tokens"].values[0] > 0
    told = [row for what, row in found.items() if what.startswith("TRL, LoRA")]
    assert told[0].values or told[0].unit.startswith("not here: ")


def test_the_engine_is_timed_beside_generate_and_says_what_forward_it_ran(parts, asked):
    found = {row.what: row for row in parts.play(asked)}
    assert "the engine's own" in found["forward that plays"].unit
    for batch in asked.shape.batches:
        assert len(found[f"engine / generate, batch {batch}"].values) == asked.rounds


def test_what_fails_is_a_row_with_the_reason(parts):
    def failing() -> Iterator[object]:
        yield parts.Row("before", "ms", (1.0,))
        raise NotImplementedError("no kernel for this device")

    assert [row.what for row in parts.tried("a way", failing)] == ["before", "a way"]
    assert list(parts.tried("a way", failing))[1].unit == "not here: NotImplementedError: no kernel for this device"


def test_a_part_that_takes_too_long_or_fails_does_not_end_the_others():
    command = [sys.executable, str(FOLDER / "gpu.py"), "--json", "--shape", "small"]
    late = subprocess.run(
        [*command, "--device", "cpu", "--seconds", "0.01"], capture_output=True, text=True, check=True
    )
    parts = json.loads(late.stdout.splitlines()[-1])["parts"]
    assert list(parts) == ["exact", "layer", "step", "play"]
    assert {rows[-1][1] for rows in parts.values()} == {"stopped after 0.01 s; the rest was not measured"}
