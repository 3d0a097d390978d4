"""Replies held by a grammar: as asked for, the same with and without fast-forward, in any company and order."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from dataclasses import replace

import any_schema
import jsonschema
import pytest
import tiny
import torch
from test_mor_play import players

from rolecraft.engine import LocalEngine, Settings
from rolecraft.engine.matcher import Settings as GrammarSettings
from rolecraft.errors import DataError, EngineError
from rolecraft.grammar import OnUnsupported
from rolecraft.grammar.shapes import Limits
from rolecraft.team import called_next
from rolecraft.types import Completion, Message, Prompt, Sampling, ToolSpec

_KEY = {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]}
_YEAR = {"type": "object", "properties": {"year": {"type": "integer"}, "unit": {"enum": ["EUR", "USD"]}}}
DEBT, RANK, NOOP = ToolSpec("read_debt", "", _KEY), ToolSpec("read_rank", "", _YEAR), ToolSpec("noop", "nothing")
TOOLS = (DEBT, RANK, NOOP)
ROLES = ("executor", "summarizer")
GRAMMAR = GrammarSettings(Limits(text=8, items=3))


def settings(**changes) -> Settings:
    return Settings(**{"max_requests": 4, "grammar": GRAMMAR, **changes})


@pytest.fixture(scope="module")
def loaded(nano_tokenizer):
    return tiny.loaded(nano_tokenizer)


@pytest.fixture(scope="module")
def engine(loaded):
    with LocalEngine(loaded, settings()) as engine:
        yield engine


def asks(text="debt of Plalples", tools=TOOLS, **fields) -> Prompt:
    sampling = {name: fields.pop(name) for name in ("n", "temperature", "top_p", "seed", "stop") if name in fields}
    most = fields.pop("max_tokens", 160)
    return Prompt((Message("user", text),), tools, sampling=Sampling(max_tokens=most, **sampling), **fields)


def many(count=16) -> list[Prompt]:
    """Prompts of all kinds of choices and lengths, some drawn and some greedy, some free."""
    dice = random.Random(0)
    kinds = [
        {"choice": "required"},
        {"choice": "required", "parallel": False},
        {"choice": "noop", "parallel": False},
        {"choice": "read_rank"},
        {"choice": "none"},
        {"next_roles": ROLES},
        {},
    ]
    return [
        asks(
            "debt of " + "".join(dice.choices("abc DE,1", k=dice.randint(0, 90))),
            temperature=dice.choice((0.0, 0.0, 1.3)),
            seed=i,
            max_tokens=dice.randint(20, 70),
            **kinds[i % len(kinds)],
        )
        for i in range(count)
    ]


def ask(engine: LocalEngine, *prompts: Prompt) -> list[Completion]:
    async def together():
        return await asyncio.gather(*(engine.complete(prompt) for prompt in prompts))

    return [completion for completions in asyncio.run(together()) for completion in completions]


def singly(engine: LocalEngine, *prompts: Prompt) -> list[Completion]:
    answers = []
    for prompt in prompts:
        engine.forget()
        answers += ask(engine, prompt)
    return answers


def told(completions):
    return [(one.turn.token_ids, one.turn.forced, one.turn.stop) for one in completions]


def close(one: Completion, other: Completion) -> None:
    torch.testing.assert_close(torch.tensor(one.turn.logprobs), torch.tensor(other.turn.logprobs), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["nano", "hermes", "phi3"])
def test_a_random_model_calls_as_it_is_asked_to(request, name):
    with LocalEngine(tiny.loaded(request.getfixturevalue(f"{name}_tokenizer")), settings()) as engine:
        choices = ("required", "noop", "none", "read_rank")
        replies = ask(engine, *(asks(choice=choice, max_tokens=400, parallel=False) for choice in choices))
        messages = [reply.message for reply in replies]
        assert [message.unparsed for message in messages] == [None] * 4
        assert [call.name for call in messages[1].tool_calls] == ["noop"]
        assert [call.name for call in messages[3].tool_calls] == ["read_rank"]
        assert len(messages[0].tool_calls) == 1
        assert messages[0].tool_calls[0].name in {tool.name for tool in TOOLS}
        assert messages[2].tool_calls == ()


def sample_calls(tokenizer, schemas: int, each: int) -> int:
    """Let an untrained model write `each` calls under each of `schemas` random schemas; return how many it wrote."""
    limits = Limits(text=8, items=3, digits=4, places=2, depth=1)
    model = tiny.loaded(tokenizer, max_position_embeddings=4096, initializer_range=0.1)
    seed = done = 0
    with LocalEngine(model, settings(max_requests=32, grammar=GrammarSettings(limits))) as engine:
        while done < schemas * each:
            seed += 1
            tool = ToolSpec("f", "", any_schema.parameters(random.Random(seed)))
            fields = {"temperature": 1.0, "seed": seed, "n": each, "max_tokens": 2000}
            try:
                replies = ask(engine, asks("?", (tool,), choice="required", parallel=False, **fields))
            except DataError:  # some schemas ask for what cannot be, or for what is not supported
                continue
            for reply in replies:
                assert reply.message.unparsed is None, reply.turn
                (call,) = reply.message.tool_calls
                jsonschema.Draft202012Validator(tool.parameters).validate(call.arguments)
            done += len(replies)
    assert seed < 2 * schemas, "most schemas must be supported"
    return done


def test_what_an_untrained_model_samples_under_random_schemas_parses_and_validates(nano_tokenizer):
    assert sample_calls(nano_tokenizer, 20, 3) == 60


@pytest.mark.slow
def test_10000_calls_that_an_untrained_model_samples_parse_and_validate(nano_tokenizer):
    assert sample_calls(nano_tokenizer, 50, 200) == 10_000


_NAMED = {
    "type": "object",
    "properties": {"name": {"const": "read_debt"}, "args": _KEY | {"properties": {"key": {"maxLength": 4}}}},
    "required": ["name", "args"],
}


@pytest.mark.parametrize("choice", ["auto", "none"])
def test_an_answer_in_json_is_content_even_if_it_looks_like_a_call(engine, choice):
    tools = () if choice == "auto" else TOOLS
    (completion,) = asyncio.run(engine.complete(asks(tools=tools, choice=choice, schema=_NAMED, temperature=1.0)))
    message = completion.message
    assert message.tool_calls == ()
    assert message.unparsed is None
    jsonschema.validate(json.loads(message.content), _NAMED)


def test_an_answer_in_json_may_be_a_call_where_there_are_tools(engine):
    schema = {"type": "object", "properties": {"answer": {"maxLength": 4}}, "required": ["answer"]}
    seeds = [asks(schema=schema, temperature=2.0, seed=seed) for seed in range(12)]
    kinds = set()
    for completion in ask(engine, *seeds):
        message = completion.message
        kinds.add(bool(message.tool_calls))
        assert message.tool_calls or jsonschema.validate(json.loads(message.content), schema) is None
    assert kinds == {True, False}


def test_fast_forward_changes_nothing(loaded, engine):
    prompts = many()
    ahead = ask(engine, *prompts)
    with LocalEngine(loaded, settings(fast_forward=False)) as slow:
        behind = ask(slow, *prompts)
    assert told(ahead) == told(behind)
    assert any(any(one.turn.forced) for one in ahead)
    for one, other in zip(ahead, behind, strict=True):
        close(one, other)


def test_company_and_order_change_nothing(engine):
    prompts = many()
    alone = singly(engine, *prompts)
    order = random.Random(1).sample(range(len(prompts)), len(prompts))
    mixed = ask(engine, *(prompts[i] for i in order))
    assert told(alone[i] for i in order) == told(mixed)
    for place, i in enumerate(order):
        close(alone[i], mixed[place])


def test_log_probabilities_are_the_models_own_forced_or_not(engine, loaded):
    for completion in ask(engine, *many(7)):
        turn = completion.turn
        with torch.inference_mode():
            logits = loaded.model(torch.tensor([turn.prompt_ids + turn.token_ids])).logits[0]
        said = logits[len(turn.prompt_ids) - 1 : -1].log_softmax(-1)
        expected = said.gather(-1, torch.tensor(turn.token_ids)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(turn.logprobs), expected, atol=1e-4, rtol=1e-4)
        assert len(turn.logprobs) == len(turn.forced) == len(turn.token_ids)


def test_prompts_computed_in_pieces_change_nothing(loaded, engine):
    prompts = many(8)
    with LocalEngine(loaded, settings(prefill_tokens=5)) as pieces:
        assert told(ask(pieces, *prompts)) == told(ask(engine, *prompts))


@pytest.mark.parametrize(("fast_forward", "calls"), [(True, 1), (False, 12)])
def test_a_reply_without_a_choice_takes_one_call_of_the_model(loaded, fast_forward, calls):
    with LocalEngine(loaded, settings(fast_forward=fast_forward)) as engine:
        counted = tiny.Counted(engine)
        (reply,) = ask(engine, asks(choice="noop", parallel=False))
    assert reply.turn.forced == (True,) * len(reply.turn.token_ids)
    assert counted.calls == (1 if fast_forward else len(reply.turn.token_ids))


def test_forced_tokens_stay_cached_for_the_next_turn(engine):
    engine.forget()
    first = asks(choice="noop", parallel=False)
    (reply,) = ask(engine, first)
    following = replace(first, messages=(*first.messages, reply.message, Message("tool", "done")), choice="auto")
    (second,) = ask(engine, following)
    assert second.turn.usage.cached == len(reply.turn.prompt_ids) + len(reply.turn.token_ids) - 1


def test_a_seed_repeats_and_another_differs(loaded, engine):
    prompts = [asks(choice="required", temperature=1.5, seed=seed) for seed in (1, 1, 2)]
    first, again, other = ask(engine, *prompts)
    assert told([first]) == told([again])
    assert first.turn.token_ids != other.turn.token_ids
    with LocalEngine(loaded, settings(max_requests=2, fast_forward=False)) as slow:
        assert told(ask(slow, prompts[0])) == told([first])


def test_several_samples_share_a_grammar_and_part_ways(engine):
    replies = ask(engine, asks(choice="required", temperature=1.5, n=4, parallel=False))
    assert len({reply.turn.token_ids for reply in replies}) > 1
    for reply in replies:
        assert len(reply.message.tool_calls) == 1


@pytest.mark.parametrize("most", [1, 2, 5, 9])
def test_a_reply_is_cut_at_its_last_token_forced_or_not(engine, most):
    for prompt in (asks(choice="required", max_tokens=most), asks(choice="read_debt", max_tokens=most)):
        (reply,) = ask(engine, prompt)
        assert len(reply.turn.token_ids) == len(reply.turn.logprobs) == most
        assert reply.turn.stop == "length"
        assert reply.message.unparsed is not None


@pytest.mark.parametrize("most", [20, 60])
@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_a_reasoner_names_the_next_role_however_few_its_tokens(engine, most, temperature):
    prompts = [asks(f"debt {i}", next_roles=ROLES, max_tokens=most, temperature=temperature) for i in range(4)]
    for reply in ask(engine, *prompts):
        assert called_next(reply.message.content) in ROLES
        assert reply.turn.stop == "end"


def test_a_stop_string_ends_a_reply_within_forced_tokens(engine):
    (reply,) = ask(engine, asks(choice="noop", stop=('oop"',)))
    assert reply.turn.stop == "end"
    assert (reply.message.unparsed or reply.message.content).startswith('{"name":"n')
    assert "args" not in str(reply.message)
    assert len(reply.turn.logprobs) == len(reply.turn.token_ids)


def test_a_reply_goes_on_from_its_prefix(engine):
    (reply,) = ask(engine, asks(choice="required", prefix='{"name":"no', parallel=False))
    assert [call.name for call in reply.message.tool_calls] == ["noop"]
    with pytest.raises(DataError, match="cannot begin with 'Well"):
        ask(engine, asks(choice="required", prefix="Well, "))


@pytest.mark.parametrize("fast_forward", [True, False])
def test_what_is_streamed_is_what_is_completed(loaded, fast_forward):
    async def stream(engine, prompt):
        deltas = [delta async for delta in engine.stream(prompt)]
        return "".join(delta.text for delta in deltas), deltas[-1].completion

    with LocalEngine(loaded, settings(fast_forward=fast_forward)) as engine:
        for prompt in (asks(choice="required"), asks(choice="noop", parallel=False), asks(next_roles=ROLES)):
            text, completion = asyncio.run(stream(engine, prompt))
            assert told([completion]) == told(ask(engine, prompt))
            renderer = loaded.renderer
            assert text == renderer.text([i for i in completion.turn.token_ids if i not in renderer.stop_ids])


def test_one_engine_holds_other_replies_over_the_same_cache(loaded):
    prompt = asks(temperature=1.0, seed=3)
    with LocalEngine(loaded, settings(constrain="always")) as always:
        (alone,) = ask(always, prompt)
    with LocalEngine(loaded, settings()) as engine:
        (free,), (held,) = ask(engine, prompt), ask(engine.holding("always"), prompt)
        (again,) = ask(engine, prompt)
        engine.holding("always").close()
        with pytest.raises(EngineError, match="closed"):
            ask(engine, prompt)
    assert told([held]) == told([alone]) != told([free])
    assert told([again]) == told([free])
    assert [one.turn.usage.cached for one in (free, held, again)] == [0, *2 * [len(held.turn.prompt_ids) - 1]]


def test_a_free_reply_is_free_unless_all_are_held(loaded, engine):
    free = asks(max_tokens=12)
    without = replace(free, tools=())
    with LocalEngine(loaded, settings(constrain="always")) as always, LocalEngine(loaded, settings()) as plain:
        assert told(ask(engine, free)) == told(ask(plain, free))
        assert set(ask(engine, free)[0].turn.forced) == {False}
        assert told(ask(always, without)) == told(ask(engine, without))
        for seed in range(6):
            (held,) = ask(always, asks(temperature=3.0, seed=seed, max_tokens=60))
            if held.turn.stop == "end":
                assert held.message.unparsed is None


@pytest.mark.parametrize("fields", [{"choice": "required"}, {"choice": "none"}, {"next_roles": ROLES}])
def test_what_needs_a_grammar_is_refused_where_they_are_off(loaded, fields):
    with LocalEngine(loaded, settings(constrain="off")) as engine:
        with pytest.raises(EngineError, match=r"switched off; set engine\.constrain to 'asked'"):
            ask(engine, asks(**fields))
        assert ask(engine, replace(asks(max_tokens=3), tools=(), choice="none"))


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        (asks(choice="read_dept"), "Did you mean 'read_debt'"),
        (asks(choice="required", tools=()), "there are no tools"),
        (asks(choice="required", tools=(ToolSpec("f", "", {"type": "object", "not": {}}),)), "parameters.not"),
    ],
)
def test_what_cannot_be_made_a_grammar_is_refused_before_decoding(engine, prompt, reason):
    with pytest.raises(DataError, match=reason):
        ask(engine, prompt)
    assert ask(engine, asks(max_tokens=2))


def test_unsupported_keywords_can_be_ignored(loaded):
    ignore: OnUnsupported = "ignore"
    tool = ToolSpec("f", "", {"type": "object", "not": {"required": ["x"]}})
    with LocalEngine(loaded, settings(grammar=GrammarSettings(on_unsupported=ignore))) as engine:
        with pytest.warns(UserWarning, match=r"not held to tools\[0\]\.parameters\.not"):
            (reply,) = ask(engine, asks(choice="required", tools=(tool,), parallel=False))
        assert [call.name for call in reply.message.tool_calls] == ["f"]


def test_those_who_wait_for_one_grammar_keep_nobody_from_another(loaded):
    go = threading.Event()
    with LocalEngine(loaded, settings()) as engine:
        compile_one = engine._grammars._compile
        engine._grammars._compile = lambda held: (held.choice == "noop" and go.wait(20), compile_one(held))[1]

        async def together():
            slow = [asyncio.create_task(engine.complete(asks(choice="noop"))) for _ in range(40)]
            await asyncio.sleep(0.1)
            quick = await asyncio.wait_for(engine.complete(asks(choice="required")), 15)
            assert not any(one.done() for one in slow)
            go.set()
            return quick, await asyncio.gather(*slow)

        quick, slow = asyncio.run(together())
    assert quick[0].message.tool_calls
    assert len(slow) == 40


class Stuck:
    """A matcher after whose third token nothing can come, or whose fourth is refused though it was let through."""

    is_open = False

    def __init__(self, inner, refuses: bool) -> None:
        self._inner, self._refuses, self._left = inner, refuses, 3

    def copy(self):
        return Stuck(self._inner.copy(), self._refuses)

    def forced(self, left):
        return []

    def doubted(self, allowed):
        return None

    def allowed(self, left):
        if not self._left and not self._refuses:
            raise EngineError("a constrained reply cannot go on: too hard")
        return self._inner.allowed(left)

    def accept(self, token):
        if not self._left:
            raise EngineError("token 7 does not fit: too hard")
        self._left -= 1
        self._inner.accept(token)


@pytest.mark.parametrize("refuses", [False, True], ids=["nothing is allowed", "what is drawn is refused"])
def test_a_reply_that_cannot_go_on_fails_alone(loaded, refuses):
    with LocalEngine(loaded, settings()) as engine:
        start = engine._grammars.start
        engine._grammars.start = lambda held, begun: (
            Stuck(start(held, begun), refuses) if held.choice == "noop" else start(held, begun)
        )

        async def together():
            prompts = (asks(choice="noop"), asks(choice="required"), asks(max_tokens=9))
            return await asyncio.gather(*(engine.complete(p) for p in prompts), return_exceptions=True)

        stuck, held, free = asyncio.run(together())
        assert isinstance(stuck, EngineError)
        assert "too hard" in str(stuck)
        assert told(held) == told(ask(engine, asks(choice="required")))
        assert told(free) == told(ask(engine, asks(max_tokens=9)))


def test_a_mixture_of_roles_computes_forced_tokens_by_the_role_that_writes(nano_tokenizer):
    loaded = players(nano_tokenizer, "stream")
    prompts = [asks(speaker="reasoner", next_roles=ROLES, max_tokens=30), asks(speaker="executor", choice="required")]
    with LocalEngine(loaded, settings()) as ahead, LocalEngine(loaded, settings(fast_forward=False)) as behind:
        fast, slow = ask(ahead, *prompts), ask(behind, *prompts)
    assert told(fast) == told(slow)
    for one, other in zip(fast, slow, strict=True):
        close(one, other)
        assert set(one.turn.role_ids) == {loaded.gate.roles.index(one.turn.speaker)}
