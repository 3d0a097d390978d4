"""From a prompt to the body of a chat request; what an endpoint cannot be asked for is refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from rolecraft import catalog, wire
from rolecraft.errors import EngineError
from rolecraft.remote.settings import Settings
from rolecraft.renderers import Format, reply_as_text, result_as_text, tools_as_text
from rolecraft.types import Json, Message, Prompt

_SEED_BITS = 31  # what every server takes

CONTINUE = {"add_generation_prompt": False, "continue_final_message": True}
"""Has a server go on with the last message, which is an assistant's, instead of writing another."""


def told_format() -> Format:
    """Return the format in which tools are told of, and calls written, where they stand in the prompt."""
    format: Format = catalog.find("renderers", "hermes").FORMAT
    return format


def request_body(prompt: Prompt, settings: Settings) -> dict[str, Json]:
    """Return the body that asks for the replies to `prompt`; raises EngineError for what no endpoint can do."""
    _check(prompt, settings)
    sampling = prompt.sampling
    limit = "max_completion_tokens" if _is_openai(settings) else "max_tokens"
    optional = (
        ("n", sampling.n, sampling.n != 1),
        ("top_p", sampling.top_p, sampling.top_p != 1.0),
        ("top_k", sampling.top_k, sampling.top_k != 0),
        ("min_p", sampling.min_p, sampling.min_p != 0),
        ("presence_penalty", sampling.presence_penalty, sampling.presence_penalty != 0),
        ("frequency_penalty", sampling.frequency_penalty, sampling.frequency_penalty != 0),
        ("seed", sampling.seed % 2**_SEED_BITS, sampling.temperature > 0),
        ("stop", list(sampling.stop), sampling.stop != ()),
        ("logprobs", True, settings.logprobs),
        ("chat_template_kwargs", {"enable_thinking": prompt.think}, prompt.think is not None),
    )
    return {
        "model": settings.model(prompt.speaker),
        "messages": _as_sent(prompt, settings),
        "temperature": sampling.temperature,
        limit: sampling.max_tokens,
        **{key: value for key, value, asked in optional if asked},
        **(_tools(prompt) if settings.tools == "native" else {}),
        **(CONTINUE if prompt.prefix else {}),
    }


def _is_openai(settings: Settings) -> bool:
    return urlsplit(settings.url).hostname == "api.openai.com"


def _check(prompt: Prompt, settings: Settings) -> None:
    sampling = prompt.sampling
    if sampling.n < 1 or sampling.max_tokens < 1 or "" in sampling.stop:
        raise EngineError(f"n and max_tokens must be at least 1 and no stop string empty; got {sampling!r}")
    asked_beyond = {"top_k": sampling.top_k, "min_p": sampling.min_p, "think": prompt.think is not None}
    beyond = [name for name, asked in asked_beyond.items() if asked]  # what OpenAI does not have, and most servers do
    held = prompt.choice not in ("auto", "none") or not prompt.parallel
    cannot = (
        (
            prompt.prefix and not settings.continues,
            f"go on with a reply that is begun for it ({prompt.prefix[:40]!r}), as it takes no continue_final_message",
            "leave the first-thought prefix out",
        ),
        (prompt.schema is not None, "hold a reply to a schema", "leave the schema out (a checker: rules or dry_run)"),
        (prompt.next_roles, f"hold a reply to name one of {prompt.next_roles!r} next", "leave out --constrain"),
        (prompt.cache_scopes != ("",), "bound what it keeps of other prompts", "leave cache_scopes as they are"),
        (prompt.text is not None, "go on with a text as it stands", "give messages"),
        (sampling.top_logprobs, f"tell the {sampling.top_logprobs} likeliest tokens", "leave top_logprobs at 0"),
        *((_is_openai(settings), f"heed {name}, as OpenAI's own API does not", f"leave {name} out") for name in beyond),
        (
            settings.tools == "prompt" and prompt.tools and held,
            f"hold a reply to choice {prompt.choice!r}, parallel {prompt.parallel}, with tools in the prompt",
            "use native tools (--engine-tools native)",
        ),
    )
    for asked, what, remedy in cannot:
        if asked:
            raise EngineError(f"the endpoint at {settings.url} cannot {what}; {remedy}, or play a local engine")
    if prompt.choice not in ("auto", "none") and not prompt.tools:
        raise EngineError(
            f"choice {prompt.choice!r} asks for a call and there are no tools; give some, or choice 'auto'"
        )


def _tools(prompt: Prompt) -> dict[str, Json]:
    if not prompt.tools:
        return {}
    data: dict[str, Json] = {"tools": [wire.tool_to_json(tool) for tool in prompt.tools]}
    if prompt.choice in ("none", "required"):
        data["tool_choice"] = prompt.choice
    elif prompt.choice != "auto":
        data["tool_choice"] = {"type": "function", "function": {"name": prompt.choice}}
    return data if prompt.parallel else {**data, "parallel_tool_calls": False}


def _as_sent(prompt: Prompt, settings: Settings) -> list[Json]:
    begun = [{"role": "assistant", "content": prompt.prefix}] if prompt.prefix else []
    if settings.dialect == "rolecraft" and settings.tools == "native":
        own = [wire.message_to_json(_for_our_server(message)) for message in prompt.messages]
        return [*own, *begun]
    if settings.tools == "native":
        before = (None, *prompt.messages)  # what follows an assistant's is joined to it, and would be its words
        listed = [
            _plain(message, texts=settings.texts and (last is None or last.role != "assistant"))
            for last, message in zip(before, prompt.messages, strict=False)
        ]
    else:
        format = told_format()
        told = tools_as_text(prompt.tools, format).strip() if prompt.tools else ""
        listed = _with_system([_told(message, format) for message in prompt.messages], told)
    if prompt.speaker != "assistant":
        # Its header would tell a local model whose turn it is; here words must.
        listed.append({"role": "user", "content": f"Write the {prompt.speaker}'s message now, and nothing else."})
    if settings.tools == "prompt" and prompt.tools and prompt.choice == "none":
        listed.append({"role": "user", "content": "Call no tool now; answer in words."})
    return [*_merged(listed), *begun]


def _for_our_server(message: Message) -> Message:
    """Return the message as our own server reads it: a lone assistant's has no name, so that a team may divide it."""
    return message.edited(weight=None, strict=None, speaker=None if message.speaker == "assistant" else message.speaker)


def _plain(message: Message, *, texts: bool) -> dict[str, Json]:
    """Return the message with the keys that every server knows: what is no call is text, a remark is the user's."""
    if message.role == "assistant" and message.strict is not None and (texts or not message.tool_calls):
        return {"role": "assistant", "content": _text(message.strict)}
    if message.role == "assistant":
        text = _text(message)
        calls = [wire.call_to_json(call) for call in message.tool_calls]
        return _assistant(text, calls)
    if message.role == "tool" and message.tool_call_id is not None:
        return {"role": "tool", "tool_call_id": message.tool_call_id, "content": message.content}
    return {"role": "user" if message.role == "tool" else message.role, "content": message.content}


def _assistant(text: str, calls: list[Json]) -> dict[str, Json]:
    """Return an assistant's message; only beside calls may there be null for content."""
    if calls:
        return {"role": "assistant", "content": text or None, "tool_calls": calls}
    return {"role": "assistant", "content": text}


def _text(message: Message) -> str:
    return "\n".join(part for part in (message.content, message.unparsed) if part)


def _told(message: Message, format: Format) -> dict[str, Json]:
    """Return the message as text alone, calls and results in the format's own words, or as the model wrote them."""
    if message.role == "assistant" and message.strict is not None:
        return {"role": "assistant", "content": _text(message.strict)}
    if message.role == "assistant":
        return {"role": "assistant", "content": reply_as_text(message, format)}
    if message.role == "tool":
        return {"role": "user", "content": result_as_text(message.content, format)}
    return {"role": message.role, "content": message.content}


def _with_system(listed: list[Json], told: str) -> list[Json]:
    if not told:
        return listed
    if listed and listed[0]["role"] == "system":
        return [{"role": "system", "content": f"{listed[0]['content']}\n\n{told}".strip()}, *listed[1:]]
    return [{"role": "system", "content": told}, *listed]


def _merged(listed: Sequence[Json]) -> list[Json]:
    """Return the messages with neighbours of one role joined: many chat templates refuse two in a row."""
    joined: list[Json] = []
    for message in listed:
        last = joined[-1] if joined else {}
        if message["role"] != last.get("role") or message["role"] not in ("user", "assistant"):
            joined.append(message)
            continue
        text = "\n\n".join(filter(None, (last["content"], message["content"])))
        calls = [*last.get("tool_calls", ()), *message.get("tool_calls", ())]
        joined[-1] = _assistant(text, calls) if last["role"] == "assistant" else {**last, "content": text}
    return joined
