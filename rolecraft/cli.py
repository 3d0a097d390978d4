"""The verbs: each calls the part that does the work; errors become one line and an exit code.

Imports of Rolecraft's own parts are local to the verbs, so that `--help` is instant; and what loads torch, which takes
seconds, is imported after everything that can be told without it.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rolecraft import arguments

if TYPE_CHECKING:
    from rich.console import Console

    from rolecraft import agent, engine, team
    from rolecraft.server import served
    from rolecraft.tools import Toolbox
    from rolecraft.types import Engine, Message, Trajectory

_INTERRUPTED = 130


def main(words: Sequence[str] | None = None) -> int:
    """Run one verb; returns 0, 1 for a fault of ours, 2 for the caller's, 130 when interrupted."""
    options = arguments.read(words)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # two threads under any other load collapse; use processes
    from rolecraft.errors import RolecraftError

    try:
        return int(_verbs()[options.verb](options) or 0)
    except RolecraftError as error:
        print(f"rolecraft: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("rolecraft: interrupted; what was finished is kept, repeat the command to go on", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _verbs() -> dict[str, Callable[[argparse.Namespace], int | None]]:
    return {
        "quickstart": _quickstart,
        "train": _train,
        "eval": _eval,
        "run": _run,
        "chat": _chat,
        "serve": _serve,
        "report": _report,
        "params": _params,
        "reproduce": _reproduce,
        "nano": _nano,
        "doctor": _doctor,
    }


def _quickstart(options: argparse.Namespace) -> None:
    from rolecraft import recipe

    recipe.check(recipe.find_recipe(options.recipe))
    from rolecraft.nano import quickstart

    settings = quickstart.Settings(options.recipe, options.n, options.seed, options.processes)
    quickstart.quickstart(settings, options.output, resume=options.resume)


def _train(options: argparse.Namespace) -> None:
    from rolecraft import recipe

    short = {"model.base": options.base, "data.path": options.data, "data.importer": options.importer}
    short |= {"data.on_bad_row": options.on_bad_row, "training.processes": options.processes}
    flags = [f"{key}={value}" for key, value in short.items() if value is not None] + options.set
    path = recipe.find_recipe(options.recipe)
    recipe.check(path, flags)
    from rolecraft import train

    train.launch(path, options.output or Path("runs") / path.stem, flags=flags, resume=options.resume)


def _eval(options: argparse.Namespace) -> None:
    from rich.console import Console

    from rolecraft import bases, evaluate, settings
    from rolecraft.store import Run

    console = Console(stderr=options.json)
    base, players = _base_and_team(options)
    extra = settings.override({}, [f"options.{flag}" for flag in options.set]).get("options", {})
    output = options.output or Path("runs") / f"eval-{options.benchmark}-{options.split}-{options.seed}"
    what = evaluate.Settings(
        name=output.name,
        benchmark=options.benchmark,
        split=options.split,
        seed=options.seed,
        limit=options.limit,
        concurrency=options.concurrency,
        workers=options.workers,
        options=extra,
        model=bases.identity(base, options.adapter),
        command=shlex.join(["rolecraft", *sys.argv[1:]]),
    )
    run = Run(output)
    scores = evaluate.run(what, players, partial(_open, base, options), run, _playing(options), console=console)
    console.print(evaluate.score_table({what.name: {options.split: scores}}))
    console.print(evaluate.family_table({options.split: scores}))
    console.print(evaluate.failure_table({options.split: scores}))
    if options.against is not None:
        console.print(evaluate.comparison(Run(options.against).trajectories(), run.trajectories()))
    console.print(f"trajectories: {output}; look at them with: rolecraft report {output}")
    if options.json:
        print(json.dumps(evaluate.scores_json(scores)))


def _run(options: argparse.Namespace) -> int:
    import asyncio

    from rich.console import Console

    from rolecraft import wire

    console = Console(stderr=options.json)
    base, players = _base_and_team(options)
    with _toolbox(options) as box, _open(base, options) as engine:
        record = asyncio.run(_answer(options, engine, players, box, _opening(options, options.question), console))
    if options.json:
        print(json.dumps(wire.trajectory_to_json(record), ensure_ascii=False))
    if record.stop != "answered":
        print(f"rolecraft: no answer: the episode ended by {record.stop}", file=sys.stderr)
        return 1
    return 0


def _chat(options: argparse.Namespace) -> None:
    import asyncio

    from rich.console import Console

    from rolecraft.types import Message

    console = Console()
    base, players = _base_and_team(options)
    with _toolbox(options) as box, _open(base, options) as engine:
        console.print("Ask; an empty line ends the chat.", style="dim")
        messages: tuple[Message, ...] = ()
        while question := _ask(console):
            messages = (*messages, Message("user", question)) if messages else _opening(options, question)
            messages = asyncio.run(_answer(options, engine, players, box, messages, console)).messages


def _ask(console: Console) -> str:
    try:
        return console.input("[bold]> [/bold]").strip()
    except EOFError:
        return ""


def _opening(options: argparse.Namespace, question: str) -> tuple[Message, ...]:
    from rolecraft.types import Message

    system = (Message("system", options.system),) if options.system else ()
    return (*system, Message("user", question))


def _toolbox(options: argparse.Namespace) -> AbstractContextManager[Toolbox]:
    """Open the user's tools; a chat keeps them, and what they remember, from question to question."""
    from contextlib import closing

    from rolecraft.tools import Toolbox, find

    unsafe = {"unsafe": True} if options.unsafe else None
    return closing(
        Toolbox([found for name in options.tools for found in find(name, unsafe if name == "python" else None)])
    )


async def _answer(
    options: argparse.Namespace,
    engine: Engine,
    players: team.Team,
    box: Toolbox,
    messages: tuple[Message, ...],
    console: Console,
) -> Trajectory:
    """Play one episode on the user's tools, showing each message as it comes."""
    from rolecraft import agent
    from rolecraft.renderers import why_unparsed
    from rolecraft.types import Environment, Task, Verdict

    environment = Environment(Task("chat", messages, box.specs), box, lambda record: Verdict(0.0, "nobody judged it"))
    return await agent.episode(
        environment,
        players,
        engine,
        _playing(options),
        seed=options.seed,
        explain=why_unparsed,
        watch=lambda message: _show(message, console),
    )


_COLOURS = {"reasoner": "cyan", "executor": "yellow", "summarizer": "green", "assistant": "green", "tool": "magenta"}


def _show(message: Message, console: Console) -> None:
    who = message.speaker or message.role
    calls = [f"{call.name}({json.dumps(dict(call.arguments), ensure_ascii=False)})" for call in message.tool_calls]
    unparsed = [f"(not a call) {message.unparsed}"] if message.unparsed is not None else []
    text = "\n".join(part for part in (message.content, *calls, *unparsed) if part)
    console.print(f"{who:>10}  ", style=_COLOURS.get(who, "white"), end="")
    console.print(text.replace("\n", "\n" + " " * 12), markup=False, highlight=False)


def _serve(options: argparse.Namespace) -> None:
    from rolecraft import server
    from rolecraft.server import rounds, served, service

    playing = rounds.Settings(
        temperature=options.temperature,
        max_tokens=options.max_tokens,
        max_thought=options.max_thought,
        max_turns=options.max_turns,
        constrained=not options.unconstrained,
    )
    limits = service.Limits(options.concurrency, options.waiting, options.seconds, options.max_messages)
    # What cannot fit the context is not worth reading: tokenising it would hold up everybody else.
    body = max(1 << 16, 32 * options.max_context) if options.max_body is None else options.max_body
    settings = server.Settings(
        options.host, options.port, body, options.stall, options.grace, options.keyless, limits, playing
    )
    key = server.read_key(options.api_key_file)
    base, players = _base_and_team(options)
    # The address is taken before the models are loaded: that it cannot be had is told at once.
    with server.bind(settings, key) as bound, _offered(base, players, options) as models:
        told = f"{served.in_words(models)}: {'with' if key else 'without'} a key at "
        server.serve(models, settings, key, bound=bound, ready=lambda _, url: print(told + url, flush=True))


def _offered(
    base: str, players: team.Team, options: argparse.Namespace
) -> AbstractContextManager[tuple[served.Served, ...]]:
    """Return what opens the models that are served."""
    from dataclasses import replace

    from rolecraft import engine
    from rolecraft.server import offer

    engines = replace(_engines(options), seed=options.seed)
    if options.unconstrained:
        engines = replace(engines, constrain="off")

    def open_engine(adapter: Path | None) -> engine.LocalEngine:
        return engine.open_local(base, adapter, options.dtype, options.device, engines)

    return offer.opened(base, options.adapter, players, open_engine, with_base=not options.no_base)


def _base_and_team(options: argparse.Namespace) -> tuple[str, team.Team]:
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


def _open(base: str, options: argparse.Namespace) -> AbstractContextManager[Engine]:
    """Open the engine, in this process or in a worker; torch is not loaded before."""
    from rolecraft import engine

    return engine.open_local(base, options.adapter, options.dtype, options.device, _engines(options))


def _engines(options: argparse.Namespace) -> engine.Settings:
    from rolecraft import engine
    from rolecraft.engine import matcher

    return engine.Settings(
        slots=getattr(options, "concurrency", 1),
        max_context=options.max_context,
        constrain="always" if options.constrain else "asked",
        prefill_dtype=options.prefill_dtype,
        memory_mb=options.memory_mb,
        grammar=matcher.Settings(on_unsupported=options.on_unsupported),
    )


def _playing(options: argparse.Namespace) -> agent.Settings:
    from rolecraft import agent
    from rolecraft.types import Sampling

    sampling = Sampling(temperature=options.temperature, max_tokens=options.max_tokens)
    return agent.Settings(max_turns=options.max_turns, sampling=sampling, constrained=options.constrain)


def _report(options: argparse.Namespace) -> None:
    from rolecraft import report

    print(report.write(options.run, options.output or options.run[0] / "report.html"))


def _params(options: argparse.Namespace) -> None:
    from rolecraft import bases, recipe

    bases.find_config(options.base)
    chosen = recipe.load_recipe(recipe.find_recipe(options.recipe), options.set)
    from rolecraft import train

    counted = train.count_parameters(options.base, chosen)
    if options.json:
        print(json.dumps(counted))
        return
    trainable, frozen = counted["trainable"], counted["base"]
    print(
        f"{trainable:,} trainable parameters beside the base's {frozen:,}, which stay as they are: "
        f"{trainable / (trainable + frozen):.2%} of the two together, {trainable / frozen:.2%} of the base"
    )


def _reproduce(options: argparse.Namespace) -> None:
    from rich.console import Console

    from rolecraft import reproduce
    from rolecraft.reproduce import claim

    settings = reproduce.Settings(
        seeds=options.seeds,
        arms=options.arms,
        workers=options.workers,
        dry_run=options.dry_run,
        yes=options.yes,
        results=options.results,
        docs=options.docs,
        output=options.output,
    )
    act = reproduce.report if options.report else reproduce.reproduce
    found = act(claim.find(options.claim), settings, Console(stderr=options.json))
    if options.json:
        print(json.dumps(found))


def _nano(options: argparse.Namespace) -> int:
    from rolecraft import bases, settings

    if options.action == "check":
        bases.find(options.base)
    from rolecraft import model
    from rolecraft.nano import checks, pretrain

    if options.action == "pretrain":
        changes = settings.override({}, [f"pretrain.{flag}" for flag in options.set]).get("pretrain")
        pretrain.launch(settings.from_dict(pretrain.Settings, changes), options.output, options.processes)
        print(options.output)
        return 0
    loaded = model.load(options.base)
    found = checks.check(loaded.model, loaded.tokenizer, n=options.n)
    for check in found:
        print(f"{check.name}: {check.accuracy:.3f} (n {check.n}, bar {check.bar:.2f})")
    if options.json:
        print(json.dumps({check.name: {"accuracy": check.accuracy, "n": check.n} for check in found}))
    return 0 if all(check.passed for check in found) else 1


def _doctor(options: argparse.Namespace) -> None:
    from rich.console import Console

    from rolecraft import doctor

    found = doctor.examine()
    if options.json:
        print(json.dumps(found))
    else:
        doctor.show(found, Console())


if __name__ == "__main__":
    sys.exit(main())
