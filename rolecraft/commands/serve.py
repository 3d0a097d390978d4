"""Answer OpenAI's chat API with a base, its roles and the team."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rolecraft.commands import _asking, _playing
from rolecraft.commands._numbers import amount, count, port, seconds, whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rolecraft import engine, team
    from rolecraft.server import models, recording, service

GROUP = "playing"


def options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (default: 127.0.0.1, this machine only)")
    parser.add_argument("--port", type=port, default=8000, help="0 takes a free one (default: 8000)")
    text = "a file with the key that clients must send (default: the environment's ROLECRAFT_API_KEY, if set)"
    parser.add_argument("--api-key-file", type=Path, metavar="FILE", help=text)
    parser.add_argument("--keyless", action="store_true", help="listen beyond this machine without a key")
    parser.add_argument("--no-base", action="store_true", help="do not load the untuned base beside an adapter")
    text = "let replies break the form of their role and of the tools' schemas"
    parser.add_argument("--unconstrained", action="store_true", help=text)
    _add_record(parser)
    _add_limits(parser)
    _asking.add_own_tools(parser, of=", of a team that acts by code")
    _playing.add_model(parser, max_context=4096, max_tokens=1024, max_tokens_of="an answer, all roles together,")
    _playing.add_constrain(parser)
    _playing.add_repeats(parser)
    _playing.add_memory(parser)
    _playing.add_fold(parser)


def _add_record(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("learning from what is served")
    text = "keep the exact answers here, to learn from them (rolecraft train RECIPE --from RUN --rewards FILE)"
    group.add_argument("--record", type=Path, metavar="RUN", help=text)
    text = "the most that is kept; after it requests are refused (default: 1024)"
    group.add_argument("--record-mb", type=count, default=1024, metavar="MIB", help=text)


def _add_limits(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("limits")
    text = "answers that are written at once (default: 16)"
    group.add_argument("--concurrency", type=count, default=16, metavar="N", help=text)
    text = "requests that may wait for their turn (default: 64)"
    group.add_argument("--waiting", type=whole, default=64, metavar="N", help=text)
    text = "the longest that a request may take, its wait included (default: 120)"
    group.add_argument("--seconds", type=seconds, default=120.0, help=text)
    text = "a client that reads nothing for so long is cut off (default: 30)"
    group.add_argument("--stall", type=seconds, default=30.0, metavar="SECONDS", help=text)
    text = "what open requests are given to finish after SIGTERM or SIGINT (default: 20)"
    group.add_argument("--grace", type=amount, default=20.0, metavar="SECONDS", help=text)
    text = "the longest body of a request (default: 32 for each token that the model holds, at least 65536)"
    group.add_argument("--max-body", type=count, metavar="BYTES", help=text)
    text = "the most messages of a request (default: 512)"
    group.add_argument("--max-messages", type=count, default=512, metavar="N", help=text)
    text = "the longest message from role to role (default: 160)"
    group.add_argument("--max-thought", type=count, default=160, metavar="TOKENS", help=text)


def run(options: argparse.Namespace) -> None:
    """Serve until a signal."""
    from rolecraft import server
    from rolecraft.server import models, service, turns

    base, players = _playing.base_and_team(options)
    playing = turns.Settings(
        temperature=options.temperature,
        max_tokens=options.max_tokens,
        max_thought=options.max_thought,
        max_turns=options.max_turns,
        constrained=not options.unconstrained,
        skip_repeats=_playing.skips_repeats(base, options),
        strict_calls=options.strict_calls,
    )
    limits = service.Limits(options.concurrency, options.waiting, options.seconds, options.max_messages)
    settings = server.Settings(
        options.host, options.port, options.max_body, options.stall, options.grace, options.keyless, limits, playing
    )
    key, remind = server.read_key(options.api_key_file), _remind(options)
    # The address is taken before the models are loaded: that it cannot be had is told at once.
    with server.bind(settings, key) as bound, _alone(options), open_models(base, players, options) as served:
        told = f"{models.describe(served)}: {'with' if key else 'without'} a key at "
        recorder = _recorder(served, base, players, options)
        server.serve(
            served,
            settings,
            key,
            bound=bound,
            ready=lambda _, url: print(told + url, flush=True),
            recorder=recorder,
            remind=remind,
        )


def _remind(options: argparse.Namespace) -> service.Remind | None:
    """Return what tells a conversation the lessons that fit its last question, None without a memory.

    Raises DataError for a file that is none.
    """
    if options.memory is None:
        return None
    from rolecraft import reflection
    from rolecraft.lessons import Lessons
    from rolecraft.types import Message, Task

    Lessons(options.memory, frozen=True).close()

    def remind(messages: tuple[Message, ...]) -> tuple[Message, ...]:
        return reflection.reminded([Task("served", messages)], options.memory, any_family=True)[0].messages

    return remind


def _alone(options: argparse.Namespace) -> AbstractContextManager[None]:
    """Be the only server that keeps answers in the folder, if any are kept."""
    from contextlib import nullcontext

    from rolecraft import store

    return nullcontext() if options.record is None else store.lock(options.record)


def _recorder(
    served: Sequence[models.ServedModel], base: str, players: team.Team, options: argparse.Namespace
) -> recording.Recorder | None:
    """Return what keeps answers, where the user asks for it; raises SettingsError for what cannot be learned from."""
    if options.record is None:
        return None
    from rolecraft import bases, cast, contract
    from rolecraft.errors import SettingsError
    from rolecraft.server import recording
    from rolecraft.store.served import Policy

    if options.adapter and cast.read(options.adapter):
        raise SettingsError(f"{str(options.adapter)!r} is a cast of several models; record each by itself")
    loaded = served[-1].loaded
    taught = contract.read(options.adapter) if options.adapter else None
    forms = [options.weights, *([] if options.weights != "float32" else [options.dtype, options.prefill_dtype])]
    policy = Policy(
        base=str(Path(base).resolve()) if Path(base).is_dir() else base,
        weights=loaded.weights,
        team=options.team or (taught and taught.team) or "single",
        instructions=(taught is None or taught.instructions) and not options.bare,
        adapter=str(options.adapter.resolve()) if options.adapter else "",
        tuned=bases.digest_weights(options.adapter) if options.adapter else "",
        exact=set(forms) == {"float32"},
        engine=next((one for one in forms if one != "float32"), "float32"),
    )
    return recording.Recorder(options.record, policy, loaded, options.record_mb << 20)


def open_models(
    base: str, players: team.Team, options: argparse.Namespace
) -> AbstractContextManager[tuple[models.ServedModel, ...]]:
    """Return what opens the models that are served."""
    from dataclasses import replace

    from rolecraft.server import loading

    engines = replace(_playing.engine_settings(options), seed=options.seed)
    if options.unconstrained:
        engines = replace(engines, constrain="off")

    def open_engine(adapter: Path | None) -> engine.LocalEngine | engine.RoleEngines:
        opened = _playing.open_local(base, adapter, options, engines)
        _playing.tell_model(opened)
        return opened

    own = _own_tools(players, options)
    return loading.open_models(
        base, options.adapter, players, open_engine, with_base=not options.no_base, open_tools=own, fold=options.fold
    )


def _own_tools(players: team.Team, options: argparse.Namespace) -> models.OpenTools | None:
    """Return what opens the tools that code calls here; tried once, so that what is wrong is told at the start.

    Raises SettingsError for tools of a team that calls the client's, SandboxError where code cannot be confined.
    """
    from rolecraft import sandbox
    from rolecraft.errors import SettingsError

    if players.form is None:
        if options.tools:
            raise SettingsError(
                f"team {players.name!r} calls the client's tools; leave --tools out, or serve --team code"
            )
        return None
    sandbox.open_session(sandbox.Limits()).close()
    _asking.toolbox(options).close()
    return partial(_asking.toolbox, options)
