"""Arithmetic for a model: an expression is walked operator by operator and never evaluated as Python.

Not covered: algebra, units, complex numbers; code that a model wrote belongs in `python.py`.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping

from rolecraft.tools._contract import ToolFailure
from rolecraft.tools._function import tool

_Number = int | float

_LENGTH = 300
_DEPTH = 60
_BITS = 4_096
_DIGITS_ROUNDED = 30
_TOKENS = re.compile(
    r"(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?(?![\w.]))|(?P<name>[A-Za-z_]\w*)|(?P<sign>\*\*|//|[-+*/%(),])|\s+"
)
_SPELLINGS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-"})


@tool(pure=True)
def calculator(expression: str) -> str:
    """Work out an arithmetic expression.

    Args:
        expression: numbers with + - * / // % ** and brackets; sqrt, abs, min, max, round
    """
    if len(expression) > _LENGTH:
        raise ToolFailure(f"the expression is longer than {_LENGTH} characters; work it out in parts")
    try:
        tree = ast.parse(_normalised(expression), mode="eval")
        return _as_text(_value(tree.body, _DEPTH))
    except ZeroDivisionError as error:
        raise ToolFailure("division by zero") from error
    except OverflowError as error:
        raise ToolFailure("the result is too large") from error
    except (SyntaxError, MemoryError, RecursionError) as error:
        raise ToolFailure(f"cannot read {expression[:60]!r}; write it like (3 + 4) * 5") from error


def _normalised(expression: str) -> str:
    """Return the expression in Python's spelling; raises ToolFailure for anything that is not arithmetic."""
    text = expression.strip().translate(_SPELLINGS).replace("^", "**")
    pieces, position = [], 0
    while position < len(text):
        token = _TOKENS.match(text, position)
        if token is None:
            raise ToolFailure(f"cannot read {text[position : position + 20]!r}; use numbers, + - * / // % ** and ()")
        if token["name"] and token["name"] not in _FUNCTIONS:
            raise ToolFailure(f"no function {token['name'][:30]!r}; use {', '.join(_FUNCTIONS)}")
        # Python reads no number with a leading zero such as 007.
        pieces.append(re.sub(r"^0+(?=\d)", "", token[0]) if token["number"] else token[0])
        position = token.end()
    return " ".join(pieces)


def _value(node: ast.expr, depth: int) -> _Number:
    if depth == 0:
        raise ToolFailure("too many brackets; work it out in parts")
    match node:
        case ast.Constant(value=int() | float() as number):
            return _checked(number)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, depth - 1)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand, depth - 1)
        case ast.BinOp(left=left, op=sign, right=right):
            return _checked(_OPERATORS[type(sign)](_value(left, depth - 1), _value(right, depth - 1)))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            return _checked(_call(name, [_value(argument, depth - 1) for argument in arguments]))
        case ast.Tuple():
            raise ToolFailure("a comma stands only between a function's numbers; write 1000 for 1,000")
    raise ToolFailure(f"write one expression of numbers and signs, like (3 + 4) * 5; {', '.join(_FUNCTIONS)} need ()")


def _call(name: str, arguments: list[_Number]) -> _Number:
    try:
        return _FUNCTIONS[name](*arguments)
    except (TypeError, ValueError) as error:
        raise ToolFailure(f"{name} cannot take {', '.join(map(_as_text, arguments)) or 'nothing'}") from error


def _checked(number: _Number) -> _Number:
    if isinstance(number, complex):
        raise ToolFailure("the result is not a real number")
    if isinstance(number, int):
        _refuse_large(number.bit_length())
    if isinstance(number, float) and not math.isfinite(number):
        raise OverflowError
    return number


def _power(base: _Number, exponent: _Number) -> _Number:
    if isinstance(base, int) and isinstance(exponent, int) and abs(base) > 1:
        _refuse_large(base.bit_length() * abs(exponent) // 2)  # before the work is done, not after
    return base**exponent


def _refuse_large(bits: int) -> None:
    if bits > _BITS:
        raise OverflowError


def _divided(left: _Number, right: _Number) -> _Number:
    """Return the quotient, whole where it is: integers longer than a float's 53 bits stay exact."""
    if isinstance(left, int) and isinstance(right, int) and right and left % right == 0:
        return left // right
    return left / right


def _square_root(number: _Number) -> _Number:
    if isinstance(number, int) and number >= 0 and math.isqrt(number) ** 2 == number:
        return math.isqrt(number)
    return math.sqrt(number)


def _rounded(number: _Number, digits: _Number = 0) -> _Number:
    if not isinstance(digits, int) or abs(digits) > _DIGITS_ROUNDED:
        raise ValueError
    return round(number, digits)


def _as_text(number: _Number) -> str:
    if isinstance(number, int):
        return str(number)
    return f"{number:.12g}"  # 0.1 + 0.2 reads 0.3


_OPERATORS: Mapping[type[ast.operator], Callable[[_Number, _Number], _Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: _divided,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
}

_FUNCTIONS: Mapping[str, Callable[..., _Number]] = {
    "sqrt": _square_root,
    "abs": abs,
    "min": min,
    "max": max,
    "round": _rounded,
}
