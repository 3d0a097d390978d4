"""Two or three calls at once: one function for several entities, or two functions for one."""

from __future__ import annotations

from random import Random

from rolecraft.benchmarks.toolworld import english, frames, questions, supply, vocabulary
from rolecraft.benchmarks.toolworld.draft import HAVE_RESULTS, Draft, Step, look_up, needs, others, signature
from rolecraft.benchmarks.toolworld.families import Options
from rolecraft.benchmarks.toolworld.vocabulary import Vocabulary
from rolecraft.benchmarks.toolworld.world import Lookup, ToolData

_SEVERAL_ENTITIES = 0.6


def draw(random: Random, words: Vocabulary, options: Options) -> Draft:
    """Return a question with two or three answers; calls made one after the other are right too."""
    make = _several_entities if random.random() < _SEVERAL_ENTITIES else _several_topics
    return make(random, words, vocabulary.entities(random, words, 5), random.choice(words.kinds))


def _several_entities(random: Random, words: Vocabulary, names: list[str], kind: str) -> Draft:
    subjects = random.sample(words.topics, random.randint(2, 4))
    functions = supply.functions(random, words, subjects, kind, names)
    asked = names[: random.choice((2, 2, 3))]
    values = {"topic": subjects[0], "entities": english.listed(asked), "kind": kind}
    question = questions.ask(random, words, frames.SEVERAL_ENTITIES, values)
    thought = f"I need the {subjects[0]} of {english.listed(asked)}. Use:{signature(functions[0])}."
    wanted = [(functions[0], subjects[0], entity) for entity in asked]
    return _finish(supply.shuffled(random, functions), question, thought, wanted, tuple(asked))


def _several_topics(random: Random, words: Vocabulary, names: list[str], kind: str) -> Draft:
    """More functions than topics: calling all of them and listing what they say is no answer."""
    subjects = random.sample(words.topics, random.randint(3, 4))
    functions = supply.functions(random, words, subjects, kind, names)
    values = {"topic": subjects[0], "second": subjects[1], "entity": names[0], "kind": kind}
    question = questions.ask(random, words, frames.SEVERAL_TOPICS, values)
    wanted = [(functions[place], subjects[place], names[0]) for place in range(2)]
    # What is wanted comes first and whole: a small model that copies one topic and stops would call one function.
    thought = f"I need the {subjects[0]} and the {subjects[1]} of {names[0]}."
    for order, (function, topic, _) in zip(("First", "Then"), wanted, strict=True):
        thought += f" {order} the {topic}. Use:{signature(function)}."
    return _finish(supply.shuffled(random, functions), question, thought, wanted, tuple(subjects[:2]))


def _finish(
    tools: tuple[ToolData, ...],
    question: str,
    thought: str,
    wanted: list[tuple[Lookup, str, str]],
    labels: tuple[str, ...],
) -> Draft:
    answers = tuple(function.values[entity] for function, _, entity in wanted)
    told = [f"The {topic} of {entity} is {function.values[entity]}." for function, topic, entity in wanted]
    return Draft(
        question=question,
        tools=tools,
        steps=(Step(thought, tuple(look_up(function, entity) for function, _, entity in wanted)),),
        closing=HAVE_RESULTS,
        answer=" ".join(told),
        answers=answers,
        labels=labels,
        forbidden=others(tools, answers, question),
        needed=tuple((needs(function, entity),) for function, _, entity in wanted),
    )
