"""Checks that the number or expression an answer comes to is the reference's, however it is written.

Both are read by math-verify (latex2sympy), which builds symbolic expressions of what a model wrote: it runs in the
sandbox, bounded in time and memory. Not covered: units, and which of several results of one answer is meant beyond
math-verify's own order (a boxed one, then one named the final answer, then the last).
"""

from __future__ import annotations

import functools
import importlib.util
import os
import threading

from rolecraft.errors import MissingExtra
from rolecraft.judges.answers import answer_of
from rolecraft.sandbox import Limits, Session, open_session
from rolecraft.types import Trajectory, Verdict

_SECONDS = 6.0
_MOST_CHARS = 4000  # the end of an answer: what it comes to stands there
_MODULES = ("math_verify", "latex2sympy2_extended")
_CODE = """
from math_verify import parse, verify
_gold, _told = (parse(text, parsing_timeout=2) for text in ({gold!r}, {told!r}))
print("none" if not _told else "right" if verify(_gold, _told, timeout_seconds=2) else "wrong")
"""


def judge(trajectory: Trajectory) -> Verdict:
    """Return 1 if the answer comes to `reference["maths"]`, else 0; raises MissingExtra without math-verify.

    An answer that cannot be compared in time is wrong.
    """
    gold = trajectory.task.reference.get("maths")
    if gold is None:
        return Verdict(0.0, "the task's reference has no 'maths'; add it, or use another judge")
    answer = answer_of(trajectory)
    if answer is None:
        return Verdict(0.0, f"no answer: the episode ended by {trajectory.stop!r}, or in a call")
    found = _compared(str(gold), answer[-_MOST_CHARS:])
    reasons = {
        "right": "",
        "wrong": f"the answer does not come to {str(gold)[:60]}",
        "none": "the answer has no number or expression",
        "late": f"the answer could not be compared with {str(gold)[:60]} in time",
    }
    return Verdict(float(found == "right"), reasons[found])


def require() -> None:
    """Raise MissingExtra unless math-verify is installed."""
    if importlib.util.find_spec("math_verify") is None:
        raise MissingExtra("math-verify", "maths")


def _compared(gold: str, told: str) -> str:
    """Return `right`, `wrong`, `none` where nothing is told, or `late`; a session that failed is as good as new."""
    require()
    lock, session = _session(os.getpid())
    with lock:
        outcome = session.run(_CODE.format(gold=f"${gold}$", told=told))
    said = outcome.output.strip()
    return said if outcome.error is None and said in ("right", "wrong", "none") else "late"


@functools.cache
def _session(pid: int) -> tuple[threading.Lock, Session]:
    """Return this process's session; a forked one has another id, and starts its own."""
    return threading.Lock(), open_session(Limits(_SECONDS, 512, 200), modules=_MODULES)
