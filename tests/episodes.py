"""Hand-written episodes of small tasks, for the tests of scores, failures and the report."""

from __future__ import annotations

from rolecraft.types import Message, Task, ToolCall, ToolSpec, Trajectory, Turn, Usage, Verdict

TOOLS = (
    ToolSpec("find_owner", "owner of a house"),
    ToolSpec("read_debt", "debt of a person"),
    ToolSpec("python", "code"),
)
FIND = ("find_owner", {"house": "Grontif"})
READ = ("read_debt", {"key": "Plalples"})
CODE = ("python", {"code": "print(60 + 63)"})


def episode(
    *steps,
    wanted=(FIND, READ),
    answers=("3809",),
    score=0.0,
    stop="answered",
    name="t",
    usage=None,
    **reference,
):
    """Return an episode of `steps`: a text is a reply, a (name, arguments[, observation]) a call, a list several
    calls of one message, None a call that did not parse."""
    told = {"family": "hop", "answers": list(answers), **reference}
    if wanted is not None:
        told["calls"] = [{"name": name, "arguments": arguments} for name, arguments in wanted]
    task = Task(name, (Message("user", "What does the owner of Grontif owe?"),), TOOLS, told)
    messages = [message for number, step in enumerate(steps) for message in _played(step, number)]
    replies = [message for message in messages if message.role == "assistant"]
    turns = tuple(Turn(reply, reply.speaker or "assistant", usage=usage or Usage()) for reply in replies)
    verdict = (
        None if score is None else Verdict(score, "" if score == 1 else "the answer lacks '3809'", {"answer": score})
    )
    return Trajectory(name, task, (*task.messages, *messages), turns, stop, verdict=verdict)


def _played(step, number):
    if isinstance(step, str):
        return [Message("assistant", step, speaker="summarizer")]
    if step is None:
        broken = Message("assistant", speaker="executor", unparsed='{"name": "read_debt"')
        return [broken, Message("tool", "error: the JSON ends too early")]
    steps = step if isinstance(step, list) else [step]
    calls = tuple(ToolCall(s[0], s[1], f"call_{number}_{i}") for i, s in enumerate(steps))
    seen = [s[2] if len(s) > 2 else "Plalples" for s in steps]
    told = [Message("tool", o, tool_call_id=c.id, name=c.name) for c, o in zip(calls, seen, strict=True)]
    return [Message("assistant", tool_calls=calls, speaker="executor"), *told]
