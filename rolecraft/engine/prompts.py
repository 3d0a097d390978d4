"""From a prompt to tokens, their roles and what holds the reply; and from a request's output to the completion."""

from __future__ import annotations

from collections.abc import Sequence

from rolecraft.engine.reply import parse
from rolecraft.engine.request import Output
from rolecraft.engine.settings import Constrain
from rolecraft.errors import ContextFull, EngineError
from rolecraft.gate import NOBODY
from rolecraft.grammar import Wanted
from rolecraft.model import Loaded
from rolecraft.renderers import Rendered, Renderer
from rolecraft.types import Completion, Prompt, Turn, Usage


def encode(loaded: Loaded, prompt: Prompt, context: int, limit: int | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the prompt's tokens and their role ids, -1 without roles.

    Raises ContextFull if `context` tokens leave no room for a reply, EngineError for what cannot be served; `limit` is
    the model's own, which the remedy names.
    """
    sampling = prompt.sampling
    if sampling.n < 1 or sampling.max_tokens < 1 or "" in sampling.stop:
        raise EngineError(f"n and max_tokens must be at least 1 and no stop string empty; got {sampling!r}")
    if prompt.text is None:
        opening = _renderer(loaded, prompt).opening(prompt.messages, prompt.tools, prompt.speaker, prompt.prefix)
    else:
        ids = tuple(loaded.tokenizer.encode(prompt.text))
        opening = Rendered(ids, (0.0,) * len(ids), (prompt.speaker,) * len(ids), ())
    ids = (*loaded.virtual, *opening.ids)
    if not opening.ids:
        raise EngineError("the text to go on with has no tokens; give some")
    if len(ids) >= context:
        raise ContextFull(
            f"the prompt for {prompt.speaker!r} has {len(ids)} tokens and the context holds {context}; "
            f"shorten the conversation, or raise engine.max_context (--max-context; the model's limit is {limit})"
        )
    return ids, _roles(loaded, prompt, opening)


def check_length(prompt: Prompt, context: int, longest_token: int) -> None:
    """Raise ContextFull for messages that `context` tokens of that many characters cannot hold; it costs nothing."""
    characters = sum(len(message.content.strip()) for message in prompt.messages if message.ids is None)
    characters += len(prompt.text or "")
    if characters > context * longest_token:
        raise ContextFull(
            f"the messages have {characters} characters and the context holds {context} tokens of at most "
            f"{longest_token} characters; shorten the conversation"
        )


def constraint(prompt: Prompt, constrain: Constrain, *, lenient: bool) -> Wanted | None:
    """Return what the reply is held to, None if it is free; raises EngineError where that is asked for and off.

    `lenient`: the format allows that calls are written in another syntax.
    """
    shaped = bool(prompt.next_roles) or prompt.schema is not None
    asked = prompt.choice != "auto" or shaped
    if not shaped and not prompt.tools and prompt.choice in ("auto", "none"):
        return None
    if constrain == "off" and asked:
        raise EngineError(
            f"choice {prompt.choice!r}, next_roles {prompt.next_roles!r} and schemas need constrained replies, which "
            "are switched off; set engine.constrain to 'asked', or leave out --unconstrained"
        )
    if not asked and constrain != "always":
        return None
    lenient = lenient and prompt.lenient and not prompt.next_roles
    return Wanted(prompt.tools, prompt.choice, prompt.parallel, prompt.next_roles, prompt.schema, lenient)


def check_scored(loaded: Loaded, ids: Sequence[int], start: int, roles: Sequence[int], context: int) -> None:
    """Raise EngineError for ids that the model cannot score as told, ContextFull for more than it holds."""
    if not 1 <= start < len(ids):
        raise EngineError(
            f"of {len(ids)} tokens those from place {start} on were to be scored; a token is scored after another, so "
            f"start must be 1 to {len(ids) - 1}"
        )
    if len(ids) > context:
        raise ContextFull(
            f"{len(ids)} tokens were to be scored and the context holds {context}; raise engine.max_context"
        )
    words = loaded.model.get_input_embeddings().weight.shape[0] + len(loaded.virtual)
    if strays := [token for token in ids if not 0 <= token < words]:
        raise EngineError(f"token {strays[0]} is none of the model's {words}; score ids of its own tokenizer")
    if bool(roles) != (loaded.gate is not None) or (roles and len(roles) != len(ids)):
        needed = "none, since its adapter knows no roles" if loaded.gate is None else f"{len(ids)}, one a token"
        raise EngineError(f"{len(roles)} role ids were given, and this model needs {needed}")


def reply_prefix(loaded: Loaded, prompt: Prompt, ids: tuple[int, ...]) -> tuple[int, ...]:
    """Return the tokens of the reply that a prompt of `ids` ends in."""
    if not prompt.prefix:
        return ()
    before = len(_renderer(loaded, prompt).prompt(prompt.messages, prompt.tools, prompt.speaker))
    return ids[len(loaded.virtual) + before :]


def _roles(loaded: Loaded, prompt: Prompt, opening: Rendered) -> tuple[int, ...]:
    """Return the role ids of a prompt's tokens, by the rule that the adapter was trained with; -1s without roles."""
    gate, speaker = loaded.gate, prompt.speaker
    if gate is None:
        return (NOBODY,) * (len(loaded.virtual) + len(opening.ids))
    if speaker not in gate.roles:
        raise EngineError(f"speaker {speaker!r} has no LoRAs in this adapter; its roles are {', '.join(gate.roles)}")
    if prompt.text is not None:
        return gate.ids(opening.speakers, speaker, 0)
    before = len(opening.ids) - len(reply_prefix(loaded, prompt, opening.ids))
    return gate.ids(opening.speakers, speaker, before - len(_renderer(loaded, prompt).header(speaker)))


def _renderer(loaded: Loaded, prompt: Prompt) -> Renderer:
    """Return what writes the prompt; raises EngineError for a switch that the model does not have."""
    if prompt.think is None:
        return loaded.renderer
    if prompt.think not in loaded.switch:
        raise EngineError("this model has no switch for thinking, or an adapter was tuned one way; leave 'think' out")
    return loaded.switch[prompt.think]


def complete(loaded: Loaded, prompt: Prompt, ids: tuple[int, ...], role: int, output: Output) -> Completion:
    """Return the completion of `prompt`, whose tokens were `ids`; `role` is whose LoRAs wrote it."""
    message = parse(loaded.renderer, prompt, output.ids, cut=output.stop == "length")
    count = len(output.ids)
    usage = Usage(len(ids), output.cached, count, output.seconds)
    roles = () if loaded.gate is None else (role,) * count
    turn = Turn(
        message,
        prompt.speaker,
        ids,
        output.ids,
        output.logprobs,
        output.forced,
        roles,
        output.stop,
        usage,
        output.likeliest,
        output.doubted,
        output.drawn,
    )
    return Completion(message, turn)
