"""What the verbs that play a model share: which base, adapter and team, and how the engine is opened."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rolecraft import agent, engine, team
    from rolecraft.types import Engine


def add_model(
    parser: argparse.ArgumentParser, max_tokens: int = 160, per: str = "reply", max_context: int = 1024
) -> None:
    """Add the options that say which model plays, on what, and for how long."""
    parser.add_argument("--base", help="`nano`, a local folder or a hub name (default: the adapter's base, else nano)")
    parser.add_argument("--adapter", type=Path, metavar="DIR", help="a trained adapter's folder")
    parser.add_argument("--team", help="mor or single (default: what the adapter was trained for, else single)")
    parser.add_argument("--bare", action="store_true", help="tell the roles nothing but the conversation")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or auto (default: cpu)")
    text = "the type of the weights (default: float32)"
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"), help=text)
    text = "what prompts alone are multiplied in; auto tries which is faster here (default: float32)"
    parser.add_argument("--prefill-dtype", default="float32", choices=("auto", "float32", "bfloat16"), help=text)
    text = f"tokens of a conversation, the reply included (default: {max_context})"
    parser.add_argument("--max-context", type=int, default=max_context, help=text)
    text = "the most MiB of a loaded model's keys and values; what could need more is refused (default: no bound)"
    parser.add_argument("--memory-mb", type=int, metavar="MIB", help=text)
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy (default: 0)")
    parser.add_argument("--max-tokens", type=int, default=max_tokens, help=f"per {per} (default: {max_tokens})")
    parser.add_argument("--max-turns", type=int, default=12, help="model calls per episode (default: 12)")
    parser.add_argument("--seed", type=int, default=0, help="of sampling, and of the tasks of eval (default: 0)")


def add_constrain(parser: argparse.ArgumentParser) -> None:
    """Add the options that hold a model's calls to the tools' schemas."""
    text = "let no call be written that misfits its tool's schema"
    parser.add_argument("--constrain", action="store_true", help=text)
    text = "schema keywords that --constrain cannot keep (default: refuse)"
    parser.add_argument("--on-unsupported", default="refuse", choices=("refuse", "ignore"), help=text)


def base_and_team(options: argparse.Namespace) -> tuple[str, team.Team]:
    """Return the base's name and the team that plays: what the adapter was trained for, unless the user says else.

    Raises NotFound if the base or the adapter is not there.
    """
    from rolecraft import bases, team
    from rolecraft.contract import read

    if options.adapter:
        bases.require_adapter(options.adapter)
    contract = read(options.adapter) if options.adapter else None
    name = options.team or (contract.team if contract else None) or "single"
    instructions = contract.instructions if contract else True
    players = team.find(name, instructions=instructions and not options.bare)
    if contract and contract.gate:
        contract.gate.check(players)
    base = options.base or (contract.base if contract else "nano")
    bases.find(base)
    return base, players


def open_engine(base: str, options: argparse.Namespace) -> AbstractContextManager[Engine]:
    """Open the engine, in this process or in a worker; torch is not loaded before."""
    from rolecraft import engine

    return engine.open_local(base, options.adapter, options.dtype, options.device, engine_settings(options))


def engine_settings(options: argparse.Namespace) -> engine.Settings:
    """Return how the engine is opened."""
    from rolecraft import engine
    from rolecraft.engine import matcher

    return engine.Settings(
        max_requests=getattr(options, "concurrency", 1),
        max_context=options.max_context,
        constrain="always" if options.constrain else "asked",
        prefill_dtype=options.prefill_dtype,
        memory_mb=options.memory_mb,
        grammar=matcher.Settings(on_unsupported=options.on_unsupported),
    )


def episode_settings(options: argparse.Namespace) -> agent.Settings:
    """Return how an episode is played."""
    from rolecraft import agent
    from rolecraft.types import Sampling

    sampling = Sampling(temperature=options.temperature, max_tokens=options.max_tokens)
    return agent.Settings(max_turns=options.max_turns, sampling=sampling, constrained=options.constrain)
