"""Nothing that a step started runs by itself in a later one, or answers for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rolecraft.sandbox import Limits, Outcome, Session, layers, process

pytestmark = pytest.mark.skipif(not layers()["seccomp"], reason="no system-call filter on this machine")


@pytest.fixture
def session() -> Iterator[Session]:
    with process.open_session(Limits(60.0)) as opened:
        yield opened


COUNTING = "import os, signal, sys, time\nran = 0\ndef count(*_):\n    global ran\n    ran += 1\n"
BUSY = "end = time.monotonic() + 0.3\nwhile time.monotonic() < end: pass\nran"

LEFT_BEHIND = {
    "a timer": "signal.signal(signal.SIGALRM, count)\nsignal.setitimer(signal.ITIMER_REAL, 0.1, 0.01)",
    "an alarm": "signal.signal(signal.SIGALRM, count)\nsignal.setitimer(signal.ITIMER_REAL, 0.1)",
    "a timer of its processor time": "signal.signal(signal.SIGVTALRM, count)\nsignal.setitimer(1, 0.05, 0.01)",
    "a timer of all processor time": "signal.signal(signal.SIGPROF, count)\nsignal.setitimer(2, 0.05, 0.01)",
    "a timer, with the module taken apart": (
        "signal.signal(signal.SIGALRM, count)\nsignal.setitimer(signal.ITIMER_REAL, 0.1, 0.01)\n"
        "signal.setitimer = signal.getitimer = signal.pthread_sigmask = print"
    ),
    "a signal that waits": (
        "signal.signal(signal.SIGALRM, count)\nsignal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})\n"
        "signal.raise_signal(signal.SIGALRM)"
    ),
    "a handler of what continues a session": "signal.signal(signal.SIGCONT, count)",
    "a handler that sets its timer again": (
        "def again(*_):\n    count()\n    signal.setitimer(signal.ITIMER_REAL, 1e-4)\n"
        "signal.signal(signal.SIGALRM, again)\nagain()\nran = -(1 << 40)"
    ),
    "a trace": "def trace(*_):\n    count()\n    return trace\nsys.settrace(trace)\nran = -2",
    "a profile": "sys.setprofile(count)\nran = -100",
}


@pytest.mark.parametrize("kind", LEFT_BEHIND)
def test_nothing_runs_on_into_the_next_step(session: Session, kind: str):
    assert session.run(COUNTING + LEFT_BEHIND[kind]).error is None
    before = int(session.run("ran").output)
    after = session.run(BUSY)
    assert after == Outcome(f"{before}\n", None)


RAISING = """
import signal
def again(*_):
    signal.setitimer(signal.ITIMER_REAL, 1e-4)
    raise RecursionError
signal.signal(signal.SIGALRM, again)
try:
    again()
    while True: pass
except RecursionError:
    pass
"""


def test_a_handler_that_raises_after_its_step_ends_nothing(session: Session):
    session.run("kept = 7")
    for _ in range(50):
        assert not session.run(RAISING).lost
    assert session.run("kept") == Outcome("7\n", None)


def test_a_handler_serves_a_later_steps_own_timer(session: Session):
    session.run("import signal\ndef late(*_):\n    raise TimeoutError('late')\nsignal.signal(signal.SIGALRM, late)")
    assert session.run("signal.alarm(1)\nwhile True: pass").error == "TimeoutError: late (step 1, line 3)"


def test_an_alarm_that_was_forgotten_ends_nothing(session: Session):
    session.run("import signal, time\nkept = 7\nsignal.setitimer(signal.ITIMER_REAL, 0.2)")
    assert session.run("time.sleep(0.5)\nkept") == Outcome("7\n", None)


LOOK_UP = """
import os, struct, sys
def runner():
    frame = sys._getframe()
    while frame.f_code.co_name != 'serve':
        frame = frame.f_back
    return frame
own = runner().f_locals.get('nonce', struct.pack('>I', 1))
"""


@pytest.mark.parametrize("later", ["(2).to_bytes(4, 'big')", "own", "bytes(len(own))"])
def test_an_answer_written_in_advance_is_not_taken(session: Session, later: str):
    """A step may answer for itself, and so end early; what it adds is not the next step's answer."""
    session.run(f"{LOOK_UP}\nos.write(3, own + b'D')\nos.write(3, {later} + b'Dforged')\nwhile True: pass")
    outcome = session.run("print('real')")
    assert "forged" not in str(outcome.error)
    assert outcome.lost
    assert session.run("print('real')") == Outcome("real\n", None)
