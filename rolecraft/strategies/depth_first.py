"""Depth-first search over an episode's steps (DFSDT of ToolLLM, as alpha-UMi plays it): the first answer ends it.

From each position up to `width` steps are taken, each once the one before it has led nowhere: an end that is no answer
(given up, the same call again and again, out of turns or of room) sends the search `back` levels up, where the next
step is told what was tried from there and asked for something else. A level is one step of an agent: the replies until
tools have answered. What is told stays in the conversation, as it does there. Every position keeps its own branch of
the state. A search without an answer is recorded by its first end.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace

import rolecraft.step as step
from rolecraft.step import Episode, Position
from rolecraft.strategies._bounds import require
from rolecraft.strategies._trying import close_all
from rolecraft.types import Message, Sampling, Toolset, Trajectory
from rolecraft.voting import Tally

_NAME = "depth_first"
_SHOWN = 300


@dataclass(frozen=True, slots=True)
class Settings:
    """How the search goes: its `width`, how far `back` it goes, the most `nodes` (steps) it takes; and its replies.

    `back` 2, the original's, tries the step before the last one another way, 1 the last one; the first step of all is
    never left, where the original would end. `temperature` is the original's, too.
    """

    width: int = 2
    back: int = 2
    nodes: int = 24
    temperature: float = 0.5
    top_p: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what no search can be made of."""
        counts = {name: (getattr(self, name), 1) for name in ("width", "back", "nodes")}
        require(_NAME, least={**counts, "temperature": (self.temperature, 0), "top_p": (self.top_p, 0)})


async def play(episode: Episode, settings: Settings) -> Trajectory:
    """Search for an answer and return its record; raises NotForkable where a tool's state cannot be copied."""
    drawn = replace(episode.settings.sampling, n=1, temperature=settings.temperature, top_p=settings.top_p)
    search = _Search(episode, settings, drawn)
    try:
        chosen = await search.run()
        await asyncio.to_thread(chosen.toolbox.commit)
    finally:
        await asyncio.to_thread(close_all, [node.toolbox for node in reversed(search.nodes)])
    step.tell(episode, step.begin(episode), chosen.position)
    return await step.finish(episode, chosen.position, search.tally(chosen).trials())


@dataclass(slots=True)
class _Node:
    """A position with its state, which nothing changes any more, and what was tried from here."""

    position: Position
    toolbox: Toolset
    actions: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Search:
    """A search while it goes on: all its nodes but the root, and the ends among them."""

    episode: Episode
    settings: Settings
    sampling: Sampling
    nodes: list[_Node] = field(default_factory=list)
    ends: list[_Node] = field(default_factory=list)
    new_turns: list[int] = field(default_factory=list)

    async def run(self) -> _Node:
        """Return the node of the first answer, else the first end of all, else where the search was stopped."""
        path = [_Node(step.begin(self.episode), self.episode.environment.toolbox)]
        path[0].toolbox.branch().close()  # refused before anything is asked
        while path and len(self.nodes) < self.settings.nodes:
            if len(path[-1].actions) == self.settings.width:
                path.pop()
                continue
            child = await self._expand(path[-1])
            if child.position.stop is None:
                path.append(child)
                continue
            self.ends.append(child)
            if child.position.stop == "answered":
                return child
            if not self.new_turns[-1]:  # there was no room for a reply: the step before it is the end
                path.pop()
            del path[max(1, len(path) - (self.settings.back - 1)) :]
        return self.ends[0] if self.ends else self._stopped()

    async def _expand(self, node: _Node) -> _Node:
        """Return the node one step on, which is told what was tried before it."""
        position = node.position
        if node.actions:
            position = replace(position, messages=(*position.messages, _note(node.actions)))
        child = _Node(position, node.toolbox.branch())
        self.nodes.append(child)
        # Equal prompts must not draw equal replies: a node's seed is its own.
        drawn = replace(self.episode, seed=self.episode.seed + (len(self.nodes) << 20))
        while child.position.stop is None:
            child.position = await step.advance(drawn, child.position, child.toolbox.call, self.sampling)
            if child.position.messages[-1].role == "tool":
                break
        if child.position.stop is None:
            child.position = step.out_of_turns(self.episode, child.position) or child.position
        self.new_turns.append(len(child.position.turns) - len(node.position.turns))
        node.actions.append(_action(child.position, len(node.position.turns)))
        return child

    def _stopped(self) -> _Node:
        """Return the last node, ended: the search may take no more steps."""
        last = self.nodes[-1]
        last.position = replace(last.position, stop="max_turns", speaker=None)
        self.ends.append(last)
        return last

    def tally(self, chosen: _Node) -> Tally:
        """Return what was spent beside the record."""
        told = len(chosen.position.turns)
        written = [
            turn
            for node, new in zip(self.nodes, self.new_turns, strict=True)
            for turn in node.position.turns[len(node.position.turns) - new :]
        ]
        failed = sum(end.position.stop != "answered" for end in self.ends)
        tally = Tally(_NAME, len(self.ends), failed, len(written) - told)
        kept = {id(turn) for turn in chosen.position.turns}
        others = [turn for turn in written if id(turn) not in kept]
        tally.tool_calls = sum(len(turn.message.tool_calls) for turn in others)
        tally.usages = [turn.usage for turn in others]
        return tally


def _note(actions: list[str]) -> Message:
    """Return what a further step is told: the actions tried from the same position."""
    listed = "\n".join(f"- {action}" for action in actions)
    return Message("user", f"From here this was tried already, and led to no answer:\n{listed}\nDo something else now.")


def _action(position: Position, before: int) -> str:
    """Return in one line what a step did: its calls, else its last words."""
    turns = position.turns[before:]
    calls = [call for turn in turns for call in turn.message.tool_calls]
    if calls:
        text = ", ".join(f"{call.name}({json.dumps(dict(call.arguments), ensure_ascii=False)})" for call in calls)
    else:
        said = turns[-1].message if turns else Message("assistant")
        text = said.unparsed or said.content
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
