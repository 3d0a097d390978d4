"""The verbs: reads the command line, calls the part that does the work, turns errors into one line and an exit code.

Imports of Rolecraft's own parts are local to the verbs, so that `--help` is instant.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from rolecraft import agent, team
    from rolecraft.tools import Toolbox
    from rolecraft.types import Engine, Message, Trajectory

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns 0, 1 for a fault of ours, 2 for the caller's, 130 when interrupted."""
    options = _parser().parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # two threads under any other load collapse; use processes
    from rolecraft.errors import RolecraftError

    try:
        return int(options.verb(options) or 0)
    except RolecraftError as error:
        print(f"rolecraft: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("rolecraft: interrupted; what was finished is kept, repeat the command to go on", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rolecraft", description="Reliable tool-calling agents from small models.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    for add in (_add_quickstart, _add_train, _add_eval, _add_run, _add_chat, _add_report, _add_params):
        add(verbs)
    _add_nano(verbs)
    _add_doctor(verbs)
    return parser


class _Version(argparse.Action):
    """Prints the version; importlib.metadata is slow to import, so it is left until asked."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        import importlib.metadata

        print(importlib.metadata.version("rolecraft"))
        parser.exit()


def _verb(
    verbs: Any, name: str, call: Callable[[argparse.Namespace], int | None], text: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(verb=call)
    return parser


def _model_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base", help="`nano`, a local folder or a hub name (default: the adapter's base, else nano)")
    parser.add_argument("--adapter", type=Path, metavar="DIR", help="a trained adapter's folder")
    parser.add_argument("--team", help="mor or single (default: what the adapter was trained for, else single)")
    parser.add_argument("--bare", action="store_true", help="tell the roles nothing but the conversation")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or auto (default: cpu)")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy (default)")
    parser.add_argument("--max-tokens", type=int, default=160, help="per reply (default: 160)")
    parser.add_argument("--max-turns", type=int, default=12, help="model calls per episode (default: 12)")
    parser.add_argument("--seed", type=int, default=0)


def _tool_flags(parser: argparse.ArgumentParser) -> None:
    text = "a .py file with @tool functions, or python, calculator, ...; may be repeated"
    parser.add_argument("--tools", action="append", default=[], metavar="FILE", help=text)
    parser.add_argument("--system", default="", help="a system message")
    parser.add_argument("--unsafe", action="store_true", help="let model-written code run even without isolation")


def _add_quickstart(verbs: Any) -> None:
    parser = _verb(verbs, "quickstart", _quickstart, "tune the embedded model and show its score before and after")
    parser.add_argument("--output", type=Path, default=Path("runs/quickstart"), metavar="DIR")
    parser.add_argument("--recipe", default="quickstart", help="quickstart, long, or a YAML file")
    parser.add_argument("--n", type=int, default=210, help="tasks per split (default: 210)")
    parser.add_argument("--seed", type=int, default=11, help="of the held-out tasks (default: 11)")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted one")


def _quickstart(options: argparse.Namespace) -> None:
    from rolecraft.nano import quickstart

    settings = quickstart.Settings(options.recipe, options.n, options.seed, options.processes)
    quickstart.quickstart(settings, options.output, resume=options.resume)


def _add_train(verbs: Any) -> None:
    parser = _verb(verbs, "train", _train, "tune an adapter as a recipe says")
    parser.add_argument("recipe", help="a YAML file, or the name of one in recipes/")
    parser.add_argument("set", nargs="*", metavar="SECTION.KEY=VALUE", help="change a setting of the recipe")
    parser.add_argument("--base", help="`nano`, a local folder or a hub name")
    parser.add_argument("--data", help="a JSONL or JSON file of trajectories")
    parser.add_argument("--importer", help="the data's format: openai, glaive, ... (default: openai)")
    parser.add_argument("--on-bad-row", choices=("stop", "skip"))
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: runs/<recipe's name>")
    parser.add_argument("--processes", type=int, help="data-parallel processes")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")


def _train(options: argparse.Namespace) -> None:
    from rolecraft import train

    short = {"model.base": options.base, "data.path": options.data, "data.importer": options.importer}
    short |= {"data.on_bad_row": options.on_bad_row, "training.processes": options.processes}
    flags = [f"{key}={value}" for key, value in short.items() if value is not None] + options.set
    recipe = train.find_recipe(options.recipe)
    output = options.output or Path("runs") / recipe.stem
    train.launch(recipe, output, flags=flags, resume=options.resume)


def _add_eval(verbs: Any) -> None:
    parser = _verb(verbs, "eval", _eval, "play a benchmark's tasks and score them")
    parser.add_argument("benchmark", nargs="?", default="toolworld")
    parser.add_argument("set", nargs="*", metavar="KEY=VALUE", help="an option of the benchmark")
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, help="play only the first N tasks")
    parser.add_argument("--workers", type=int, default=1, help="processes that play (default: 1)")
    parser.add_argument("--concurrency", type=int, default=32, help="episodes at once per process (default: 32)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="the run folder; finished episodes are not repeated")
    parser.add_argument("--against", type=Path, metavar="DIR", help="a run to compare with, task by task")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    _model_flags(parser)


def _eval(options: argparse.Namespace) -> None:
    from rich.console import Console

    from rolecraft import evaluate, model, settings
    from rolecraft.store import Run

    console = Console(stderr=options.json)
    chosen, adapter_team = _engine_and_team(options)
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
        model=model.identity(options.base or "nano", options.adapter),
        command=shlex.join(["rolecraft", *sys.argv[1:]]),
    )
    run = Run(output)
    scores = evaluate.run(what, adapter_team, chosen, run, _playing(options), console=console)
    console.print(evaluate.score_table({what.name: {options.split: scores}}))
    console.print(evaluate.family_table({options.split: scores}))
    console.print(evaluate.failure_table({options.split: scores}))
    if options.against is not None:
        console.print(evaluate.comparison(Run(options.against).trajectories(), run.trajectories()))
    console.print(f"trajectories: {output}; look at them with: rolecraft report {output}")
    if options.json:
        print(json.dumps(evaluate.scores_json(scores)))


def _add_run(verbs: Any) -> None:
    parser = _verb(verbs, "run", _run, "answer one question with your tools")
    parser.add_argument("question")
    _tool_flags(parser)
    _model_flags(parser)
    parser.add_argument("--json", action="store_true", help="print the trajectory as one JSON object")


def _run(options: argparse.Namespace) -> int:
    import asyncio

    from rich.console import Console

    from rolecraft import wire

    console = Console(stderr=options.json)
    opener, chosen = _engine_and_team(options)
    with opener() as engine, _toolbox(options) as box:
        record = asyncio.run(_answer(options, engine, chosen, box, _opening(options, options.question), console))
    if options.json:
        print(json.dumps(wire.trajectory_to_json(record), ensure_ascii=False))
    if record.stop != "answered":
        print(f"rolecraft: no answer: the episode ended by {record.stop}", file=sys.stderr)
        return 1
    return 0


def _add_chat(verbs: Any) -> None:
    parser = _verb(verbs, "chat", _chat, "talk with a model that uses your tools")
    _tool_flags(parser)
    _model_flags(parser)


def _chat(options: argparse.Namespace) -> None:
    import asyncio

    from rich.console import Console

    from rolecraft.types import Message

    console = Console()
    opener, chosen = _engine_and_team(options)
    console.print("Ask; an empty line ends the chat.", style="dim")
    with opener() as engine, _toolbox(options) as box:
        messages: tuple[Message, ...] = ()
        while question := _ask(console):
            messages = (*messages, Message("user", question)) if messages else _opening(options, question)
            messages = asyncio.run(_answer(options, engine, chosen, box, messages, console)).messages


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
    chosen: team.Team,
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
        chosen,
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


def _engine_and_team(options: argparse.Namespace) -> tuple[Callable[[], AbstractContextManager[Engine]], team.Team]:
    """Return what opens the engine, in this process or in a worker, and the team that plays."""
    from functools import partial

    from rolecraft import engine, model, team

    contract = model.read_contract(options.adapter) if options.adapter else None
    base = options.base or (contract.base if contract else "nano")
    slots = getattr(options, "concurrency", 1)
    opener = partial(engine.open_local, base, options.adapter, options.dtype, options.device, engine.Settings(slots))
    name = options.team or (contract.team if contract else None) or "single"
    instructions = contract.instructions if contract else True
    return opener, team.find(name, instructions=instructions and not options.bare)


def _playing(options: argparse.Namespace) -> agent.Settings:
    from rolecraft import agent
    from rolecraft.types import Sampling

    sampling = Sampling(temperature=options.temperature, max_tokens=options.max_tokens)
    return agent.Settings(max_turns=options.max_turns, sampling=sampling)


def _add_report(verbs: Any) -> None:
    parser = _verb(verbs, "report", _report, "write one HTML page about run folders")
    parser.add_argument("run", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: report.html in the first run folder")


def _report(options: argparse.Namespace) -> None:
    from rolecraft import report

    print(report.write(options.run, options.output or options.run[0] / "report.html"))


def _add_params(verbs: Any) -> None:
    parser = _verb(verbs, "params", _params, "count the parameters that a recipe trains, without loading weights")
    parser.add_argument("--base", required=True, metavar="CONFIG", help="a config.json, a model's folder, or nano")
    parser.add_argument("--recipe", required=True, help="a YAML file, or the name of one in recipes/")
    parser.add_argument("set", nargs="*", metavar="SECTION.KEY=VALUE", help="change a setting of the recipe")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")


def _params(options: argparse.Namespace) -> None:
    from rolecraft import train

    counted = train.count_parameters(options.base, train.load_recipe(train.find_recipe(options.recipe), options.set))
    if options.json:
        print(json.dumps(counted))
        return
    share = counted["trainable"] / counted["base"]
    print(f"{counted['trainable']:,} trainable parameters on a base of {counted['base']:,} ({share:.2%})")


def _add_nano(verbs: Any) -> None:
    parser = _verb(verbs, "nano", _nano, "make or check the embedded base model")
    parser.add_argument("action", choices=("pretrain", "check"))
    parser.add_argument("--output", type=Path, default=Path("runs/nano"), metavar="DIR", help="where pretrain writes")
    parser.add_argument("--base", default="nano", help="what check looks at (default: the shipped base)")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--n", type=int, default=200, help="probes per check (default: 200)")
    parser.add_argument("--json", action="store_true", help="print the checks as one JSON object")
    parser.add_argument("set", nargs="*", metavar="KEY=VALUE", help="change a pretraining setting")


def _nano(options: argparse.Namespace) -> int:
    from rolecraft import model, settings
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


def _add_doctor(verbs: Any) -> None:
    parser = _verb(verbs, "doctor", _doctor, "tell versions, devices, sandbox layers and missing extras")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")


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
