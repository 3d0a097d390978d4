"""ROUGE-L's F over a whole answer, as the package `rouge` 1.0.1 computes it, which α-UMi's tables use.

Sentences end at full stops, words at white space, and upper case counts. Of each sentence of the reference the longest
common subsequences with all sentences of the answer are united, and words count once, however often they stand there.
Not covered: other measures, several references, and answers beyond the bounds, whose rest is not read.
"""

from __future__ import annotations

from collections.abc import Sequence

_WORDS = 1_000  # of a text; its square is what is computed
_TINY = 1e-8


def rouge_l(text: str, reference: str) -> float:
    """Return the F of `text` against `reference`, 0 where either has no words."""
    said, right = _sentences(text), _sentences(reference)
    said_words, right_words = ({word for sentence in each for word in sentence} for each in (said, right))
    if not said_words or not right_words:
        return 0.0
    common = {word for one in right for other in said for word in _common(one, other)}
    precision, recall = len(common) / len(said_words), len(common) / len(right_words)
    return 2.0 * precision * recall / (precision + recall + _TINY)


def _sentences(text: str) -> list[list[str]]:
    found, left = [], _WORDS
    for part in filter(None, text.split(".")):
        words = (part.split() or [""])[:left]  # white space alone is a word there too, an empty one
        left -= len(words)
        found += [words] if words else []
    return found


def _common(one: Sequence[str], other: Sequence[str]) -> list[str]:
    """Return a longest common subsequence: of several the one that leaves out the other's words last."""
    lengths = [[0] * (len(other) + 1)]
    for word in one:
        above, row = lengths[-1], [0]
        for place, same in enumerate(other):
            row.append(above[place] + 1 if word == same else max(above[place + 1], row[place]))
        lengths.append(row)
    found, i, j = list[str](), len(one), len(other)
    while i and j:
        if one[i - 1] == other[j - 1]:
            i, j = i - 1, j - 1
            found.append(one[i])
        elif lengths[i - 1][j] > lengths[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return found
