"""What the verbs that put a user's question to a model share: the user's tools, and an episode shown as it goes."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from rolecraft.commands import _playing
from rolecraft.commands._numbers import count, seconds
from rolecraft.telling import printable

if TYPE_CHECKING:
    from rich.console import Console

    from rolecraft import remote, team
    from rolecraft.memory import Window
    from rolecraft.tools import Toolbox
    from rolecraft.types import Message, Trajectory

_COLOURS = {
    **dict.fromkeys(("reasoner", "planner"), "cyan"),
    **dict.fromkeys(("executor", "caller"), "yellow"),
    **dict.fromkeys(("summarizer", "assistant"), "green"),
    "tool": "magenta",
}


def add_tools(parser: argparse.ArgumentParser, of: str = "") -> None:
    """Add the options that say which tools the model has, and what it is told first."""
    add_own_tools(parser, of)
    parser.add_argument("--system", default="", metavar="TEXT", help="a system message that opens the conversation")


def add_own_tools(parser: argparse.ArgumentParser, of: str = "") -> None:
    """Add the options that say which tools there are, and what a call may take."""
    group = parser.add_argument_group(f"the tools{of}")
    text = "a .py file with @tool functions, or a built-in: python, calculator, ...; may be repeated"
    group.add_argument("--tools", action="append", default=[], metavar="FILE", help=text)
    text = "the longest that one call may take (default: 10)"
    group.add_argument("--tool-seconds", type=seconds, default=10.0, metavar="SECONDS", help=text)
    text = "the longest result that the model is shown; more is cut, with a note (default: 2000)"
    group.add_argument("--tool-chars", type=count, default=2000, metavar="CHARS", help=text)
    text = "run code that the model writes even where it cannot be isolated"
    group.add_argument("--unsafe", action="store_true", help=text)


def open_toolbox(options: argparse.Namespace) -> AbstractContextManager[Toolbox]:
    """Open the user's tools; a chat keeps them, and what they remember, from question to question."""
    from contextlib import closing

    return closing(toolbox(options))


def toolbox(options: argparse.Namespace) -> Toolbox:
    """Return the user's tools, opened anew; the caller closes them."""
    from rolecraft.catalog import given
    from rolecraft.tools import Toolbox, find

    unsafe = {"unsafe": True} if options.unsafe else None
    found = [member for name in options.tools for member in find(given(name), unsafe if name == "python" else None)]
    return Toolbox(found, seconds=options.tool_seconds, output_chars=options.tool_chars)


def opening(options: argparse.Namespace, question: str) -> tuple[Message, ...]:
    """Return the messages that a conversation begins with."""
    from rolecraft.types import Message

    system = (Message("system", options.system),) if options.system else ()
    return (*system, Message("user", question))


async def answer(
    options: argparse.Namespace,
    player: str | remote.Settings,
    engine: Window,
    players: team.Team,
    box: Toolbox,
    messages: tuple[Message, ...],
    console: Console,
) -> Trajectory:
    """Play one episode on the user's tools, showing each message as it comes, and at the end why there is no answer."""
    from rolecraft import agent, reflection
    from rolecraft.renderers import why_unparsed
    from rolecraft.types import Environment, Task, Verdict

    chosen = _playing.strategy(options)
    task = Task("chat", messages, box.specs)
    if memory := getattr(options, "memory", None):
        task = reflection.reminded([task], memory, any_family=True)[0]
    environment = Environment(task, box, lambda record: Verdict(0.0, "nobody judged it"))
    record = await agent.episode(
        environment,
        players,
        engine,
        _playing.episode_settings(player, options),
        seed=options.seed,
        explain=why_unparsed,
        watch=lambda message: show(message, console),
        player=agent.greedily if chosen is None else chosen.player(),
    )
    if record.stop != "answered":
        print(f"rolecraft: no answer: {why_not(record, options, engine.full)}", file=sys.stderr)
    return record


def rate(record: Trajectory) -> str:
    """Return in words how fast an episode's replies were written, the time for their prompts included."""
    from rolecraft.scores import spent

    used = spent(record)
    computed, seconds = used.prompt - used.cached, used.seconds
    told = f"{used.completion:,} tokens written and {computed:,} of prompts computed in {seconds:.1f} s"
    told = f"{told}: {used.completion / seconds:,.1f} tokens/s" if seconds else told
    if (tried := record.trials) is None:
        return told
    agreed = "" if tried.agreement is None else f", {100 * tried.agreement:.0f} % of the others agreed"
    return f"{told}; {tried.strategy}: {tried.tried} tried, {tried.failed} failed{agreed}"


def why_not(record: Trajectory, options: argparse.Namespace, full: str) -> str:
    """Return why an episode has no answer, and the remedy; `full` is what was said of a prompt that is too long."""
    if record.stop == "max_turns":
        return f"{len(record.turns)} model calls have been made; allow more (--max-turns)"
    if record.stop == "repeated_call":
        return "the model made the same call again and again"
    if record.stop == "gave_up":
        return "the team gave up"
    if record.stop != "length":
        return f"the episode ended by {record.stop}"
    if full:
        return f"the context is full: {full}"
    written = record.turns[-1].usage.completion if record.turns else 0
    if written >= options.max_tokens:
        return f"a reply was cut after {written} tokens; allow longer ones (--max-tokens)"
    return f"a reply was cut after {written} tokens, where the context ends; allow more (--max-context)"


def show(message: Message, console: Console) -> None:
    """Print a message beside who said it; a tool's error is marked, and so are calls that were read leniently."""
    who = "tool error" if message.failed else message.speaker or message.role
    calls = [f"{call.name}({json.dumps(dict(call.arguments), ensure_ascii=False)})" for call in message.tool_calls]
    if calls and message.strict is not None:
        calls[-1] += "  (read leniently)"
    unparsed = [f"(not a call) {message.unparsed}"] if message.unparsed is not None else []
    text = printable("\n".join(part for part in (message.content, *calls, *unparsed) if part))
    style = "red" if message.failed else _COLOURS.get(who, "white")
    console.print(f"{printable(who):>10}  ", style=style, end="", markup=False)
    console.print(text.replace("\n", "\n" + " " * 12), markup=False, highlight=False)
