"""Two look-ups in a chain: the first names another entity, and the second is about that one."""

from __future__ import annotations

from random import Random

from rolecraft.benchmarks.toolworld import frames, questions, supply, vocabulary
from rolecraft.benchmarks.toolworld.draft import HAVE_RESULT, Draft, Step, look_up, needs, others, signature
from rolecraft.benchmarks.toolworld.families import Options
from rolecraft.benchmarks.toolworld.vocabulary import Vocabulary

_SECOND_RELATION = 0.5


def draw(random: Random, words: Vocabulary, options: Options) -> Draft:
    """Return a question about the relation of an entity.

    Every function knows every entity, the one of the question included, so that skipping the first call gives a wrong
    number and not an error.
    """
    names = vocabulary.entities(random, words, random.randint(4, 5))
    kind, entity = random.choice(words.kinds), names[0]
    relations = random.sample(words.relations, 2 if random.random() < _SECOND_RELATION else 1)
    topics = random.sample(words.topics, random.randint(1, 2))
    functions = supply.functions(random, words, [*relations, *topics], kind, names)
    for place in range(len(relations)):
        functions[place] = supply.relating(random, functions[place], shift=place + 1)
    first, second = functions[0], functions[len(relations)]
    found = first.values[entity]
    values = {"topic": topics[0], "relation": relations[0], "entity": entity, "kind": kind}
    question = questions.ask(random, words, frames.HOP, values)
    answer = second.values[found]
    tools = supply.shuffled(random, functions)
    need = f"I need the {topics[0]} of {found}. Use:{signature(second)}."
    return Draft(
        question=question,
        tools=tools,
        steps=(
            Step(f"I need the {relations[0]} of {entity}. Use:{signature(first)}.", (look_up(first, entity),)),
            Step(f"The {relations[0]} is {found}. {need}", (look_up(second, found),)),
        ),
        closing=HAVE_RESULT,
        answer=f"The {topics[0]} of {found} is {answer}.",
        answers=(answer,),
        forbidden=others(tools, (answer,), question),
        needed=((needs(first, entity),), (needs(second, found),)),
    )
