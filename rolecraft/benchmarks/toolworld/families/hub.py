"""A choice among described functions: one serves the question, the rest are near misses."""

from __future__ import annotations

from random import Random

from rolecraft.benchmarks.toolworld import frames, questions, supply, vocabulary
from rolecraft.benchmarks.toolworld.draft import HAVE_RESULT, Draft, Step, look_up, needs, others, signature
from rolecraft.benchmarks.toolworld.families import Options
from rolecraft.benchmarks.toolworld.vocabulary import Vocabulary
from rolecraft.benchmarks.toolworld.world import ToolData

_WITH_BACKUP = 0.15


def draw(random: Random, words: Vocabulary, options: Options) -> Draft:
    """Return a look-up of one topic of one entity.

    Now and then a backup of the right function is offered too, so that an offered backup does not mean that a failure
    is to come; either will do.
    """
    names = vocabulary.entities(random, words, random.randint(3, 5))
    kind, entity = random.choice(words.kinds), names[0]
    subjects = random.sample(words.topics, random.randint(options.min_functions, options.max_functions))
    functions = supply.functions(random, words, subjects, kind, names)
    right, rest = functions[0], list[ToolData](functions[1:])
    serving = [right]
    if random.random() < _WITH_BACKUP and len(rest) > 1:
        rest.pop()
        serving.append(supply.backup(random, words, right, subjects[0], [f.name for f in functions]))
    if random.random() < options.mixed and len(rest) > 1:  # one look-up at least must be wrong
        rest[-1] = supply.stranger(random, words, kind, names, subjects)
    values = {"topic": subjects[0], "entity": entity, "other": names[1], "kind": kind}
    question = questions.ask(random, words, frames.LOOKUP, values)
    answer = right.values[entity]
    tools = supply.shuffled(random, [*serving, *rest])
    return Draft(
        question=question,
        tools=tools,
        steps=(Step(f"I need the {subjects[0]} of {entity}. Use:{signature(right)}.", (look_up(right, entity),)),),
        closing=HAVE_RESULT,
        answer=f"The {subjects[0]} of {entity} is {answer}.",
        answers=(answer,),
        forbidden=others(tools, (answer,), question),
        needed=(tuple(needs(function, entity) for function in serving),),
    )
