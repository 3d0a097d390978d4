"""No tool fits: the functions look like those of hub, but none is about what the question asks."""

from __future__ import annotations

from random import Random

from rolecraft.benchmarks.toolworld import asking, frames, supply, vocabulary
from rolecraft.benchmarks.toolworld.draft import NO_TOOL, Draft, others
from rolecraft.benchmarks.toolworld.families import Options
from rolecraft.benchmarks.toolworld.vocabulary import Vocabulary
from rolecraft.benchmarks.toolworld.world import ToolData

_OFF_TOPIC = 0.25


def draw(random: Random, words: Vocabulary, options: Options) -> Draft:
    """Return a look-up that no function serves, or (a quarter) a request that look-ups cannot serve at all.

    The missing topic is drawn like any other: what is asked gives nothing away, only the functions do.
    """
    names = vocabulary.entities(random, words, random.randint(3, 5))
    kind, entity = random.choice(words.kinds), names[0]
    count = random.randint(options.min_functions, options.max_functions)
    missing, *subjects = random.sample(words.topics, count + 1)
    tools: list[ToolData] = list(supply.functions(random, words, subjects, kind, names))
    if random.random() < options.mixed:
        tools[-1] = supply.stranger(random, words, kind, names, [missing, *subjects])
    values = {"topic": missing, "entity": entity, "other": names[1], "kind": kind}
    if random.random() < _OFF_TOPIC:
        question = asking.ask(random, frames.OFF_TOPIC, values, words.sentences)
        thought, answer = NO_TOOL, "No tool can do that."
    else:
        question = asking.ask(random, frames.LOOKUP, values, words.sentences)
        thought = f"I need the {missing} of {entity}. {NO_TOOL}"
        answer = f"No tool can tell the {missing} of {entity}."
    return Draft(
        question=question,
        tools=supply.shuffled(random, tools),
        steps=(),
        closing=thought,
        answer=answer,
        forbidden=others(tools, (), question),
        refusal=True,
    )
