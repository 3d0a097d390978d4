"""Arithmetic worked out digit by digit in writing, for a model that has no tool: a chain of thought."""

from __future__ import annotations

from rolecraft.benchmarks.toolworld.sums import Problem, Step


def write(problem: Problem) -> str:
    """Return the whole working of a problem: the expression, then every operation with all of its digits."""
    return " ".join((f"I need {problem.expression}.", *(_operation(step) for step in problem.steps)))


def _operation(step: Step) -> str:
    written = {"+": add, "-": subtract, "*": multiply, "/": divide}[step.sign](step.left, step.right)
    return f"{written}."


def add(a: int, b: int) -> str:
    """Return the column sums of a+b from the right: `digit+digit+carry=sum:digits of the result so far`."""
    carry, so_far, columns = 0, "", []
    for left, right in _columns(a, b):
        total = left + right + carry
        columns.append(f"{left}+{right}+{carry}={total}")
        carry = total // 10
        so_far = f"{total % 10}{so_far}"
        columns[-1] += f":{so_far}"
    return _told(f"{a}+{b}", columns, a + b)


def subtract(a: int, b: int) -> str:
    """Return the column differences of a-b (a the larger) from the right; a column that borrows shows 10 more."""
    borrow, so_far, columns = 0, "", []
    for left, right in _columns(a, b):
        short = left < right + borrow
        upper = left + 10 if short else left
        digit = upper - right - borrow
        so_far = f"{digit}{so_far}"
        columns.append(f"{upper}-{right}-{borrow}={digit}:{so_far}")
        borrow = int(short)
    return _told(f"{a}-{b}", columns, a - b)


def multiply(a: int, b: int) -> str:
    """Return a times each digit of b, then the sums of these rows."""
    if b < 10:
        return _row(a, b, 0)
    rows = [a * int(digit) * 10**place for place, digit in enumerate(reversed(str(b)))]
    written = [_row(a, int(digit), place) for place, digit in enumerate(reversed(str(b)))]
    total = rows[0]
    for row in rows[1:]:
        written.append(add(total, row))
        total += row
    return "; ".join((f"{a}*{b}", *written))


def divide(a: int, b: int) -> str:
    """Return the long division of a by b (no remainder): `part/b=digit,rest:digits of the result so far`."""
    rest, so_far, columns = 0, "", []
    for digit in str(a):
        part = rest * 10 + int(digit)
        quotient, rest = divmod(part, b)
        so_far = f"{so_far}{quotient}".lstrip("0")
        columns.append(f"{part}/{b}={quotient},{rest}:{so_far or 0}")
    return _told(f"{a}/{b}", columns, a // b)


def _row(a: int, digit: int, place: int) -> str:
    """Return a times one digit, from the right, with `place` zeros behind it."""
    carry, so_far, columns = 0, "0" * place, []
    for figure in reversed(str(a)):
        product = int(figure) * digit + carry
        columns.append(f"{figure}*{digit}+{carry}={product}")
        carry = product // 10
        so_far = f"{product % 10}{so_far}"
        columns[-1] += f":{so_far}"
    return _told(f"{a}*{digit}{'0' * place}", columns, a * digit * 10**place)


def _columns(a: int, b: int) -> list[tuple[int, int]]:
    width = max(len(str(a)), len(str(b)))
    left, right = str(a).zfill(width), str(b).zfill(width)
    return [(int(x), int(y)) for x, y in zip(reversed(left), reversed(right), strict=True)]


def _told(head: str, columns: list[str], result: int) -> str:
    return f"{head}: {' '.join(columns)} = {result}"
