"""Asks TRL, in an interpreter that has it (TRL_PYTHON), what it makes of the same tensors as we."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

PYTHON = os.environ.get("TRL_PYTHON", sys.executable)
VERSION = "1.16.0"


def ask(cases: Sequence[dict[str, Any]], folder: Path) -> list[dict[str, torch.Tensor]]:
    """Return the answers to cases of `trl_peer`; skips the test where there is no TRL of this version."""
    told = f"import trl, datasets; assert trl.__version__ == {VERSION!r}"
    has = subprocess.run([PYTHON, "-c", told], capture_output=True, check=False, timeout=300)
    if has.returncode:
        pytest.skip(f"{PYTHON} has no trl {VERSION}; run `make .venv-trl/ready` with a network, or set TRL_PYTHON")
    torch.save(list(cases), folder / "cases.pt")
    command = [PYTHON, str(Path(__file__).with_name("trl_peer.py")), str(folder / "cases.pt"), str(folder / "told.pt")]
    ran = subprocess.run(command, capture_output=True, check=False, text=True, timeout=900)
    assert not ran.returncode, ran.stderr[-4000:]
    answers: list[dict[str, torch.Tensor]] = torch.load(folder / "told.pt", weights_only=True)
    return answers
