"""Schema-Guided Dialogue (DSTC8): a dialogue with services, as calls, the questions before them and the answers after.

A path is a `dialogues_*.json`, or a folder of them, with `schema.json` beside; a row is a dialogue with the `schemas`
of its services. Every intent of these services is a tool. The source writes all values as text: booleans, numbers,
dates, times and choices have their types here, in calls, results and schemas, by the slot's possible values, name and
description. Dates count from 1 March 2019, which a system message tells.

A system turn with a service call is the call, its result and the answer. Trained are calls, questions for required
slots that nobody has told, and what is answered from a result; what the system says besides (confirming, asking
whether there is more) has weight 0. An optional argument that has its default and that the user did not give is left
out. The task's reference has the `services` and, for each call and question, a step: the message's place (`at`), its
`calls`, which other values of an argument the dialogue allows (`accepted`), and which tools it asks for (`asks_for`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rolecraft import store, wire
from rolecraft.errors import DataError, NotFound
from rolecraft.importers import _typed
from rolecraft.types import Json, Message, Task, ToolCall, ToolSpec, Trajectory

TODAY = "2019-03-01"
"""The day from which the source counts `today` and `next Friday`."""

LEFT_OUT = ("actions", "state", "slots", "result_slots", "is_transactional", "is_categorical", "speaker", "description")
"""Keys of annotations, and of what schemas tell of services and results, that no trajectory has."""

_ANSWERS = {"INFORM", "INFORM_COUNT", "OFFER", "NOTIFY_SUCCESS", "NOTIFY_FAILURE"}
_COUNTS = {"number", "num", "length"}
_AMOUNTS = {"price", "fare", "total", "amount", "rent", "rating", "balance", "temperature", "humidity", "precipitation"}
_ANYTHING = "dontcare"

EXAMPLE: Mapping[str, Json] = {
    "dialogue_id": "7_00001",
    "services": ["Ferries_1"],
    "turns": [
        {
            "speaker": "USER",
            "utterance": "I need a ferry for my van.",
            "frames": [
                {
                    "service": "Ferries_1",
                    "slots": [],
                    "actions": [
                        {"act": "INFORM", "slot": "with_car", "values": ["True"], "canonical_values": ["True"]}
                    ],
                    "state": {"active_intent": "BookFerry", "slot_values": {"with_car": ["True"]}},
                }
            ],
        },
        {
            "speaker": "SYSTEM",
            "utterance": "On which day?",
            "frames": [
                {
                    "service": "Ferries_1",
                    "slots": [],
                    "actions": [{"act": "REQUEST", "slot": "date", "values": [], "canonical_values": []}],
                }
            ],
        },
        {
            "speaker": "USER",
            "utterance": "Tomorrow, there are two of us.",
            "frames": [
                {
                    "service": "Ferries_1",
                    "slots": [],
                    "actions": [{"act": "INFORM", "slot": "date", "values": ["Tomorrow"]}],
                    "state": {
                        "active_intent": "BookFerry",
                        "slot_values": {"with_car": ["True"], "date": ["Tomorrow"], "passengers": ["two", "2"]},
                    },
                }
            ],
        },
        {
            "speaker": "SYSTEM",
            "utterance": "Booked: the Kittiwake takes you.",
            "frames": [
                {
                    "service": "Ferries_1",
                    "slots": [],
                    "actions": [{"act": "NOTIFY_SUCCESS", "slot": "", "values": []}],
                    "service_call": {
                        "method": "BookFerry",
                        "parameters": {"date": "2019-03-02", "passengers": "2", "with_car": "True"},
                    },
                    "service_results": [{"date": "2019-03-02", "passengers": "2", "ship": "Kittiwake"}],
                }
            ],
        },
    ],
    "schemas": [
        {
            "service_name": "Ferries_1",
            "description": "Ferries along the coast",
            "slots": [
                {"name": "date", "description": "Day of the crossing", "is_categorical": False, "possible_values": []},
                {
                    "name": "passengers",
                    "description": "People on board",
                    "is_categorical": True,
                    "possible_values": ["1", "2", "3"],
                },
                {
                    "name": "with_car",
                    "description": "Whether a car comes along",
                    "is_categorical": True,
                    "possible_values": ["True", "False"],
                },
                {"name": "ship", "description": "Name of the ship", "is_categorical": False, "possible_values": []},
            ],
            "intents": [
                {
                    "name": "BookFerry",
                    "description": "Book places on a ferry",
                    "is_transactional": True,
                    "required_slots": ["date", "passengers"],
                    "optional_slots": {"with_car": "False"},
                    "result_slots": ["date", "passengers", "ship"],
                }
            ],
        }
    ],
}


def rows(path: Path) -> Iterator[tuple[str, Json]]:
    """Yield each dialogue with the schemas of its services, after where it stands."""
    files = sorted(path.glob("dialogues_*.json")) if path.is_dir() else [path]
    if not files:
        raise NotFound(f"no dialogues_*.json in {str(path)!r}; give a folder of SGD, such as train")
    for file in files:
        schemas = _schemas_beside(file)
        for place, row in store.objects(file):
            if isinstance(row, dict) and "schemas" not in row and isinstance(row.get("services"), list):
                told = [schemas[name] for name in row["services"] if isinstance(name, str) and name in schemas]
                row = {**row, "schemas": told}
            yield place, row


def services(path: Path) -> frozenset[str]:
    """Return the services that the dialogues have, of which `schema.json` may describe more; raises NotFound."""
    found = (row.get("services") for _, row in rows(path) if isinstance(row, dict))
    return frozenset(str(name) for names in found if isinstance(names, list) for name in names)


def convert(row: Mapping[str, Json]) -> Trajectory:
    """Return the dialogue; raises DataError."""
    told = {schema["service_name"]: schema for schema in row["schemas"]}
    if missing := [name for name in row["services"] if name not in told]:
        raise DataError(f"no schema of service {missing[0]!r}; schema.json must lie beside the dialogues")
    names = [intent["name"] for name in row["services"] for intent in told[name]["intents"]]
    known = {name: _Service(told[name], {one for one in names if names.count(one) > 1}) for name in row["services"]}
    writer = _Writer(known)
    for turn in row["turns"]:
        if turn["speaker"] not in ("USER", "SYSTEM"):
            raise DataError(f"'speaker' is {str(turn['speaker'])[:40]!r}; it must be USER or SYSTEM")
        (writer.hear if turn["speaker"] == "USER" else writer.answer)(turn)
    tools = tuple(spec for service in known.values() for spec in service.tools)
    messages = tuple(writer.messages)
    opening = next((place for place, message in enumerate(messages) if message.role == "assistant"), len(messages))
    if opening == len(messages):
        raise DataError("no turn of the system; a dialogue has at least one")
    reference = {"services": list(row["services"]), "steps": writer.steps}
    identity = str(row["dialogue_id"])
    return Trajectory(identity, Task(identity, messages[:opening], tools, reference), messages)


class _Service:
    """A service's tools and the kinds of its slots; names in `shared` get the service's before them."""

    def __init__(self, told: Mapping[str, Any], shared: set[str]) -> None:
        self._name, self._shared = told["service_name"], shared
        self._slots = {slot["name"]: slot for slot in told["slots"]}
        self.intents = {intent["name"]: intent for intent in told["intents"]}
        self.tools = tuple(map(self._tool, told["intents"]))

    def tool_name(self, intent: str) -> str:
        return f"{self._name}_{intent}" if intent in self._shared else intent

    def value(self, slot: str, text: str) -> Json:
        """Return a value with its type; of slots that only results have, those of no kind stay text."""
        return _typed.typed(self.kind(slot), text, f"slot {slot!r}")

    def result(self, slot: str, text: str) -> Json:
        try:
            return self.value(slot, text) if slot in self._slots else text
        except DataError:
            return text

    def kind(self, slot: str) -> _typed.Kind:
        described = self._slots[slot]
        if described["is_categorical"] and described["possible_values"]:
            return _typed.kind_of_choices(described["possible_values"])
        named = set(slot.split("_"))
        if "date" in named or ("time" in named and "wait" not in named):
            return "date" if "date" in named else "time"
        if named & _COUNTS or described["description"].startswith("Number of "):
            return "integer"
        return "number" if named & _AMOUNTS else "string"

    def _tool(self, intent: Mapping[str, Any]) -> ToolSpec:
        required, optional = list(intent["required_slots"]), dict(intent["optional_slots"])
        properties = {slot: self._property(slot, optional.get(slot, _ANYTHING)) for slot in (*required, *optional)}
        parameters = {"type": "object", "properties": properties, "required": required}
        function = {"name": self.tool_name(intent["name"]), "description": intent["description"]}
        return wire.tool_from_json({**function, "parameters": parameters}, f"intent {function['name'][:80]!r}")

    def _property(self, slot: str, default: str) -> dict[str, Json]:
        described = self._slots[slot]
        choices = described["possible_values"] if described["is_categorical"] else ()
        found = _typed.schema(self.kind(slot), described["description"], choices)
        return found if default == _ANYTHING else {**found, "default": self.value(slot, default)}


@dataclass(slots=True)
class _Known:
    """What a dialogue has told a service: its state, the slots that the user himself gave, whether it has a result."""

    intent: str = ""
    values: Mapping[str, Sequence[str]] = field(default_factory=dict)
    given: set[str] = field(default_factory=set)
    answered: bool = False


class _Writer:
    """Writes messages turn by turn, and the steps."""

    def __init__(self, services: Mapping[str, _Service]) -> None:
        self._services, self._known = services, {name: _Known() for name in services}
        opening = f"Today is {_typed.weekday(TODAY)}, {TODAY}."
        self.messages = [Message("system", opening)]
        self.steps: list[dict[str, Json]] = []
        self._made = 0

    def hear(self, turn: Mapping[str, Any]) -> None:
        for frame in turn["frames"]:
            known = self._known[frame["service"]]
            known.intent = str(frame["state"]["active_intent"])
            known.values = dict(frame["state"]["slot_values"])
            known.given |= {str(one["slot"]) for one in frame["actions"] if one["act"] == "INFORM"}
        self.messages.append(Message("user", _text(turn)))

    def answer(self, turn: Mapping[str, Any]) -> None:
        acts = {str(one["act"]) for frame in turn["frames"] for one in frame["actions"]}
        calling = [frame for frame in turn["frames"] if "service_call" in frame]
        for frame in calling:
            self._call(frame)
        if turn["utterance"] == "":  # one farewell of the test files
            return
        known = [self._known[frame["service"]] for frame in turn["frames"]]
        trained = bool(calling) or (acts <= _ANSWERS and all(one.answered for one in known))
        if acts == {"REQUEST"} and all(map(self._must_ask, turn["frames"])):
            trained = True
            self._ask([frame["service"] for frame in turn["frames"]])
        self.messages.append(Message("assistant", _text(turn), weight=None if trained else 0.0))

    def _ask(self, names: Sequence[str]) -> None:
        tools = [self._services[name].tool_name(self._known[name].intent) for name in names]
        self.steps.append({"at": len(self.messages), "calls": [], "asks_for": tools, "services": list(names)})

    def _must_ask(self, frame: Mapping[str, Any]) -> bool:
        known, service = self._known[frame["service"]], self._services[frame["service"]]
        required = service.intents[known.intent]["required_slots"] if known.intent in service.intents else ()
        return {one["slot"] for one in frame["actions"]} <= {slot for slot in required if slot not in known.values}

    def _call(self, frame: Mapping[str, Any]) -> None:
        name, called = frame["service"], frame["service_call"]
        service, known = self._services[name], self._known[name]
        intent = service.intents[called["method"]]
        optional = intent["optional_slots"]
        said = {
            slot: text
            for slot, text in called["parameters"].items()
            if slot in known.given or slot not in optional or text != optional[slot]
        }
        arguments = {slot: service.value(slot, text) for slot, text in said.items()}
        accepted = {slot: self._accepted(name, slot) for slot in called["parameters"]}
        call = ToolCall(service.tool_name(called["method"]), arguments, f"call_{self._made}")
        self._made += 1
        written = [{"name": call.name, "arguments": arguments}]
        self.steps.append({"at": len(self.messages), "calls": written, "accepted": accepted, "services": [name]})
        results = [
            {slot: service.result(slot, text) for slot, text in result.items()} for result in frame["service_results"]
        ]
        self.messages.append(Message("assistant", tool_calls=(call,)))
        self.messages.append(Message("tool", wire.dumps(results), tool_call_id=call.id))
        known.answered = True

    def _accepted(self, name: str, slot: str) -> list[Json]:
        """Return what the dialogue itself says for a slot, beside the value that was called."""
        service, said = self._services[name], self._known[name].values.get(slot, ())
        return [text for text in said if service.kind(slot) == "string"]


def _text(turn: Mapping[str, Any]) -> str:
    said = turn["utterance"]
    if not isinstance(said, str) or not said.strip():
        raise DataError("a turn has no 'utterance'; every turn says something")
    return said


def _schemas_beside(file: Path) -> dict[str, Mapping[str, Json]]:
    path = file.with_name("schema.json")
    found = [row for _, row in store.objects(path)] if path.is_file() else []
    return {row["service_name"]: row for row in found if isinstance(row, dict) and "service_name" in row}
