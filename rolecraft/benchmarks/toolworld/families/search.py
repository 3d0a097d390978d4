"""Questions of one to three hops over passages that must be searched, and a sum with what was found.

The agent searches and hands the sum to a calculator. Without tools the question comes with the passages that the
agent's own searches return, in random order, and the sum is done in writing: the same questions and the same
facts for both, as Agent Distillation (arXiv 2505.17612) compares an agent with a chain of thought that has retrieved
passages.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from rolecraft.benchmarks.toolworld import asking, facts, supply
from rolecraft.benchmarks.toolworld.draft import HAVE_RESULT, Draft, Needed, Step
from rolecraft.benchmarks.toolworld.facts import Chain, Reach
from rolecraft.benchmarks.toolworld.families import Options
from rolecraft.benchmarks.toolworld.sums import Problem
from rolecraft.benchmarks.toolworld.sums import Step as Operation
from rolecraft.benchmarks.toolworld.vocabulary import Vocabulary
from rolecraft.benchmarks.toolworld.world import Passages, ToolData, open_tool
from rolecraft.types import ToolCall

_SIGNS = ("+", "-", "*", "both")


def draw(random: Random, words: Vocabulary, options: Options) -> Draft:
    """Return a question, its passages behind a search tool or, without tools, in the system message."""
    reach = facts.FAR.get(words.far, facts.NEAR)
    sign = random.choice(_SIGNS)
    chain = facts.draw(random, words, reach, 2 if sign == "both" else 1)
    problem = _posed(random, words, reach, sign, chain)
    search = supply.passages(random, chain.passages)
    plain = Draft(
        problem.question,
        (),
        (),
        closing="",
        answer=f"The result is {problem.value}.",
        answers=(str(problem.value),),
        last_number=True,
    )
    if options.tools:
        return _with_tools(random, words, options, plain, problem, chain, search)
    shown = _shown(search, chain)
    random.shuffle(shown)
    told = " ".join(fact.told for fact in chain.steps)
    sum_done = f"I need {problem.expression}={problem.value}."
    return replace(plain, system="\n".join(("Passages:", *shown)), closing=f"{told} {sum_done}")


def _posed(random: Random, words: Vocabulary, reach: Reach, sign: str, chain: Chain) -> Problem:
    first = int(chain.found[0].value)
    values = {"topic": chain.topics[0], "path": chain.path}
    if sign == "both":
        second = int(chain.found[1].value)
        question = asking.ask(random, facts.BOTH, {**values, "second": chain.topics[1]}, words.sentences)
        return _problem(question, first, "+", second)
    if sign == "-":
        left = [number for number in range(1, first) if 2 * number != first]  # or the question would say the answer
        number = random.choice(left)
    else:
        number = random.randint(*(reach.numbers if sign == "+" else reach.factors))
    posed = {"+": facts.PLUS, "-": facts.MINUS, "*": facts.TIMES}[sign]
    question = asking.ask(random, posed, {**values, "number": str(number)}, words.sentences)
    return _problem(question, first, sign, number)


def _problem(question: str, left: int, sign: str, right: int) -> Problem:
    result = {"+": left + right, "-": left - right, "*": left * right}[sign]
    return Problem(question, f"{left}{sign}{right}", (Operation(left, sign, right, result),))


def _with_tools(
    random: Random,
    words: Vocabulary,
    options: Options,
    plain: Draft,
    problem: Problem,
    chain: Chain,
    search: Passages,
) -> Draft:
    tools: list[ToolData] = [search, supply.calculator(random)]
    if random.random() < options.mixed:
        free = [topic for topic in words.topics if topic not in chain.topics]
        aside = random.sample(free, random.randint(1, 2))
        tools += supply.functions(random, words, aside, chain.kind, chain.names[:4])
    steps, known = list[Step](), ""
    for fact in chain.steps:
        thought = f"{known}I need the {fact.query}. Use:search(query)."
        steps.append(Step(thought, (ToolCall("search", {"query": fact.query}),)))
        known = f"The {fact.fact} is {fact.value}. "
    thought = f"{known}I need {problem.expression}. Use:calculator(expression)."
    steps.append(Step(thought, (ToolCall("calculator", {"expression": problem.expression}),)))
    return replace(
        plain,
        tools=supply.shuffled(random, tools),
        steps=tuple(steps),
        closing=HAVE_RESULT,
        # Any query may find a fact, and who does a sum in the head needs no calculator.
        needed=tuple((Needed("search", None, ((fact.value,),)),) for fact in chain.steps),
    )


def _shown(search: Passages, chain: Chain) -> list[str]:
    """Return every passage that the searches of the right solution return, once."""
    tool = open_tool(search)
    found = [line for fact in chain.steps for line in tool.call({"query": fact.query}).splitlines()]
    return list(dict.fromkeys(found))
