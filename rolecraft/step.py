"""A step of an episode, of which every strategy is made: a role is asked, its calls run, and who speaks next is found.

A position is frozen and a step returns a new one, so that a strategy goes on from any of them as often as it likes; the
tools' state, which is not in it, goes with the toolbox that a step is given. Not covered: which steps are taken.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from rolecraft import repeats
from rolecraft.errors import ContextFull
from rolecraft.judges import strict
from rolecraft.renderers import why_unread
from rolecraft.team import Form, Role, Team
from rolecraft.types import (
    Completion,
    Engine,
    Environment,
    EpisodeStop,
    Message,
    Observation,
    Prompt,
    Sampling,
    Task,
    ToolCall,
    ToolSpec,
    Trajectory,
    Trials,
    Turn,
    Usage,
    Verdict,
)

Run = Callable[[ToolCall], Awaitable[Observation]]
"""Runs one call, as `Toolset.call` does."""

_ANSWER = Message("user", "Answer my question in a sentence, from the results above.")


@dataclass(frozen=True, slots=True)
class Settings:
    """How an episode is played: how its replies are drawn, and when it is ended.

    `constrained`: the engine is told what each role's replies may be, so that calls fit their schemas.
    `skip_repeats`: a call is not run again while its answer holds, nor twice where a reply has it twice; a reply with
    nothing but such calls, and after results one that was doubted to be a call, is asked for again, as an answer, where
    its role may also answer.
    `strict_calls`: only calls in the family's own syntax are calls.
    `first_call`: `required` makes an episode's first reply a call, if its role may call tools.
    """

    max_turns: int = 12
    max_repeats: int = 3
    max_calls_per_turn: int = 8
    sampling: Sampling = Sampling()
    constrained: bool = False
    skip_repeats: bool = False
    strict_calls: bool = False
    first_call: Literal["auto", "required"] = "auto"


@dataclass(frozen=True, slots=True)
class Episode:
    """What stays the same while an episode is played; the caller closes the environment.

    `explain` says what is wrong with a call that did not parse; `watch` sees each new message of the record. `prefix`:
    what the first reply begins with.
    """

    environment: Environment
    team: Team
    engine: Engine
    settings: Settings = Settings()
    seed: int = 0
    explain: Callable[[str], str] = lambda text: "it is not a valid call"
    watch: Callable[[Message], None] = lambda message: None
    prefix: str = ""

    @property
    def task(self) -> Task:
        """What is asked."""
        return self.environment.task


@dataclass(frozen=True, slots=True)
class Position:
    """How far an episode has come: what was said, who speaks next, and once it is over (`stop`) why.

    `calls` counts the equal calls, `answered` holds what need not be run again (None: all is run). `idle`: the last
    reply asked for nothing but what was answered already.
    """

    messages: tuple[Message, ...]
    speaker: str | None
    turns: tuple[Turn, ...] = ()
    calls: Mapping[str, int] = field(default_factory=dict)
    answered: repeats.Answered | None = None
    stop: EpisodeStop | None = None
    idle: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply to a prompt, and what was said to the role before it (`asked`), if anything was."""

    completion: Completion
    asked: tuple[Message, ...] = ()


def begin(episode: Episode) -> Position:
    """Return where the episode begins."""
    answered = None
    if episode.settings.skip_repeats:
        answered = repeats.Answered({tool.name: tool for tool in episode.environment.toolbox.specs})
    return Position(tuple(episode.task.messages), episode.team.first, answered=answered)


async def ask(episode: Episode, position: Position, sampling: Sampling | None = None) -> tuple[Reply, ...]:
    """Return the replies of who speaks next: one, or as many as `sampling`, which then draws them, has `n`.

    Raises ContextFull where there is no room for any.
    """
    drawn = replace(episode.settings.sampling, n=1) if sampling is None else sampling
    prompt = _prompt(episode, position, drawn)
    role = episode.team.role(prompt.speaker)
    replies = await _ask(episode.engine, prompt, role, position.answered)
    return replies if role.form is None else tuple(_read(reply, role.form, episode.task.tools) for reply in replies)


async def take(episode: Episode, position: Position, reply: Reply, run: Run) -> Position:
    """Return the position after a reply, its calls run by `run`."""
    assert position.speaker is not None
    settings, environment = episode.settings, episode.environment
    answered = None if position.answered is None else position.answered.copy()
    message, dropped = reply.completion.message, tuple[Message, ...]()
    if answered is not None:
        message, dropped = repeats.without_twins(message, answered.tools.values())
    most = len(message.tool_calls) if environment.calls_only else settings.max_calls_per_turn
    message = _numbered(message, position.speaker, sum(position.calls.values()), most)
    ended = environment.calls_only and bool(message.tool_calls or message.unparsed is not None)
    idle = answered is not None and answered.has(message.tool_calls)
    calls = Counter(position.calls)
    calls.update(repeats.key(call) for call in message.tool_calls)
    message, *observed = (message,) if ended else (*await _act(episode, message, run, answered), *dropped)
    turn = replace(reply.completion.turn, message=message, speaker=position.speaker)
    messages = (*position.messages, *reply.asked, message, *observed)
    stop = _ending(turn, calls, settings, ended=ended)
    speaker = None if stop is not None else episode.team.next_speaker(messages[-1])
    if stop is None and speaker is None:
        stop = "gave_up" if episode.team.gives_up(messages[-1]) else "answered"
    return Position(messages, speaker, (*position.turns, turn), calls, answered, stop, idle)


async def advance(episode: Episode, position: Position, run: Run, sampling: Sampling | None = None) -> Position:
    """Return the position after one reply, and its end where there may be none or there is no room for one."""
    if (full := out_of_turns(episode, position)) is not None:
        return full
    try:
        (reply,) = await ask(episode, position, sampling)
    except ContextFull:
        return replace(position, stop="length", speaker=None)
    return await take(episode, position, reply, run)


async def to_the_end(episode: Episode, position: Position, run: Run, sampling: Sampling | None = None) -> Position:
    """Return the end of the episode from a position on, each reply taken as it comes and shown to `watch`."""
    while position.speaker is not None:
        following = await advance(episode, position, run, sampling)
        tell(episode, position, following)
        position = following
    return position


def out_of_turns(episode: Episode, position: Position) -> Position | None:
    """Return the position ended, if its episode has had all the replies that it may have; else None."""
    if len(position.turns) < episode.settings.max_turns:
        return None
    return replace(position, stop="max_turns", speaker=None)


def tell(episode: Episode, before: Position, after: Position) -> None:
    """Show `watch` the messages that `after` has beyond `before`."""
    for message in after.messages[len(before.messages) :]:
        episode.watch(message)


async def finish(episode: Episode, position: Position, trials: Trials | None = None) -> Trajectory:
    """Return the judged record of an episode that is over; the tools' state is that of the environment's toolbox."""
    assert position.stop is not None
    record = Trajectory(
        id=episode.task.id,
        task=episode.task,
        messages=position.messages,
        turns=position.turns,
        stop=position.stop,
        seed=episode.seed,
        # it may wait for a tool that still works
        final_state=await asyncio.to_thread(episode.environment.toolbox.state),
        trials=trials,
    )
    return replace(record, verdict=await asyncio.to_thread(_judged, record, episode.environment))


def remarks(
    message: Message, explain: Callable[[str], str], tools: Sequence[ToolSpec], *, acts: bool
) -> tuple[Message, ...]:
    """Return what a team is told beside tools' answers: that a call did not parse, or that a role that acts wrote none.

    A call that was looked for leniently may have any form, so its reason is not left to `explain`.
    """
    if message.unparsed is not None:
        reason = explain(message.unparsed) if message.strict is None else why_unread(message.unparsed, tools)
        return (Message("tool", f"error: {reason}", failed=True),)
    if acts and not message.tool_calls:
        return (Message("tool", "error: no call was written", failed=True),)
    return ()


def _judged(record: Trajectory, environment: Environment) -> Verdict:
    """Return the verdict; where calls were read leniently, what a strict reading had scored is its part `strict`."""
    verdict = environment.judge(record)
    if not strict.is_lenient(record):
        return verdict
    return replace(verdict, parts={**verdict.parts, strict.PART: environment.judge(strict.strictly(record)).score})


def _prompt(episode: Episode, position: Position, sampling: Sampling) -> Prompt:
    """Return what the position's speaker is asked for."""
    assert position.speaker is not None
    settings, task, turn = episode.settings, episode.task, len(position.turns)
    role = episode.team.role(position.speaker)
    stops = sampling.stop if role.form is None else (*sampling.stop, *role.form.stops)
    drawn = replace(sampling, seed=episode.seed + turn, stop=stops)
    lenient = role.calls_tools and role.form is None and not settings.strict_calls
    view = role.view(position.messages, task.tools)
    prefix = "" if turn else episode.prefix
    prompt = Prompt(view, role.tools(task.tools), role.name, sampling=drawn, lenient=lenient, prefix=prefix)
    if settings.constrained:
        prompt = _constrained(prompt, role, episode.team, may_act=bool(task.tools) and not position.idle)
    if role.choice == "auto" and prompt.tools and turn == 0:
        prompt = replace(prompt, choice=settings.first_call)
    return prompt


async def _ask(engine: Engine, prompt: Prompt, role: Role, answered: repeats.Answered | None) -> tuple[Reply, ...]:
    """Return the replies to a prompt, each with what was said to the role before it.

    After results, a role that may also answer and has nothing new to ask is told to answer, and held to text: one that
    writes nothing but calls whose answers still hold, or would have called what there is not. Shown its own call again,
    a small model would go on repeating it, and not told to answer it writes about calls.
    """
    replies = [Reply(completion) for completion in await engine.complete(prompt)]
    if answered is None or role.choice != "auto":
        return tuple(replies)
    after_results = prompt.messages[-1].role == "tool"
    again = [
        place
        for place, reply in enumerate(replies)
        if answered.has(reply.completion.message.tool_calls) or (reply.completion.turn.doubted and after_results)
    ]
    if not again:
        return tuple(replies)
    sampling = replace(prompt.sampling, n=len(again))
    asked = replace(prompt, messages=(*prompt.messages, _ANSWER), choice="none", sampling=sampling)
    for place, completion in zip(again, await engine.complete(asked), strict=True):
        replies[place] = Reply(_with_usage_of(completion, replies[place].completion), (_ANSWER,))
    return tuple(replies)


def _with_usage_of(again: Completion, before: Completion) -> Completion:
    """Return a completion that tells what the one before it, which nobody sees, has cost as well."""
    first, last = before.turn.usage, again.turn.usage
    usage = Usage(last.prompt, last.cached, first.completion + last.completion, first.seconds + last.seconds)
    return replace(again, turn=replace(again.turn, usage=usage))


def _read(reply: Reply, form: Form, tools: Sequence[ToolSpec]) -> Reply:
    """Return a reply with the call that its text makes in the role's own form; one that has it was not cut early."""
    completion = reply.completion
    stop = completion.turn.stop
    message = form.read(completion.message, tools, cut=stop == "length")
    turn = replace(completion.turn, message=message, stop="end" if message.tool_calls else stop)
    return replace(reply, completion=Completion(message, turn))


def _constrained(prompt: Prompt, role: Role, team: Team, *, may_act: bool) -> Prompt:
    """Return `prompt` with what its role may say; only where there is something to ask for (`may_act`) of an actor.

    That is not so without tools, nor after a call whose answer stood there already: a small model would go on so.
    """
    callers = () if may_act else tuple(other.name for other in team.roles if other.acts)
    next_roles = tuple(name for name in role.next_roles if name not in callers)
    return replace(prompt, choice=role.choice if prompt.tools else "none", next_roles=next_roles)


def _ending(turn: Turn, calls: Mapping[str, int], settings: Settings, *, ended: bool) -> EpisodeStop | None:
    """Return why the episode is over after a reply, or None; `ended` tells that the reply was the last anyway."""
    if calls and max(calls.values()) > settings.max_repeats:
        return "repeated_call"
    if turn.stop == "length" and (ended or turn.message.unparsed is None):
        return "length"
    return "answered" if ended else None


def _numbered(message: Message, speaker: str, made: int, most: int) -> Message:
    """Give the calls the ids that their observations answer to; calls beyond `most` are dropped.

    Ids that a model wrote are kept, since its next prompt shows them; those of an endpoint are drawn by chance.
    """
    calls = message.tool_calls[:most]
    own = message.ids is not None and all(call.id for call in calls)
    if not own or len({call.id for call in calls}) < len(calls):
        calls = tuple(replace(call, id=f"call_{made + i}") for i, call in enumerate(calls))
    return replace(message, speaker=speaker, tool_calls=calls)


async def _act(episode: Episode, message: Message, run: Run, answered: repeats.Answered | None) -> tuple[Message, ...]:
    """Run the message's calls, at once where there are several; return it, and what the model is told of them.

    `answered`, which holds what need not be run again (None: all is run), takes in what was.
    """
    told = {} if answered is None else answered.recall(message.tool_calls)
    new = [call for call in message.tool_calls if call.id not in told]
    observed = await asyncio.gather(*map(run, new))
    if answered is not None:
        answered.keep(list(zip(new, observed, strict=True)))
    found = told | {call.id: observation for call, observation in zip(new, observed, strict=True)}
    answers = [
        Message("tool", found[call.id].text, tool_call_id=call.id, name=call.name, failed=found[call.id].failed)
        for call in message.tool_calls
    ]
    again = [repeats.remark(call) for call in message.tool_calls if call.id in told]
    role = episode.team.role(str(message.speaker))
    if role.form is None:
        return (message, *answers, *again, *remarks(message, episode.explain, episode.task.tools, acts=role.acts))
    if message.tool_calls:
        call = message.tool_calls[0]
        return role.form.record(message, call, found[call.id])
    return (message, *remarks(message, role.form.explain, (), acts=role.acts))
