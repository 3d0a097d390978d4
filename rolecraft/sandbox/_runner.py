"""Runs a session's steps inside the sandbox: reads code from the channel, executes it, answers with the error line.

Runs in the session itself, next to code that may change anything in this interpreter: whatever is answered from here
may be forged, and nothing here protects anybody. What a step left in the interpreter (names, replaced functions, hooks)
acts in later steps; what would run by itself is ended with the step. Standard library only.
"""

from __future__ import annotations

import ast
import builtins
import os
import signal
import struct
import sys
from collections.abc import Callable
from types import ModuleType, TracebackType
from typing import Any

# number of the step, its nonce, lengths in bytes of its code and of what tells its functions; then both, in pieces
ASK = struct.Struct(">I16sII")
ANSWER = struct.Struct(">16sc")  # nonce of the step that was asked for, or NONE; kind; then text
NONE = bytes(16)
READY, DONE, EXIT, BROKEN = b"R", b"D", b"X", b"B"
CALL, RESULT = b"C", b"V"  # a call of a function of the host's, and what the host answers to it
PIECE = 32_768
TEXT = 1_000
_TRIES = range(1_000)  # to end a step whose signal handlers raise
CALL_BYTES = 32_000  # of a call, and of its answer
_TIMERS = {
    signal.ITIMER_REAL: signal.SIGALRM,
    signal.ITIMER_VIRTUAL: signal.SIGVTALRM,
    signal.ITIMER_PROF: signal.SIGPROF,
}


def serve(channel: int, bind: Callable[[dict[str, Any], str, bytes], None]) -> None:
    """Answer steps until the channel is closed; variables stay between them.

    `bind` puts the functions that a step is told of into its names.
    """
    read, write, leave = os.read, os.write, os._exit
    main = ModuleType("__main__")
    sys.modules["__main__"] = main
    names = main.__dict__
    names["__builtins__"] = builtins
    vars(builtins).update(exit=sys.exit, quit=sys.exit)  # as in an interactive session; `site` is not loaded
    still = _stiller()
    write(channel, ANSWER.pack(NONE, READY))
    while True:
        header = read(channel, ASK.size)
        if len(header) != ASK.size:
            leave(0)
        number, nonce, length, told = ASK.unpack(header)
        sent = b""
        while len(sent) < length + told:
            sent += read(channel, PIECE)
        code, functions = sent[:length], sent[length:]
        bind(names, functions.decode(), nonce)
        _reset_streams()
        error = None
        try:  # noqa: SIM105  entering `suppress` would be one more place for a handler to raise in
            error = run_step(code.decode("utf-8", "replace"), f"<step {number}>", names)
        except BaseException:  # noqa: BLE001  raised by a handler of the code's after its last line
            pass
        for _ in _TRIES:  # here, not in a function: a handler may raise wherever one is entered
            try:
                for _ in _TRIES:  # within a second one: it may raise as well at the jump from one try to the next
                    try:
                        _flush()
                        still()
                        break
                    except BaseException:  # noqa: BLE001  a handler's
                        pass
                break
            except BaseException:  # noqa: BLE001  a handler's
                pass
        bind(names, "", NONE)
        write(channel, ANSWER.pack(nonce, DONE) + (error or "").encode("utf-8", "replace")[:TEXT])


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


def _stiller() -> Callable[[], None]:
    """Return a function that ends what a step left to run by itself in later ones: timers, tracing, profiling.

    It keeps the functions that it calls: a step may have replaced them in their modules. Handlers of signals stay, for
    a later step's own timers, except SIGCONT's: each step begins with one.
    """
    timers, numbers = _TIMERS.items(), {*_TIMERS.values(), signal.SIGCONT}
    mask, block, unblock = signal.pthread_sigmask, signal.SIG_BLOCK, signal.SIG_UNBLOCK
    handle, handler_of, ignore, default = signal.signal, signal.getsignal, signal.SIG_IGN, signal.SIG_DFL
    set_timer, trace, profile = signal.setitimer, sys.settrace, sys.setprofile

    def still() -> None:
        trace(None)
        profile(None)
        while True:
            try:
                if numbers <= mask(block, numbers):  # twice: handlers of signals on their way run in the first call
                    break
            except BaseException:  # noqa: BLE001  a handler's
                continue
        for timer, number in timers:
            handler = handler_of(number)
            set_timer(timer, 0)
            handle(number, ignore)  # forgets a signal that is blocked
            handle(number, default if handler is None else handler)
        handle(signal.SIGCONT, default)
        mask(unblock, numbers)

    return still


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
