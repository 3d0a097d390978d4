"""Full-text search over passages of a JSONL file, ranked by BM25 (Robertson and Zaragoza, 2009), held in memory.

Not covered: meaning (words must match), and languages written without spaces between words.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bm25s
import numpy as np

from rolecraft.errors import DataError, NotFound, SettingsError
from rolecraft.types import Json, ToolSpec

_QUERY_CHARS = 1_000
_TOKEN = r"(?u)\b\w+\b"


@dataclass(frozen=True, slots=True)
class Passage:
    """One text that can be found."""

    id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Settings:
    """What is searched, and how much of it is answered.

    `corpus` is a JSONL file of rows with `text` and optionally `id` and `title`; `passages` are such rows directly.
    """

    corpus: str | None = None
    passages: tuple[Mapping[str, Json], ...] = ()
    top_k: int = 3
    passage_chars: int = 500
    description: str = "find passages about something"


EXAMPLE = Settings(passages=({"title": "Quil", "text": "The debt of Quil is 12."}, {"text": "Norve has no debt."}))


def open(settings: Settings) -> Search:
    """Return the tool `search`, its index built; the same tool may serve any number of episodes at once.

    Raises SettingsError when there is nothing to search, NotFound without the file, DataError naming a bad line.
    """
    if (settings.corpus is None) == (not settings.passages):
        raise SettingsError("the search tool needs either a corpus, the path of a JSONL file, or passages")
    if settings.corpus is not None:
        passages = tuple(read_passages(Path(settings.corpus)))
    else:
        rows = enumerate(settings.passages, start=1)
        passages = tuple(_passage(row, f"search.passages, row {number}", number) for number, row in rows)
    if not passages:
        raise DataError(f"{settings.corpus}: it has no passages; write rows like {{'title': ..., 'text': ...}}")
    return Search(passages, settings)


def read_passages(path: Path) -> Iterator[Passage]:
    """Yield the passages of a JSONL file; raises DataError with file, line and reason for a bad row."""
    if not path.is_file():
        raise NotFound(f"no file {str(path)!r}; give the search tool a JSONL file that exists")
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{where}: not valid JSON: {error}") from error
            yield _passage(row, where, number)


def _passage(row: Json, where: str, number: int) -> Passage:
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: expected an object with a 'text', got {type(row).__name__}")
    text, title = row.get("text"), row.get("title", "")
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{where}: 'text' must be a string with something in it, got {text!r:.60}")
    if not isinstance(title, str):
        raise DataError(f"{where}: 'title' must be a string, got {title!r:.60}")
    return Passage(str(row.get("id", number)), title, text)


class Search:
    """Passages and their index, as a tool; nothing in it changes, so forks and episodes share it."""

    def __init__(self, passages: tuple[Passage, ...], settings: Settings) -> None:
        """Build the index over `passages`."""
        self._passages = passages
        self._settings = settings
        self._index = bm25s.BM25()
        words = _words(f"{passage.title} {passage.text}" for passage in passages)
        # A text of stop words alone has no words; an index of none at all cannot be built.
        self._searchable = any(words)
        if self._searchable:
            self._index.index(words, show_progress=False)
        query = {"type": "string", "description": "what to look for"}
        parameters = {"type": "object", "properties": {"query": query}, "required": ["query"]}
        self._spec = ToolSpec("search", settings.description, parameters, pure=True)

    @property
    def spec(self) -> ToolSpec:
        """The tool `search`."""
        return self._spec

    def call(self, arguments: Mapping[str, Json]) -> str:
        """Return the best passages, one per line as `title: text`, each cut at a word."""
        found = self.find(str(arguments["query"]))
        return "\n".join(self._shown(passage) for passage in found) or "nothing found; use other words"

    def find(self, query: str) -> tuple[Passage, ...]:
        """Return at most `top_k` passages that share a word with `query`, best first, in file order among equals."""
        words = _words([query[:_QUERY_CHARS]])[0]
        if not words or not self._searchable:
            return ()
        scores_N = self._index.get_scores(words)
        hits = np.flatnonzero(scores_N > 0)
        best = hits[np.argsort(-scores_N[hits], kind="stable")][: self._settings.top_k]
        return tuple(self._passages[position] for position in best)

    def fork(self) -> Search:
        """Return itself: a search changes nothing."""
        return self

    def state(self) -> Json:
        """Return None: there is no state."""
        return None

    def close(self) -> None:
        """Do nothing: other episodes may use the index."""

    def _shown(self, passage: Passage) -> str:
        text = " ".join(f"{passage.title}: {passage.text}".split()) if passage.title else " ".join(passage.text.split())
        length = self._settings.passage_chars
        if len(text) <= length:
            return text
        return f"{text[:length].rpartition(' ')[0] or text[:length]} ..."


def _words(texts: Iterable[str]) -> list[list[str]]:
    found: Any = bm25s.tokenize(
        list(texts), token_pattern=_TOKEN, stopwords="en", return_ids=False, show_progress=False
    )
    return list(found)
