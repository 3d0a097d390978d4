"""The blocks of a GGUF file, multiplied by as they are."""

from __future__ import annotations

import json

import gguf as format_of_files
import numpy
import pytest
import test_gguf
import torch

from rolecraft import gguf
from rolecraft.engine import LocalEngine, Settings, open_local
from rolecraft.engine.blocks import Blocks
from rolecraft.model import load

TYPE = format_of_files.GGMLQuantizationType


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ROLECRAFT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(params=["Q4_0", "Q4_1"])
def base(request, tmp_path, monkeypatch):
    """A GGUF file whose linear layers are of one type of 4 bits."""
    kind, real = TYPE[request.param], format_of_files.GGUFWriter.add_tensor

    def add(self, name, values):
        if not (name.startswith("blk.") and values.ndim == 2):
            return real(self, name, values)
        return real(self, name, format_of_files.quantize(values, kind), raw_dtype=kind)

    monkeypatch.setattr(format_of_files.GGUFWriter, "add_tensor", add)
    path = tmp_path / "four.gguf"
    test_gguf.write(path)
    return path


def linears(model) -> dict[str, torch.Tensor]:
    found = {name: module.weight.detach() for name, module in model.named_modules() if "proj" in name}
    assert len(found) == 7
    return found


def test_every_linear_layer_is_found_in_its_file(base):
    model = load(str(base), dtype="stored").model
    blocks = Blocks(model.name_or_path)
    assert blocks.file == base
    assert blocks.share == 1.0
    for name, weight in linears(model).items():
        groups = blocks.read(name, weight)
        assert groups is not None, name
        numpy.testing.assert_allclose(groups.dense(), weight.float(), atol=0.02 * float(weight.float().abs().max()))


def test_the_second_time_the_header_is_not_read(base):
    model = load(str(base), dtype="stored").model
    Blocks(model.name_or_path)
    table = next((gguf.converted(base)).glob("blocks.json"))
    told = json.loads(table.read_text())
    table.write_text(json.dumps({**told, "tensors": {}}))
    assert Blocks(model.name_or_path).share == 0.0


def test_a_weight_that_is_not_the_files_has_no_blocks(base):
    model = load(str(base), dtype="stored").model
    blocks = Blocks(model.name_or_path)
    for name, weight in linears(model).items():
        assert blocks.read(name, weight.flip(0)) is None
        assert blocks.read(name, weight[:-1]) is None


def test_a_file_that_is_gone_or_another_one_gives_no_blocks(base):
    model = load(str(base), dtype="stored").model
    base.write_bytes(base.read_bytes() + b"more")
    assert Blocks(model.name_or_path).file is None
    base.unlink()
    assert Blocks(model.name_or_path).file is None
    assert Blocks("nowhere").file is None


def test_the_engine_tells_whose_blocks_it_plays(base):
    with open_local(str(base), settings=Settings(max_requests=2, max_context=64, weights="int4")) as engine:
        assert f"7 matrices as {base.name} has them" in engine.weights
        assert "anew" not in engine.weights
    test_gguf.write(other := base.with_name("whole.gguf"), embedding=0.5)
    loaded = load(str(other), dtype="stored")
    loaded.model.name_or_path = "elsewhere"
    with LocalEngine(loaded, Settings(max_requests=2, max_context=64, weights="int4")) as engine:
        assert "7 matrices quantised to 4 bits anew" in engine.weights
