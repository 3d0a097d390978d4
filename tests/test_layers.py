"""Imports point down: the layers of the house, read from the source's syntax trees."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "rolecraft"

LAYERS: tuple[tuple[str, ...], ...] = (
    ("types", "errors", "telling", "loader", "catalog", "parsing", "settings", "toolschema"),
    ("wire", "schemas", "store", "renderers", "sandbox", "tools", "importers", "judges"),
    (
        "codeblocks",
        "bridge",
        "team",
        "teams",
        "gate",
        "memory",
        "lessons",
        "reflection",
        "repeats",
        "step",
        "agent",
        "first_thought",
        "voting",
        "vetting",
        "strategies",
        "remote",
        "apart",
        "examples",
        "grammar",
        "augment",
        "thoughts",
        "parts",
        "benchmarks",
        "leakage",
        "curate",
    ),
    (
        "contract",
        "smollm2",
        "cast",
        "bases",
        "gguf",
        "bfloat16",
        "matching",
        "virtual_tokens",
        "fit",
        "model",
        "adapters",
        "on_policy",
        "experience",
        "reinforcement",
        "preference",
        "ways",
        "recipe",
        "stages",
        "attention",
        "recomputing",
        "objectives",
        "divergences",
        "advantages",
        "policy_losses",
        "engine",
    ),
    ("workers", "train", "rl"),
    ("scores", "evaluate", "collect", "report", "server", "doctor", "tryout", "nano", "reproduce"),
    ("commands",),
    ("cli",),
)
"""Every file and folder of `rolecraft/`, in reading order; a part may import what stands before it."""

OPEN_FOLDERS = frozenset(
    (
        "renderers",
        "sandbox",
        "tools",
        "importers",
        "judges",
        "teams",
        "strategies",
        "benchmarks",
        "adapters",
        "commands",
    )
)
PART_FOLDERS = frozenset(
    (
        "wire",
        "schemas",
        "store",
        "remote",
        "grammar",
        "augment",
        "engine",
        "train",
        "report",
        "server",
        "reproduce",
        "nano",
        "evaluate",
    )
)
"""One part of the machine each, in several files: the part is its `__init__`."""

ORDER = [part for layer in LAYERS for part in layer]
TORCH_FREE = frozenset(part for layer in LAYERS[:3] for part in layer)
HEAVY = frozenset(("torch", "transformers", "peft", "accelerate", "safetensors"))


def sources() -> dict[str, str]:
    """Return the text of every module in `rolecraft/` by dotted name."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        steps = path.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(steps[:-1] if steps[-1] == "__init__" else steps)] = path.read_text(encoding="utf-8")
    return found


def imports(name: str, text: str, known: Mapping[str, str]) -> Iterator[tuple[str, bool, int]]:
    """Yield (module, in a function, line) for each import; `from a import b` is a.b where that is a module."""
    tree = ast.parse(text)
    local = {
        id(inner)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for inner in ast.walk(outer)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in local, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import in line {node.lineno}"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield (inner if inner in known else str(node.module)), id(node) in local, node.lineno


def violations(known: Mapping[str, str]) -> list[str]:
    """Return one line for each import in the modules `known` that points up, sideways or in from a function."""
    return [
        f"{name}:{line}: {reason}"
        for name, text in known.items()
        if name != "rolecraft"
        for target, local, line in imports(name, text, known)
        if (reason := fault(name, target, local))
    ]


def fault(name: str, target: str, local: bool) -> str | None:
    """Return why the module `name` may not import `target`, or None."""
    part = name.split(".")[1]
    top, *steps = target.split(".")
    if top in HEAVY and part in TORCH_FREE:
        return f"{part} is below layer 3 and imports {top}"
    if top != "rolecraft":
        return None
    if local and part != "commands":
        return f"imports {target} in a function"
    if not steps:
        return "imports the public names of rolecraft; import the module that has them"
    if not {part, steps[0]} <= set(ORDER):
        return f"{part} or {steps[0]} has no layer"
    if steps[0] != part and ORDER.index(steps[0]) > ORDER.index(part):
        return f"{part} imports {target}, which stands above it"
    if {part, steps[0]} <= OPEN_FOLDERS and part != steps[0] and len(steps) > 1:
        return f"{part} reaches into {target}; import rolecraft.{steps[0]}, its contract"
    return None


def test_imports_point_down():
    assert violations(sources()) == []


def circles(known: Mapping[str, str]) -> list[str]:
    """Return the modules that reach themselves by imports; `from a import b` asks `a`, whatever `b` is."""
    asked = {
        name: {
            module
            for node in ast.walk(ast.parse(text))
            for module in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            if module in known and module != name
        }
        for name, text in known.items()
    }

    def reached(start: str) -> set[str]:
        seen, ahead = set[str](), list(asked[start])
        while ahead:
            module = ahead.pop()
            if module not in seen:
                seen.add(module)
                ahead += asked[module]
        return seen

    return sorted(name for name in known if name in reached(name))


def test_no_import_leads_back_to_where_it_began():
    assert circles(sources()) == []


def test_a_file_that_asks_its_package_for_a_neighbour_is_a_circle():
    package = {"p": "from p.a import f", "p.a": "from p import b", "p.b": ""}
    assert circles(package) == ["p", "p.a"]
    assert circles(package | {"p.a": "from p.b import g"}) == []
    assert circles(package | {"p.a": "import p.b as b"}) == []


def test_every_part_of_the_house_has_a_layer():
    parts = {path.stem for path in ROOT.glob("*.py")} | {path.parent.name for path in ROOT.glob("*/*.py")}
    assert parts - {"rolecraft", "__init__"} <= set(ORDER), (
        "give the new part a place in LAYERS, and say why in CONTRIBUTING"
    )


def test_every_folder_is_an_open_set_or_a_part_of_the_machine():
    folders = {path.parent.name for path in ROOT.glob("*/*.py")}
    assert folders <= OPEN_FOLDERS | PART_FOLDERS


def test_importing_the_lower_layers_loads_no_torch():
    names = [name for name in sources() if name.split(".")[1:2] and name.split(".")[1] in TORCH_FREE]
    script = (
        f"import sys, importlib\nfor name in {names!r}: importlib.import_module(name)\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("rolecraft.types", "from rolecraft import agent", "types imports rolecraft.agent, which stands above it"),
        ("rolecraft.tools.sql", "import rolecraft.agent", "tools imports rolecraft.agent, which stands above it"),
        ("rolecraft.wire", "from rolecraft.tools import tool", "wire imports rolecraft.tools, which stands above it"),
        ("rolecraft.judges.calls", "from rolecraft.tools import sql", "judges reaches into rolecraft.tools.sql"),
        ("rolecraft.agent", "import torch", "agent is below layer 3 and imports torch"),
        ("rolecraft.agent", "def f():\n    import torch.nn", "agent is below layer 3 and imports torch"),
        ("rolecraft.engine", "def f():\n    from rolecraft import agent", "imports rolecraft.agent in a function"),
        ("rolecraft.cli", "def f():\n    from rolecraft import agent", "imports rolecraft.agent in a function"),
        (
            "rolecraft.commands.run",
            "def f():\n    import rolecraft.cli",
            "commands imports rolecraft.cli, which stands",
        ),
        ("rolecraft.engine", "from rolecraft import tool", "imports the public names of rolecraft"),
    ],
)
def test_an_import_that_points_elsewhere_is_told(name: str, text: str, reason: str):
    known = {"rolecraft": "", "rolecraft.agent": "", "rolecraft.tools": "", "rolecraft.tools.sql": "", name: text}
    assert reason in "; ".join(violations(known))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rolecraft.agent", "from rolecraft.tools import tool\nfrom rolecraft import wire"),
        ("rolecraft.tools.sql", "from rolecraft.tools import tool\nfrom rolecraft.tools import _schema"),
        ("rolecraft.judges.calls", "from rolecraft.tools import tool"),
        ("rolecraft.engine", "import torch"),
        ("rolecraft.nano.pretrain", "import torch\nfrom rolecraft import train"),
        ("rolecraft.commands.run", "def f():\n    from rolecraft import agent"),
        ("rolecraft.cli", "from rolecraft import agent"),
        ("rolecraft", "from rolecraft.agent import play"),
    ],
)
def test_an_import_that_points_down_is_fine(name: str, text: str):
    others = "wire tools tools._schema agent train".split()
    assert violations({"rolecraft": "", **{f"rolecraft.{other}": "" for other in others}, name: text}) == []
