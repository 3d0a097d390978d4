"""ToolBench's answer trees (arXiv 2307.16789), of each its final path, as α-UMi prepares them (arXiv 2401.07324).

A row is one tree: `answer_generation` has the tools (`function`), the `query`, and `train_messages`, the paths in the
order of their lengths, of which the last leads to the end. What was thought before a call is text before it, and before
an answer `<think>` text. `Finish` is no tool: with `give_answer` its path ends in that answer, with
`give_up_and_restart` in `GIVE_UP`. Names of tools keep their last 64 characters, descriptions of tools their first 256
and of parameters their last 256. A call under the name that ToolBench gives to calls of no tool, or of a tool that is
not listed, is context and not trained. A later user's turn is ToolBench's own, which asks for something else than
before; it stays.

`rows(path)` reads a folder of such files, one tree each, and gives them the id `folder/number`.

Not covered: the other paths of a tree, and which queries are those of a test (their ids are not in the row).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from rolecraft import store, wire
from rolecraft.errors import DataError
from rolecraft.importers import GIVE_UP
from rolecraft.types import Json, Message, Task, ToolCall, ToolSpec, Trajectory

EXAMPLE: Mapping[str, Json] = {
    "id": "G1_answer/4",
    "answer_generation": {
        "query": "How many gulls sit on pier 4?",
        "function": [
            {
                "name": "count_for_gulls",
                "description": "Counts gulls",
                "parameters": {
                    "type": "object",
                    "properties": {"pier": {"type": "integer", "description": "Number of the pier"}},
                    "required": ["pier"],
                    "optional": [],
                },
            },
            {"name": "Finish", "description": "Ends the task", "parameters": {"type": "object", "properties": {}}},
        ],
        "train_messages": [
            [{"role": "system", "content": "You are an agent."}],
            [
                {"role": "system", "content": "You are an agent."},
                {"role": "user", "content": "How many gulls sit on pier 4?\nBegin!\n"},
                {
                    "role": "assistant",
                    "content": "I count them.",
                    "function_call": {"name": "count_for_gulls", "arguments": '{"pier": 4}'},
                },
                {
                    "role": "function",
                    "name": "count_for_gulls",
                    "content": '{"error": "", "response": "12 gulls were seen"}',
                },
                {
                    "role": "assistant",
                    "content": "They are counted.",
                    "function_call": {
                        "name": "Finish",
                        "arguments": '{"return_type": "give_answer", "final_answer": "There are 12 gulls on pier 4."}',
                    },
                },
            ],
        ],
    },
}

LEFT_OUT = ("train_messages", "function")
"""What is taken apart; what becomes of it is tested by itself."""

_FINISH = "Finish"
_NOWHERE = "invalid_hallucination_function_name"
_NAME, _TEXT = 64, 256
_MOST_MESSAGES, _LONGEST = 200, 1_000_000
_KINDS = ("string", "integer", "number", "boolean", "array", "object")
_ANSWER = re.compile(r'"final_answer"\s*:\s*"((?:[^"\\]|\\.)*)', re.DOTALL)


def rows(path: Path) -> Iterator[tuple[str, Json]]:
    """Yield the trees of a folder's JSON files, at any depth, or of one file of rows, each after where it stands."""
    if path.is_file():
        yield from store.objects(path)
        return
    for file in sorted(path.rglob("*.json")):
        for place, row in store.objects(file):
            name = f"{file.parent.name}/{file.stem.partition('_')[0]}"
            yield place, {"id": name, **row} if isinstance(row, dict) else row


def convert(row: Mapping[str, Json]) -> Trajectory:
    """Return a tree's final path; raises DataError for a tree without one, or whose end was cut."""
    tree = row.get("answer_generation")
    tree = tree if isinstance(tree, Mapping) else {}
    paths = tree.get("train_messages")
    if not isinstance(paths, list) or not paths or not isinstance(paths[-1], list):
        raise DataError("no path in answer_generation.train_messages: the tree found none, or is no ToolBench answer")
    if not 2 < len(paths[-1]) <= _MOST_MESSAGES:
        raise DataError(f"the final path has {len(paths[-1])} messages; it must have 3 to {_MOST_MESSAGES}")
    specs = tuple(_spec(told) for told in tree["function"] if told["name"] != _FINISH)
    question = Message("user", _text(tree.get("query") or _asked(paths[-1][1]), "query"))
    writer = _Writer({spec.name for spec in specs}, [question])
    for place, said in enumerate(paths[-1][2:], start=2):
        writer.add(said, f"train_messages[-1][{place}]")
    if not writer.ended:
        raise DataError(f"the final path does not end in a call of {_FINISH}: it was cut, and has no answer")
    return Trajectory(str(row.get("id", "")), Task("", (question,), specs), tuple(writer.messages))


class _Writer:
    """Writes the path message by message; words without a call are thought, and stand before what follows them."""

    def __init__(self, tools: set[str], messages: list[Message]) -> None:
        self.messages, self.ended = messages, False
        self._tools, self._thoughts, self._made = tools, list[str](), 0

    def add(self, said: Mapping[str, Json], where: str) -> None:
        if self.ended:
            raise DataError(f"{where}: the path goes on after its {_FINISH}; delete what follows")
        role, text = said["role"], _text(said.get("content") or "", where)
        if role == "assistant":
            self._thoughts += [text.strip()] if text.strip() else []
            if said.get("function_call"):
                self._call(said["function_call"], where)
        elif role == "function":
            self._observe(text, where)
        elif role == "user":
            self._leave_thoughts()
            self.messages.append(Message("user", text.strip()))
        else:
            raise DataError(f"{where}: role is {str(role)[:40]!r}; it must be assistant, function or user")

    def _call(self, call: Mapping[str, Json], where: str) -> None:
        name, written = _text(call["name"], where), _text(call.get("arguments") or "{}", where)
        thought, self._thoughts = "\n".join(self._thoughts), []
        if name == _FINISH:
            answer = _answer(written, where)
            self.ended = True
            content = f"<think>\n{thought}\n</think>\n\n{answer}" if thought else answer
            self.messages.append(Message("assistant", content))
            return
        name, arguments = name[-_NAME:], wire.read_arguments(written)
        if arguments is None or name == _NOWHERE:
            raw = wire.dumps({"name": name, "arguments": written})
            weight = 0.0 if name == _NOWHERE else None
            self.messages.append(Message("assistant", thought, unparsed=raw, weight=weight))
            return
        made = ToolCall(name, arguments, f"call_{self._made}")
        self._made += 1
        weight = None if name in self._tools else 0.0
        self.messages.append(Message("assistant", thought, (made,), weight=weight))

    def _observe(self, text: str, where: str) -> None:
        last = self.messages[-1]
        if last.role != "assistant" or not (last.tool_calls or last.unparsed):
            raise DataError(f"{where}: the result of no call; delete it, or write the call before it")
        content, failed = _observation(text)
        answers = last.tool_calls[0] if last.tool_calls else None
        self.messages.append(
            Message("tool", content, tool_call_id=answers.id, name=answers.name, failed=failed)
            if answers
            else Message("tool", content, failed=failed)
        )

    def _leave_thoughts(self) -> None:
        """Keep as context words that nothing follows but a user's turn."""
        if self._thoughts:
            self.messages.append(Message("assistant", "\n".join(self._thoughts), weight=0.0))
            self._thoughts = []


def _answer(written: str, where: str) -> str:
    """Return what a path ends in; broken JSON is searched for its answer."""
    told = wire.read_arguments(written)
    if told is None:
        found = _ANSWER.search(written)
        told = {"final_answer": found.group(1).replace("\\n", "\n").replace('\\"', '"')} if found else {}
    if told.get("return_type") == "give_up_and_restart":
        return GIVE_UP
    answer = told.get("final_answer")
    if not isinstance(answer, str) or not answer.strip():
        raise DataError(f"{where}: {_FINISH} holds no final_answer, and does not give up; there is nothing to learn")
    return answer.strip()


def _observation(text: str) -> tuple[str, bool]:
    """Return what a tool answered, and whether that is an error: ToolBench wraps it in `error` and `response`."""
    try:
        told = wire.loads(text)
    except DataError:
        return text, False
    if not isinstance(told, dict) or "response" not in told:
        return text, False
    error, response = told.get("error"), told["response"]
    content = response if isinstance(response, str) else wire.dumps(response)
    return (content or str(error or "")), bool(error)


def _spec(told: Mapping[str, Json]) -> ToolSpec:
    """Return a tool, its texts shortened; of its parameters' schemas the types and descriptions are kept."""
    name = _text(told["name"], "function")[-_NAME:]
    schema = told.get("parameters") or {}
    properties = {
        _text(key, name): {
            "type": kind if (kind := str(one.get("type", "")).lower()) in _KINDS else "string",
            "description": _text(one.get("description") or "", name)[-_TEXT:],
        }
        for key, one in (schema.get("properties") or {}).items()
    }
    required = [key for key in schema.get("required") or () if key in properties]
    described = _text(told.get("description") or "", name)[:_TEXT]
    return ToolSpec(name, described, {"type": "object", "properties": properties, "required": required})


def _asked(message: Mapping[str, Json]) -> str:
    return _text(message["content"], "train_messages[-1][1]").strip().removesuffix("Begin!")


def _text(value: Json, where: str) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise DataError(f"{where}: expected text of at most {_LONGEST:,} characters, got {type(value).__name__}")
    return value.strip() if where == "query" else value
