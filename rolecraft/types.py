"""The nouns that every part speaks: frozen records, and the two protocols at the seams."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

Json = Any
"""Whatever `json.loads` returns."""

WireRole = Literal["system", "user", "assistant", "tool"]
Choice = str
"""`none`, `auto`, `required`, or the name of the one tool that must be called."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A request to run one tool; `arguments` is always an object, never a JSON string."""

    name: str
    arguments: Mapping[str, Json]
    id: str = ""


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """What a model is told about a tool; `parameters` is a JSON Schema of type object.

    No model is told, and no data file holds, whether a call is `pure`, which changes no state, and `repeatable`, which
    means something else each time.
    """

    name: str
    description: str
    parameters: Mapping[str, Json] = field(default_factory=lambda: {"type": "object", "properties": {}})
    pure: bool = field(default=False, compare=False)
    repeatable: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Message:
    """One message; `role` is the wire's word, `speaker` the team's.

    `unparsed` is the raw text of a call that did not parse. `weight` scales its loss (None: 1 for assistants).
    `failed` marks a tool message that tells an error, which no text of a tool's own can stand for.
    `strict` is there only on a reply that was read leniently (see `renderers.reread`): the same reply as its family's
    own syntax alone reads it.
    `ids` are the tokens a model wrote for the body, its end token included: whoever renders the message again uses
    them and never re-tokenises. They belong to one tokenizer, so they are never written to a data file.
    """

    role: WireRole
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    speaker: str | None = None
    unparsed: str | None = None
    weight: float | None = None
    failed: bool = False
    strict: Message | None = None
    ids: tuple[int, ...] | None = field(default=None, compare=False, repr=False)

    def edited(self, **changes: Any) -> Message:
        """Return a copy with `changes`; the copy loses `ids`, which described the old text."""
        return replace(self, **changes, ids=None)


@dataclass(frozen=True, slots=True)
class Task:
    """What is asked: the opening messages, the tools, and the reference that only judges read."""

    id: str
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    reference: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts and wall seconds of one model call; `cached` prompt tokens were not computed again."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0
    seconds: float = 0.0

    def __add__(self, later: Usage) -> Usage:
        """Return what both calls took, one after the other."""
        return Usage(
            self.prompt + later.prompt,
            self.cached + later.cached,
            self.completion + later.completion,
            self.seconds + later.seconds,
        )


StopReason = Literal["end", "length", "cancelled"]


@dataclass(frozen=True, slots=True)
class Drawn:
    """How a token was drawn: with what log-probability, at a temperature and among the tokens that were let through.

    `among` are these (empty: all), packed as `engine.drawn` does. For those that are `meant` (empty: none) the token
    `written` was drawn, with all their chances.
    """

    logprob: float
    temperature: float = 1.0
    among: bytes = b""
    meant: bytes = b""
    written: int = -1


@dataclass(frozen=True, slots=True)
class Turn:
    """One model call, exactly: the ids that went in, the ids that came out and how likely each was.

    `logprobs`, `forced` and `role_ids` align with `token_ids`; `forced` marks tokens the grammar left no choice for. An
    endpoint tells no ids, and `logprobs` alone if it was asked for them.
    So does `likeliest`, if it was asked for: the likeliest tokens there, each with its log-probability. `doubted`: the
    model began a call that it did not mean, and was held to text. `drawn`, if it was asked for: how each token was,
    None where it was forced. All three are told to who asked and not stored. `folded` of the oldest observations stood
    in the prompt as remarks (see `memory`).
    """

    message: Message
    speaker: str
    prompt_ids: tuple[int, ...] = ()
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    forced: tuple[bool, ...] = ()
    role_ids: tuple[int, ...] = ()
    stop: StopReason = "end"
    usage: Usage = Usage()
    likeliest: tuple[tuple[tuple[int, float], ...], ...] = ()
    doubted: bool = False
    drawn: tuple[Drawn | None, ...] = ()
    folded: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's answer: a score in 0..1, the reason in words, and named partial scores in 0..1."""

    score: float
    reason: str = ""
    parts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Check:
    """What a checker made of some calls: whether they are `right`, and `why` not; `after` they were run, or before.

    It saw the record's first `at` messages. Without calls it is of an `answer`, which else is what was said beside.
    `kept`: the action was sent back and stands in the record all the same, its calls answered by the objection.
    """

    at: int
    calls: tuple[ToolCall, ...]
    right: bool
    why: str = ""
    after: bool = False
    answer: str = ""
    kept: bool = False


@dataclass(frozen=True, slots=True)
class Trials:
    """What a strategy tried that the record does not show: replies, episodes or branches that were not chosen.

    `tried` candidates were had, the chosen ones among them, of which `failed` could not be chosen; `agreement` is the
    mean share of those that were not dropped that came to the same as the chosen one (None: nothing was voted on).
    `model_calls`, `tool_calls` and `usage` are of what is not in the record's turns and messages. `checks` are what a
    checker said, in its order.
    """

    strategy: str
    tried: int = 0
    failed: int = 0
    agreement: float | None = None
    model_calls: int = 0
    tool_calls: int = 0
    usage: Usage = Usage()
    checks: tuple[Check, ...] = ()


EpisodeStop = Literal["answered", "gave_up", "max_turns", "repeated_call", "length", "engine_error", "imported"]
"""Why an episode is over; `gave_up`: its team said that it cannot be done this way, which is no answer."""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """The record of an episode, wherever it came from: a file, a teacher, a rollout, a benchmark, a served chat."""

    id: str
    task: Task
    messages: tuple[Message, ...]
    turns: tuple[Turn, ...] = ()
    stop: EpisodeStop = "imported"
    seed: int = 0
    final_state: Mapping[str, Json] | None = None
    verdict: Verdict | None = None
    lineage: tuple[str, ...] = ()
    trials: Trials | None = None


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to draw a reply: `temperature` 0 is greedy; `stop` are strings that end the text.

    Drawn are only the `top_k` likeliest tokens (0: all), those that make up `top_p`, and those at least `min_p` as
    likely as the likeliest. The logit of a token that the reply has already is lowered by `presence_penalty`, and by
    `frequency_penalty` for each time. `top_logprobs`: how many of the likeliest tokens the turn tells.
    `tell_drawn`: the turn tells how each token was drawn, if the engine is the local one.
    """

    n: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    top_logprobs: int = 0
    tell_drawn: bool = False
    seed: int = 0
    max_tokens: int = 160
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request to an engine: what `speaker` sees, and how its reply is drawn; `prefix` begins the reply.

    `choice` says whether it calls tools, `parallel` whether several at once. With `next_roles` it is text that ends by
    naming one of them as the next. With a `schema` a reply that calls nothing is JSON that fits it, and no other text.
    `lenient`: calls are also read where they are not written in the family's own syntax.
    `cache_scopes` bound what an engine may reuse of other prompts: what it computes for this one is kept under the
    first scope, and only what was kept under one of them is reused. `text` is gone on with as it stands, control tokens
    and all, in place of messages and tools. `think`: the model is told to think, or not to, where its family has a
    switch for it (None: as it was loaded).
    """

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    speaker: str = "assistant"
    prefix: str = ""
    choice: Choice = "auto"
    sampling: Sampling = Sampling()
    parallel: bool = True
    next_roles: tuple[str, ...] = ()
    lenient: bool = False
    schema: Mapping[str, Json] | None = None
    cache_scopes: tuple[str, ...] = ("",)
    text: str | None = None
    think: bool | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer to a prompt: the parsed message and its exact turn."""

    message: Message
    turn: Turn


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a streamed reply: new text, or at the end the whole completion."""

    text: str = ""
    completion: Completion | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """What a tool answered; `failed` marks an error that the model should read and repair.

    Of code that was run also the `calls` that it made of other tools, and the `answer` by which it ended the task.
    """

    text: str
    failed: bool = False
    calls: tuple[tuple[ToolCall, Observation], ...] = ()
    answer: str | None = None


Judge = Callable[[Trajectory], Verdict]


class Engine(Protocol):
    """Answers prompts; concurrency and batching are its own business."""

    async def complete(self, prompt: Prompt) -> tuple[Completion, ...]:
        """Return `prompt.sampling.n` completions."""
        ...

    def stream(self, prompt: Prompt) -> AsyncIterator[Delta]:
        """Yield pieces of one reply; the last delta holds the completion."""
        ...


class Toolset(Protocol):
    """The tools of one episode, opened for it and closed after it; `tools.Toolbox` is the implementation."""

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """The tools as the model is told of them, in order."""
        ...

    async def call(self, call: ToolCall) -> Observation:
        """Run one call; a failure is an observation, never an exception."""
        ...

    def fork(self) -> Toolset:
        """Return an independent copy with the same state; raises `NotForkable` where a tool cannot."""
        ...

    def branch(self) -> Toolset:
        """Return a fork whose tools are copied once they are called; while it is open these here are not called.

        Raises `NotForkable` where a tool is known to have no copy; a call does where that turns out then.
        """
        ...

    def commit(self) -> None:
        """Let the toolbox that this is a branch of, and the one before it, go on with the state that this has."""
        ...

    def state(self) -> Mapping[str, Json]:
        """Return what judges may compare of the final state, by tool name; it may wait, so ask off the event loop."""
        ...

    def close(self) -> None:
        """Free processes, files and memory; safe to call twice."""
        ...


@dataclass(frozen=True, slots=True)
class Environment:
    """One task's world for one episode: opened, used once, closed; never reset.

    With `calls_only` the calls are judged and none runs: the episode ends with the first reply that holds one, be it
    readable or not.
    """

    task: Task
    toolbox: Toolset
    judge: Judge
    calls_only: bool = False
