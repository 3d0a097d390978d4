"""SNIPS spoken requests (2017-06, custom intents): one request, and the call of one of seven functions.

A path is a `train_X_full.json` or `validate_X.json` of one function, or the folder of all functions, whose training
files are read; a row is a request as the source has it, its texts and `entity` marks, with the `intent`. Arguments are
the marked spans; counts and ratings become integers, number words too. The source tells no schemas: names, types and
descriptions of the functions are ours. All seven are offered with each request.

One file is not UTF-8: it writes a picture character as two surrogates, which are read as that character; bytes that
are no text at all are read as U+FFFD. Not covered: a request that marks a slot twice (about 60), which is dropped, and
the `*_metrics*.json` beside the data, which are none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from rolecraft import wire
from rolecraft.errors import DataError, NotFound
from rolecraft.importers import _typed
from rolecraft.types import Json, Message, Task, ToolCall, ToolSpec, Trajectory

LEFT_OUT = ("entity",)
"""A mark that is a parameter's name."""

EXAMPLE: Mapping[str, Json] = {
    "intent": "RateBook",
    "data": [
        {"text": "I give "},
        {"text": "The Heron's Year", "entity": "object_name"},
        {"text": " "},
        {"text": "4", "entity": "rating_value"},
        {"text": " of "},
        {"text": "6", "entity": "best_rating"},
    ],
}

_FUNCTIONS: Mapping[str, tuple[str, tuple[str, ...], Mapping[str, str]]] = {
    "AddToPlaylist": (
        "Add music to a playlist",
        ("playlist",),
        {
            "playlist": "name of the playlist",
            "playlist_owner": "whose playlist it is",
            "entity_name": "title of the song or album",
            "artist": "who plays it",
            "music_item": "what is added: song, track, tune, album or artist",
        },
    ),
    "BookRestaurant": (
        "Book a table at a restaurant",
        (),
        {
            "restaurant_name": "name of the restaurant",
            "restaurant_type": "kind of place, such as bar, pub or restaurant",
            "cuisine": "style of cooking",
            "served_dish": "dish that is served there",
            "facility": "what the place offers, such as parking or a pool",
            "sort": "how it is rated, such as best or popular",
            "party_size_number": "how many people",
            "party_size_description": "who comes along, in words",
            "timeRange": "when",
            "city": "town",
            "state": "state or its abbreviation",
            "country": "country",
            "poi": "place that it is near to or in",
            "spatial_relation": "where it lies from there, such as nearby",
        },
    ),
    "GetWeather": (
        "Tell the weather of a place and time",
        (),
        {
            "timeRange": "when",
            "city": "town",
            "state": "state or its abbreviation",
            "country": "country",
            "geographic_poi": "park, forest or landmark",
            "current_location": "words for where the speaker is",
            "spatial_relation": "where it lies from there, such as nearby",
            "condition_description": "weather asked for, such as rain",
            "condition_temperature": "temperature asked for, such as chilly",
        },
    ),
    "PlayMusic": (
        "Play music",
        (),
        {
            "track": "title of the song",
            "artist": "who plays it",
            "album": "title of the album",
            "playlist": "name of the playlist",
            "genre": "kind of music",
            "music_item": "what is played, such as song or album",
            "year": "year or decade, as it is said",
            "sort": "which of several, such as newest or top",
            "service": "streaming service",
        },
    ),
    "RateBook": (
        "Rate a book",
        ("rating_value",),
        {
            "object_name": "title of the book",
            "object_type": "what it is, such as novel or essay",
            "object_select": "which one, such as this or next",
            "object_part_of_series_type": "what it is part of, such as a saga",
            "rating_value": "rating given",
            "best_rating": "highest rating there is",
            "rating_unit": "stars or points",
        },
    ),
    "SearchCreativeWork": (
        "Find a work such as a song, film, book or game",
        ("object_name",),
        {"object_name": "title of the work", "object_type": "what it is, such as song or TV show"},
    ),
    "SearchScreeningEvent": (
        "Find where and when films are shown",
        (),
        {
            "movie_name": "title of the film",
            "movie_type": "kind of film, such as animated movies",
            "object_type": "what is looked for, such as movie times",
            "object_location_type": "kind of place, such as cinema",
            "location_name": "name of the cinema or chain",
            "spatial_relation": "where it lies, such as nearest",
            "timeRange": "when",
        },
    ),
}
"""Name -> description, what every request has, and the parameters with theirs."""

_WHOLE = ("party_size_number", "rating_value", "best_rating")
_TEXTS = ("data", "intent")


def _spec(name: str) -> ToolSpec:
    description, required, parameters = _FUNCTIONS[name]
    properties = {key: _typed.schema(_kind(key), told) for key, told in parameters.items()}
    return ToolSpec(name, description, {"type": "object", "properties": properties, "required": list(required)})


def _kind(slot: str) -> _typed.Kind:
    return "integer" if slot in _WHOLE else "string"


def rows(path: Path) -> Iterator[tuple[str, Json]]:
    """Yield each request with its intent, after where it stands; of a file of rows in `EXAMPLE`'s form, each row."""
    files = sorted(path.glob("*/train_*_full.json")) if path.is_dir() else [path]
    if not files:
        raise NotFound(f"no */train_*_full.json in {str(path)!r}; give the folder of SNIPS, or one of its files")
    for file in files:
        text = _decoded(file.read_bytes())
        if file.suffix != ".json":
            yield from ((f"{file}:{number}", line) for number, line in enumerate(text.split("\n"), 1) if line.strip())
            continue
        try:
            whole = wire.loads(text)
        except DataError as error:
            raise DataError(f"{file}: {error}") from error
        for intent, requests in whole.items() if isinstance(whole, dict) else ():
            for number, request in enumerate(requests if isinstance(requests, list) else (), 1):
                told = {"intent": intent, **request} if isinstance(request, dict) else {"intent": intent}
                yield f"{file}: row {number}", told


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8", "surrogatepass").encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace")


def convert(row: Mapping[str, Json]) -> Trajectory:
    """Return the request and its call; raises DataError."""
    if unknown := [key for key in row if key not in _TEXTS]:
        raise DataError(f"unknown key {unknown[0]!r}; a row has {' and '.join(_TEXTS)}")
    intent, parts = row["intent"], row["data"]
    if intent not in _FUNCTIONS:
        raise DataError(f"no function {str(intent)[:40]!r}; there are {', '.join(_FUNCTIONS)}")
    request = " ".join("".join(part["text"] for part in parts).split())
    if not request:
        raise DataError("the request is empty; a row has texts in 'data'")
    arguments: dict[str, Json] = {}
    for part in parts:
        slot = part.get("entity")
        if slot is None:
            continue
        if slot not in _FUNCTIONS[intent][2]:
            raise DataError(f"no parameter {str(slot)[:40]!r} of {intent}; mend the mark")
        if slot in arguments:
            raise DataError(f"slot {slot!r} is marked twice; a call has one value for it")
        arguments[slot] = _typed.typed(_kind(slot), " ".join(part["text"].split()), f"slot {slot!r}")
    if missing := [slot for slot in _FUNCTIONS[intent][1] if slot not in arguments]:
        raise DataError(f"no {missing[0]!r} is marked, which {intent} needs")
    call = ToolCall(intent, arguments, "call_0")
    written = {"name": intent, "arguments": arguments}
    reference = {"services": ["snips"], "steps": [{"at": 1, "calls": [written], "services": ["snips"]}]}
    question = Message("user", request)
    task = Task("", (question,), tuple(map(_spec, _FUNCTIONS)), reference)
    return Trajectory("", task, (question, Message("assistant", tool_calls=(call,))))
