"""What a result may depend on beside its configuration: the machine, the versions of what computes, and the code.

Not covered: what else the machine did meanwhile.
"""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path
from typing import Any

import peft
import torch
import transformers


def describe(side_by_side: int) -> dict[str, Any]:
    """Return it as JSON; `code` is a digest of the package's own files, `side_by_side` how many cells run at once."""
    root, told = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.suffix in (".py", ".yaml")):
        told.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return {
        "code": told.hexdigest()[:12],
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "side_by_side": side_by_side,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "peft": peft.__version__,
    }
