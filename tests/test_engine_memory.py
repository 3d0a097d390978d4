from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
from pathlib import Path
from rolecraft.engine.memory import return_freed

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20

blocks = [bytearray(b"x" * 100_000) for _ in range(3000)]
pin = bytearray(b"x" * 100_000)  # what is above it keeps the C library from giving the rest back by itself
del blocks
held = resident()
return_freed()
print(held - resident())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_freed_memory_goes_back_to_the_system():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=120)
    assert int(done.stdout) > 150
