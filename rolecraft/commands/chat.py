"""Talk with a model that uses your tools."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rolecraft.commands import _asking, _endpoint, _playing

if TYPE_CHECKING:
    from rich.console import Console

    from rolecraft.types import Message

GROUP = "playing"


def options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    _asking.add_tools(parser)
    _playing.add_model(parser)
    _playing.add_constrain(parser)
    _playing.add_first_call(parser)
    _playing.add_repeats(parser)
    _playing.add_strategy(parser)
    _playing.add_memory(parser)
    _playing.add_fold(parser)
    _endpoint.add_engine(parser)
    _endpoint.keep_defaults(parser)


def run(options: argparse.Namespace) -> None:
    """Answer question after question, until an empty line; the oldest are left out when the context is full."""
    import asyncio

    from rich.console import Console

    from rolecraft import memory

    console = Console()
    player, players = _playing.player_and_team(options)
    with _asking.open_toolbox(options) as box, _playing.open_engine(player, options) as engine:
        window = memory.Window(engine, lambda count: _tell_left_out(count, console))
        console.print("Ask; an empty line ends the chat.", style="dim")
        messages: tuple[Message, ...] = ()
        while question := _ask(console):
            messages = _continued(messages, question) if messages else _asking.opening(options, question)
            record = asyncio.run(_asking.answer(options, player, window, players, box, messages, console))
            # what a memory told of this question is not told beside the next one
            messages = (*messages, *record.messages[len(record.task.messages) :])
            messages = memory.without_oldest(messages, window.left_out)
            window.left_out = 0


def _tell_left_out(count: int, console: Console) -> None:
    which = "question is" if count == 1 else f"{count} questions are"
    text = (
        f"(the context is full: from now on the oldest {which} left out, with the answers; --max-context allows more)"
    )
    console.print(text, style="dim")


def _continued(messages: tuple[Message, ...], question: str) -> tuple[Message, ...]:
    from rolecraft.types import Message

    return (*messages, Message("user", question))


def _ask(console: Console) -> str:
    try:
        return console.input("[bold]> [/bold]").strip()
    except EOFError:
        return ""
