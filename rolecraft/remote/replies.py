"""From an endpoint's answer to completions: what it says is read as data, and what is no answer is told as none."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rolecraft import wire
from rolecraft.errors import DataError
from rolecraft.remote.requests import told_format
from rolecraft.remote.settings import ToolsForm
from rolecraft.renderers import reply_from_text, reread
from rolecraft.types import Completion, Json, Message, Prompt, StopReason, Turn, Usage

_MOST_CALLS = 256
_MOST_LOGPROBS = 1 << 17
_LEAST_LOGPROB = 1e5


def completions(answer: Json, prompt: Prompt, form: ToolsForm, seconds: float = 0.0) -> tuple[Completion, ...]:
    """Return what an answer holds, `prompt.sampling.n` completions; raises DataError for what is no answer to that."""
    if not isinstance(answer, Mapping) or not isinstance(answer.get("choices"), list):
        raise DataError("it has no 'choices'")
    choices = answer["choices"]
    wanted = prompt.sampling.n
    if len(choices) != wanted:
        lacks = "; the server takes no 'n'" if len(choices) == 1 < wanted else ""
        raise DataError(f"it has {len(choices)} choices and n is {wanted}{lacks}")
    usages = _shared(read_usage(answer.get("usage"), seconds), wanted)
    return tuple(_completion(choice, prompt, form, usage) for choice, usage in zip(choices, usages, strict=True))


def _shared(usage: Usage, n: int) -> list[Usage]:
    """Return what each of n replies has used: the prompt was computed once, and of their tokens the sum is told."""
    each, rest = divmod(usage.completion, n)
    others = [Usage(0, 0, each, usage.seconds)] * (n - 1)
    return [Usage(usage.prompt, usage.cached, each + rest, usage.seconds), *others]


def _completion(choice: Json, prompt: Prompt, form: ToolsForm, usage: Usage) -> Completion:
    said = choice.get("message") if isinstance(choice, Mapping) else None
    if not isinstance(said, Mapping):
        raise DataError("a choice has no 'message'")
    finish = choice.get("finish_reason")
    logprobs = read_logprobs(choice.get("logprobs"))
    return completion(read_message(said, form, prompt, finish), finish, prompt, usage, logprobs)


def completion(
    message: Message, finish: Json, prompt: Prompt, usage: Usage, logprobs: tuple[float, ...] = ()
) -> Completion:
    """Return the completion of a message that has been read; it has no token ids, which no endpoint tells."""
    stop: StopReason = "length" if finish == "length" else "end"
    return Completion(message, Turn(message, prompt.speaker, logprobs=logprobs, stop=stop, usage=usage))


def read_logprobs(given: Json) -> tuple[float, ...]:
    """Return the log-probabilities of a reply's tokens, none where they are not told or are none."""
    listed = given.get("content") if isinstance(given, Mapping) else None
    if not isinstance(listed, list) or len(listed) > _MOST_LOGPROBS:
        return ()
    found = [one.get("logprob") if isinstance(one, Mapping) else None for one in listed]
    told = [float(one) for one in found if isinstance(one, int | float) and -_LEAST_LOGPROB <= one <= 0]
    return tuple(told) if len(told) == len(listed) else ()


def read_message(said: Mapping[str, Json], form: ToolsForm, prompt: Prompt, finish: Json = "stop") -> Message:
    """Return the message in `said`; calls that cannot be read are in `unparsed`. Raises DataError for no message.

    Where the server found no call, and one may be made, it is looked for in the text: of tools told in the prompt, and
    leniently if the prompt asks for that.
    """
    message = dataclasses.replace(_message(said), speaker=prompt.speaker)
    thought = _thought(said)
    told = (thought + message.content).startswith(prompt.prefix)  # servers tell what they added
    lead = thought if told else prompt.prefix + thought
    if not thought:
        return _read(_led(message, lead), form, prompt, finish)
    # Calls that an endpoint's reasoning considers are none, whatever tags it spells.
    return _led(_read(message, form, prompt, finish), lead)


def _led(message: Message, lead: str) -> Message:
    """Return the message, and what a strict reading made of it, with `lead` before its content."""
    strict = message.strict and dataclasses.replace(message.strict, content=lead + message.strict.content)
    return dataclasses.replace(message, content=lead + message.content, strict=strict)


def _thought(said: Mapping[str, Json]) -> str:
    """Return the reasoning that an endpoint tells beside the content, as text before it; '' if there is none."""
    told = [said[key] for key in ("reasoning_content", "reasoning") if isinstance(said.get(key), str) and said[key]]
    return f"<think>\n{told[0]}\n</think>\n\n" if told else ""


def _read(message: Message, form: ToolsForm, prompt: Prompt, finish: Json) -> Message:
    if not prompt.tools or prompt.choice == "none" or message.tool_calls or message.unparsed is not None:
        return message
    text = message.content
    if form == "prompt":
        message = dataclasses.replace(reply_from_text(text, told_format()), speaker=prompt.speaker)
    return reread(message, text, prompt.tools, cut=finish == "length") if prompt.lenient else message


def _message(said: Mapping[str, Json]) -> Message:
    calls = said.get("tool_calls") or []
    if not isinstance(calls, list) or len(calls) > _MOST_CALLS:
        raise DataError(f"'tool_calls' is no list of at most {_MOST_CALLS}")
    kept = [call for call in map(_call, calls) if call is not None]
    bad = [wire.dumps(call) for call in calls if _call(call) is None]
    data = {"role": "assistant", "content": said.get("content") or "", "tool_calls": kept}
    return _encodable(wire.message_from_json(data | ({"unparsed": "\n".join(bad)} if bad else {})))


def _encodable(message: Message) -> Message:
    """Return the message with U+FFFD for each half of a surrogate pair: no file, terminal or tokenizer takes one."""
    calls = tuple(
        dataclasses.replace(call, name=_whole(call.name), id=_whole(call.id), arguments=_whole(call.arguments))
        for call in message.tool_calls
    )
    return message.edited(content=_whole(message.content), tool_calls=calls, unparsed=_whole(message.unparsed))


def _whole(value: Any) -> Any:
    """Return a value of JSON whose texts can be encoded; halves that stand side by side are joined."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, Mapping):
        return {_whole(key): _whole(item) for key, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list) else value


def _call(entry: Json) -> Json:
    """Return an entry of `tool_calls` with what is read of it; None for one that names no tool or has no arguments."""
    function = entry.get("function") if isinstance(entry, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        return None
    arguments = function.get("arguments")
    arguments = "" if arguments is None else arguments
    if not isinstance(arguments, str | Mapping):
        return None
    if isinstance(arguments, Mapping):
        arguments = wire.dumps(arguments)  # as text it is read within bounds
    identity = entry.get("id")
    named = {"name": function["name"], "arguments": arguments}
    return {"id": identity if isinstance(identity, str) else "", "type": "function", "function": named}


def read_usage(told: Json, seconds: float) -> Usage:
    """Return the token counts that an endpoint tells, 0 for what it does not."""
    fields = told if isinstance(told, Mapping) else {}
    details = fields.get("prompt_tokens_details")
    cached = _count(details.get("cached_tokens")) if isinstance(details, Mapping) else 0
    return Usage(_count(fields.get("prompt_tokens")), cached, _count(fields.get("completion_tokens")), seconds)


def _count(value: Json) -> int:
    return value if type(value) is int and 0 <= value < 2**53 else 0


@dataclass(slots=True)
class Joined:
    """A streamed reply as far as it has come."""

    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: dict[int, dict[str, Json]] = field(default_factory=dict)
    finish: str | None = None
    usage: Json = None

    def add(self, event: Json) -> str:
        """Take in one event and return its text; raises DataError for an event that is none, or tells an error."""
        if not isinstance(event, Mapping) or event.get("error"):
            told = event.get("error") if isinstance(event, Mapping) else event
            raise DataError(f"the stream tells an error: {told}")
        self.usage = event.get("usage") or self.usage
        choices = event.get("choices") or []
        if not isinstance(choices, list) or not all(isinstance(choice, Mapping) for choice in choices):
            raise DataError("an event's 'choices' are none")
        return "".join(self._add(choice) for choice in choices if choice.get("index", 0) == 0)

    def message(self) -> dict[str, Json]:
        """Return the whole message; raises DataError if the stream ended before the reply did."""
        if self.finish is None:
            raise DataError("the stream ended in the middle of the reply")
        calls = [self.calls[index] for index in sorted(self.calls)]
        return {"content": "".join(self.text), "reasoning_content": "".join(self.reasoning), "tool_calls": calls}

    def _add(self, choice: Mapping[str, Json]) -> str:
        finish = choice.get("finish_reason")
        self.finish = finish if isinstance(finish, str) else self.finish
        delta = choice.get("delta")
        delta = delta if isinstance(delta, Mapping) else {}
        text = delta.get("content")
        text = text if isinstance(text, str) else ""
        reasoning = delta.get("reasoning_content") or delta.get("reasoning")
        self.text.append(text)
        self.reasoning.append(reasoning if isinstance(reasoning, str) else "")
        pieces = delta.get("tool_calls") or []
        for piece in pieces if isinstance(pieces, Sequence) and not isinstance(pieces, str) else ():
            self._add_call(piece)
        return str(_whole(text))

    def _add_call(self, piece: Json) -> None:
        index = piece.get("index") if isinstance(piece, Mapping) else None
        function = piece.get("function") if isinstance(piece, Mapping) else None
        if type(index) is not int or not isinstance(function, Mapping) or len(self.calls) >= _MOST_CALLS:
            raise DataError("a piece of a call is none")
        call = self.calls.setdefault(index, {"id": "", "function": {"name": "", "arguments": ""}})
        call["id"] = call["id"] or piece.get("id") or ""
        for key in ("name", "arguments"):
            call["function"][key] += function[key] if isinstance(function.get(key), str) else ""
