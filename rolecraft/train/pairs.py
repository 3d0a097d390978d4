"""Pairs of actions of which one proved right and one wrong, in the same state, from episodes that a checker watched.

A state is what was said of a task so far, without the objections: an action that was sent back has changed nothing,
so the one after it was taken from where it was. Several tries at a task meet in the states that they share. Not
covered: who plays, and what is made of the pairs (`preferring`).
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Sequence, Set
from dataclasses import dataclass, field, replace

from rolecraft import vetting, wire
from rolecraft.judges.failures import wanted
from rolecraft.types import Check, Message, Task, ToolCall, ToolSpec, Trajectory

Labelled = tuple[Trajectory, Check, bool]
"""A check, the episode that it is of, and whether the action was right."""


@dataclass(slots=True)
class _State:
    """A state and the actions that were taken from it, each once."""

    name: str
    context: tuple[Message, ...]
    tools: tuple[ToolSpec, ...]
    right: dict[Hashable, Message] = field(default_factory=dict)
    wrong: dict[Hashable, Message] = field(default_factory=dict)


def of_actions(episodes: Sequence[Trajectory]) -> list[wire.Pair]:
    """Return a pair for each wrong action in a state in which a right one was taken, too."""
    states: dict[Hashable, _State] = {}
    for episode in episodes:
        for place, action, right in _actions(episode):
            context = episode.messages[:place]
            known = (tuple(map(_key, episode.task.messages)), tuple(map(_key, context)))
            state = states.setdefault(known, _State(f"{episode.id}/{place}", context, episode.task.tools))
            (state.right if right else state.wrong).setdefault(_key(action), action)
    return [pair for state in states.values() for pair in _paired(state)]


def of_opinions(labelled: Sequence[Labelled]) -> Iterator[wire.Pair]:
    """Yield for each check what a checker should have said of it, and the opposite."""
    for number, (episode, check, right) in enumerate(labelled):
        name = f"{episode.id}/check-{number}"
        better, worse = (vetting.row(check, episode.messages, right=said) for said in (right, not right))
        yield _pair(name, better[:-1], episode.task.tools, better[-1], worse[-1])


def action_is_right(task: Task, calls: Sequence[ToolCall]) -> bool | None:
    """Return whether all calls are among those of the task's reference; None where it does not list them."""
    found = [wanted(task, call) for call in calls]
    return None if None in found else all(found)


def _actions(episode: Trajectory) -> Iterator[tuple[int, Message, bool]]:
    """Yield the actions of which it is known whether they were right, each after the place of its state."""
    good, messages = episode.verdict is not None and episode.verdict.score >= 1, episode.messages
    opening = len(episode.task.messages)
    refused = vetting.refused(episode.trials.checks if episode.trials else ())
    for place, message in enumerate(messages[opening:], start=opening):
        if message.role != "assistant" or message.unparsed is not None or message.weight == 0.0:
            continue
        right = action_is_right(episode.task, message.tool_calls) if message.tool_calls else None
        ends = not message.tool_calls and place == len(messages) - 1
        if right is None and (ends or good) and place not in refused:
            right = good
        if right is not None and not (right and is_repeated(messages[:place], refused, message.tool_calls)):
            yield _state_of(messages, refused, place, opening), message, right
    for check in episode.trials.checks if episode.trials else ():
        right = action_is_right(episode.task, check.calls) if check.calls and not check.after else None
        if right is None or (right and is_repeated(messages[: check.at], refused, check.calls)):
            continue
        speaker = next((one.speaker for one in messages[check.at :] if one.role == "assistant"), None)
        action = Message("assistant", check.answer, check.calls, speaker=speaker)
        yield _state_of(messages, refused, check.at, opening), action, right


def _state_of(messages: Sequence[Message], refused: Set[int], place: int, opening: int) -> int:
    """Return where the state before a message begins: what stands between are objections, or actions so answered.

    Those to an action after which there was no room for another are not in the record.
    """
    place = min(place, len(messages))
    while place > opening:
        before = place - 1
        while before > opening and messages[before].role == "tool":
            before -= 1
        if before not in refused and messages[place - 1].role != "user":
            break
        place = before
    return place


def is_repeated(before: Sequence[Message], refused: Set[int], calls: Sequence[ToolCall]) -> bool:
    """Tell whether a call was made before and did not fail, or is made twice: the reference's, yes, and of no use."""
    acts = (message for place, message in enumerate(before) if place not in refused)
    failed = {message.tool_call_id for message in before if message.role == "tool" and message.failed}
    done = (call for message in acts for call in message.tool_calls if not call.id or call.id not in failed)
    made = [(call.name, call.arguments) for call in done]
    asked = [(call.name, call.arguments) for call in calls]
    return any(one in made or asked.count(one) > 1 for one in asked)


def _paired(state: _State) -> Iterator[wire.Pair]:
    rights = list(state.right.values())
    for number, wrong in enumerate(state.wrong.values() if rights else ()):
        yield _pair(f"{state.name}/{number}", state.context, state.tools, rights[number % len(rights)], wrong)


def _pair(
    name: str, context: Sequence[Message], tools: tuple[ToolSpec, ...], right: Message, wrong: Message
) -> wire.Pair:
    plain = tuple(one.edited(strict=None, weight=0.0 if one.role == "assistant" else None) for one in context)
    task = Task(name, plain, tools)
    better, worse = (replace(one.edited(strict=None), weight=None) for one in (right, wrong))
    return Trajectory(name, task, (*plain, better)), Trajectory(name, task, (*plain, worse))


def _key(message: Message) -> Hashable:
    """Return what a message says, whatever its calls are numbered."""
    calls = [[call.name, dict(call.arguments)] for call in message.tool_calls]
    return message.role, message.speaker, message.content, json.dumps(calls, sort_keys=True, default=str)
