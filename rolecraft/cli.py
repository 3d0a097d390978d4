"""The command line: finds the verb and runs it; an error becomes one line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from rolecraft import commands
from rolecraft.errors import RolecraftError

_INTERRUPTED = 130


def main(words: Sequence[str] | None = None) -> int:
    """Run one verb; returns 0, 1 for a fault of ours, 2 for the caller's, 130 when interrupted."""
    command, options = commands.read(words)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # two threads under any other load collapse; use processes
    try:
        return int(command.run(options) or 0)
    except RolecraftError as error:
        print(f"rolecraft: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("rolecraft: interrupted; what was finished is kept, repeat the command to go on", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
