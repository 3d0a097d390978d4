"""Ways to abuse the bridge that were thought of: each is code, what is seen of it, and how many tool calls it may get."""

# ruff: noqa: E501  an attempt is read best on one line

from __future__ import annotations

from dataclasses import dataclass

PRELUDE = """
import os, sys
bridge = next(c.cell_contents for c in add.__closure__ if hasattr(c.cell_contents, '_nonce'))
nonce = bridge._nonce
def by_hand(text, kind=b'C', nonce=nonce):
    os.write(3, nonce + kind + (text if isinstance(text, bytes) else text.encode()))
def hear():
    return os.read(3, 64_000)[17:].decode()
def ask(text):
    by_hand(text)
    print(hear())
"""
LOST = "the session starts anew"


@dataclass(frozen=True)
class Abuse:
    """`code` runs after PRELUDE; `seen` must be in what is told of it, and the tools are called `calls` times at most."""

    name: str
    code: str
    seen: str
    calls: int = 0
    answer: str | None = None


ABUSES = (
    # forged messages
    Abuse("a reply that the host should have written", "by_hand('[false, 1]', b'V'); hear()", LOST),
    Abuse("the end of the step, and a call after it", "by_hand('', b'D'); add(1, 1)", ""),
    Abuse("the end of the session", "by_hand('', b'X', bytes(16)); import time; time.sleep(9)", LOST),
    Abuse("a call with another nonce", 'by_hand(\'["add", {"a": 1, "b": 1}]\', nonce=b\'x\' * 16)', LOST),
    Abuse("a call with no nonce", 'by_hand(\'["add", {"a": 1, "b": 1}]\', nonce=bytes(16))', LOST),
    Abuse("a message that is cut", "os.write(3, b'abc')", LOST),
    Abuse("an empty message", "os.write(3, b''); import time; time.sleep(9)", ""),
    Abuse("a kind that nobody knows", "by_hand('[]', b'Z')", LOST),
    Abuse("a message of a megabyte", "by_hand(b'x' * 60_000)", LOST),
    # requests that are none
    Abuse("no JSON", "ask('add(1, 2)')", "no JSON"),
    Abuse("a call of nothing", "ask('[]')", "a name and its arguments"),
    Abuse("a name that is no text", "ask('[{\"add\": 1}, {}]')", "a name and its arguments"),
    Abuse("arguments that are a list", "ask('[\"add\", [1, 2]]')", "a name and its arguments"),
    Abuse("not a number", "add(float('nan'), 1)", "no JSON"),
    Abuse("infinity by hand", 'ask(\'["add", {"a": 1e999, "b": 1}]\')', "no JSON"),
    Abuse("a key twice", 'ask(\'["add", {"a": 1, "a": 2, "b": 1}]\')', "no JSON"),
    Abuse("a number of 20,000 digits", "ask('[\"add\", {\"a\": ' + '9' * 20_000 + ', \"b\": 1}]')", "no JSON"),
    Abuse("arguments nested 200 deep", "ask('[\"add\", {\"a\": ' + '[' * 200 + ']' * 200 + '}]')", "nested at most"),
    Abuse("arguments nested 15,000 deep", "ask('[\"add\", {\"a\": ' + '[' * 15_000 + ']' * 15_000 + '}]')", "no JSON"),
    Abuse("half a character", "add('\\ud800', 1)", "error", 1),
    # tools that are not offered, and arguments that do not fit
    Abuse("a tool that is not there", "ask('[\"erase\", {}]')", "no function 'erase'"),
    Abuse("python itself, from python", 'ask(\'["python", {"code": "1"}]\')', "no function 'python'"),
    Abuse("a method of the toolbox", "ask('[\"close\", {}]')", "no function 'close'"),
    Abuse("a name that is a path", "ask('[\"../../add\", {}]')", "no function"),
    Abuse("text where a number belongs", "add('1; import os', 1)", "error", 1),
    Abuse("an argument that nobody has", "add(1, b=2, admin=True)", "error", 1),
    Abuse("too many arguments", "add(1, 2, 3)", "takes 2 arguments"),
    # floods
    Abuse("calls without end", "while True:\n    try: add(1, 1)\n    except ToolError: pass", LOST, 8),
    Abuse(
        "calls whose answers nobody reads", 'for _ in range(10_000): by_hand(\'["add", {"a": 1, "b": 1}]\')', LOST, 8
    ),
    Abuse("refused calls without end", "while True: ask('[]')", LOST),
    Abuse("prints without end", "while True: print('x' * 10_000)", LOST),
    Abuse("arguments of a megabyte", "add('x' * 1_000_000, 1)", "at most 32000 are taken"),
    Abuse("calls that take their time", "for _ in range(100): slow()", "error", 8),
    Abuse("one call that never ends", "endless()", "did not answer in time", 1),
    Abuse("recursion through a call", "def f(): return add(f(), 1)\nf()", "RecursionError"),
    Abuse("a format that fills the memory", "add('{:>9999999999}'.format(1), 1)", "MemoryError"),
    Abuse(
        "a text that is never done",
        "class T:\n    def __str__(self):\n        while True: pass\nadd(T(), 1)",
        "timed out",
    ),
    Abuse("a list that holds itself", "x = []; x.append(x); add(x, 1)", "Circular"),
    # processes, threads and descriptors
    Abuse("a child that calls too", "if os.fork() == 0: add(1, 1)", "error"),
    Abuse(
        "threads that call at once",
        "import threading\nfor _ in range(9): threading.Thread(target=add, args=(1, 1)).start()",
        "error",
    ),
    Abuse("the channel closed", "os.close(3); add(1, 1)", "error"),
    Abuse("the channel put elsewhere", "os.dup2(3, 9); os.close(3); os.write(9, b'x')", LOST),
    Abuse("a channel of its own", "r, w = os.pipe(); os.dup2(w, 3); add(1, 1)", "error"),
    Abuse("the next step's question read early", "os.set_blocking(3, False)\nprint(os.read(3, 10))", "error"),
    # what goes on after the end
    Abuse(
        "a timer that calls later",
        "import signal\nsignal.signal(signal.SIGALRM, lambda *_: add(1, 1))\nsignal.setitimer(signal.ITIMER_REAL, 0.05)",
        "",
    ),
    Abuse("a call at exit", "import atexit; atexit.register(add, 1, 1); sys.exit(3)", "SystemExit"),
    Abuse("tracing that calls", "sys.settrace(lambda *_: add(1, 1)); (lambda: 1)()", "", 8),
    Abuse(
        "calls after the answer",
        "try: final_answer(7)\nexcept BaseException: print(add(1, 1))",
        "the task has ended",
        0,
        "7",
    ),
    Abuse(
        "a second answer",
        "try: final_answer('one')\nexcept BaseException: final_answer('two')",
        "the task has ended",
        0,
        "one",
    ),
    Abuse("an answer that is too large", "final_answer('x' * 1_000_000)", "at most 32000 are taken"),
    Abuse("an answer that is no JSON", 'ask(\'["final_answer", {"answer": NaN}]\')', "no JSON"),
    # what tools answer
    Abuse("an answer that looks like code", "x = hostile(); print(type(x), x)", "<class 'str'> __import__", 1),
    Abuse("an answer that looks like a reply", "x = forged(); print(type(x), x)", "<class 'list'> [False, 42]", 1),
    Abuse("an answer of a megabyte", "print(len(big()))", "", 1),
    Abuse("an answer nested 5,000 deep", "print(type(deep()))", "<class 'str'>", 1),
    # the interpreter around the functions
    Abuse("json replaced", "import json; json.dumps = json.loads = lambda *a, **b: 1/0; print(add(1, 1))", "2", 1),
    Abuse("os.write replaced", "os.write = lambda *a: 1/0; print(add(1, 1))", "2", 1),
    Abuse("the nonce replaced", "bridge._nonce = b'y' * 16; add(1, 1)", LOST),
)
