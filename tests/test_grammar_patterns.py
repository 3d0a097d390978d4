from __future__ import annotations

import re
import time
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecraft.grammar.patterns import Bound, decimals, fault, integers, matching


@given(st.integers(-3000, 3000), st.integers(0, 3000), st.integers(-6500, 6500))
@settings(max_examples=150, deadline=None)
def test_an_integer_matches_if_and_only_if_it_is_in_the_range(low, width, number):
    for value in (number, low - 1, low, low + width, low + width + 1):
        inside = low <= value <= low + width
        assert bool(re.fullmatch(integers(low, low + width), str(value))) == inside


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_decimal_matches_if_and_only_if_it_is_in_the_range(data):
    places = data.draw(st.integers(0, 3))
    number = st.builds(lambda n, p: Decimal(n).scaleb(-p), st.integers(-3000, 3000), st.integers(0, 4))
    low, high = (Bound(value, data.draw(st.booleans())) for value in sorted((data.draw(number), data.draw(number))))
    pattern = decimals(low, high, places)
    for near in (low.value, high.value, Decimal(0), data.draw(number)):
        decided = data.draw(st.integers(0, places))
        value = Decimal(int(near.scaleb(decided)) + data.draw(st.integers(-2, 2))).scaleb(-decided)
        text = f"{'-' if value < 0 else ''}{abs(value):.{decided}f}"
        above = value > low.value or (value == low.value and not low.open)
        below = value < high.value or (value == high.value and not high.open)
        assert bool(pattern and re.fullmatch(pattern, text)) == (above and below), (low, high, places, text)


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("^(?=a)b", "has a look-ahead"),
        ("^(?!a)b", "has a look-ahead"),
        ("(?<=a)b", "has a look-behind"),
        ("(?i)a", "has an inline flag"),
        (r"\bfoo", "has a boundary"),
        (r"(a)\1", "has a back reference"),
        (r"(?<x>a)\k<x>", "has a back reference"),
        ("a++b", "has a possessive repetition"),
        ("[]", "has a class without characters"),
        ("(", "is not closed"),
        (r"\p{Nothing}", "has the property 'Nothing', which is not known"),
        ("((((a{100}){100}){100}){100})", "repeats too much"),
        ("^.*a.{400}$", "too hard to follow"),
        ("a" * 401, "longer than 400"),
    ],
)
def test_a_pattern_that_a_mask_cannot_keep_is_told(pattern, reason):
    began = time.perf_counter()
    assert reason in fault(pattern)
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize(
    "pattern", ["^[A-Z]{2}-[0-9]{1,5}$", r"\\b", r"^\w+@\w+\.com$", "(a+)+$", "", r"\/", "é|ü", "[[a]]", r"\p{L}"]
)
def test_a_plain_pattern_has_no_fault(pattern):
    assert fault(pattern) is None


@pytest.mark.parametrize(
    ("least", "most", "patterns", "some"),
    [
        (0, 5, ("^x{10}$",), False),
        (3, 5, ("^ab?$",), False),
        (0, 9, ("^a", "^b"), False),
        (0, 9, ("^a", "b$"), True),
        (2, 2, ("^ab?$",), True),
    ],
)
def test_texts_of_a_length_that_match_all_patterns_exist_or_not(least, most, patterns, some):
    assert matching(least, most, patterns) is some
