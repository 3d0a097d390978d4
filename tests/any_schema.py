"""JSON Schemas made at random, of everything a grammar keeps, and replies drawn at random under a grammar."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

import numpy as np

from rolecraft.engine.matcher import Matcher

_NAMES = ("a", "b", "key name", 'qu"ote', "é", "x-y", "name", "arguments", "a.b", "line\nbreak", "<tool_call>")
_VALUES = ("a", 'b"c', "é\n", 1, 2.5, None, True, [1, "x"], {"k": []}, "</tool_call>", "\\", -0.0, {}, "😀", 10**20)
_PATTERNS = (r"^[a-z]{2,4}$", r"\d{3}", "^(x|y)+$", "^.{3}$", "[^a]$", r"^\w+@\w+\.\w+$", "é", '"', r"^\W+$", "<")
_KINDS = ("string", "integer", "number", "boolean", "null", "array", "object")


def parameters(dice: random.Random) -> dict:
    """Return the schema of a tool's arguments; some refer to definitions, which may refer to themselves."""
    schema = _object(dice, 0)
    schema["$defs"] = {"one": _any(dice, 1), "two": _object(dice, 1)}
    return schema


def older(schema: dict, draft: str | None) -> dict:
    """Return the same schema in the words of an older draft; None: of several, and which is not said."""
    words = json.loads(json.dumps(schema).replace("#/$defs/", "#/definitions/"))
    words["definitions"] = words.pop("$defs")
    return ({"$schema": draft} if draft else {}) | _older(words, draft)


def _older(schema: dict, draft: str | None) -> dict:
    made: dict = {}
    for key, value in schema.items():
        if key == "prefixItems":
            made["items"] = [_older(item, draft) for item in value]
        elif key == "items" and "prefixItems" in schema:
            made["additionalItems"] = _older(value, draft)
        elif key.startswith("exclusive") and (draft is None or "-04" in draft):
            made |= {key: True, key.replace("exclusiveM", "m"): value}
        elif key == "const" and draft is not None and "-04" in draft:
            made["enum"] = [value]
        elif key in ("properties", "definitions"):
            made[key] = {name: _older(item, draft) for name, item in value.items()}
        elif key in ("anyOf", "oneOf", "allOf"):
            made[key] = [_older(item, draft) for item in value]
        else:
            made[key] = _older(value, draft) if isinstance(value, dict) and key != "const" else value
    return made


def draw(matcher: Matcher, dice: random.Random, most: int = 20_000) -> list[int]:
    """Return a reply of at most `most` tokens, drawn evenly from those allowed; now and then forced ones are taken."""
    written: list[int] = []
    while not matcher.finished:
        left = most - len(written)
        forced = matcher.forced(left) if dice.random() < 0.5 else []
        for token in forced or [int(dice.choice(np.flatnonzero(matcher.allowed(left).numpy())))]:
            matcher.accept(token)
            written.append(token)
        assert len(written) <= most, "random replies must end"
    return written


def _any(dice: random.Random, depth: int) -> dict:
    plain = (_text, _text, _number, _number, _choice, _kind)
    deep = (*plain, _list, _object, _object, _union, _reference, _merged)
    return dice.choice(deep if depth < 4 else plain)(dice, depth + 1)


def _text(dice: random.Random, _: int) -> dict:
    if dice.random() < 0.3:
        return {"type": "string", "pattern": dice.choice(_PATTERNS)}
    least = dice.randint(0, 4)
    bounds = {"minLength": least, "maxLength": least + dice.randint(0, 6)}
    return {"type": "string"} | {key: value for key, value in bounds.items() if dice.random() < 0.4}


def _number(dice: random.Random, _: int) -> dict:
    schema: dict = {"type": dice.choice(("integer", "number"))}
    if dice.random() < 0.5:
        schema[dice.choice(("minimum", "exclusiveMinimum"))] = dice.choice((0, -5, 1.5, -0.25, 100, 1e3, -1e20))
    if dice.random() < 0.5:
        schema[dice.choice(("maximum", "exclusiveMaximum"))] = dice.choice((1000.5, 2e3, 1e6, 5000.75, 1e17))
    if dice.random() < 0.1:
        schema["multipleOf"] = dice.choice((2, 5, 10))
    return schema


def _choice(dice: random.Random, _: int) -> dict:
    if dice.random() < 0.3:
        return {"const": dice.choice(_VALUES)}
    return {"enum": dice.sample(_VALUES, dice.randint(1, 5))}


def _kind(dice: random.Random, _: int) -> dict:
    return {"type": dice.sample(_KINDS, 2)} if dice.random() < 0.4 else {"type": dice.choice(_KINDS)}


def _list(dice: random.Random, depth: int) -> dict:
    schema: dict = {"type": "array"}
    if dice.random() < 0.8:
        schema["items"] = _any(dice, depth)
    if dice.random() < 0.2:
        schema["prefixItems"] = [_any(dice, depth) for _ in range(2)]
    least = dice.randint(0, 2)
    bounds = {"minItems": least, "maxItems": least + dice.randint(0, 2)}
    return schema | {key: value for key, value in bounds.items() if dice.random() < 0.4}


def _object(dice: random.Random, depth: int) -> dict:
    names = dice.sample(_NAMES, dice.randint(0, 4))
    schema: dict = {"type": "object", "properties": {name: _any(dice, depth + 1) for name in names}}
    schema["required"] = [name for name in names if dice.random() < 0.5]
    if dice.random() < 0.3:
        more = (True, False, {"type": "string", "maxLength": 2}, {"type": "integer"}, {"type": "object"})
        schema["additionalProperties"] = dice.choice(more)
    if dice.random() < 0.1:
        schema["maxProperties"] = len(names) + 2
    return schema


def _union(dice: random.Random, depth: int) -> dict:
    if dice.random() < 0.3:
        tagged = {name: _object(dice, depth) for name in ("one", "two")}
        for name, branch in tagged.items():
            branch["properties"] |= {"kind": {"const": name}}
            branch["required"] = ["kind"]
        return {"oneOf": list(tagged.values())}
    return {"anyOf": [_any(dice, depth) for _ in range(2)]}


def _reference(dice: random.Random, _: int) -> dict:
    return {"$ref": f"#/$defs/{dice.choice(('one', 'two'))}"}


def _merged(dice: random.Random, depth: int) -> dict:
    return {"allOf": [_object(dice, depth), _object(dice, depth)]}


def follows(matcher: Matcher, ids: Sequence[int]) -> bool:
    """Tell whether `ids` are a whole reply of the matcher's grammar."""
    for token in ids:
        if matcher.finished or not matcher.allowed()[token]:
            return False
        matcher.accept(token)
    return matcher.finished
