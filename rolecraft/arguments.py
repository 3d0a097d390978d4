"""The command line's grammar: every verb with its options and their help, read into one namespace.

Not covered: what a verb does (`cli`), and what an override means (`settings`). Nothing heavy is imported here, so that
`--help` is instant.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_OVERRIDE = re.compile(r"[A-Za-z_][\w.-]*=")


def read(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return one verb's options, its name in `verb`; `--help`, `--version` and mistakes end the process (exit code 2).

    Overrides (`section.key=value`) may stand anywhere after the verb and are found in `set`, in their order.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser, verbs = _parser()
    if words and not words[0].startswith("-") and words[0] not in verbs:
        parser.error(f"no verb {words[0]!r}{_near(words[0], verbs)}")
    if not words or words[0] not in verbs:
        return parser.parse_args(words)
    verb = verbs[words[0]]
    overridable = verb.get_default("named") is not None
    if overridable and {"-h", "--help"} & set(words):
        verb.formatter_class, verb.epilog = argparse.RawDescriptionHelpFormatter, _settings(words[0], words[1:])
    options, strange = (verb.parse_known_intermixed_args if overridable else verb.parse_known_args)(words[1:])
    for word in strange:
        known = set(re.findall(r"--[a-z][\w-]*", verb.format_help()))
        kind = "unknown option" if word.startswith("-") else "unexpected"
        verb.error(f"{kind} {word!r}{_near(word.partition('=')[0], known)}")
    options.verb = words[0]
    if overridable:
        _part(verb, options)
    return options


def _near(word: str, known: Sequence[str] | set[str] | dict[str, Any]) -> str:
    near = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.5)
    return f". Did you mean {near[0]!r}?" if near else "; --help tells what there is"


def _settings(verb: str, words: Sequence[str]) -> str:
    """Return what a verb's KEY=VALUE may set, with defaults: of pretraining, or of the benchmark that is named."""
    here = Path(__file__).parent
    if verb == "nano":
        return _listed("settings of pretraining", here / "nano" / "pretrain.py")
    if verb != "eval":
        return ""
    for name in (*(word for word in words if not word.startswith("-")), "toolworld"):
        members = (here / "benchmarks" / f"{name}.py", here / "benchmarks" / name / "__init__.py")
        for path in (Path(name),) if name.endswith(".py") else members:
            if path.is_file():
                return _listed(f"options of {name}", path)
    return ""


def _listed(title: str, path: Path) -> str:
    """Return the settings in a file's `Settings`. It is read and not run: what it imports would take seconds."""
    try:
        body = ast.parse(path.read_text(encoding="utf-8")).body
    except (SyntaxError, ValueError):
        return ""
    values = [(node.targets[0], node.value) for node in body if isinstance(node, ast.Assign)]
    constants = {target.id: value for target, value in values if isinstance(target, ast.Name)}
    lines = [f"{title}, as KEY=VALUE (here with their defaults):"]
    kinds = [node for node in body if isinstance(node, ast.ClassDef) and node.name == "Settings"]
    for node in (node for kind in kinds for node in kind.body):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            value = node.value
            value = constants.get(value.id, value) if isinstance(value, ast.Name) else value
            lines.append(f"  {node.target.id}={'' if value is None else _default(ast.unparse(value))}")
    return "\n".join(lines)


def _default(source: str) -> str:
    """Return a default as it may be written after KEY=."""
    source = {"field(default_factory=dict)": "{}", "field(default_factory=list)": "[]"}.get(source, source)
    try:
        return json.dumps(ast.literal_eval(source))
    except ValueError:
        return source


def _part(verb: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Part the overrides from the one word that may stand beside them: argparse takes words in order alone."""
    name = options.named
    words = [*([getattr(options, name)] if name else []), *options.set]
    options.set = [word for word in words if word and _OVERRIDE.match(word)]
    others = [word for word in words if word and not _OVERRIDE.match(word)]
    if len(others) > bool(name):
        verb.error(f"unexpected {others[bool(name)]!r}; a setting is changed as section.key=value")
    if name:
        chosen = others[0] if others else verb.get_default(name)
        if chosen is None:
            verb.error(f"the following arguments are required: {name}")
        setattr(options, name, chosen)


def _parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    parser = argparse.ArgumentParser(prog="rolecraft", description="Reliable tool-calling agents from small models.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    adders: tuple[Callable[[Any], argparse.ArgumentParser], ...]
    adders = (_quickstart, _train, _eval, _run, _chat, _serve, _report, _params, _reproduce, _nano, _doctor)
    return parser, {added.prog.split()[-1]: added for added in (add(verbs) for add in adders)}


class _Version(argparse.Action):
    """Prints the version; importlib.metadata is slow to import, so it is left until asked."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        import importlib.metadata

        print(importlib.metadata.version("rolecraft"))
        parser.exit()


def _verb(verbs: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    return parser


def _overrides(parser: argparse.ArgumentParser, text: str, form: str, named: str = "") -> None:
    """Let a verb take overrides; `named` is the one other word it takes, if any."""
    parser.add_argument("set", nargs="*", default=[], metavar=form, help=f"{text}; may stand anywhere")
    parser.set_defaults(named=named)


def _model_flags(
    parser: argparse.ArgumentParser, max_tokens: int = 160, per: str = "reply", max_context: int = 1024
) -> None:
    parser.add_argument("--base", help="`nano`, a local folder or a hub name (default: the adapter's base, else nano)")
    parser.add_argument("--adapter", type=Path, metavar="DIR", help="a trained adapter's folder")
    parser.add_argument("--team", help="mor or single (default: what the adapter was trained for, else single)")
    parser.add_argument("--bare", action="store_true", help="tell the roles nothing but the conversation")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or auto (default: cpu)")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    text = "what prompts alone are multiplied in; auto tries which is faster here (default: float32)"
    parser.add_argument("--prefill-dtype", default="float32", choices=("auto", "float32", "bfloat16"), help=text)
    text = f"tokens of a conversation, the reply included (default: {max_context})"
    parser.add_argument("--max-context", type=int, default=max_context, help=text)
    text = "the most MiB of a loaded model's keys and values; what could need more is refused (default: no bound)"
    parser.add_argument("--memory-mb", type=int, metavar="MIB", help=text)
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy (default)")
    parser.add_argument("--max-tokens", type=int, default=max_tokens, help=f"per {per} (default: {max_tokens})")
    parser.add_argument("--max-turns", type=int, default=12, help="model calls per episode (default: 12)")
    parser.add_argument("--seed", type=int, default=0)


def _constrain_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--constrain", action="store_true", help="let no call be written that misfits its tool's schema"
    )
    text = "schema keywords that --constrain cannot keep (default: refuse)"
    parser.add_argument("--on-unsupported", default="refuse", choices=("refuse", "ignore"), help=text)


def _tool_flags(parser: argparse.ArgumentParser) -> None:
    text = "a .py file with @tool functions, or python, calculator, ...; may be repeated"
    parser.add_argument("--tools", action="append", default=[], metavar="FILE", help=text)
    parser.add_argument("--system", default="", help="a system message")
    parser.add_argument("--unsafe", action="store_true", help="let model-written code run even without isolation")


def _quickstart(verbs: Any) -> argparse.ArgumentParser:
    parser = _verb(verbs, "quickstart", "tune the embedded model and show its score before and after")
    parser.add_argument("--output", type=Path, default=Path("runs/quickstart"), metavar="DIR")
    parser.add_argument("--recipe", default="quickstart", help="quickstart, long, or a YAML file")
    parser.add_argument("--n", type=int, default=210, help="tasks per split (default: 210)")
    parser.add_argument("--seed", type=int, default=29, help="of the held-out tasks (default: 29)")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted one")
    return parser


def _train(verbs: Any) -> argparse.ArgumentParser:
    parser = _verb(verbs, "train", "tune an adapter as a recipe says")
    parser.add_argument("recipe", help="a YAML file, or the name of one in recipes/")
    _overrides(parser, "change a setting of the recipe", "SECTION.KEY=VALUE", "recipe")
    parser.add_argument("--base", help="`nano`, a local folder or a hub name")
    parser.add_argument("--data", help="a JSONL or JSON file of trajectories")
    parser.add_argument("--importer", help="the data's format: openai, glaive, ... (default: openai)")
    parser.add_argument("--on-bad-row", choices=("stop", "skip"))
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: runs/<recipe's name>")
    parser.add_argument("--processes", type=int, help="data-parallel processes")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    return parser


def _eval(verbs: Any) -> argparse.ArgumentParser:
    parser = _verb(verbs, "eval", "play a benchmark's tasks and score them")
    parser.add_argument("benchmark", nargs="?", default="toolworld", help="default: toolworld")
    _overrides(parser, "an option of the benchmark", "KEY=VALUE", "benchmark")
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, help="play only the first N tasks")
    parser.add_argument("--workers", type=int, default=1, help="processes that play (default: 1)")
    parser.add_argument("--concurrency", type=int, default=32, help="episodes at once per process (default: 32)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="the run folder; finished episodes are not repeated")
    parser.add_argument("--against", type=Path, metavar="DIR", help="a run to compare with, task by task")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    _model_flags(parser)
    _constrain_flags(parser)
    return parser


def _run(verbs: Any) -> argparse.ArgumentParser:
    parser = _verb(verbs, "run", "answer one question with your tools")
    parser.add_argument("question")
    _tool_flags(parser)
    _model_flags(parser)
    _constrain_flags(parser)
    parser.add_argument("--json", action="store_true", help="print the trajectory as one JSON object")
    return parser


def _chat(verbs: Any) -> argparse.ArgumentParser:
    parser = _verb(verbs, "chat", "talk with a model that uses your tools")
    _tool_flags(parser)
    _model_flags(parser)
    _constrain_flags(parser)
    return parser


def _serve(verbs: Any) -> argparse.ArgumentParser:
    parser = _verb(verbs, "serve", "answer OpenAI's chat API with a base, its roles and the team")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (default: 127.0.0.1, this machine only)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: 8000)")
    text = "a file with the key that clients must send (default: the environment's ROLECRAFT_API_KEY, if set)"
    parser.add_argument("--api-key-file", type=Path, metavar="FILE", help=text)
    parser.add_argument("--keyless", action="store_true", help="listen beyond this machine without a key")
    parser.add_argument("--no-base", action="store_true", help="do not load the untuned base beside an adapter")
    parser.add_argument("--concurrency", type=int, default=16, help="answers written at once (default: 16)")
    parser.add_argument("--waiting", type=int, default=64, help="requests that may wait beside them (default: 64)")
    parser.add_argument("--seconds", type=float, default=120.0, help="time of a request (default: 120)")
    parser.add_argument("--stall", type=float, default=30.0, help="seconds a client may not read (default: 30)")
    parser.add_argument("--grace", type=float, default=20.0, help="seconds to finish in after a signal (default: 20)")
    parser.add_argument("--max-body", type=int, help="bytes of a request (default: 32 for each token of --max-context)")
    parser.add_argument("--max-messages", type=int, default=512, help="messages of a request (default: 512)")
    parser.add_argument("--max-thought", type=int, default=160, help="tokens of a role nobody hears (default: 160)")
    parser.add_argument("--unconstrained", action="store_true", help="hold no reply to its role or to tools' schemas")
    _model_flags(parser, max_tokens=1024, per="answer, all roles together", max_context=4096)
    _constrain_flags(parser)
    return parser


def _report(verbs: Any) -> argparse.ArgumentParser:
    parser = _verb(verbs, "report", "write one HTML page about run folders")
    parser.add_argument("run", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: report.html in the first run folder")
    return parser


def _params(verbs: Any) -> argparse.ArgumentParser:
    parser = _verb(verbs, "params", "count the parameters that a recipe trains, without loading weights")
    parser.add_argument("--base", required=True, metavar="CONFIG", help="a config.json, a model's folder, or nano")
    parser.add_argument("--recipe", required=True, help="a YAML file, or the name of one in recipes/")
    _overrides(parser, "change a setting of the recipe", "SECTION.KEY=VALUE")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    return parser


def _reproduce(verbs: Any) -> argparse.ArgumentParser:
    parser = _verb(verbs, "reproduce", "run a claim: tune its arms, play them, and say whether it holds here")
    parser.add_argument("claim", help="a YAML file, or the name of one in recipes/claims/")
    parser.add_argument("--seeds", type=int, metavar="N", help="run the first N tuning seeds only")
    parser.add_argument("--arms", type=_names, default=(), metavar="A,B", help="run these arms only")
    parser.add_argument("--workers", type=int, default=2, help="cells side by side, one thread each (default: 2)")
    parser.add_argument("--dry-run", action="store_true", help="tell what it would cost, and run nothing")
    parser.add_argument("--yes", action="store_true", help="run though it takes longer than the claim allows")
    parser.add_argument("--report", action="store_true", help="write down what the finished cells say, and run nothing")
    parser.add_argument("--results", type=Path, default=Path("results/claims"), metavar="DIR", help="finished cells")
    parser.add_argument("--docs", type=Path, default=Path("docs/claims.md"), metavar="FILE", help="what is written")
    parser.add_argument("--output", type=Path, default=Path("runs/reproduce"), metavar="DIR", help="run folders")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    return parser


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _nano(verbs: Any) -> argparse.ArgumentParser:
    parser = _verb(verbs, "nano", "make or check the embedded base model")
    parser.add_argument("action", type=_nano_action, metavar="{pretrain,check}")
    _overrides(parser, "change a pretraining setting", "KEY=VALUE", "action")
    parser.add_argument("--output", type=Path, default=Path("runs/nano"), metavar="DIR", help="where pretrain writes")
    parser.add_argument("--base", default="nano", help="what check looks at (default: the shipped base)")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--n", type=int, default=200, help="probes per check (default: 200)")
    parser.add_argument("--json", action="store_true", help="print the checks as one JSON object")
    return parser


def _nano_action(word: str) -> str:
    # argparse's own `choices` would refuse an override that stands first.
    if word not in ("pretrain", "check") and not _OVERRIDE.match(word):
        raise argparse.ArgumentTypeError(f"{word!r} is neither 'pretrain' nor 'check'")
    return word


def _doctor(verbs: Any) -> argparse.ArgumentParser:
    parser = _verb(verbs, "doctor", "tell versions, devices, sandbox layers and missing extras")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    return parser
