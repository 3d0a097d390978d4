"""What the verbs that play a model share: which base, adapter and team, and how the engine is opened."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rolecraft.commands import _endpoint
from rolecraft.commands._numbers import amount, count

if TYPE_CHECKING:
    from rolecraft import agent, engine, remote, strategies, team
    from rolecraft.types import Engine


WEIGHTS = ("auto", "float32", "bfloat16", "int8", "int4")


def add_model(
    parser: argparse.ArgumentParser,
    *,
    max_context: int | None = None,
    max_tokens: int = 160,
    max_tokens_of: str = "a reply",
    seed_of: str = "sampling",
) -> None:
    """Add the options that say which model plays, where, and how long."""
    group = parser.add_argument_group("the model")
    text = (
        "the base: nano, smollm2, a folder, a GGUF file, or a name on the hub (default: the adapter's base, else nano)"
    )
    group.add_argument("--base", metavar="MODEL", help=text)
    group.add_argument("--adapter", type=Path, metavar="DIR", help="the folder of a trained adapter")
    text = (
        "who plays: a team's name, such as single or mor (three roles), or its .py file (default: what the adapter was "
        "trained for, else single)"
    )
    group.add_argument("--team", help=text)
    text = "give the roles no instructions, the conversation alone"
    group.add_argument("--bare", action="store_true", help=text)
    text = (
        "the chat format: a known one's name, a file of your own, or template, which is the model's own (default: what "
        "is found to fit, which is told)"
    )
    group.add_argument("--format", metavar="NAME", help=text)
    text = "tell a family that can think to do so, or not to (default: as its own template has it)"
    group.add_argument("--think", action=argparse.BooleanOptionalAction, help=text)
    group.add_argument("--device", default="cpu", help="where it runs: cpu, cuda or auto (default: cpu)")
    text = "the type of its weights (default: float32)"
    group.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"), help=text)
    text = "the type in which prompts are computed; auto measures which is faster here (default: float32)"
    group.add_argument("--prefill-dtype", default="float32", choices=("auto", "float32", "bfloat16"), help=text)
    text = (
        "the form of the base's weights: float32, or smaller ones that are read faster (the adapter's stay float32); "
        "auto measures which is fastest here of those that lose next to nothing (default: float32)"
    )
    group.add_argument("--weights", default="float32", choices=WEIGHTS, help=text)
    usual = max_context or "the model's own, at most 8192, and what half of the memory holds"
    text = f"the longest conversation, the reply included (default: {usual})"
    group.add_argument("--max-context", type=count, default=max_context, metavar="TOKENS", help=text)
    text = "the most memory for keys and values; what could need more is refused (default: no limit)"
    group.add_argument("--memory-mb", type=count, metavar="MIB", help=text)
    text = "of sampling; 0 takes the likeliest token (default: 0)"
    group.add_argument("--temperature", type=amount, default=0.0, metavar="T", help=text)
    text = f"the longest that {max_tokens_of} may be (default: {max_tokens})"
    group.add_argument("--max-tokens", type=count, default=max_tokens, metavar="TOKENS", help=text)
    text = "the most model calls until an answer (default: 12)"
    group.add_argument("--max-turns", type=count, default=12, metavar="N", help=text)
    group.add_argument("--seed", type=int, default=0, metavar="N", help=f"the seed of {seed_of} (default: 0)")


def add_constrain(parser: argparse.ArgumentParser) -> None:
    """Add the options that hold a model's calls to the tools' schemas."""
    group = parser.add_argument_group("the form of its replies")
    text = "let the model write only such calls as fit their tool's schema"
    group.add_argument("--constrain", action="store_true", help=text)
    text = "take for a call only what is written in the model family's own syntax"
    group.add_argument("--strict-calls", action="store_true", help=text)
    text = "refuse a tool whose schema has keywords that cannot be enforced, or ignore these (default: refuse)"
    group.add_argument("--on-unsupported", default="refuse", choices=("refuse", "ignore"), help=text)


def add_first_call(parser: argparse.ArgumentParser) -> None:
    """Add the option that makes the first reply a call."""
    text = (
        "whether the first reply has to be a call that fits its tool's schema, for models that were never taught to "
        "call: auto or required (default: auto)"
    )
    parser.add_argument("--first-call", choices=("auto", "required"), default="auto", help=text)


def add_repeats(parser: argparse.ArgumentParser) -> None:
    """Add the option that says what becomes of a call that is made again."""
    text = (
        "whether a call runs again that a reply has twice, or whose answer still holds: run or skip (default: skip; "
        "with the base nano: run)"
    )
    parser.add_argument("--repeats", choices=("run", "skip"), help=text)


def add_strategy(parser: argparse.ArgumentParser) -> None:
    """Add the option that says how an episode is played."""
    text = (
        "how each episode is played, with settings as in self_consistent,n=8,temperature=0.4: greedy, self_consistent, "
        "best_of_n, depth_first, checked or a .py file of your own (default: greedy)"
    )
    parser.add_argument("--strategy", metavar="NAME[,KEY=VALUE...]", help=text)


def add_memory(parser: argparse.ArgumentParser) -> None:
    """Add the option that tells each task what earlier ones taught."""
    text = "tell each task the lessons that fit it, of a file that `rolecraft memory learn` wrote; none is added"
    parser.add_argument("--memory", type=Path, metavar="FILE", help=text)


def add_fold(parser: argparse.ArgumentParser) -> None:
    """Add the option that keeps an episode's prompts within a budget."""
    text = (
        "fold the oldest observations, each into a remark that it was there, where a prompt has more tokens; what must "
        "stay and is longer is refused (default: none is folded)"
    )
    parser.add_argument("--fold", type=count, metavar="TOKENS", help=text)


def strategy(options: argparse.Namespace) -> strategies.Chosen | None:
    """Return how episodes are played, None where each reply is taken as it comes; raises as `strategies.parse`.

    A team with a checker has it asked, unless the user says how it plays.
    """
    from rolecraft import strategies

    if options.strategy is None:
        return strategies.choose(strategies.CHECKED, {"checker": "role"}) if _has_checker(options) else None

    chosen = strategies.parse(options.strategy, files=True)
    return None if chosen.name == "greedy" else chosen


def _has_checker(options: argparse.Namespace) -> bool:
    """Tell whether the team that plays has a role that checks."""
    from rolecraft import contract, team
    from rolecraft.catalog import given

    taught = contract.read(options.adapter) if options.adapter else None
    name = given(options.team) if options.team else (taught and taught.team) or "single"
    return team.find(name).checks


def player_and_team(options: argparse.Namespace) -> tuple[str | remote.Settings, team.Team]:
    """Return what plays, a base's name or an endpoint, and the team; raises as `base_and_team`, or for the endpoint.

    An endpoint is asked for what the strategy needs, so that nothing is played where it lacks that.
    """
    _endpoint.check(options)
    chosen = strategy(options) if hasattr(options, "strategy") else None
    if not options.engine:
        return base_and_team(options)
    player, players = _endpoint.resolve(options)
    return (player if chosen is None else _endpoint.require(player, chosen, options)), players


def base_and_team(options: argparse.Namespace) -> tuple[str, team.Team]:
    """Return the base's name and the team that plays: what the adapter was trained for, unless the user says else.

    Raises NotFound if the base or the adapter is not there.
    """
    from rolecraft import bases, team
    from rolecraft.catalog import given
    from rolecraft.contract import base_of, read

    adapter = _first_of(options)
    if adapter:
        bases.require_adapter(adapter)
    contract = read(adapter) if adapter else None
    taught = contract.team if contract else None
    name = options.team or taught or "single"
    instructions = contract.instructions if contract else True
    chosen = given(name) if options.team else name  # a file that a contract names is not run
    players = team.find(chosen, instructions=instructions and not options.bare)
    _require_cast(options, players)
    if contract and contract.gate:
        contract.gate.check(players)
    base = options.base or (base_of(contract, adapter) if contract and adapter else "nano")
    bases.find(bases.source(base, adapter))
    if len(players.roles) > 1 and taught != name:
        who = f"the adapter in {str(options.adapter)!r}" if options.adapter else f"the base {base!r}"
        print(
            f"rolecraft: {who} was not tuned for the roles of team {name!r}, which are left to their instructions; "
            f"tune an adapter for it (rolecraft train {name}), or leave out --team",
            file=sys.stderr,
        )
    return base, players


def _first_of(options: argparse.Namespace) -> Path | None:
    """Return the adapter's folder, of a cast that of its first role; raises SettingsError for a base beside a cast."""
    from rolecraft import cast
    from rolecraft.errors import SettingsError

    told = cast.read(options.adapter) if options.adapter else None
    if told is None:
        return options.adapter  # type: ignore[no-any-return]
    if options.base:
        raise SettingsError(
            f"{str(options.adapter)!r} has a model for each role, each with the base it was tuned on; leave --base out"
        )
    return next(iter(cast.folders(told, options.adapter).values()))


def _require_cast(options: argparse.Namespace, players: team.Team) -> None:
    """Raise SettingsError for a cast in which a role of the team has no model."""
    from rolecraft import cast
    from rolecraft.errors import SettingsError

    told = cast.read(options.adapter) if options.adapter else None
    missing = [] if told is None else [speaker for speaker in players.speakers if speaker not in told.roles]
    if told is not None and missing:
        raise SettingsError(
            f"{str(options.adapter)!r} has models for {', '.join(told.roles)}, and team {players.name!r} has a role "
            f"{missing[0]!r}; play it with the team that it was tuned for"
        )


def skips_repeats(player: str | remote.Settings, options: argparse.Namespace) -> bool:
    """Return whether calls made again are skipped; what is known of the base nano was measured with all of them run."""
    return bool(options.repeats == "skip" if options.repeats else player != "nano")


def open_engine(player: str | remote.Settings, options: argparse.Namespace) -> AbstractContextManager[Engine]:
    """Open the engine, in this process or in a worker; torch is not loaded before, nor at all for an endpoint."""
    if isinstance(player, str):
        opened = open_local(player, options.adapter, options, engine_settings(options))
        tell_model(opened)
        return folding(opened, options)
    from rolecraft import remote

    if getattr(options, "fold", None):
        from rolecraft.errors import SettingsError

        raise SettingsError(
            f"--fold is {options.fold}, and {options.engine} does not tell how long a prompt is before it is asked; "
            "play a model here (--base), or leave it out"
        )
    return remote.RemoteEngine(player, _endpoint.read_key(options))


@contextmanager
def folding(opened: engine.LocalEngine | engine.RoleEngines, options: argparse.Namespace) -> Iterator[Engine]:
    """Yield an engine that folds observations where the user gave a budget, and close it afterwards."""
    from rolecraft.memory import Folding

    budget = getattr(options, "fold", None)
    with opened as one:
        yield one if budget is None else Folding(one, budget)


def open_local(
    base: str, adapter: Path | None, options: argparse.Namespace, settings: engine.Settings
) -> engine.LocalEngine | engine.RoleEngines:
    """Open a base and its adapter in this process, in the chat format that the user named."""
    from rolecraft import engine
    from rolecraft.catalog import given

    chosen = given(options.format) if options.format else None
    return engine.open_local(
        base, adapter, options.dtype, options.device, settings, renderer=chosen, think=options.think
    )


def tell_model(opened: engine.LocalEngine | engine.RoleEngines) -> None:
    """Say on stderr which chat format was found where nobody named one, and the form of the weights if it is not the
    usual one; workers leave it to their parent."""
    if multiprocessing.parent_process() is not None:
        return
    if opened.loaded.chat:
        print(f"chat format {opened.loaded.chat}", file=sys.stderr, flush=True)
    if opened.weights:
        print(opened.weights, file=sys.stderr, flush=True)


def identity(player: str | remote.Settings, options: argparse.Namespace) -> str:
    """Return in words what plays, for a run's record."""
    from rolecraft import bases

    if not isinstance(player, str):
        return player.identity
    thinks = "" if options.think is None else "told to think" if options.think else "told not to think"
    chosen = options.format and f"format {options.format}"
    weights = "" if options.weights == "float32" else f"weights {options.weights}"
    folds = f"folds at {options.fold}" if getattr(options, "fold", None) else ""
    parts = [bases.identity(player, options.adapter), chosen, thinks, weights, folds]
    return ", ".join(part for part in parts if part)


def settle_weights(player: str | remote.Settings, options: argparse.Namespace) -> None:
    """Let what `auto` comes to stand in its place, so that all workers play the same, and so does who goes on later."""
    if not isinstance(player, str) or options.weights != "auto":
        return
    from rolecraft import bases, model
    from rolecraft.engine import weights

    model.limit_threads()
    config = model.load_config(bases.source(player, _first_of(options)))
    choice = weights.choose("auto", config, options.concurrency, options.dtype, options.device)
    options.weights = choice.kind or "float32"
    print(choice.why, file=sys.stderr, flush=True)


def engine_settings(options: argparse.Namespace) -> engine.Settings:
    """Return how the engine is opened."""
    from rolecraft import engine
    from rolecraft.engine import matcher

    chosen = strategy(options) if hasattr(options, "strategy") else None
    return engine.Settings(
        # fewer rows than replies asked for at once would write them one after the other
        max_requests=max(getattr(options, "concurrency", 1), chosen.width if chosen else 1),
        max_context=options.max_context,
        constrain="always" if options.constrain else "asked",
        prefill_dtype=options.prefill_dtype,
        weights=options.weights,
        memory_mb=options.memory_mb,
        grammar=matcher.Settings(on_unsupported=options.on_unsupported),
    )


def episode_settings(player: str | remote.Settings, options: argparse.Namespace) -> agent.Settings:
    """Return how an episode is played by a base or an endpoint."""
    from rolecraft import agent
    from rolecraft.types import Sampling

    sampling = Sampling(temperature=options.temperature, max_tokens=options.max_tokens)
    return agent.Settings(
        max_turns=options.max_turns,
        sampling=sampling,
        constrained=options.constrain,
        skip_repeats=skips_repeats(player, options),
        strict_calls=options.strict_calls,
        first_call=options.first_call,
    )
