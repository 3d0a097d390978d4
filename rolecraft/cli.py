"""The command line: finds the verb and runs it; an error becomes a line on stderr and an exit code, never a trace."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from rolecraft import commands
from rolecraft.errors import RolecraftError
from rolecraft.telling import tell

_INTERRUPTED = 130


def main(words: Sequence[str] | None = None) -> int:
    """Run one verb; returns 0, 1 where something failed, 2 where the caller can mend it, 130 when interrupted."""
    try:
        try:
            command, options = commands.read(words)
            os.environ.setdefault("OMP_NUM_THREADS", "1")  # two threads under any other load collapse; use processes
            return int(command.run(options) or 0)
        finally:
            _flush_output()  # here, where an error is told; when Python flushes as it ends, it prints a trace
    except KeyboardInterrupt:
        print("rolecraft: interrupted; what was finished is kept, repeat the command to go on", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        _drop_output()
        return 1
    except Exception as error:  # noqa: BLE001  the command line: nobody above could tell it
        tell(error)
        _drop_output()
        return error.exit_code if isinstance(error, RolecraftError) else 1


def _flush_output() -> None:
    if sys.stdout is not None:  # it is None where the caller closed it
        sys.stdout.flush()


def _drop_output() -> None:
    """Send what could not be written nowhere, so that Python does not try again as it ends."""
    try:
        _flush_output()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
