"""An episode as one plain async function, and `play`, which runs many of them at once."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rolecraft import repeats
from rolecraft.errors import ContextFull
from rolecraft.judges import strict
from rolecraft.renderers import why_unread
from rolecraft.team import Role, Team
from rolecraft.types import (
    Completion,
    Engine,
    Environment,
    EpisodeStop,
    Message,
    Prompt,
    Sampling,
    Task,
    ToolSpec,
    Trajectory,
    Turn,
    Usage,
    Verdict,
)

_ANSWER = Message("user", "Answer my question in a sentence, from the results above.")

Opener = Callable[[], Environment]
"""Opens one task's world; called when its episode begins, so that waiting episodes hold no processes."""


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


async def episode(
    environment: Environment,
    team: Team,
    engine: Engine,
    settings: Settings = Settings(),
    *,
    seed: int = 0,
    explain: Callable[[str], str] = lambda text: "it is not a valid call",
    watch: Callable[[Message], None] = lambda message: None,
) -> Trajectory:
    """Play one episode and return its judged record; the caller closes the environment.

    `explain` says what is wrong with a call that did not parse; `watch` sees each new message as it arrives.
    A model's mistakes end up in the record; only a fault of ours raises.
    """
    task = environment.task
    messages, turns = list(task.messages), list[Turn]()
    calls: Counter[str] = Counter()
    answered = (
        repeats.Answered({tool.name: tool for tool in environment.toolbox.specs}) if settings.skip_repeats else None
    )
    speaker: str | None = team.first
    stop: EpisodeStop = "answered"
    while speaker is not None:
        if len(turns) == settings.max_turns:
            stop = "max_turns"
            break
        try:
            prompt = _prompt(team, speaker, messages, task, settings, seed, len(turns))
            completion, *asked = await _ask(engine, prompt, team.role(speaker), answered)
        except ContextFull:
            stop = "length"
            break
        message, dropped = completion.message, tuple[Message, ...]()
        if answered is not None:
            message, dropped = repeats.without_twins(message, answered.tools.values())
        most = len(message.tool_calls) if environment.calls_only else settings.max_calls_per_turn
        message = _numbered(message, speaker, len(calls), most)
        turns.append(replace(completion.turn, message=message, speaker=speaker))
        ended = environment.calls_only and bool(message.tool_calls or message.unparsed is not None)
        observations = () if ended else (*await _act(environment, team, message, explain, answered), *dropped)
        for new in (*asked, message, *observations):
            messages.append(new)
            watch(new)
        calls.update(repeats.key(call) for call in message.tool_calls)
        if (ending := _ending(turns[-1], calls, settings, ended=ended)) is not None:
            stop = ending
            break
        speaker = team.next_speaker(messages[-1])
        stop = "gave_up" if speaker is None and team.gives_up(messages[-1]) else stop
    record = Trajectory(
        id=task.id,
        task=task,
        messages=tuple(messages),
        turns=tuple(turns),
        stop=stop,
        seed=seed,
        final_state=await asyncio.to_thread(environment.toolbox.state),  # it may wait for a tool that still works
    )
    return replace(record, verdict=_judged(record, environment))


def _judged(record: Trajectory, environment: Environment) -> Verdict:
    """Return the verdict; where calls were read leniently, what a strict reading had scored is its part `strict`."""
    verdict = environment.judge(record)
    if not strict.is_lenient(record):
        return verdict
    return replace(verdict, parts={**verdict.parts, strict.PART: environment.judge(strict.strictly(record)).score})


async def play(
    openers: Iterable[Opener],
    team: Team,
    engine: Engine,
    settings: Settings = Settings(),
    *,
    concurrency: int = 16,
    seed: int = 0,
    explain: Callable[[str], str] = lambda text: "it is not a valid call",
) -> AsyncIterator[Trajectory]:
    """Play episodes, at most `concurrency` at once, and yield each as it finishes.

    An episode samples from a seed made of `seed` and its task's id, so results depend neither on the order of
    admission nor on how tasks are spread over processes.
    """
    waiting = iter(openers)
    running: set[asyncio.Task[Trajectory]] = set()

    async def one(opener: Opener) -> Trajectory:
        environment = await _open(opener)
        try:
            episode_seed = _episode_seed(seed, environment.task.id)
            return await episode(environment, team, engine, settings, seed=episode_seed, explain=explain)
        finally:
            await _close(environment)

    try:
        while True:
            while len(running) < concurrency and (following := next(waiting, None)) is not None:
                running.add(asyncio.create_task(one(following)))
            if not running:
                return
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for finished in done:
                yield finished.result()
    finally:
        for unfinished in running:
            unfinished.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _episode_seed(seed: int, task_id: str) -> int:
    """Return 48 bits of a hash; an episode's turns add their number to it."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{task_id}".encode()).digest()[:6])


async def _open(opener: Opener) -> Environment:
    """Open a world off the event loop; one that opens while its episode is cancelled is closed again."""
    opening = asyncio.ensure_future(asyncio.to_thread(opener))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        await _close(await opening)
        raise


async def _close(environment: Environment) -> None:
    """Close a world off the event loop, to its end though its episode is cancelled: a thread not begun would be."""
    closing = asyncio.ensure_future(asyncio.to_thread(environment.toolbox.close))
    try:
        await asyncio.shield(closing)
    except asyncio.CancelledError:
        await closing
        raise


def _prompt(
    team: Team, speaker: str, messages: list[Message], task: Task, settings: Settings, seed: int, turn: int
) -> Prompt:
    """Return what the speaker is asked for as an episode's `turn`, counted from 0."""
    role = team.role(speaker)
    sampling = replace(settings.sampling, n=1, seed=seed + turn)
    lenient = role.calls_tools and not settings.strict_calls
    prompt = Prompt(role.view(messages), role.tools(task.tools), speaker, sampling=sampling, lenient=lenient)
    if settings.constrained:
        prompt = _constrained(prompt, role, team, task.tools)
    if role.choice == "auto" and prompt.tools and turn == 0:
        prompt = replace(prompt, choice=settings.first_call)
    return prompt


async def _ask(
    engine: Engine, prompt: Prompt, role: Role, answered: repeats.Answered | None
) -> tuple[Completion] | tuple[Completion, Message]:
    """Return the reply to a prompt, and what was said to the role before it, if anything was.

    After results, a role that may also answer and has nothing new to ask is told to answer, and held to text: one that
    writes nothing but calls whose answers still hold, or would have called what there is not. Shown its own call again,
    a small model would go on repeating it, and not told to answer it writes about calls.
    """
    (completion,) = await engine.complete(prompt)
    if answered is None or role.choice != "auto":
        return (completion,)
    after_results = prompt.messages[-1].role == "tool"
    if not answered.has(completion.message.tool_calls) and not (completion.turn.doubted and after_results):
        return (completion,)
    (again,) = await engine.complete(replace(prompt, messages=(*prompt.messages, _ANSWER), choice="none"))
    first, last = completion.turn.usage, again.turn.usage
    usage = Usage(last.prompt, last.cached, first.completion + last.completion, first.seconds + last.seconds)
    return replace(again, turn=replace(again.turn, usage=usage)), _ANSWER


def _constrained(prompt: Prompt, role: Role, team: Team, tools: Sequence[ToolSpec]) -> Prompt:
    """Return `prompt` with what its role may say; without tools nobody is asked for a call, nor called to make one."""
    callers = () if tools else tuple(other.name for other in team.roles if other.acts)
    next_roles = tuple(name for name in role.next_roles if name not in callers)
    return replace(prompt, choice=role.choice if prompt.tools else "none", next_roles=next_roles)


def _ending(turn: Turn, calls: Counter[str], settings: Settings, *, ended: bool) -> EpisodeStop | None:
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


async def _act(
    environment: Environment,
    team: Team,
    message: Message,
    explain: Callable[[str], str],
    answered: repeats.Answered | None,
) -> tuple[Message, ...]:
    """Run the message's calls, at once where there are several, and return what the model is told of them.

    `answered` holds what need not be run again (None: all is run).
    """
    told = {} if answered is None else answered.recall(message.tool_calls)
    run = [call for call in message.tool_calls if call.id not in told]
    observed = await asyncio.gather(*(environment.toolbox.call(call) for call in run))
    if answered is not None:
        answered.keep(list(zip(run, observed, strict=True)))
    found = told | {call.id: observation for call, observation in zip(run, observed, strict=True)}
    answers = [
        Message("tool", found[call.id].text, tool_call_id=call.id, name=call.name, failed=found[call.id].failed)
        for call in message.tool_calls
    ]
    again = [repeats.remark(call) for call in message.tool_calls if call.id in told]
    acts = team.role(str(message.speaker)).acts
    return (*answers, *again, *remarks(message, explain, environment.task.tools, acts=acts))


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
