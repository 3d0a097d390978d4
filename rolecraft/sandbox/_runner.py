"""Runs a session's steps inside the sandbox: reads code from the channel, executes it, answers with the error line.

Runs in the session itself, next to code that may change anything in this interpreter: whatever is answered from here
may be forged, and nothing here protects anybody. Standard library only.
"""

from __future__ import annotations

import ast
import builtins
import os
import struct
import sys
from types import ModuleType, TracebackType
from typing import Any

ASK = struct.Struct(">II")  # number of the step, length of its code in bytes; then the code, in pieces
ANSWER = struct.Struct(">Ic")  # number of the step, kind; then text
READY, DONE, EXIT, BROKEN = b"R", b"D", b"X", b"B"
PIECE = 32_768
TEXT = 1_000


def serve(channel: int) -> None:
    """Answer steps until the channel is closed; variables stay between them."""
    read, write, leave = os.read, os.write, os._exit
    main = ModuleType("__main__")
    sys.modules["__main__"] = main
    names = main.__dict__
    names["__builtins__"] = builtins
    vars(builtins).update(exit=sys.exit, quit=sys.exit)  # as in an interactive session; `site` is not loaded
    write(channel, ANSWER.pack(0, READY))
    while True:
        header = read(channel, ASK.size)
        if len(header) != ASK.size:
            leave(0)
        number, length = ASK.unpack(header)
        code = b""
        while len(code) < length:
            code += read(channel, PIECE)
        _reset_streams()
        error = run_step(code.decode("utf-8", "replace"), f"<step {number}>", names)
        _flush()
        write(channel, ANSWER.pack(number, DONE) + (error or "").encode("utf-8", "replace")[:TEXT])


def run_step(code: str, name: str, names: dict[str, Any]) -> str | None:
    """Execute one step in `names` and return its error as one line, None if there was none."""
    try:
        tree = ast.parse(code, name)
        last = tree.body[-1] if tree.body else None
        if isinstance(last, ast.Expr):
            tree.body.pop()
        exec(compile(tree, name, "exec", dont_inherit=True), names)
        if not isinstance(last, ast.Expr):
            return None
        value = eval(compile(ast.Expression(last.value), name, "eval", dont_inherit=True), names)
        if value is not None:
            names["_"] = value
            print(repr(value))
    except BaseException as error:  # noqa: BLE001  the code's errors are its outcome, sys.exit() and Ctrl-C too
        return _tell(error, name)
    return None


def _tell(error: BaseException, name: str) -> str | None:
    """Return `ZeroDivisionError: division by zero (line 3)`, one line whatever the error's own text is."""
    if isinstance(error, SystemExit) and error.code in (None, 0):
        return None
    kind = type(error).__name__
    try:
        text = error.msg if isinstance(error, SyntaxError) else str(error)
    except BaseException as other:  # noqa: BLE001  the error's class is the code's own
        text = f"its message cannot be read: {type(other).__name__}"
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == name else None
    place = _place(error.__traceback__, name) if line is None else f"line {line}"
    said = " ".join(f"{kind}: {text}".split()) if text else kind
    return said[: TEXT - 50] + (f" ({place})" if place else "")


def _place(traceback: TracebackType | None, name: str) -> str:
    """Return the innermost place in the session's own code: `line 3`, or `step 1, line 3` for an earlier step."""
    place = ""
    while traceback is not None:
        file, line = traceback.tb_frame.f_code.co_filename, traceback.tb_lineno
        if file == name:
            place = f"line {line}"
        elif file.startswith("<step "):
            place = f"{file[1:-1]}, line {line}"
        traceback = traceback.tb_next
    return place


def _reset_streams() -> None:
    """Give each step fresh streams: the one before may have closed or replaced them."""
    # Line by line, so that what was printed before the session is stopped is not lost.
    for stream, descriptor in (("stdout", 1), ("stderr", 2)):
        fresh = os.fdopen(descriptor, "w", 1, "utf-8", "backslashreplace", closefd=False)
        setattr(sys, stream, fresh)
        setattr(sys, f"__{stream}__", fresh)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:  # noqa: BLE001  the stream may be the code's own
            continue
