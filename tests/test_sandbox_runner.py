"""One step: what is executed, what is echoed, how an error is told."""

from __future__ import annotations

import pytest

from rolecraft.sandbox import _runner


def run(code: str, names: dict[str, object] | None = None) -> str | None:
    return _runner.run_step(code, "<step 7>", {} if names is None else names)


@pytest.mark.parametrize(
    ("code", "printed"),
    [("1\n2", "2\n"), ("1; 2", "2\n"), ("x = 1", ""), ("None", ""), ("if True:\n    1", ""), ("'''doc'''", "'doc'\n")],
)
def test_only_the_last_value_is_echoed(capsys: pytest.CaptureFixture[str], code: str, printed: str):
    assert run(code) is None
    assert capsys.readouterr().out == printed


def test_the_code_is_free_of_the_runners_own_future():
    names: dict[str, object] = {}
    assert run("def f(x: int): pass\na = f.__annotations__['x']", names) is None
    assert names["a"] is int


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("raise OSError", "OSError (line 1)"),
        ("raise OSError('  a\\n\\tb ')", "OSError: a b (line 1)"),
        ("\n\nx +", "SyntaxError: invalid syntax (line 3)"),
        ("eval('x +')", "SyntaxError: invalid syntax (line 1)"),
        ("try:\n    1 / 0\nexcept Exception as e:\n    raise ValueError('v') from e", "ValueError: v (line 4)"),
        ("raise SystemExit", None),
        ("raise SystemExit(0)", None),
        ("raise SystemExit('no')", "SystemExit: no (line 1)"),
        ("class E(Exception):\n    def __str__(self): return 1 / 0\nraise E", "E: its message cannot be read: Zero"),
    ],
)  # fmt: skip
def test_errors_are_one_line(code: str, error: str | None):
    told = run(code)
    assert told == error or (told is not None and error is not None and told.startswith(error))


def test_an_error_has_a_bounded_length():
    assert len(run("raise ValueError('x' * 100_000)") or "") < _runner.TEXT
