"""The house rules that a program can check; the others are in CONTRIBUTING."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "rolecraft").rglob("*.py"))
FILE_LINES = 400
FUNCTION_LINES = 60
BANNED_NAMES = frozenset("utils util common helpers helper base manager managers misc".split())

BOUNDARIES = {
    "cli.py": "the command line: every error is one line and an exit code",
    "server/app.py": "HTTP: a request never ends the server",
    "tools/_toolbox.py": "a tool is someone else's code: its failure is an observation",
    "tools/_finding.py": "a user's own file may raise anything while it is loaded",
    "tools/_sql_worker.py": "functions that are loaded into a process of their own may raise anything",
    "renderers/_jinja_worker.py": "a model's own template may raise anything",
    "sandbox/_runner.py": "a process that runs a model's code",
    "sandbox/_server.py": "the process that starts those",
    "sandbox/_keeper.py": "the same",
    "workers.py": "a process whose end must be told to its parent",
    "evaluate/playing.py": "the same",
    "reproduce/processes.py": "the same",
    "engine/scheduler.py": "a thread whose death would leave callers waiting for ever",
    "bases.py": "the hub's client raises whatever its HTTP library raises",
}
"""Where `except Exception` may stand, and why."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
Rule = Callable[[str, str], Iterator[str]]


@functools.cache
def parsed(text: str) -> ast.Module:
    """Return the syntax tree, made once: several rules read it."""
    return ast.parse(text)


def opens_with_one_sentence(path: str, text: str) -> Iterator[str]:
    """A file opens with one sentence: its reason to exist."""
    first = (ast.get_docstring(parsed(text)) or "").split("\n")[0]
    if text.strip() and not re.fullmatch(r"(?:(?![.!?] [A-Z]).)+\.", first):
        yield f"{path}: the docstring must open with one sentence on one line, got {first!r}"


def postpones_annotations(path: str, text: str) -> Iterator[str]:
    """Every module that has code begins with `from __future__ import annotations`."""
    has_code = any(not isinstance(node, ast.Expr) for node in parsed(text).body)
    if has_code and "from __future__ import annotations\n" not in text:
        yield f"{path}: lacks 'from __future__ import annotations'"


def documents_what_is_public(path: str, text: str) -> Iterator[str]:
    """Public functions, classes and methods have docstrings; those that override another package's have its own."""

    def visit(node: ast.AST) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, Function | ast.ClassDef):
                continue
            if not child.name.startswith("_"):
                if not ast.get_docstring(child) and not is_overload(child):
                    yield f"{path}:{child.lineno}: {child.name!r} has no docstring"
                if isinstance(child, ast.ClassDef) and all(ast.unparse(base) == "Protocol" for base in child.bases):
                    yield from visit(child)

    yield from visit(parsed(text))


def is_overload(node: Function | ast.ClassDef) -> bool:
    return any(ast.unparse(decorator).endswith(("overload", ".setter")) for decorator in node.decorator_list)


def is_short(path: str, text: str) -> Iterator[str]:
    """Files and functions are short."""
    lines = len(text.splitlines())
    if lines > FILE_LINES:
        yield f"{path}: {lines} lines; at most {FILE_LINES}"
    for node in ast.walk(parsed(text)):
        if isinstance(node, Function):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES:
                yield f"{path}:{node.lineno}: {node.name!r} has {length} lines; at most {FUNCTION_LINES}"


def has_a_telling_name(path: str, text: str) -> Iterator[str]:
    """No file or folder is called `utils`, `common`, `helpers`, `base` or `manager`."""
    for step in Path(path).with_suffix("").parts:
        if step.strip("_").split("_")[-1] in BANNED_NAMES:
            yield f"{path}: {step!r} tells nothing; name it after what it does"


def excepts_narrowly(path: str, text: str) -> Iterator[str]:
    """A broad `except` stands only at a boundary, or raises again."""
    for node in ast.walk(parsed(text)):
        if isinstance(node, ast.ExceptHandler) and is_broad(node.type) and path not in BOUNDARIES:
            last = node.body[-1]
            if not (isinstance(last, ast.Raise) and last.exc is None):
                yield f"{path}:{node.lineno}: a broad except; name the errors, or add a boundary with its reason"


def is_broad(caught: ast.expr | None) -> bool:
    if isinstance(caught, ast.Tuple):
        return any(map(is_broad, caught.elts))
    return caught is None or ast.unparse(caught) in ("Exception", "BaseException")


RULES: tuple[Rule, ...] = (
    opens_with_one_sentence,
    postpones_annotations,
    documents_what_is_public,
    is_short,
    has_a_telling_name,
    excepts_narrowly,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_the_rule(rule: Rule):
    broken = [
        line
        for path in MODULES
        for line in rule(str(path.relative_to(ROOT / "rolecraft")), path.read_text(encoding="utf-8"))
    ]
    assert not broken, "\n" + "\n".join(broken)


DOC = '"""One sentence."""\nfrom __future__ import annotations\n'


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        (opens_with_one_sentence, "a.py", "x = 1\n"),
        (opens_with_one_sentence, "a.py", '"""No full stop"""\n'),
        (opens_with_one_sentence, "a.py", '"""One. Two."""\n'),
        (opens_with_one_sentence, "a.py", '"""A sentence that goes\non."""\n'),
        (postpones_annotations, "a.py", '"""One sentence."""\nx = 1\n'),
        (documents_what_is_public, "a.py", DOC + "def f():\n    return 1\n"),
        (
            documents_what_is_public,
            "a.py",
            DOC + 'class C:\n    """A class."""\n    async def f(self):\n        return 1\n',
        ),
        (is_short, "a.py", DOC + "x = 1\n" * 400),
        (is_short, "a.py", DOC + "def f():\n" + "    x = 1\n" * 60),
        (has_a_telling_name, "tools/_utils.py", DOC),
        (has_a_telling_name, "common/x.py", DOC),
        (has_a_telling_name, "episode_manager.py", DOC),
        (excepts_narrowly, "a.py", DOC + "try:\n    f()\nexcept Exception:\n    pass\n"),
        (excepts_narrowly, "a.py", DOC + "try:\n    f()\nexcept:\n    pass\n"),
        (
            excepts_narrowly,
            "a.py",
            DOC + "try:\n    f()\nexcept (ValueError, BaseException) as e:\n    raise X from e\n",
        ),
    ],
)
def test_a_broken_rule_is_told(rule: Rule, path: str, text: str):
    assert len(list(rule(path, text))) == 1


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        (opens_with_one_sentence, "a.py", '"""One sentence, with e.g. a dot.\n\nMore. And more.\n"""\n'),
        (opens_with_one_sentence, "a/__init__.py", ""),
        (documents_what_is_public, "a.py", DOC + "def _f():\n    def g():\n        return 1\n"),
        (has_a_telling_name, "database.py", DOC),
        (excepts_narrowly, "a.py", DOC + "try:\n    f()\nexcept BaseException:\n    g()\n    raise\n"),
        (excepts_narrowly, "cli.py", DOC + "try:\n    f()\nexcept Exception:\n    pass\n"),
    ],
)
def test_a_kept_rule_is_not_told(rule: Rule, path: str, text: str):
    assert list(rule(path, text)) == []


def test_no_class_inherits_an_implementation():
    """Bases are protocols, errors, or classes of other packages."""
    classes = {
        node.name: node
        for path in MODULES
        for node in ast.walk(parsed(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    }
    bases = {
        name: [ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases] for name, node in classes.items()
    }

    def inherits_code(name: str) -> bool:
        return name in bases and not is_error(name) and "Protocol" not in bases[name]

    def is_error(name: str) -> bool:
        return name in ("Exception", "BaseException") or any(map(is_error, bases.get(name, ())))

    assert [f"{name}({base})" for name in bases for base in bases[name] if inherits_code(base)] == []


def tracked_texts() -> Iterator[tuple[str, str]]:
    """Yield each text file that git tracks."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        pytest.skip("no git checkout: the files that are tracked are not known")
    for name in filter(None, done.stdout.decode().split("\0")):
        path = ROOT / name
        if path.is_file():
            try:
                yield name, path.read_text(encoding="utf-8")
            except UnicodeDecodeError:  # weights and pictures
                continue


# Put together here so that this file does not find itself.
MARKS = re.compile(r"\b(?:" + "|".join(("TO" + "DO", "FIX" + "ME")) + r")\b")
MACHINE_PATHS = re.compile("|".join(("/wo" + r"rk/\w", "/ho" + r"me/\w+/", "/Us" + r"ers/\w+/")))


def test_no_tracked_file_is_left_half_done():
    assert [name for name, text in tracked_texts() if MARKS.search(text)] == []


def test_no_tracked_file_names_a_place_on_one_machine():
    assert [name for name, text in tracked_texts() if MACHINE_PATHS.search(text)] == []


def test_tests_use_real_fakes():
    patches = "mock" + ".patch", "unittest" + ".mock"
    found = [p.name for p in (ROOT / "tests").rglob("*.py") if any(patch in p.read_text("utf-8") for patch in patches)]
    assert found == []
