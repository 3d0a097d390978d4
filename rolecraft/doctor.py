"""Tells what this machine offers Rolecraft: versions, devices, sandbox layers, and extras that are missing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from rolecraft import sandbox

_CORE = "torch transformers peft accelerate tokenizers safetensors bm25s numpy jsonschema".split()
_EXTRAS = {
    "gguf": ("gguf", "bases in GGUF files"),
    "tensorboard": ("tensorboard", "training curves in TensorBoard"),
    "wandb": ("wandb", "training curves in Weights & Biases"),
    "trackio": ("trackio", "training curves in Trackio"),
}
"""Package -> (the extra that installs it, what it is for)."""


def examine() -> dict[str, Any]:
    """Return what was found as JSON-ready data: versions, devices, sandbox, extras."""
    return {
        "rolecraft": importlib.metadata.version("rolecraft"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "versions": {name: _version(name) for name in _CORE},
        "devices": _devices(),
        "sandbox": dict(sandbox.layers()),
        "extras": {name: _version(name) for name in _EXTRAS},
    }


def show(found: Mapping[str, Any], console: Console) -> None:
    """Print what `examine` found, with a remedy beside everything that is missing."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    table.add_row("rolecraft", f"{found['rolecraft']} on Python {found['python']}, {found['system']}")
    for name, version in found["versions"].items():
        table.add_row(name, version or f"missing: pip install {name}")
    for name, value in found["devices"].items():
        table.add_row(name.replace("_", " "), str(value))
    table.add_row("sandbox", _sandbox_line(found["sandbox"]))
    for name, version in found["extras"].items():
        extra, purpose = _EXTRAS[name]
        table.add_row(name, version or f"not installed ({purpose}): pip install 'rolecraft\\[{extra}]'")
    console.print(table)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> dict[str, Any]:
    devices: dict[str, Any] = {"cpu_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None}
    devices["cpu_cores"] = devices["cpu_cores"] or os.cpu_count()
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        devices["memory_gib"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    devices["torch_threads"] = torch.get_num_threads()
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    devices["gpus"] = names or "none; everything runs on the CPU"
    return devices


def _sandbox_line(layers: Mapping[str, bool]) -> str:
    active = [name for name, works in layers.items() if works]
    absent = [name for name, works in layers.items() if not works]
    if not active:
        return "no isolation on this system: model-written code is refused unless you pass --unsafe"
    return ", ".join(active) + (f" (not available: {', '.join(absent)})" if absent else "")
