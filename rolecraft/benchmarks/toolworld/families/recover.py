"""The function that serves the question fails; another one, described as its backup, works."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from rolecraft.benchmarks.toolworld import frames, questions, supply, vocabulary
from rolecraft.benchmarks.toolworld.draft import HAVE_RESULT, Draft, Step, look_up, needs, others, signature
from rolecraft.benchmarks.toolworld.families import Options
from rolecraft.benchmarks.toolworld.vocabulary import Vocabulary

_DISTRACTOR_BACKUP = 0.4


def draw(random: Random, words: Vocabulary, options: Options) -> Draft:
    """Return a look-up of one topic of one entity whose first service is broken.

    The distractors work, and often one of them is a backup as well, of another topic. An episode that goes to the
    working backup at once is right too.
    """
    names = vocabulary.entities(random, words, random.randint(3, 5))
    kind, entity = random.choice(words.kinds), names[0]
    subjects = random.sample(words.topics, random.randint(2, 3))
    working, *distractors = supply.functions(random, words, subjects, kind, names)
    taken = [function.name for function in (working, *distractors)]
    spare = supply.backup(random, words, working, subjects[0], taken)
    broken = replace(working, error=random.choice(words.errors))
    if random.random() < _DISTRACTOR_BACKUP:
        distractors[-1] = supply.backup(random, words, distractors[-1], subjects[-1], [*taken, spare.name])
    values = {"topic": subjects[0], "entity": entity, "other": names[1], "kind": kind}
    question = questions.ask(random, words, frames.LOOKUP, values)
    answer = spare.values[entity]
    tools = supply.shuffled(random, [broken, spare, *distractors])
    return Draft(
        question=question,
        tools=tools,
        steps=(
            Step(f"I need the {subjects[0]} of {entity}. Use:{signature(broken)}.", (look_up(broken, entity),)),
            Step(
                f"It failed. I need the {subjects[0]} of {entity} again. Use:{signature(spare)}.",
                (look_up(spare, entity),),
            ),
        ),
        closing=HAVE_RESULT,
        answer=f"The {subjects[0]} of {entity} is {answer}.",
        answers=(answer,),
        forbidden=others(tools, (answer,), question),
        needed=((needs(spare, entity),),),
    )
