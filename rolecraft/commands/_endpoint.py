"""The options of verbs that can play a model behind an OpenAI-compatible endpoint, and what becomes of them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rolecraft.commands._numbers import count, seconds, whole
from rolecraft.errors import SettingsError

if TYPE_CHECKING:
    from rolecraft import remote, strategies, team

_LOCAL = (
    *("base", "adapter", "format", "think", "device", "dtype", "prefill_dtype", "weights", "max_context", "memory_mb"),
    *("constrain", "on_unsupported"),
)
"""The options of a model in this process, which an endpoint would not heed."""
_REMOTE = (
    "model engine_tools api_key_file api_key_env engine_requests engine_retries engine_seconds answer_cache".split()
)


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Add the options that name an endpoint, and how it is asked."""
    group = parser.add_argument_group("an endpoint instead of a model in this process")
    text = "play what answers OpenAI's chat API there, such as http://127.0.0.1:8000/v1"
    group.add_argument("--engine", metavar="URL", help=text)
    text = "the model's name there, for all roles or for one; may be repeated (default: the only one there is)"
    group.add_argument("--model", action="append", default=[], metavar="[ROLE=]NAME", help=text)
    text = "send tools as such, or as text in the system message (default: auto, which asks the endpoint)"
    group.add_argument("--engine-tools", default="auto", choices=("auto", "native", "prompt"), help=text)
    text = "a file with the endpoint's key (default: the environment's ROLECRAFT_ENGINE_KEY, if set)"
    group.add_argument("--api-key-file", type=Path, metavar="FILE", help=text)
    text = "another variable of the environment that has the key, such as OPENAI_API_KEY"
    group.add_argument("--api-key-env", metavar="NAME", help=text)
    text = "requests that are under way at once (default: 8)"
    group.add_argument("--engine-requests", type=count, default=8, metavar="N", help=text)
    text = "how often a request that failed is tried again (default: 6)"
    group.add_argument("--engine-retries", type=whole, default=6, metavar="N", help=text)
    text = "the longest that one try may take (default: 120)"
    group.add_argument("--engine-seconds", type=seconds, default=120.0, metavar="SECONDS", help=text)
    text = "a folder that keeps answers, and gives them where the very same is asked (default: none is kept)"
    group.add_argument("--answer-cache", type=Path, metavar="DIR", help=text)


def keep_defaults(parser: argparse.ArgumentParser) -> None:
    """Note the defaults, once all options are added: an option that would not be heeded is refused."""
    usual = {name: parser.get_default(name) for name in (*_LOCAL, *_REMOTE)}
    parser.set_defaults(usual=usual)


def check(options: argparse.Namespace) -> None:
    """Raise SettingsError for an option of the kind of engine that does not play."""
    names, why = (_LOCAL, "belongs to a model in this process") if options.engine else (_REMOTE, "needs --engine URL")
    for name in names:
        if getattr(options, name) != options.usual[name]:
            raise SettingsError(
                f"--{name.replace('_', '-')} {why}; leave it out{' beside --engine' if options.engine else ''}"
            )


def resolve(options: argparse.Namespace) -> tuple[remote.Settings, team.Team]:
    """Ask the endpoint what it is, and return how it plays and the team; raises what `remote.resolve` raises."""
    from rolecraft import remote, team
    from rolecraft.catalog import given

    name = given(options.team or "single")
    settings = remote.Settings(
        options.engine,
        requests=options.engine_requests,
        retries=options.engine_retries,
        seconds=options.engine_seconds,
        cache=options.answer_cache,
    )
    wishes = remote.Wishes(
        options.model, options.engine_tools, continues=getattr(options, "first_thought_prefix", False)
    )
    found = remote.resolve(settings, wishes, team.find(name).speakers, read_key(options))
    return found, team.find(name, instructions=not (options.bare or found.knows_roles))


def require(player: remote.Settings, chosen: strategies.Chosen, options: argparse.Namespace) -> remote.Settings:
    """Return how an endpoint is asked that plays by a strategy; raises SettingsError for what it lacks for it."""
    from rolecraft import remote

    if not chosen.needs:
        return player
    role = next((name for name in player.models if name), "assistant")
    return remote.require(player, chosen.needs, role, read_key(options))


def read_key(options: argparse.Namespace) -> str | None:
    """Return the endpoint's key, which stands in no settings."""
    from rolecraft import remote

    return remote.read_key(options.api_key_file, options.api_key_env)
