"""A round of CMAT's loop (arXiv 2404.01663, Algorithm 1): play, check, judge, and what is learned from it.

An earlier stage plays training tasks with a checker. A reply is confirmed if its calls are among those of the task's
reference (where it lists calls), or if the episode came out right; confirmed replies are trained, the others stay as
context. Each check is labelled by the same, and trains the checker; of the actions that were right no more are kept
than of those that were wrong, which a checker would else never object to. Failures become lessons. Not covered: a
preference loss (DPO) between an action that was sent back and the one that came after it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rolecraft import agent, examples, reflection, store, strategies, team, vetting, wire
from rolecraft.engine import Settings as EngineSettings
from rolecraft.engine import open_local
from rolecraft.errors import DataError
from rolecraft.experience import ExperienceSettings
from rolecraft.judges.failures import wanted
from rolecraft.lessons import Lessons
from rolecraft.recipe import Recipe
from rolecraft.renderers import why_unparsed
from rolecraft.store import Run
from rolecraft.team import Team
from rolecraft.train import collecting, pairs, references
from rolecraft.types import Check, Engine, Environment, Message, Sampling, Task, Trajectory

FOLDER = "experience"
"""The folder in a stage's own with what was played for it, and what came of that."""

ROWS = "rows.jsonl"
PAIRS = "pairs.jsonl"
REPORT = "report.json"
_DATA = "data.jsonl"
_LESSONS = "lessons.db"
_TOGETHER = 16


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a round: the score of its play, how good its checker is, and what is learned.

    `precision` is the share of the checker's objections that were to wrong actions, `recall` the share of wrong actions
    that it objected to; None where there are none. `confirmed` counts replies, `pairs` those of actions, `opinions`
    checks, and `lessons` what the memory holds.
    """

    episodes: int
    score: float
    checks: int
    objections: int
    precision: float | None
    recall: float | None
    confirmed: int
    opinions: int
    lessons: int
    pairs: int = 0


def prepare(recipe: Recipe, folder: Path, player: Path, base: str, before: Path) -> Recipe:
    """Return the recipe with the data of its round, which is played now if it was not, by adapter `player` on `base`.

    Finished episodes are not played again. What the stage in `before` learned from is learned from again.
    """
    told = recipe.experience
    assert told is not None
    place = folder / FOLDER
    if not (place / REPORT).exists():
        players = team.find(recipe.team.preset, instructions=recipe.team.instructions)
        world = collecting.world(recipe.data, told.tasks, told.seed)
        with open_local(base, player, recipe.model.dtype, settings=EngineSettings(max_requests=_TOGETHER)) as engine:
            episodes = asyncio.run(_played(told, world, players, engine, Run(place)))
            held = asyncio.run(_remembered(episodes, engine, place, before / FOLDER)) if told.memory else 0
        learned, report = learn(episodes)
        # a round of preference writes them too, for those after it to learn from
        store.write_jsonl(place / ROWS, [*_lines(before / FOLDER / ROWS), *map(wire.trajectory_to_json, learned)])
        if told.update == "preference":
            report = _write_pairs(episodes, report, place, told)
        with store.atomic(place / REPORT) as unfinished:
            unfinished.write_text(json.dumps(to_json(replace(report, lessons=held)), indent=1) + "\n")
    print(say(json.loads((place / REPORT).read_text())), flush=True)
    return _with_rows(recipe, place)


def learn(episodes: Sequence[Trajectory]) -> tuple[list[Trajectory], Report]:
    """Return the rows to train on of a round's episodes, and what came of it (without lessons)."""
    confirmed = [row for episode in episodes if (row := _confirmed(episode)) is not None]
    labelled = _labelled(episodes)
    wrong = sum(not right for *_, right in labelled)
    objections = [right for _, check, right in labelled if not check.right]
    hits = sum(not right for right in objections)
    opinions = [_opinion(number, one) for number, one in enumerate(_balanced(labelled))]
    replies = sum(message.weight == 1.0 for row in confirmed for message in row.messages)
    score = sum(one.verdict.score for one in episodes if one.verdict) / max(1, len(episodes))
    report = Report(
        episodes=len(episodes),
        score=score,
        checks=len(labelled),
        objections=len(objections),
        precision=hits / len(objections) if objections else None,
        recall=hits / wrong if wrong else None,
        confirmed=replies,
        opinions=len(opinions),
        lessons=0,
    )
    return [*confirmed, *opinions], report


def labels(episode: Trajectory) -> Iterator[tuple[Check, bool]]:
    """Yield the checks of an episode with what its outcome says of the action: was it right?

    A check that nothing is known of is left out: of an answer that was sent back, and of calls where the reference
    lists none.
    """
    good = episode.verdict is not None and episode.verdict.score >= 1
    for check in episode.trials.checks if episode.trials else ():
        right = pairs.action_is_right(episode.task, check.calls) if check.calls else None
        if right is None and check.right:
            right = good
        if right is not None:
            yield check, right


def say(told: Mapping[str, Any]) -> str:
    """Return a round's report in a line."""
    shares = {key: "-" if told[key] is None else f"{100 * told[key]:.1f} %" for key in ("precision", "recall")}
    learned = f"{told['pairs']} pairs of actions" if told.get("pairs") else f"{told['confirmed']} replies"
    return (
        f"played {told['episodes']} episodes, score {100 * told['score']:.1f}; checker: {told['objections']} "
        f"objections to {told['checks']} actions, precision {shares['precision']}, recall {shares['recall']}; learned: "
        f"{learned}, {told['opinions']} opinions, {told['lessons']} lessons in memory"
    )


def to_json(report: Report) -> dict[str, Any]:
    """Return a report as it is written."""
    return {name: getattr(report, name) for name in Report.__slots__}


def _confirmed(episode: Trajectory) -> Trajectory | None:
    """Return the episode with its confirmed replies to train on, None if there are none."""
    good = episode.verdict is not None and episode.verdict.score >= 1
    opening = len(episode.task.messages)

    refused = vetting.refused(episode.trials.checks if episode.trials else ())

    def weighed(place: int, message: Message) -> Message:
        if message.role != "assistant" or message.weight == 0.0:  # nobody wrote the message that an answer by code is
            return message
        if pairs.is_repeated(episode.messages[:place], refused, message.tool_calls):
            return replace(message, weight=0.0)
        made = [wanted(episode.task, call) for call in message.tool_calls]
        outcome = good and place not in refused
        right = message.unparsed is None and (outcome if not made or None in made else all(made))
        return replace(message, weight=float(right))

    later = enumerate(episode.messages[opening:], start=opening)
    messages = (*examples.unlearned(episode.messages[:opening]), *itertools.starmap(weighed, later))
    if not any(message.weight == 1.0 for message in messages[opening:]):
        return None
    return _row(f"{episode.id}/confirmed", episode, messages)


def _labelled(episodes: Sequence[Trajectory]) -> list[pairs.Labelled]:
    return [(episode, check, right) for episode in episodes for check, right in labels(episode)]


def _balanced(labelled: Sequence[pairs.Labelled]) -> Iterator[pairs.Labelled]:
    """Yield the checks to train the checker on: all of wrong actions, and as many of right ones, evenly spread."""
    wrong = sum(not right for *_, right in labelled)
    rights = len(labelled) - wrong
    kept = seen = 0
    for episode, check, right in labelled:
        if right:
            seen += 1
            if kept * rights >= min(wrong, rights) * seen:
                continue
            kept += 1
        yield episode, check, right


def _opinion(number: int, labelled: pairs.Labelled) -> Trajectory:
    episode, check, right = labelled
    return _row(f"{episode.id}/check-{number}", episode, vetting.row(check, episode.messages, right=right))


def _write_pairs(episodes: Sequence[Trajectory], report: Report, place: Path, told: ExperienceSettings) -> Report:
    """Write the pairs of the round's actions and opinions; raises DataError if there are none."""
    actions = pairs.of_actions(episodes)
    opinions = list(pairs.of_opinions(list(_balanced(_labelled(episodes)))))
    if not actions and not opinions:
        raise DataError(
            f"{len(episodes)} episodes of stage {told.stage!r} give no pairs: in no state was there a right action and "
            "a wrong one; raise experience.tries or experience.temperature, or set experience.update to supervised"
        )
    store.write_jsonl(place / PAIRS, map(wire.pair_to_json, [*actions, *opinions]))
    return replace(report, pairs=len(actions), opinions=len(opinions))


def _row(name: str, episode: Trajectory, messages: Sequence[Message]) -> Trajectory:
    plain = tuple(message.edited(strict=None) for message in messages)
    first = next(place for place, message in enumerate(plain) if message.role == "assistant")
    return Trajectory(name, Task(name, plain[:first], episode.task.tools), plain)


async def _played(
    told: ExperienceSettings, world: collecting.World, players: Team, engine: Engine, run: Run
) -> list[Trajectory]:
    """Play what the run does not hold yet, and return all in the order of the tasks."""
    held = {episode.id: episode for episode in run.trajectories()}
    asked = [(task, name) for task in world.tasks for name in _names(task, told.tries)]
    missing = [partial(_open, world, task, name) for task, name in asked if name not in held]
    sampling = Sampling(temperature=told.temperature, max_tokens=told.max_tokens)
    playing = agent.Settings(max_turns=told.max_turns, sampling=sampling, constrained=told.constrained)
    played = agent.play(
        missing,
        players,
        engine,
        playing,
        concurrency=_TOGETHER,
        seed=told.seed,
        explain=why_unparsed,
        player=strategies.parse(told.strategy).player(),
    )
    async for episode in played:
        run.append(episode)
        held[episode.id] = episode
    return [held[name] for _, name in asked]


def _names(task: Task, tries: int) -> list[str]:
    """Return what the tries at a task are called; a name is what an episode's seed is made of."""
    return [task.id, *(f"{task.id}#{number}" for number in range(1, tries))]


def _open(world: collecting.World, task: Task, name: str) -> Environment:
    environment = world.open(task)
    return environment if name == task.id else replace(environment, task=replace(environment.task, id=name))


async def _remembered(episodes: Sequence[Trajectory], engine: Engine, place: Path, before: Path) -> int:
    """Add a lesson of each failed episode to those of earlier rounds; return how many the memory holds."""
    memory = place / _LESSONS
    with Lessons(memory) as lessons:
        if (before / _LESSONS).exists():
            with Lessons(before / _LESSONS, frozen=True) as earlier:
                known = {one.text for one in lessons.all()}
                for one in earlier.all():
                    if one.text not in known:
                        lessons.add(one)
        async for _ in reflection.learn(episodes, engine, lessons):
            pass
        return sum(1 for _ in lessons.all())


def _lines(path: Path) -> list[Any]:
    """Return the rows of an earlier round, if the stage was one."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _with_rows(recipe: Recipe, place: Path) -> Recipe:
    """Return the recipe with its own data and the rows of its rounds in one file, or with the pairs of its round."""
    if recipe.preference is not None:
        alone = replace(recipe.data, path=str(place / PAIRS), benchmark=None, size=None, options={})
        return replace(recipe, data=alone, experience=None)
    data = place / _DATA
    if not data.exists():
        references.write_share(recipe.data, recipe.team.preset, place, 0, 1)
        references.join(place, 1)
        store.write_jsonl(data, [*_lines(place / references.NAME), *_lines(place / ROWS)])
    told = replace(recipe.data, path=str(data), benchmark=None, size=None, options={})
    return replace(recipe, data=told, experience=None)
