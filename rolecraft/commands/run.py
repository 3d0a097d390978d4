"""Answer one question with your tools."""

from __future__ import annotations

import argparse
import sys

from rolecraft.commands import _asking, _endpoint, _playing

GROUP = "playing"


def options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument("question", help="what the user asks; after -- it may begin with a dash")
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
    parser.add_argument("--json", action="store_true", help="print the trajectory as one JSON object")


def run(options: argparse.Namespace) -> int:
    """Play one episode, each message shown as it comes; returns 1 if it ends without an answer."""
    import asyncio

    from rich.console import Console

    from rolecraft import wire
    from rolecraft.memory import Window

    console = Console(stderr=options.json)
    player, players = _playing.player_and_team(options)
    with _asking.open_toolbox(options) as box, _playing.open_engine(player, options) as engine:
        messages = _asking.opening(options, options.question)
        record = asyncio.run(_asking.answer(options, player, Window(engine), players, box, messages, console))
    print(_asking.rate(record), file=sys.stderr)
    if options.json:
        print(wire.dumps(wire.trajectory_to_json(record)))
    return int(record.stop != "answered")
