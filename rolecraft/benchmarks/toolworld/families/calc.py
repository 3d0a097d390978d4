"""Multi-digit arithmetic in one Python expression, or worked out in writing where the task has no tool."""

from __future__ import annotations

from random import Random

from rolecraft.benchmarks.toolworld import sums, supply, vocabulary, working
from rolecraft.benchmarks.toolworld.draft import HAVE_RESULT, Draft, Needed, Step
from rolecraft.benchmarks.toolworld.families import Options
from rolecraft.benchmarks.toolworld.vocabulary import Vocabulary
from rolecraft.benchmarks.toolworld.world import ToolData
from rolecraft.types import ToolCall


def draw(random: Random, words: Vocabulary, options: Options) -> Draft:
    """Return a problem of one to three operations."""
    names = vocabulary.entities(random, words, 4)
    problem = sums.draw(random, names[0], words.sentences)
    value = str(problem.value)
    if not options.tools:
        told = f"The result is {value}."
        return Draft(problem.question, (), (), working.write(problem), told, answers=(value,), last_number=True)
    tools: list[ToolData] = [supply.code(random)]
    if random.random() < options.mixed:
        kind = random.choice(words.kinds)
        topics = random.sample(words.topics, random.randint(1, 3))
        tools += supply.functions(random, words, topics, kind, names)
        random.shuffle(tools)
    call = ToolCall("python", {"code": f"print({problem.expression})"})
    thought = f"I need {problem.expression}. Use:python(code)."
    observed = f"{value}.0" if "/" in problem.expression else value  # Python divides whole numbers to a float
    return Draft(
        question=problem.question,
        tools=tuple(tools),
        steps=(Step(thought, (call,)),),
        closing=HAVE_RESULT,
        answer=f"The result is {observed}.",
        answers=(value,),
        needed=((Needed("python", None, ((value,),)),),),
        last_number=True,
    )
