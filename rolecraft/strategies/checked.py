"""A checker vets each action before it counts, and sends it back with a critique (CMAT, arXiv 2404.01663, section 3).

`rules` asks whether the calls fit their schemas; `dry_run`, besides, runs them on a branch of the state, which becomes
the state only if none fails; `ranking`, besides the rules, asks a model whether the action is the right next step, by
the probability of yes beside no (as ToolPRM does with a checker of its own; an endpoint cannot be held to these words);
`role`, besides the rules, asks it in words, and also what a result is worth and whether an answer is one. Who is asked
is the team's role `checker`, else the role that acts (`vetting`). A retry is drawn at a temperature, for a greedy one
is the same action again. After so many retries the last action counts as it is. A vetoed action is not in the record,
its critique is: it is what the role was told; or (`as_result`) the action is, and what is wrong answers it as an error
of its tool would, which an agent that was tuned on tools knows how to go on from. Neither the judge nor the reference
has a say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import rolecraft.step as step
from rolecraft import vetting
from rolecraft.errors import ContextFull
from rolecraft.step import Episode, Position, Reply
from rolecraft.strategies._bounds import require
from rolecraft.types import Check, Message, Observation, Sampling, ToolCall, ToolSpec, Trajectory
from rolecraft.vetting import Asked, Opinion
from rolecraft.voting import Tally

_NAME = "checked"
_APART = 1 << 20  # between the seeds of retries; the turns of an episode count up


@dataclass(frozen=True, slots=True)
class Settings:
    """Who checks, how often an action may be sent back, and how the next one is then drawn.

    `threshold` is the probability of yes from which on `ranking` accepts. With `after` the checker `role` judges
    answers and results too, of which it objects to at most `retries` of an episode. With `as_result` an objection to
    calls is told as their result, not in the user's words.
    """

    checker: vetting.Kind = "dry_run"
    retries: int = 2
    threshold: float = 0.5
    temperature: float = 0.7
    after: bool = True
    as_result: bool = False

    def __post_init__(self) -> None:
        """Refuse what checks nothing."""
        require(
            _NAME,
            least={
                "retries": (self.retries, 1),
                "threshold": (self.threshold, 0),
                "temperature": (self.temperature, 0),
            },
        )


@dataclass(frozen=True, slots=True)
class _Objection:
    """What is wrong with an action (`why`) and with which of its calls, none if it is an answer.

    `whole`: with all of them together. `answers` are those of calls that were tried out and failed, by their ids.
    """

    why: str
    calls: tuple[ToolCall, ...] = ()
    whole: bool = False
    answers: Mapping[str, str] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """What the role is told as the user."""
        return vetting.critique(self.calls, self.why) if self.calls else vetting.rejection(self.why)


async def play(episode: Episode, settings: Settings) -> Trajectory:
    """Play the episode action by action; raises NotForkable where a dry run has no copy of a tool's state."""
    if settings.checker == "dry_run":
        episode.environment.toolbox.branch().close()  # refused before anything is asked
    tally = Tally(_NAME)
    end = await to_the_end(episode, step.begin(episode), settings, tally)
    return await step.finish(episode, end, tally.trials())


async def to_the_end(episode: Episode, position: Position, settings: Settings, tally: Tally) -> Position:
    """Return the end of the episode from a position on, each action checked."""
    sent_back: dict[str, int] = {}
    while position.speaker is not None:
        following = await _advance(episode, position, settings, tally, sent_back)
        following = await _judged(episode, following, settings, tally)
        step.tell(episode, position, following)
        position = following
    return position


async def answer(episode: Episode, end: Position, settings: Settings, tally: Tally) -> Opinion:
    """Return what the checker says of the answer that an episode ended in; rules have nothing to say."""
    if settings.checker not in ("ranking", "role"):
        return Opinion(True)
    said = end.messages[-1].content
    known = tally.checks[-1] if tally.checks else None
    if known is not None and (known.at, known.calls, known.answer) == (len(end.messages) - 1, (), said):
        return Opinion(known.right, known.why)
    before = replace(end, messages=end.messages[:-1])
    found = await _asked(episode, before, str(end.turns[-1].speaker), settings, tally, answer=said)
    _keep(tally, before, (), found, answer=said)
    return found


async def _advance(
    episode: Episode, position: Position, settings: Settings, tally: Tally, sent_back: dict[str, int]
) -> Position:
    """Return the position after the first action that the checker accepts, else after the last one.

    Told as a result, an objection ends it too. `sent_back` counts the objections to a speaker since it was right.
    """
    if (full := step.out_of_turns(episode, position)) is not None:
        return full
    told: tuple[Message, ...] = ()
    speaker, as_result = str(position.speaker), settings.as_result and _answers_calls(episode, position)
    while True:
        attempt = sent_back.get(speaker, 0)
        asked = replace(position, messages=(*position.messages, *told))
        drawn = _drawn(episode.settings.sampling, settings.temperature if attempt else 0.0)
        try:
            (reply,) = await step.ask(replace(episode, seed=episode.seed + attempt * _APART), asked, drawn)
        except ContextFull:
            return replace(position, stop="length", speaker=None)
        tally.tried += 1
        checked = await _check(episode, asked, reply, settings, tally, last=attempt >= settings.retries)
        if isinstance(checked, Position):
            sent_back.pop(speaker, None)
            return checked
        tally.failed += 1
        sent_back[speaker] = attempt + 1
        if as_result and checked.calls:
            tally.checks[-1] = replace(tally.checks[-1], kept=True)
            return await _refused(episode, asked, reply, checked)
        tally.spend([reply.completion.turn])
        told = (*told, Message("user", checked.words))


def _answers_calls(episode: Episode, position: Position) -> bool:
    """Tell whether calls have results of their own: not where the first one ends the episode, nor where code prints."""
    return not episode.team.acts_by_code(position.speaker) and not episode.environment.calls_only


async def _refused(episode: Episode, position: Position, reply: Reply, objection: _Objection) -> Position:
    """Return the position after an action that the objection answers; what was not run does not count as repeated."""
    after = await step.take(episode, position, reply, partial(_refuse, objection, episode.environment.toolbox.specs))
    made = sum(after.calls.values()) - sum(position.calls.values())
    # each a key of its own: ids of calls are numbered by how many there were
    calls = {**position.calls, **{f"refused {len(position.messages)}/{number}": 1 for number in range(made)}}
    if after.stop != "repeated_call":
        return replace(after, calls=calls)
    return replace(after, calls=calls, stop=None, speaker=episode.team.next_speaker(after.messages[-1]))


async def _refuse(objection: _Objection, tools: Sequence[ToolSpec], call: ToolCall) -> Observation:
    """Answer a call of an action that is sent back, as its tool would; one that was tried out, as it did."""
    if (answer := objection.answers.get(call.id)) is not None:
        return Observation(answer, failed=True)
    own = vetting.objection([call], tools)
    why = objection.why if objection.whole else own.why or "not run, for another call was wrong"
    return Observation(f"error: {why}", failed=True)


def _drawn(sampling: Sampling, temperature: float) -> Sampling:
    """Return how one reply is drawn, at least at a temperature."""
    return replace(sampling, n=1, temperature=max(sampling.temperature, temperature))


async def _check(
    episode: Episode, position: Position, reply: Reply, settings: Settings, tally: Tally, *, last: bool
) -> Position | _Objection:
    """Return the position after an action that is accepted, or what is wrong with one that is not."""
    toolbox, calls = episode.environment.toolbox, reply.completion.message.tool_calls
    if last or not calls:
        end = await step.take(episode, position, reply, toolbox.call)
        asks = not last and settings.checker == "role" and settings.after and end.stop == "answered"
        if not asks or episode.environment.calls_only:
            return end
        found = await answer(episode, end, settings, tally)
        return end if found.right else _Objection(found.why)
    found, after, answers = vetting.objection(calls, toolbox.specs), None, dict[str, str]()
    whole = found.right
    if found.right and settings.checker == "dry_run" and not episode.environment.calls_only:
        found, calls, after, answers = await _dry_run(episode, position, reply, tally)
    elif found.right and settings.checker in ("ranking", "role") and not episode.environment.calls_only:
        found = await _asked(episode, position, str(position.speaker), settings, tally, calls)
    _keep(tally, position, calls, found, answer=reply.completion.message.content)
    if not found.right:
        return _Objection(found.why, calls, whole and not answers, answers)
    return after or await step.take(episode, position, reply, toolbox.call)


async def _asked(
    episode: Episode,
    position: Position,
    speaker: str,
    settings: Settings,
    tally: Tally,
    calls: Sequence[ToolCall] = (),
    answer: str = "",
) -> Opinion:
    asked, question = _place(episode, position, speaker), vetting.asking(calls, answer=answer)
    if settings.checker == "ranking":
        found = await vetting.likely(asked, question, settings.threshold)
    else:
        found = await vetting.opinion(asked, question)
    tally.spend(found.turns)
    return found


async def _judged(episode: Episode, position: Position, settings: Settings, tally: Tally) -> Position:
    """Return the position with what a checker in a role has against the result of its last action, if anything."""
    if position.speaker is None or settings.checker != "role" or not settings.after:
        return position
    last = position.turns[-1]
    objected = sum(one.after and not one.right for one in tally.checks)
    if not last.message.tool_calls or position.messages[-1].role != "tool" or objected >= settings.retries:
        return position
    act = max(place for place, message in enumerate(position.messages) if message.tool_calls)
    if act in vetting.refused(tally.checks):
        return position
    question = vetting.asking(last.message.tool_calls, after=True)
    found = await vetting.opinion(_place(episode, position, last.speaker), question)
    tally.spend(found.turns)
    _keep(tally, position, last.message.tool_calls, found, after=True)
    if found.right:
        return position
    return replace(position, messages=(*position.messages, Message("user", vetting.remark(found.why))))


def _keep(
    tally: Tally,
    position: Position,
    calls: Sequence[ToolCall],
    found: Opinion,
    *,
    after: bool = False,
    answer: str = "",
) -> None:
    named = tuple(replace(call, id="") for call in calls)
    tally.checks.append(Check(len(position.messages), named, found.right, found.why, after, answer))


def _place(episode: Episode, position: Position, speaker: str) -> Asked:
    constrained = episode.settings.constrained
    tools = episode.task.tools
    return Asked(episode.engine, episode.team, speaker, position.messages, tools, episode.seed, constrained)


async def _dry_run(
    episode: Episode, position: Position, reply: Reply, tally: Tally
) -> tuple[Opinion, tuple[ToolCall, ...], Position | None, dict[str, str]]:
    """Run the calls on a branch of the state, which becomes the state if none has failed.

    Return the opinion, the calls it is of (the first that failed alone), the position after them, and the answers of
    all that failed, by their ids.
    """
    branch, made = episode.environment.toolbox.branch(), reply.completion.message.tool_calls
    try:
        end = await step.take(episode, position, reply, branch.call)
        # Code may catch what fails within it, and is judged by how it ends. What cannot be read is told as ever.
        by_code = episode.team.acts_by_code(position.speaker)
        answers = [one for one in end.messages[len(position.messages) :] if (one.tool_call_id is None) == by_code]
        failed = [one for one in answers if one.failed]
        if not failed:
            await asyncio.to_thread(branch.commit)
            return Opinion(True), made, end, {}
    finally:
        await asyncio.to_thread(branch.close)
    tally.tool_calls += len(made)
    call = next((one for one in end.turns[-1].message.tool_calls if one.id == failed[0].tool_call_id), made[0])
    answered = {one.tool_call_id or call.id: one.content for one in failed}
    return Opinion(False, f"tried out, it answers: {failed[0].content}"), (call,), None, answered
