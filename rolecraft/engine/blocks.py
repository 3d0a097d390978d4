"""The 4-bit blocks of the GGUF file that a base came from, so that they can be multiplied by as they are.

Covered: Q4_0 and Q4_1. A block is taken only where it gives the very weight that the model has. Not covered: what other
types hold, which is quantised anew.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from rolecraft import gguf
from rolecraft.engine.packed import GROUP, Groups
from rolecraft.errors import NotFound
from rolecraft.store import atomic

_TYPES = ("Q4_0", "Q4_1")
_MIDDLE = 8
_TABLE = "blocks.json"
_TRIED = 64
"""So many rows tell in which order the file has them."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a tensor lies in its file, and how many rows it has."""

    kind: str
    offset: int
    rows: int
    bytes: int


class Blocks:
    """The tensors of a base's GGUF file by the names that transformers has for them."""

    def __init__(self, folder: str) -> None:
        """Open the file that the folder was dequantised from; where it is no such folder, or the file is gone or
        another one by now, there are no blocks."""
        self.file = _source(folder)
        self._tensors: dict[str, _Place] = {}
        self._names: Any = None
        self._heads: dict[str, int] = {}
        if self.file is None:
            return
        import gguf as format_of_files  # an extra, which is there where such a folder is

        told = _table(self.file, Path(folder) / _TABLE)
        arch = next((arch for arch, name in format_of_files.MODEL_ARCH_NAMES.items() if name == told["kind"]), None)
        if arch is not None:
            self._tensors = {name: _Place(*place) for name, place in told["tensors"].items()}
            self._names = format_of_files.get_tensor_name_map(arch, told["layers"])
            self._heads = told["heads"]

    @property
    def share(self) -> float:
        """The share of the file's matrices, embeddings aside, whose blocks are of 4 bits."""
        inner = [place for name, place in self._tensors.items() if name.startswith("blk.") and place.rows > 1]
        return sum(place.kind in _TYPES for place in inner) / len(inner) if inner else 0.0

    def read(self, name: str, weight: Tensor) -> Groups | None:
        """Return the blocks of the linear layer `name` with `weight` (out, in), None where the file has no such."""
        known = None if self._names is None else self._names.get_name(name)
        place = self._tensors.get(f"{known}.weight")
        if self.file is None or place is None or place.kind not in _TYPES:
            return None
        groups = _groups(self.file, place)
        if groups.numbers.shape != weight.shape:
            return None
        heads = self._heads.get(str(known).rpartition(".")[2])
        for order in (None, _interleaved(len(weight), heads) if heads else None):
            found = groups if order is None else _ordered(groups, order)
            if _gives(found, weight):
                return found
        return None


def _source(folder: str) -> Path | None:
    try:
        told = json.loads((Path(folder) / gguf.SOURCE).read_text(encoding="utf-8"))
        path = Path(told["path"])
        return path if gguf.converted(path) == Path(folder) else None
    except (OSError, ValueError, KeyError, NotFound):
        return None


def _table(file: Path, kept: Path) -> dict[str, Any]:
    """Return what the file's header tells of its tensors; it is kept, since a vocabulary takes seconds to read past."""
    try:
        found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        import gguf as format_of_files

        reader = format_of_files.GGUFReader(str(file))
        kind = str(reader.fields["general.architecture"].contents())

        def number(key: str) -> int:
            field = reader.fields.get(f"{kind}.{key}")
            return 0 if field is None else int(field.contents())

        tensors = {
            str(tensor.name): (tensor.tensor_type.name, int(tensor.data_offset), _rows(tensor), int(tensor.n_bytes))
            for tensor in reader.tensors
        }
        heads = {"attn_q": number("attention.head_count"), "attn_k": number("attention.head_count_kv")}
        found = {"kind": kind, "layers": number("block_count"), "heads": heads, "tensors": tensors}
        with atomic(kept) as partial:
            partial.write_text(json.dumps(found), encoding="utf-8")
    return found


def _rows(tensor: Any) -> int:
    return int(tensor.shape[1]) if len(tensor.shape) == 2 else 1


def _groups(file: Path, place: _Place) -> Groups:
    """Return a tensor's blocks: two or four bytes of scale and offset, then 16 with the low halves' numbers first."""
    shifted = place.kind == "Q4_1"
    size = 20 if shifted else 18
    raw = numpy.fromfile(file, numpy.uint8, place.bytes, offset=place.offset).reshape(place.rows, -1, size)
    head = 4 if shifted else 2
    scales = raw[:, :, :2].copy().view(numpy.float16)[:, :, 0].astype(numpy.float32)
    packed = raw[:, :, head:]
    numbers = numpy.concatenate((packed & 15, packed >> 4), -1).reshape(len(raw), -1)
    offsets = numpy.zeros_like(scales)
    if shifted:
        offsets = raw[:, :, 2:4].copy().view(numpy.float16)[:, :, 0].astype(numpy.float32) + _MIDDLE * scales
    return Groups(torch.from_numpy(numbers), torch.from_numpy(scales), torch.from_numpy(offsets))


def _interleaved(rows: int, heads: int) -> Tensor:
    """Return the order that transformers gives the rows of queries and keys, which such a file has by pairs."""
    return torch.arange(rows).view(heads, rows // heads // 2, 2).transpose(1, 2).reshape(-1)


def _ordered(groups: Groups, order: Tensor) -> Groups:
    return Groups(groups.numbers[order], groups.scales[order], groups.offsets[order])


def _gives(groups: Groups, weight: Tensor) -> bool:
    """Tell by some rows whether blocks are the weight, which was rounded to bfloat16 when the file was read."""
    some = torch.linspace(0, len(weight) - 1, min(_TRIED, len(weight))).long()
    numbers, scales, offsets = (part[some] for part in (groups.numbers, groups.scales, groups.offsets))
    grouped = numbers.view(len(some), -1, GROUP).float() - _MIDDLE
    dense = (grouped * scales.unsqueeze(-1) + offsets.unsqueeze(-1)).view(len(some), -1)
    return torch.allclose(dense, weight[some].float(), rtol=2**-7, atol=float(scales.abs().max()) * 1e-3)
