"""Team code acts by Python whose functions are the task's tools, from the prompt to the record and to training."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from several import Counter, Several, says, world
from test_recipes import FOLDER, small_base, two_steps

from rolecraft import agent, catalog, codeblocks, examples, renderers, store, strategies, team, wire
from rolecraft.benchmarks import Scripted
from rolecraft.recipe import load_recipe
from rolecraft.sandbox import layers
from rolecraft.tools import Toolbox, find
from rolecraft.types import Completion, Environment, Message, Prompt, Task, Trajectory, Turn, Verdict

pytestmark = pytest.mark.skipif(not layers()["seccomp"], reason="no system-call filter on this machine")
SHOP = Path(__file__).parents[1] / "examples" / "shop" / "tools.py"
QUESTION = Message("user", "How many lamps are twice the stock?")


def play(*said: str, **settings) -> tuple[Trajectory, list[Prompt]]:
    """Play what a model would say, and return the record and what it was asked."""
    box, asked = Toolbox(find(SHOP)), list[Prompt]()
    task = Task("t", (QUESTION,), box.specs)

    def reply(prompt: Prompt) -> Message:
        asked.append(prompt)
        return Message("assistant", said[min(len(asked), len(said)) - 1])

    environment = Environment(task, box, lambda record: Verdict(1.0))
    record = asyncio.run(agent.episode(environment, team.find("code"), Scripted(reply), agent.Settings(**settings)))
    return record, asked


LOOK = "I look.\n```python\nn = stock('lamp')\nprint(n)\n```"
ANSWER = "Twice it.\n```python\nfinal_answer(2 * n)\n```"


def test_an_episode_ends_with_the_value_of_its_answer():
    record, _ = play(LOOK, ANSWER)
    assert record.stop == "answered"
    assert record.messages[-1].content == "24"
    assert [(m.role, bool(m.tool_calls)) for m in record.messages] == [
        ("user", False),
        ("assistant", True),
        ("tool", False),
        ("tool", False),
        ("assistant", False),
        ("assistant", False),
    ]
    assert [turn.message for turn in record.turns] == [record.messages[1], record.messages[4]]


def test_it_is_told_the_functions_and_no_tools():
    _, (first, second) = play(LOOK, ANSWER)
    assert first.tools == second.tools == ()
    assert "stock(item: str)\n" in first.messages[0].content
    assert "final_answer(answer)\n" in first.messages[0].content
    assert [message.content for message in second.messages[1:]] == [QUESTION.content, LOOK, "12"]
    assert all(not message.tool_calls for message in second.messages)


def test_without_instructions_it_is_still_told_the_functions():
    (role,) = team.find("code", instructions=False).roles
    told = role.view((QUESTION,), Toolbox(find(SHOP)).specs)[0].content
    assert told.startswith("Functions that your Python can call:")


def test_mistakes_are_told_and_can_be_mended():
    record, asked = play("It is 24.", "```python\nstock('unicorn')\n```", LOOK, ANSWER)
    assert record.messages[1].unparsed == "It is 24."
    assert "no code" in asked[1].messages[-1].content
    assert "does not sell 'unicorn'" in asked[2].messages[-1].content
    assert record.messages[-1].content == "24"


STEP, END = "```python\nadd(by=2)\n```", "```python\nfinal_answer(add(by=1))\n```"


@pytest.mark.parametrize("strategy", ["best_of_n", "depth_first", "self_consistent", "checked"])
def test_every_strategy_leaves_one_state_and_no_copy_of_a_tool(strategy):
    settings = {"n": 3} if strategy in ("best_of_n", "self_consistent") else {}
    tool = Counter()

    def reply(prompt: Prompt) -> list[tuple[Message, float]]:
        return [says(END if any("n is" in message.content for message in prompt.messages) else STEP)]

    environment, player = world(tool), strategies.choose(strategy, settings).player()
    record = asyncio.run(agent.episode(environment, team.find("code"), Several([reply]), player=player))
    assert record.messages[-1].content == "n is 3"
    assert record.final_state == {"add": 3}
    assert [copy.value for copy in tool.copies if not copy.closed] == [3]
    environment.toolbox.close()
    assert all(copy.closed for copy in tool.copies)


def test_a_reply_that_goes_in_circles_ends_the_episode():
    record, _ = play("```python\nprint(1)\n```", max_turns=9)
    assert record.stop == "repeated_call"


def test_an_episode_without_an_answer_runs_out():
    record, _ = play("I do not know.", max_turns=3)
    assert record.stop == "max_turns"


def test_a_record_is_written_and_read_as_a_data_file_is():
    record, _ = play(LOOK, ANSWER)
    row = wire.trajectory_to_json(record)
    read = wire.settled(wire.trajectory_from_json(row))
    assert read.messages == record.messages


def test_what_is_trained_is_what_was_written(hermes_tokenizer):
    hermes = renderers.find(hermes_tokenizer)
    record, asked = play(LOOK, ANSWER)
    made = examples.build(record, team.find("code"), hermes)
    assert len(made) == 1
    examples.audit(made, hermes, team.find("code"))
    trained = hermes.text([i for i, weight in zip(made[0].ids, made[0].weights, strict=True) if weight])
    assert trained.count("```python") == 2
    assert LOOK in trained
    assert ANSWER in trained
    prompt = hermes.prompt(asked[1].messages, (), "assistant")
    assert made[0].ids[: len(prompt)] == prompt


def test_a_vote_tries_replies_on_copies_of_the_variables():
    said = iter([LOOK, LOOK.replace("print(n)", "n += 1\nprint(n)"), LOOK, ANSWER, ANSWER, ANSWER])
    box = Toolbox(find(SHOP))
    engine = Each(lambda: next(said))
    environment = Environment(Task("t", (QUESTION,), box.specs), box, lambda record: Verdict(1.0))
    module = catalog.find("strategies", "self_consistent")
    settings = module.Settings(n=3)
    episode = agent.Episode(environment, team.find("code"), engine)

    async def voted() -> Trajectory:
        async with team.find("code").form.opened(environment) as world:
            return await module.play(replace(episode, environment=world), settings)

    record = asyncio.run(voted())
    assert record.messages[-1].content == "24"


class Each:
    """An engine whose every reply is the next of a list."""

    def __init__(self, following) -> None:
        self.following = following

    async def complete(self, prompt):
        many = [
            await Scripted(lambda _: Message("assistant", self.following())).complete(one(prompt))
            for _ in range(prompt.sampling.n)
        ]
        return tuple(completion for (completion,) in many)


def one(prompt: Prompt) -> Prompt:
    return replace(prompt, sampling=replace(prompt.sampling, n=1))


def test_a_reply_is_ended_after_its_block_and_may_be_cut_there():
    _, asked = play(LOOK, ANSWER)
    assert asked[0].sampling.stop == codeblocks.STOPS

    class Cut:
        async def complete(self, prompt):
            said = sum(message.role == "assistant" for message in prompt.messages)
            message = Message("assistant", ANSWER if said else f"{LOOK}\nI think that it is")
            return (Completion(message, Turn(message, prompt.speaker, stop="end" if said else "length")),)

    box = Toolbox(find(SHOP))
    environment = Environment(Task("t", (QUESTION,), box.specs), box, lambda record: Verdict(1.0))
    record = asyncio.run(agent.episode(environment, team.find("code"), Cut()))
    assert record.messages[-1].content == "24"
    assert record.messages[1].content == LOOK


def test_kept_rows_of_code_tune_a_student_by_the_recipe(tmp_path, hermes_tokenizer):
    record, _ = play(LOOK, ANSWER)
    store.write_jsonl(tmp_path / "kept.jsonl", [wire.trajectory_to_json(replace(record, turns=()))])
    recipe = load_recipe(FOLDER / "distill.yaml")
    data = replace(recipe.data, path=str(tmp_path / "kept.jsonl"), max_length=2000, on_bad_row="stop")
    weighed = replace(recipe.team, action_weight=2.0)
    base = small_base(tmp_path, hermes_tokenizer, "qwen2")
    logged = two_steps(replace(recipe, data=data, team=weighed), base, tmp_path / "run")
    assert [entry["step"] for entry in logged] == [1, 2]
