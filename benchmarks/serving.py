"""Whether episodes served over HTTP are the episodes played in process, and what follow-ups compute.

The same toolworld tasks are played twice on one engine: by `agent.play`, and by clients of the real OpenAI package that
run the tools and send back what any client does, calls and results without the reasoning. An episode is equal if its
calls and its answer are. `python benchmarks/serving.py --adapter runs/quickstart/adapter --json`
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import openai

from rolecraft import agent, contract, engine, server, team, wire
from rolecraft.benchmarks import toolworld
from rolecraft.renderers import why_unparsed
from rolecraft.server import listener, models, turns
from rolecraft.types import Message, Sampling, Task, ToolCall, Trajectory

_REPLY = 160
_MOST_REQUESTS = 8

Said = list[tuple[str, list[tuple[str, Any]]]]
"""What a client hears of an episode: the content and the calls of each answer."""


@dataclass(slots=True)
class Prompts:
    """Tokens of the prompts of follow-ups, and those of them that were not computed again."""

    tokens: int = 0
    cached: int = 0


async def ask(client: openai.AsyncOpenAI, task: Task, prompts: Prompts) -> Said:
    """Play one task as a client and return what was heard."""
    world = toolworld.open(task)
    messages = [wire.message_to_json(message) for message in task.messages]
    tools = [wire.tool_to_json(spec) for spec in task.tools]
    said: Said = []
    for _ in range(_MOST_REQUESTS):
        told = {"model": "nano:team", "messages": messages, **({"tools": tools} if tools else {})}
        answer = await client.chat.completions.create(**told)
        if said:
            prompts.tokens += answer.usage.prompt_tokens
            prompts.cached += answer.usage.prompt_tokens_details.cached_tokens
        message = wire.message_from_json(
            answer.choices[0].message.model_dump(include={"role", "content", "tool_calls"})
        )
        said.append(heard(message))
        if not message.tool_calls:
            break
        messages.append(wire.message_to_json(message))
        messages += [await observe(world.toolbox.call, call) for call in message.tool_calls]
    world.toolbox.close()
    return said


async def observe(run: Callable[[ToolCall], Any], call: ToolCall) -> dict[str, Any]:
    """Run one call and return its answer as a message."""
    return {"role": "tool", "tool_call_id": call.id, "content": (await run(call)).text}


def heard(message: Message) -> tuple[str, list[tuple[str, Any]]]:
    """Return what a client sees of a message."""
    return message.content, [(call.name, dict(call.arguments)) for call in message.tool_calls]


def expected(record: Trajectory, closer: str) -> Said:
    """Return what a client would have heard of an episode: the calls of each round, and at last the answer."""
    said: Said = []
    content = ""
    for message in record.messages[len(record.task.messages) :]:
        content += message.content if message.speaker == closer else ""
        if message.tool_calls:
            said.append((content, heard(message)[1]))
            content = ""
    return [*said, (content, [])]


@contextmanager
def serving(offered: Sequence[models.ServedModel], concurrency: int) -> Iterator[str]:
    """Serve from a thread, replies unconstrained and as long as in play; yield the address."""
    playing = turns.Settings(max_tokens=12 * _REPLY, max_thought=_REPLY, constrained=False)
    told: list[tuple[listener.Server, str]] = []
    run = partial(
        server.serve, offered, server.Settings(port=0, playing=playing), ready=lambda *both: told.append(both)
    )
    thread = threading.Thread(target=run)
    thread.start()
    while not (told and told[0][0].started):
        time.sleep(0.01)
    try:
        yield told[0][1]
    finally:
        told[0][0].should_exit = True
        thread.join()


def compare(adapter: Path, split: str, n: int, seed: int, concurrency: int) -> dict[str, Any]:
    """Play `n` tasks both ways and return how many episodes are equal, and the times."""
    made = contract.read(adapter)
    players = team.find(made.team, instructions=made.instructions)
    tasks = toolworld.tasks(toolworld.Settings(), split, seed)[:n]
    with engine.open_local(made.base, adapter, settings=engine.Settings(max_requests=concurrency)) as local:
        player = models.LoadedEngine(local, local.loaded.renderer)
        offered = models.served_models("nano", players, player)
        closer = offered[-1].answering_role

        async def play() -> dict[str, Said]:
            settings = agent.Settings(sampling=Sampling(max_tokens=_REPLY))
            openers = [partial(toolworld.open, task) for task in tasks]
            episodes = agent.play(openers, players, local, settings, concurrency=concurrency, explain=why_unparsed)
            return {record.id: expected(record, closer) async for record in episodes}

        async def serve(url: str) -> tuple[list[Said], Prompts]:
            prompts, room = Prompts(), asyncio.Semaphore(concurrency)
            async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:

                async def one(task: Task) -> Said:
                    async with room:
                        return await ask(client, task, prompts)

                return await asyncio.gather(*map(one, tasks)), prompts

        began = time.perf_counter()
        wanted = asyncio.run(play())
        played = time.perf_counter()
        with serving(offered, concurrency) as url:
            got, prompts = asyncio.run(serve(url))
        done = time.perf_counter()
    return {
        "split": split,
        "n": len(tasks),
        "seed": seed,
        "equal": sum(said == wanted[task.id] for task, said in zip(tasks, got, strict=True)),
        "follow_up_tokens": prompts.tokens,
        "follow_up_cached": prompts.cached,
        "seconds_in_process": round(played - began, 1),
        "seconds_served": round(done - played, 1),
    }


def main() -> None:
    """Read the command line and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--adapter", type=Path, required=True, help="a team's adapter, such as the quickstart's")
    parser.add_argument("--split", default="test+tools")
    parser.add_argument("--n", type=int, default=70, help="tasks per split")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--concurrency", type=int, default=16, help="episodes at once")
    parser.add_argument("--json", action="store_true", help="print one JSON object a split")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for split in options.split.split("+"):
        found = compare(options.adapter, split, options.n, options.seed, options.concurrency)
        if options.json:
            print(json.dumps(found), flush=True)
            continue
        share = found["follow_up_cached"] / max(1, found["follow_up_tokens"])
        print(
            f"{split}: {found['equal']} of {found['n']} episodes equal; {share:.1%} of follow-ups' prompts were cached;"
        )
        print(f"  {found['seconds_in_process']} s in process, {found['seconds_served']} s served", flush=True)


if __name__ == "__main__":
    main()
