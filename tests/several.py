"""A scripted engine that answers with several replies at once, and small worlds with state, for tests of strategies."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from rolecraft import agent, strategies, team
from rolecraft.step import Episode
from rolecraft.tools import Toolbox
from rolecraft.types import Completion, Environment, Message, Task, ToolCall, ToolSpec, Turn, Usage, Verdict


def says(text, logprob=-1.0):
    """Return a reply of text and how likely its one token was."""
    return Message("assistant", text), logprob


def calls(*named, logprob=-1.0, text=""):
    """Return a reply that calls tools, each as (name, arguments)."""
    return Message("assistant", text, tuple(ToolCall(name, arguments) for name, arguments in named)), logprob


BROKEN = (Message("assistant", unparsed="{"), -1.0)


@dataclass
class Several:
    """An engine that answers each prompt with the next entry of a script: a list of (message, log-probability).

    A shorter list than asked for begins again; the last entry of the script is repeated.
    """

    script: list
    asked: list = field(default_factory=list)

    async def complete(self, prompt):
        self.asked.append(prompt)
        await asyncio.sleep(0)
        entry = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(entry, Exception):
            raise entry
        if callable(entry):
            entry = entry(prompt)
        return tuple(_completion(*entry[i % len(entry)], prompt) for i in range(prompt.sampling.n))


def _completion(message, logprob, prompt):
    message = replace(message, speaker=prompt.speaker)
    usage = Usage(prompt=10, cached=4, completion=1, seconds=0.5)
    return Completion(message, Turn(message, prompt.speaker, logprobs=(logprob,), usage=usage))


@dataclass
class Counter:
    """A tool with state: `add` adds to a number and tells it; all its copies share a `log` of calls and a list."""

    value: int = 0
    log: list = field(default_factory=list)
    copies: list = field(default_factory=list)
    closed: bool = False

    def __post_init__(self):
        self.copies.append(self)

    @property
    def spec(self):
        return ToolSpec("add", "add to the number", {"type": "object", "properties": {"by": {"type": "integer"}}})

    def call(self, arguments):
        assert not self.closed
        self.value += arguments.get("by", 1)
        self.log.append(self.value)
        return f"n is {self.value}"

    def fork(self):
        assert not self.closed
        return Counter(self.value, self.log, self.copies)

    def state(self):
        assert not self.closed
        return self.value

    def close(self):
        self.closed = True


def world(*tools, judged=lambda record: Verdict(1.0)):
    """Return an environment on these tools."""
    box = Toolbox(tools)
    return Environment(Task("t", (Message("user", "?"),), box.specs), box, judged)


def play(name, script, *tools, players="single", environment=None, playing=None, watch=None, seed=0, **settings):
    """Play one episode by a strategy; return the record, the engine and the environment."""
    environment = environment or world(*tools)
    engine = Several(script)
    seen = [] if watch is None else watch
    episode = Episode(
        environment,
        team.find(players, instructions=False),
        engine,
        playing or agent.Settings(),
        seed,
        watch=seen.append,
    )
    record = asyncio.run(strategies.choose(name, settings).player()(episode))
    return record, engine, environment
