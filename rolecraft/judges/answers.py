"""Checks that the episode's answer holds every expected answer as whole words or numbers, and nothing forbidden.

Not covered: paraphrase, units, numbers written as words, and whether a sentence denies what it names.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

from rolecraft.judges import replies
from rolecraft.types import Json, Trajectory, Verdict

# Scripts written without spaces, and Hangul, where particles join words: each of their characters is a word.
_LONE = (
    "\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
    "\uf900-\ufaff\U00020000-\U0003ffff"
)
_WORD = rf"[^\W{_LONE}]"
_TOKEN = re.compile(
    rf"(?P<number>(?<!{_WORD})[-+]?(?:(?:\d{{1,3}}(?:,\d{{3}})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:e[-+]?\d{{1,3}})?(?!{_WORD}|\.\d))"
    rf"|[{_LONE}]"
    rf"|{_WORD}+(?:\.\d{_WORD}*)*"
    r"|[^\w\s.,;:!?'\"()\[\]{}*`…“”‘’«»„、。，！？「」\u2010-\u2015-]"
)
_NUMBER = re.compile(r"-?\d{1,300}(?:\.\d{1,300})?(?:e-?\d{1,3})?")
_KEYS = ("answers", "forbidden", "contains", "exact", "number")


def judge(trajectory: Trajectory) -> Verdict:
    """Return 1 if the answer is what the reference says, else 0.

    It holds all of `answers` and none of `forbidden`; of each of the lists in `contains` it holds one; it is `exact`;
    it holds a number no further from `number["value"]` than `number["tolerance"]`. One of these keys must be there.
    The answer is the last message, if it is an assistant's, makes no call, and the episode did not run out; text up
    to a closing `</think>` is reasoning, not answer. Upper case, punctuation and Markdown do not matter; `1,234.0` is
    `1234`, and 12 is neither in 3124 nor in -12. The parts are `found`, the share of what is wanted, and `clean`.
    """
    reference = trajectory.task.reference
    if not any(key in reference for key in _KEYS):
        return Verdict(0.0, "the task's reference has no 'answers'; add them, or use another judge")
    answer = answer_of(trajectory)
    if answer is None:
        return Verdict(0.0, f"no answer: the episode ended by {trajectory.stop!r}, or in a call", {"found": 0.0})
    wanted = list(_wanted(reference, answer))
    missing = [name for name, found in wanted if not found]
    wrong = [unwanted for unwanted in _listed(reference.get("forbidden", ())) if holds(answer, unwanted)]
    parts = {"found": 1 - len(missing) / len(wanted) if wanted else 1.0, "clean": float(not wrong)}
    reasons = [f"the answer lacks {_shown(missing)}"] if missing else []
    reasons += [f"the answer holds {_shown([repr(text[:60]) for text in wrong])}, which is wrong"] if wrong else []
    return Verdict(float(not reasons), "; ".join(reasons), parts)


def _wanted(reference: Mapping[str, Json], answer: str) -> Iterator[tuple[str, bool]]:
    """Yield what the answer must be or hold, as a reason tells of it, and whether it is so."""
    for text in _listed(reference.get("answers", ())):
        yield repr(text[:60]), holds(answer, text)
    for texts in map(_listed, reference.get("contains", ())):
        yield " or ".join(repr(text[:60]) for text in texts[:5]), any(holds(answer, text) for text in texts)
    if "exact" in reference:
        whole = str(reference["exact"])
        yield f"{whole[:60]!r} alone", _tokens(answer) == _tokens(whole)
    if "number" in reference:
        value, tolerance = (float(reference["number"][key]) for key in ("value", "tolerance"))
        name = f"the number {value:.15g}" + (f" (within {tolerance:.15g})" if tolerance else "")
        yield name, any(math.isclose(one, value, rel_tol=1e-9, abs_tol=tolerance) for one in _numbers(answer))


def _numbers(text: str) -> Iterator[float]:
    """Yield the numbers that stand in a text as words of their own."""
    return (float(token) for token in _tokens(text) if _NUMBER.fullmatch(token))


def holds(text: str, wanted: str) -> bool:
    """Tell whether `wanted` stands in `text` as whole words and numbers, side by side and in its order."""
    tokens, needle = _tokens(text), _tokens(wanted)
    if not needle:  # only punctuation
        return bool(wanted.strip()) and wanted in text
    starts = range(len(tokens) - len(needle) + 1)
    return any(tokens[i] == needle[0] and tokens[i : i + len(needle)] == needle for i in starts)


def answer_of(trajectory: Trajectory) -> str | None:
    """Return the text of the episode's answer without its reasoning; None where it ended without one."""
    made = replies(trajectory)
    if not made or trajectory.stop not in ("answered", "imported"):
        return None
    place, last = made[-1]
    if place != len(trajectory.messages) - 1 or last.tool_calls or last.unparsed is not None:
        return None
    return last.content.rpartition("</think>")[2]


def _tokens(text: str) -> list[str]:
    """Return the words, numbers and symbols of a text, each in one spelling."""
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    plain = "".join(map(_plain, folded))
    plain = re.sub(r"(?<![^\W_])_+|_+(?![^\W_])", " ", plain)  # Markdown's, not a name's
    return [_number(match[0]) if match["number"] else match[0] for match in _TOKEN.finditer(plain)]


def _plain(character: str) -> str:
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    if character == "\u2212":
        return "-"
    return "" if unicodedata.category(character) == "Cf" else character  # joiners and direction marks


def _number(text: str) -> str:
    digits, _, exponent = text.lstrip("+-").replace(",", "").partition("e")
    whole, _, fraction = digits.partition(".")
    fraction = fraction.rstrip("0")
    size = f"{whole or '0'}.{fraction}" if fraction else whole or "0"
    signed = f"-{size}" if text.startswith("-") and size.strip("0.") else size
    return f"{signed}e{int(exponent)}" if exponent else signed


def _listed(value: Json) -> list[str]:
    items: Sequence[Json] = value if isinstance(value, list | tuple) else [value]
    return [str(item) for item in items]


def _shown(texts: Sequence[str]) -> str:
    shown = ", ".join(texts[:5])
    return f"{shown}, ..." if len(texts) > 5 else shown
