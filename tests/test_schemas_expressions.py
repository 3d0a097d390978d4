from __future__ import annotations

import contextlib
import re
import time

import pytest

from rolecraft.schemas.expressions import Malformed, found, read


@pytest.mark.parametrize(
    ("pattern", "right", "wrong"),
    [
        (r"^\d$", "7", "٣"),
        (r"^\D$", "٣", "7"),
        (r"^\w$", "a", "é"),
        (r"^\W$", "é", "a"),
        (r"^\s$", "\ufeff", "\x1f"),
        ("^.$", "\x85", "\u2028"),
        ("^a$", "a", "a\n"),
        ("^a|b$", "ax", "xa"),
        ("(^|,)a", "x,a", "xa"),
        (r"^\p{L}+$", "añ漢", "a1"),
        (r"^\P{L}+$", "1", "é"),
        (r"^\p{Lu}$", "É", "é"),
        (r"^[^\p{Lu}]$", "é", "É"),
        (r"^[\p{L}\p{N}_-]+$", "é-1", "é 1"),
        (r"^\p{Script=Greek}+$", "αβ", "ab"),
        (r"^\p{scx=Hira}$", "ー", "a"),
        (r"^\p{General_Category=Decimal_Number}$", "٣", "a"),
        (r"^\p{Alphabetic}$", "ⅷ", "1"),
        (r"^\u{1F600}$", "😀", "u"),
        (r"^\ud83d\ude00$", "😀", "a"),
        (r"^\u00e9\x41\cJ$", "éA\n", "éA"),
        (r"^\/\-$", "/-", "\\/-"),
        (r"^[\w-\.]+$", "a-.", "a,"),
        (r"^[]$|^x$", "x", "]"),
        ("^[^]$", "\n", ""),
        ("^[[a]]$", "a]", "[a]]"),
        (r"^[\b]$", "\b", "b"),
        ("^a{,2}$", "aa", "aaa"),
        ("^a{x$", "a{x", "ax"),
        ("^a{2,3}?$", "aaa", "a"),
        (r"^(?<y>a|b)\k<y>$", "bb", "ab"),
        (r"^(?P<y>a|b)(?P=y)$", "aa", "ab"),
        (r"^(?:(a)|b)\1$", "b", "ba"),
        ("^(?=.*a)(?!.*b)", "ca", "cab"),
        ("(?<=a)b", "ab", "cb"),
        (r"\bcat\b", "a cat", "cats"),
        (r"\bé", "aé", "é"),
        ("(?i)^ab$", "AB", "b"),
        ("^(?i:a)b$", "Ab", "AB"),
        (r"\Aab\Z", "ab", "ab\n"),
        ("^a++b", "aab", "b"),
    ],
)
def test_a_pattern_means_what_ecma_262_says(pattern, right, wrong):
    assert found(pattern, right, 1)
    assert not found(pattern, wrong, 1)


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(", "a '(' that is not closed"),
        ("a)", "a ')' too many at 1"),
        ("[a", "a '[' that is not closed"),
        ("[b-a]", "a range that ends before it begins"),
        ("*a", "nothing to repeat at 0"),
        ("a**", "nothing to repeat at 2"),
        ("a{3,2}", "repeats 3 to 2 times"),
        (r"\h", r"the escape '\h'"),
        ("\\", "the escape"),
        (r"\p", "without a property"),
        (r"\p{Nothing}", "'Nothing', which is not known"),
        (r"\u{110000}", "a character's number"),
        (r"\xg1", "a character's number"),
        (r"(a)\2", "a group that it does not have"),
        (r"\k<x>", "a group 'x' that it does not have"),
        ("(?x)a", "ECMA-262 does not have"),
        ("((((a{100}){100}){100}){100})", "repeats too much"),
        ("".join(rf"\p{{{'_' * i}L}}" for i in range(20)), "more than 16 Unicode properties"),
        ("(" * 60 + ")" * 60, "nested more than"),
        ("a" * 10_001, "10001 characters"),
    ],
)
def test_what_is_no_expression_is_told(pattern, reason):
    began = time.perf_counter()
    with pytest.raises(Malformed, match=re.escape(reason)):
        read(pattern)
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize("pattern", ["^(a|a)*b(?=c)$", "^(a+)+$", "(a{1,1000}){1,1000}b", "a*" * 30 + "b", "(x+x+)+y"])
def test_a_search_ends_in_time(pattern):
    began = time.perf_counter()
    with contextlib.suppress(TimeoutError):
        assert not found(pattern, "a" * 3000 + "!", 0.2)
    assert time.perf_counter() - began < 5
